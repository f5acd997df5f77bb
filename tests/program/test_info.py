"""What a program says about itself: each part is checked when it is made."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgevit.errors import InputError
from edgevit.program import Metric, ProgramInfo, Reference
from tests.program.test_file import SHA256, reference
from tests.programs import SMALL, make_info, make_program


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"profile": "fast"}, "profile 'fast'"),
        ({"labels": ("a",)}, "1 labels"),
        ({"labels": ("a",) * 10}, r"10 labels \(1 distinct\)"),
        ({"labels": (*"abcdefghi", "j\nk")}, "the label"),
        ({"labels": (*"abcdefghi", "")}, "the label"),
        ({"labels": (*"abcdefghi", " j")}, "the label"),
        ({"labels": (*"abcdefghi", "caf\udce9")}, r"label 'caf\\udce9' is no UTF-8 text"),
        ({"provenance": {"a": object()}}, "provenance"),
        ({"provenance": {"a": float("nan")}}, "provenance"),
    ],
)
def test_info_that_does_not_hold_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(make_program().info, **changes)


def test_info_takes_plain_dicts() -> None:
    info = make_program().info
    row = info.to_json()
    del row["metrics"]
    assert ProgramInfo(**row) == info


def test_info_about_another_model_is_refused() -> None:
    program = make_program()
    other = make_info(replace(SMALL, num_classes=11), 64, "portable")
    with pytest.raises(InputError, match="11 classes"):
        program.with_info(other)
    with pytest.raises(InputError, match="32 px"):
        program.with_info(make_info(SMALL, 32, "portable"))
    asymmetric = make_program(profile="asymmetric")
    with pytest.raises(InputError, match="the portable profile is symmetric"):
        asymmetric.with_info(program.info)


def test_a_reference_of_another_shape_is_refused() -> None:
    with pytest.raises(InputError, match="number of images"):
        Reference(np.zeros((2, 10), np.float32), ("a",), SHA256)
    nine = Reference(np.zeros((1, 9), np.float32), ("a",), SHA256)
    with pytest.raises(InputError, match="9 classes"):
        make_program().with_info(make_program().info, nine)
    assert Reference.from_bytes(reference().to_bytes()).dataset_sha256 == SHA256
    with pytest.raises(InputError, match="damaged"):
        Reference.from_bytes(reference().to_bytes()[:-5])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_metric_is_a_number(value: float) -> None:
    with pytest.raises(InputError, match="top1"):
        Metric("top1", value, 3)
