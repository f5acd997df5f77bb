"""How a fine-tuning ends before its end: by Ctrl-C, a full disk, NaN. It goes on from there."""

from __future__ import annotations

import csv
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import edgevit
from edgevit.errors import GateFailed, InputError, Interrupted, ToolMissing
from edgevit.quantize.finetune import FineTuner
from edgevit.runs.recording import Recorder
from edgevit.runs.snapshot import read_snapshot
from tests.image_sets import subset
from tests.quantize.test_pipeline import CLASSES, TRAIN, VAL, Tiny, tiny

ASKED: dict[str, Any] = {
    "epochs": 10, "batch_size": 8, "max_drop": 100, "allow_poor_float": True, "evaluations": 3,
}  # fmt: skip
STEPS = round(10 * 43 / 8)
SAVE_EACH_STEP = {"snapshot_interval_s": 0.0}


@pytest.fixture(scope="module")
def model() -> Tiny:
    return tiny()


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """As on a command line, wherever the tests themselves run."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Teacher:
    """A teacher whose `count`-th call does something else too."""

    def __init__(self) -> None:
        self.calls, self.at, self.act = 0, -1, lambda: None
        self.answer = 0.0

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if self.calls == self.at:
            self.act()
        return images.mean((2, 3)) + self.answer


TEACHER = Teacher()


def teacher(images: torch.Tensor) -> torch.Tensor:
    return TEACHER(images)


def again(at: int = -1, act: Callable[[], None] = lambda: None) -> None:
    TEACHER.__init__()
    TEACHER.at, TEACHER.act = at, act


@pytest.fixture(scope="module")
def whole(model: Tiny) -> bytes:
    """The program of a run that nothing interrupts."""
    again()
    return edgevit.quantize(model, TRAIN, VAL, teacher=teacher, **ASKED).program.to_bytes()


def curves(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def state_step(run: Path) -> int:
    return read_snapshot(run / "state.safetensors")[1]["step"]


def test_ctrl_c_saves_and_the_same_call_goes_on(model: Tiny, whole: bytes, tmp_path: Path) -> None:
    run = tmp_path / "run"
    again(at=14, act=lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(Interrupted, match="interrupted after 1. of 54 steps, and saved") as ended:
        edgevit.quantize(model, TRAIN, VAL, teacher=teacher, run_dir=run, **ASKED)
    assert STEPS == 54 and f"after {state_step(run)} of" in str(ended.value)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    again()
    found = edgevit.quantize(model, TRAIN, VAL, teacher=teacher, run_dir=run, **ASKED)
    assert found.program.to_bytes() == whole
    rows = curves(run)
    assert [int(row["step"]) for row in rows if row["loss"]] == [1, 10, 20, 30, 40, 50]
    held = [row for row in rows if row["holdout_loss"]]
    # Step 0 is the net of before the training, which is measured at its end.
    steps = [e["step"] for e in found.history.evaluations]
    assert [0, *(int(row["step"]) for row in held)] == steps
    assert float(held[-1]["holdout_top1"]) == found.history.evaluations[-1]["holdout_top1"]
    peak = max(float(row["lr"]) for row in rows if row["lr"])
    assert 0 < peak <= 1e-4 and float(rows[0]["images_per_s"]) > 0


def test_a_second_ctrl_c_does_not_wait(model: Tiny, tmp_path: Path) -> None:
    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    again(at=5, act=twice)
    with pytest.raises(KeyboardInterrupt) as ended:
        edgevit.quantize(model, TRAIN, VAL, teacher=teacher, run_dir=tmp_path / "run", **ASKED)
    assert not isinstance(ended.value, Interrupted)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_nan_keeps_the_last_good_state(model: Tiny, whole: bytes, tmp_path: Path) -> None:
    run = tmp_path / "run"

    def break_it() -> None:
        TEACHER.answer = float("nan")

    again(at=9, act=break_it)
    asked = {**ASKED, **SAVE_EACH_STEP, "teacher": teacher, "run_dir": run}
    with pytest.raises(GateFailed, match="diverged") as ended:
        edgevit.quantize(model, TRAIN, VAL, **asked)
    step = state_step(run)
    assert step >= 5 and f"the last good state, of step {step}, is kept" in str(ended.value)
    again()
    assert edgevit.quantize(model, TRAIN, VAL, **asked).program.to_bytes() == whole


def test_weights_that_are_no_numbers_are_not_saved(
    model: Tiny, whole: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finite loss may leave them: its gradient overflowed."""
    run, average = tmp_path / "run", FineTuner._update_ema
    asked = {**ASKED, **SAVE_EACH_STEP, "teacher": teacher, "run_dir": run}

    def spoiled(self: FineTuner) -> None:
        average(self)
        if self.history.step == 6:
            next(iter(self.parameters.values())).data.view(-1)[0] = float("inf")

    again()
    with monkeypatch.context() as patch:
        patch.setattr(FineTuner, "_update_ema", spoiled)
        with pytest.raises(GateFailed, match=r"diverged.*of step 6, is kept"):
            edgevit.quantize(model, TRAIN, VAL, **asked)
    assert state_step(run) == 6
    again()
    assert edgevit.quantize(model, TRAIN, VAL, **asked).program.to_bytes() == whole


def test_a_full_disk_keeps_the_last_good_state(model: Tiny, whole: bytes, tmp_path: Path) -> None:
    """No file may grow beyond a limit, as the kernel has it for a process; then there is room."""
    run = tmp_path / "run"
    asked = {**ASKED, **SAVE_EACH_STEP, "teacher": teacher, "run_dir": run}
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill() -> None:
        size = (run / "state.safetensors").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, before[1]))

    again(at=12, act=fill)
    try:
        with pytest.raises(InputError, match="make room, and the same command goes on") as ended:
            edgevit.quantize(model, TRAIN, VAL, **asked)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    step = state_step(run)
    assert f"the state of step {step + 1} was not saved" in str(ended.value)
    assert f"the last good state, of step {step}, is kept" in str(ended.value)
    assert "File too large" in str(ended.value)
    assert not [path for path in run.iterdir() if path.name.startswith(".")]
    again()
    assert edgevit.quantize(model, TRAIN, VAL, **asked).program.to_bytes() == whole


def test_the_command_says_how_to_go_on_and_leaves_the_curves(
    tmp_path: Path, embedded_checkpoint: Path, embedded_train: Path, embedded_val: Path
) -> None:
    sets = tmp_path / "sets"
    sets.mkdir()
    train = subset(embedded_train, sets / "train.tar", 12)
    val = subset(embedded_val, sets / "val.tar", 10)
    recipe, out = tmp_path / "recipe.toml", tmp_path / "m.evq"
    recipe.write_text(
        f'ckpt = "{embedded_checkpoint}"\ndata = "{train}"\neval-data = "{val}"\n'
        "image-size = 32\nepochs = 12\nbatch-size = 8\ncalibration-images = 8\nthreads = 1\n"
        "evaluations = 2\nmax-drop = 100\nallow-poor-float = true\nsnapshot-interval = 0\n"
    )
    command = [sys.executable, "-m", "edgevit", "quantize", "--config", recipe, "-o", out]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    run = tmp_path / "m.evq.run"
    while process.poll() is None and not (run / "state.safetensors").exists():
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    errors = process.communicate(timeout=120)[1]
    assert process.returncode == 130, errors
    last = errors.strip().splitlines()[-1]
    assert last.startswith("edgevit: interrupted after ") and "the same command goes on" in last
    assert not out.exists() and (run / "metrics.csv").exists()
    # What the folder keeps is the whole call, with every default.
    again = [sys.executable, "-m", "edgevit", "quantize", "--config", run / "recipe.toml"]
    done = subprocess.run(again, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "calibrating" not in done.stderr and out.exists() and not run.exists()
    lines = (tmp_path / "m.evq.metrics.csv").read_text().splitlines()
    assert lines[0].startswith("step,loss,lr,scale_lr,images_per_s,holdout_loss")


def test_curves_go_on_from_the_state(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    first = Recorder(path)
    for step in range(1, 31):
        first.step(step, 1 / step, {"lr": 0.1, "scale_lr": 0.2}, 8)
    first.evaluation(30, {"holdout_loss": 0.5})
    first.save()
    second = Recorder(path, done=20)
    second.evaluation(20, {"holdout_loss": 0.25, "more": 1.0})
    second.save()
    rows = curves(tmp_path)
    assert [int(row["step"]) for row in rows] == [1, 10, 20, 20]
    assert rows[-1]["holdout_loss"] == "0.25" and rows[-1]["more"] == "1.0"
    assert rows[0]["more"] == "" and rows[1]["loss"] == "0.1"
    for damage in (b"\xff\xfe", b"step,loss\nno,1\n", b""):
        path.write_bytes(damage)
        third = Recorder(path, done=20)
        third.save()
        assert curves(tmp_path) == []


def test_tensorboard_that_is_not_there_is_said_before_the_work(
    model: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgevit.runs.recording.find_spec", lambda name: None)
    asked = {**ASKED, "run_dir": tmp_path / "run", "tensorboard": tmp_path / "events"}
    with pytest.raises(ToolMissing, match=r"pip install 'edgevit\[tensorboard\]'"):
        edgevit.quantize(model, TRAIN, VAL, **asked)
    assert list(tmp_path.iterdir()) == []


def test_tensorboard_has_the_same_curves(model: Tiny, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    again()
    run, events = tmp_path / "run", tmp_path / "events"
    asked = {**ASKED, "teacher": teacher, "run_dir": run, "tensorboard": events}
    edgevit.quantize(model, TRAIN, VAL, **asked)
    found = EventAccumulator(str(events))
    found.Reload()
    for name in ("loss", "lr", "holdout_loss"):
        rows = [(int(row["step"]), float(row[name])) for row in curves(run) if row[name]]
        seen = [(event.step, event.value) for event in found.Scalars(name)]
        assert [step for step, _ in rows] == [step for step, _ in seen]
        assert all(abs(a - b) < 1e-5 for (_, a), (_, b) in zip(rows, seen))


def test_the_teacher_answers_for_every_class() -> None:
    assert teacher(torch.zeros(2, 3, 4, 4)).shape == (2, CLASSES)
