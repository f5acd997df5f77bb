"""`edgevit quantize` for real: killed with SIGKILL, it goes on to the same weights."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from edgevit.data.batches import augment, split, training_batch
from edgevit.errors import InputError
from edgevit.quantize.options import QuantizeOptions, run_key
from edgevit.runs.snapshot import read_snapshot, write_snapshot
from edgevit.tasks.classification import distillation_loss
from tests.image_sets import subset

OPTIONS = [
    "--image-size", "32", "--epochs", "20", "--batch-size", "8", "--calibration-images", "16",
    "--evaluations", "4", "--ema", "0.9", "--max-drop", "100", "--threads", "1",
    "--allow-poor-float", "--augment", "dihedral", "--snapshot-interval", "0.5",
]  # fmt: skip


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory, embedded_checkpoint, embedded_train,
            embedded_val) -> list[str]:  # fmt: skip
    folder = tmp_path_factory.mktemp("sets")
    train = subset(embedded_train, folder / "train.tar", 16)
    val = subset(embedded_val, folder / "val.tar", 20)
    return [
        sys.executable, "-m", "edgevit", "quantize", str(embedded_checkpoint),
        "--data", str(train), "--eval-data", str(val), *OPTIONS,
    ]  # fmt: skip


def finish(command: list[str], out: Path, *extra: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*command, "-o", str(out), *extra], capture_output=True, text=True)


def evq_parts(path: Path) -> tuple[dict[str, bytes], dict]:
    import zipfile

    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    return members, json.loads(members.pop("evq.json"))


def test_a_killed_run_goes_on_to_the_same_weights(command: list[str], tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole.evq", tmp_path / "killed.evq"
    done = finish(command, whole, "--json")
    assert done.returncode == 0, done.stderr
    metrics = json.loads(done.stdout)["metrics"]
    assert set(metrics) >= {"float_top1", "ptq_uncorrected_top1", "ptq_top1", "program_top1"}
    assert not (tmp_path / "whole.evq.run").exists()

    state = tmp_path / "killed.evq.run" / "state.safetensors"
    kills = 0
    # Once before anything is saved, then each time another state has been written.
    for wait_for_state in (False, True, True):
        before = state.stat().st_mtime_ns if state.exists() else 0
        process = subprocess.Popen([*command, "-o", str(killed)], stderr=subprocess.PIPE, text=True)
        started = time.monotonic()
        while process.poll() is None and time.monotonic() - started < 120:
            if wait_for_state:
                if state.exists() and state.stat().st_mtime_ns != before:
                    break
            elif (tmp_path / "killed.evq.run").exists():
                break
            time.sleep(0.02)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.communicate()
        assert not killed.exists() or process.returncode == 0
    assert kills == 3, "the runs ended before they could be killed: make them longer"
    step_reached = read_snapshot(state)[1]["step"]
    assert step_reached > 0
    done = finish(command, killed)
    assert done.returncode == 0, done.stderr
    whole_program, whole_info = evq_parts(whole)
    killed_program, killed_info = evq_parts(killed)
    assert whole_program == killed_program
    assert whole_info == killed_info
    assert not (tmp_path / "killed.evq.run").exists()


def test_a_failing_gate_writes_nothing_and_keeps_the_work(
    command: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "m.evq"
    # What a kill between writing and renaming the marker leaves must not stop the next run.
    (tmp_path / "m.evq.run").mkdir()
    (tmp_path / "m.evq.run" / ".run.json").write_text("{")
    # A negative limit demands a better net than float by 50 points: it must fail.
    done = finish(command, out, "--epochs", "0", "--max-drop", "-50")
    assert done.returncode == 3
    assert "the accuracy gate failed" in done.stderr and "95 % interval" in done.stderr
    assert not out.exists() and (tmp_path / "m.evq.run" / "ptq.safetensors").exists()
    other = finish(command, out, "--epochs", "0", "--seed", "5")
    assert other.returncode == 2 and "--fresh" in other.stderr
    done = finish(command, out, "--epochs", "0", "--max-drop", "100")
    assert done.returncode == 0, done.stderr
    assert "calibrating" not in done.stderr
    assert out.exists() and not (tmp_path / "m.evq.run").exists()
    again = finish(command, out, "--epochs", "0")
    assert again.returncode == 2 and "--force" in again.stderr


def test_reporting_on_the_training_images_is_refused(command: list[str], tmp_path: Path) -> None:
    data = command[command.index("--data") + 1]
    done = finish(command, tmp_path / "m.evq", "--eval-data", data)
    assert done.returncode == 2 and "never saw" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_splits_are_disjoint_and_repeatable() -> None:
    rest, held = split(1000, 0.1, 3)
    assert len(held) == 100 and sorted(rest + held) == list(range(1000))
    assert split(1000, 0.1, 3) == (rest, held) and split(1000, 0.1, 4) != (rest, held)


def test_an_epoch_shows_every_image_once() -> None:
    indices = list(range(100, 130))
    seen = [i for step in range(10) for i in training_batch(indices, step, 6, seed=0)]
    assert sorted(seen[:30]) == indices and sorted(seen[30:]) == indices
    assert seen[:30] != seen[30:]


def test_augmentation_is_a_symmetry_and_depends_on_the_step_only() -> None:
    import numpy as np

    pixels = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 3), np.uint8)
    found = augment(pixels, "dihedral", 0, 7)
    assert (found == augment(pixels, "dihedral", 0, 7)).all()
    assert (found != augment(pixels, "dihedral", 0, 8)).any()
    for image, changed in zip(pixels, found):
        turned = [np.rot90(image, k) for k in range(4)]
        assert any((changed == t).all() or (changed == t[:, ::-1]).all() for t in turned)
    assert (augment(pixels, "none", 0, 7) == pixels).all()


def test_the_loss_is_zero_for_equal_logits_and_hintons_otherwise() -> None:
    teacher = torch.tensor([[2.0, 0.0, -1.0]])
    labels = torch.tensor([0])
    assert float(distillation_loss(teacher, teacher, labels, 2.0, 1.0, 0.0)) == pytest.approx(0)
    student = torch.tensor([[0.0, 1.0, 0.0]])
    p, q = (teacher / 2).softmax(1), (student / 2).softmax(1)
    wanted = 4 * float((p * (p / q).log()).sum())
    assert float(distillation_loss(student, teacher, labels, 2.0, 1.0, 0.0)) == pytest.approx(
        wanted, rel=1e-5
    )
    cross = -float(student.log_softmax(1)[0, 0])
    assert float(distillation_loss(student, teacher, labels, 2.0, 0.0, 0.5)) == pytest.approx(
        0.5 * cross
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [("profile", "int4"), ("lr", -1.0), ("holdout", 1.0), ("batch_size", 0), ("augment", "cutmix"),
     ("seed", -1), ("temperature", 0.0)],
)  # fmt: skip
def test_options_out_of_range_are_named(field: str, value: object) -> None:
    with pytest.raises(InputError, match=field.replace("_", "-")):
        QuantizeOptions(**{field: value})


def test_the_gate_does_not_decide_the_run_and_everything_else_does() -> None:
    key = run_key(QuantizeOptions(), data="a")
    assert run_key(QuantizeOptions(max_drop=3.0), data="a") == key
    assert run_key(QuantizeOptions(lr=1e-3), data="a") != key
    assert run_key(QuantizeOptions(), data="b") != key


def test_a_damaged_snapshot_is_named(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    write_snapshot(path, {"a": torch.arange(4.0)}, {"step": 3})
    tensors, state = read_snapshot(path)
    assert torch.equal(tensors["a"], torch.arange(4.0)) and state == {"step": 3}
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(InputError, match="--fresh"):
        read_snapshot(path)
