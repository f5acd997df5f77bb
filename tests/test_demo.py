"""The demo's folder: made, gone on with, and replaced, without touching what is not the demo's."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from edgevit import demo
from edgevit.errors import InputError
from edgevit.targets import load_target
from tests.programs import make_program


def interrupted(out: Path) -> Path:
    """A demo that was killed after its first artifact."""
    demo._claim(out, False)
    make_program().save(out / "model.evq")
    load_target("tflite").compile(make_program(), out / "tflite")
    run = out / "model.evq.run"
    run.mkdir()
    (run / "run.json").write_text(json.dumps({"schema_version": 1, "key": "0"}))
    (run / "state.safetensors").write_bytes(b"")
    return out


def finished(out: Path) -> Path:
    """A demo that ran to its end."""
    interrupted(out)
    for name in demo.REPORT_FILES:
        (out / name).write_text("{}")
    return out


def everything(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.mark.parametrize("name", ["thesis.tex", "tflite/notes.txt", "coreml/x", "model.evq.run/x"])
@pytest.mark.parametrize("made", [interrupted, finished])
def test_a_foreign_file_keeps_its_folder(tmp_path: Path, made: object, name: str) -> None:
    assert callable(made)
    out = made(tmp_path / "demo")
    (out / name).parent.mkdir(exist_ok=True)
    (out / name).write_text("mine")
    before = everything(out)
    for force in (False, True):
        with pytest.raises(InputError, match="not written by edgevit|exists already"):
            demo._claim(out, force)
    assert everything(out) == before


@pytest.mark.parametrize("files", [["thesis.tex"], ["model.evq"], ["report.json"], ["demo.json/x"]])
def test_a_folder_that_is_no_demos_is_refused(tmp_path: Path, files: list[str]) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    before = everything(tmp_path)
    for force in (False, True):
        with pytest.raises(InputError, match="not written by edgevit"):
            demo._claim(tmp_path, force)
    assert everything(tmp_path) == before


def test_a_finished_demo_is_replaced_by_force_only(tmp_path: Path) -> None:
    out = finished(tmp_path / "demo")
    before = everything(out)
    with pytest.raises(InputError, match="--force"):
        demo._claim(out, False)
    assert everything(out) == before
    demo._claim(out, True)
    assert os.listdir(out) == ["demo.json"]


def test_an_interrupted_demo_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = interrupted(tmp_path / "demo")
    before = everything(out)
    demo._claim(out, False)
    assert everything(out) == before
    monkeypatch.setattr("edgevit.quantize.from_files.quantize_files", None)
    assert demo._quantized(out) == out / "model.evq"
