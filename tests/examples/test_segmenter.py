"""The segmenter example: its mIoU on a known case, and a tiny run to its artifact."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import edgevit
from examples.scenes import Shapes, make_scenes
from examples.segmenter.__main__ import main, mean_iou
from tests.examples.nets import TINY, checkpoint  # noqa: F401


def test_the_mean_iou_of_a_known_case() -> None:
    wanted = np.array([[0, 0, 1, 1]], np.uint8)
    assert mean_iou(wanted, wanted, 3) == 1
    # Class 0: 1 of 2 pixels; class 1: 2 of 3. Class 2 is nowhere and does not count.
    assert mean_iou(np.array([[0, 1, 1, 1]]), wanted, 3) == pytest.approx((1 / 2 + 2 / 3) / 2)
    # A class that is found where it is not counts with 0.
    assert mean_iou(np.array([[0, 0, 1, 2]]), wanted, 3) == pytest.approx((1 + 1 / 2 + 0) / 3)


def test_a_tiny_run_ends_in_an_artifact_that_gives_the_programs_maps(
    checkpoint: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    found = main([*TINY, "--checkpoint", str(checkpoint), "--out", str(tmp_path)])
    assert list(found) == ["float", "PTQ", "fine-tuned", "artifact tflite"]
    assert all(0 <= each <= 1 for each in found.values())
    assert found["artifact tflite"] == pytest.approx(found["fine-tuned"], abs=1e-3)
    program = edgevit.Program.load(tmp_path / "model.evq")
    images = make_scenes(Shapes(), 4, (5,), 64).images
    expected = program.run(program.info.preprocessing.normalise(images)).numpy()
    (answers,) = edgevit.open(tmp_path / "tflite").outputs(images).values()
    assert answers.shape == (4, 6, 64, 64)
    # TFLite rounds a bilinear resize otherwise, by one step.
    (output,) = program.graph().outputs
    steps = np.abs(answers - expected) / program.graph().quantizer(output).scale
    assert steps.max() < 1.01 and (steps > 0.5).mean() < 0.05


def test_the_outputs_are_real_numbers_where_that_is_asked_for(
    checkpoint: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    asked = ["--checkpoint", str(checkpoint), "--out", str(tmp_path), "--output-type", "float32"]
    call = [*TINY, "--epochs", "0", *asked]
    assert list(main(call)) == ["float", "PTQ", "artifact tflite"]
    (output,) = edgevit.open(tmp_path / "tflite").manifest.outputs
    assert output.dtype == "float32" and output.scale is None
