"""The HTP's rules without onnxruntime-qnn: the values that its emulator was seen to give.

tests/targets/test_qnn_reference.py holds the rules to the emulator itself, where that is installed;
here is what both gave of a seeded net, as digests.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from edgevit.errors import InputError
from edgevit.targets import load_target
from edgevit.targets.artifact import load_artifact
from edgevit.targets.qnn.emulator import HtpArch
from edgevit.targets.qnn.reference import HtpReference
from tests.npu.stand_in import install
from tests.operation_programs import operation_program
from tests.programs import make_program, seeded_pixels, with_real_outputs

QNN = load_target("qnn")
RECORDED: dict[HtpArch, str] = {
    "68": "34157efc504720a8",
    "75": "2b99b1e53383a631",
    "79": "2b99b1e53383a631",
}
"""sha256 of the logits of four images, int8, by the HTP's version."""


def logits(folder: Path, **options: str) -> np.ndarray:
    """int8 (4, 10)."""
    runner = QNN.open_runner(load_artifact(folder), **options)
    step = make_program().graph().quantizer(make_program().graph().output_name).scale
    return np.rint(runner.scores(seeded_pixels(4)) / step).astype(np.int8)


def digest(values: np.ndarray) -> str:
    return hashlib.sha256(values.tobytes()).hexdigest()[:16]


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    with monkeypatch.context() as patched:
        install(patched, tmp_path / "tools")
        QNN.compile(make_program(), tmp_path / "qnn")
    return tmp_path / "qnn"


def test_the_rules_give_what_the_emulator_was_seen_to_give(folder: Path) -> None:
    found = {arch: logits(folder, runner="htp-reference", htp_arch=arch) for arch in RECORDED}
    assert {arch: digest(values) for arch, values in found.items()} == RECORDED
    # v68 keeps fewer bits, and the program all of them.
    program = make_program()
    exact = program.run(program.info.preprocessing.normalise(seeded_pixels(4))).numpy()
    step = program.graph().quantizer(program.graph().output_name).scale
    assert len({digest(each) for each in (*found.values(), np.rint(exact / step))}) == 3


def test_every_tensor_of_the_program_has_its_rule(folder: Path) -> None:
    runner = QNN.open_runner(load_artifact(folder), runner="htp-reference")
    program, pixels = make_program(), seeded_pixels(2)
    found = dict(runner.tensors(pixels, program))
    assert set(found) == set(program.graph().owners())
    for name, values in found.items():
        assert values.dtype == np.int8
        assert values.shape == (2, *program.graph().shape(name)[1:])
    assert "rules found" in runner.engine


def test_the_recorded_values_are_the_emulators(folder: Path) -> None:
    pytest.importorskip("onnxruntime_qnn", reason="onnxruntime-qnn is not installed: make test-qnn")
    for arch, recorded in RECORDED.items():
        assert digest(logits(folder, runner="htp-emulator", htp_arch=arch)) == recorded


def test_an_operation_without_a_rule_is_named() -> None:
    with pytest.raises(InputError, match="softmax.*is not known"):
        HtpReference(operation_program("softmax", 0).graph())


def test_the_arithmetic_of_real_outputs_is_not_guessed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with monkeypatch.context() as patched:
        install(patched, tmp_path / "tools")
        QNN.compile(with_real_outputs(make_program()), tmp_path / "qnn")
    for runner in ("htp-reference", "htp-emulator"):
        with pytest.raises(
            InputError, match="run in float, by rules of the HTP that are not known here"
        ):
            QNN.open_runner(load_artifact(tmp_path / "qnn"), runner=runner)
