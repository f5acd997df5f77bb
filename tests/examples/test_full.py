"""The examples at full size, with the embedded RepViT-M0.9: what they learn survives."""

from __future__ import annotations

from pathlib import Path

import pytest

from examples.detector.__main__ import main as detector
from examples.segmenter.__main__ import main as segmenter

STEPS = ["--frozen-steps", "150", "--steps", "150", "--scenes", "600", "--eval-scenes", "200"]


@pytest.mark.full
def test_a_detector_of_shapes_keeps_its_map(tmp_path: Path) -> None:
    pytest.importorskip("pycocotools", reason="pip install 'edgevit[examples]': mAP needs it")
    found = detector([*STEPS, "--epochs", "1", "--out", str(tmp_path)])
    (float_map, _), (tuned, _) = found["float"], found["fine-tuned"]
    assert float_map > 0.1 and tuned > float_map - 0.03
    assert found["artifact tflite"] == found["fine-tuned"]


@pytest.mark.full
def test_a_segmenter_of_shapes_keeps_its_miou(tmp_path: Path) -> None:
    found = segmenter([*STEPS, "--epochs", "1", "--out", str(tmp_path)])
    assert found["float"] > 0.5 and found["fine-tuned"] > found["float"] - 0.02
    assert found["artifact tflite"] == pytest.approx(found["fine-tuned"], abs=1e-3)
