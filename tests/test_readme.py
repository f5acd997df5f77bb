"""The README's Python example runs as it stands, on the embedded sample."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edgevit.data.images import ImageSet
from tests.conftest import ROOT
from tests.image_sets import subset


def test_the_python_example_runs(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    embedded_checkpoint: Path,
    embedded_train: Path,
    embedded_val: Path,
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    train = subset(embedded_train, tmp_path / "train.tar", 16)
    val = subset(embedded_val, tmp_path / "val.tar", 50)
    images = ImageSet.open(val)
    images.load_rgb(0).save(tmp_path / "photo.jpg")
    # What differs from the reader's case: the files, their size, and how long to train.
    for before, after in {
        '"repvit_m0_9.pth"': repr(str(embedded_checkpoint)),
        '"train/"': repr(str(train)),
        '"val/"': repr(str(val)),
        "size=224, resize=256": "size=64",
        "epochs=4, max_drop=0.5": "epochs=0, max_drop=15",
        "parity(val)": "parity(val, limit=4, layer_images=1)",
        'tflite", val)': 'tflite", val, max_drop=15, min_agreement=90)',
    }.items():
        assert before in code, f"the README's example has no {before}"
        code = code.replace(before, after)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    gate, tflite, coreml, tensorrt, validated, classes = printed
    assert "drop" in gate and "on 20 images" in validated
    assert tflite == "tflite None"
    assert coreml.startswith("coreml ") and tensorrt.startswith("tensorrt ")
    assert classes.count("Prediction(label=") == 3
    assert {path.name for path in tmp_path.iterdir()} == {
        "train.tar", "val.tar", "photo.jpg", "model.evq", "build"
    }  # fmt: skip
