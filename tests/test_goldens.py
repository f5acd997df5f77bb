"""The programs and artifacts of seeded nets are, byte for byte, those that were recorded."""

from __future__ import annotations

import json

import pytest

from tests.goldens import CASES, FILE, kinds, record

RECORDED = json.loads(FILE.read_text())


def test_every_case_is_recorded() -> None:
    assert list(RECORDED) == list(CASES)


@pytest.mark.parametrize("kind", kinds())
@pytest.mark.parametrize("case", CASES)
def test_graph_and_artifacts_are_the_recorded_ones(case: str, kind: str) -> None:
    recorded = {label: sha for label, sha in RECORDED[case].items() if label.split()[0] == kind}
    assert record(case, kind) == recorded
