"""torchrun with two real processes against one."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from edgevit.data.distributed import Group
from edgevit.errors import InputError
from edgevit.program import Program
from edgevit.runs.folder import run_folder
from tests.image_sets import subset

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]

OPTIONS = [
    "--image-size", "32", "--epochs", "2", "--batch-size", "8", "--calibration-images", "16",
    "--evaluations", "1", "--max-drop", "100", "--allow-poor-float", "--threads", "1", "--json",
]  # fmt: skip


@pytest.mark.full
def test_two_processes_train_the_same_net_as_one(
    tmp_path: Path, embedded_checkpoint: Path, embedded_train: Path, embedded_val: Path
) -> None:
    train = subset(embedded_train, tmp_path / "train.tar", 16)
    val = subset(embedded_val, tmp_path / "val.tar", 20)
    base = ["quantize", str(embedded_checkpoint), "--data", str(train), "--eval-data", str(val)]
    launch = {
        "one": [sys.executable, "-m", "edgevit"],
        "two": [*TORCHRUN, "2", "-m", "edgevit"],
    }  # fmt: skip
    programs = {}
    for name, command in launch.items():
        out = tmp_path / f"{name}.evq"
        # Two steps: each further one multiplies what rounding began (25 steps: 2 to 7 % of the
        # weights, by seed), and AdamW moves a weight by as much for a gradient of 1e-12 as of 1.
        done = subprocess.run(
            [*command, *base, *OPTIONS, "--epochs", "0.2", "-o", str(out)],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        # Only the main process prints.
        assert json.loads(done.stdout)["gate"]["count"] == 50
        programs[name] = Program.load(out).graph()
    # Sums are added in another order, so weights may differ by rounding, and only by that.
    changed = total = 0
    for one, two in zip(programs["one"].weighted(), programs["two"].weighted(), strict=True):
        difference = abs(one.weight.astype(int) - two.weight.astype(int))
        assert difference.max() <= 1
        changed += int((difference > 0).sum())
        total += difference.size
    assert changed < 1e-4 * total


def killed_at_first_state(command: list[str], folder: Path, log: Path) -> None:
    """Start a job in a session of its own, and kill all of it once it has kept a state."""
    with log.open("w") as file:
        job = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)
    while not (folder / "state.safetensors").exists():
        assert job.poll() is None, log.read_text()
        time.sleep(0.02)
    for pid in family(job.pid):
        os.kill(pid, signal.SIGKILL)
    job.wait()
    assert not (folder.with_suffix("")).exists(), "it was done before it was killed"


def family(number: int) -> list[int]:
    """A process and all below it: torchrun's children have sessions of their own."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    found = [number]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


@pytest.mark.full
def test_a_killed_job_goes_on(
    tmp_path: Path, embedded_checkpoint: Path, embedded_train: Path, embedded_val: Path
) -> None:
    train = subset(embedded_train, tmp_path / "train.tar", 16)
    val = subset(embedded_val, tmp_path / "val.tar", 20)
    base = ["-m", "edgevit", "quantize", str(embedded_checkpoint), "--data", str(train),
            "--eval-data", str(val), *OPTIONS, "--snapshot-interval", "0"]  # fmt: skip
    two = [*TORCHRUN, "2", *base]
    whole, broken, fewer = (tmp_path / f"{name}.evq" for name in ("whole", "broken", "fewer"))
    done = subprocess.run([*two, "-o", str(whole)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for out in (broken, fewer):
        folder = out.with_name(f"{out.name}.run")
        killed_at_first_state([*two, "-o", str(out)], folder, tmp_path / "log")
    done = subprocess.run([*two, "-o", str(broken)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "calibrating" not in done.stderr
    ours, theirs = Program.load(broken), Program.load(whole)
    for one, other in zip(ours.graph().weighted(), theirs.graph().weighted(), strict=True):
        assert (one.weight == other.weight).all()
    assert ours.reference is not None and theirs.reference is not None
    assert (ours.reference.logits == theirs.reference.logits).all()
    alone = [sys.executable, *base, "-o", str(fewer)]
    done = subprocess.run(alone, capture_output=True, text=True)
    assert done.returncode == 2 and "use --resume-with-processes" in done.stderr
    done = subprocess.run([*alone, "--resume-with-processes"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "calibrating" not in done.stderr and "differ by rounding" in done.stderr


def run_processes(count: int, work: str, folder: Path) -> None:
    command = [*TORCHRUN, str(count), "-m", "tests.quantize.processes", work, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_two_processes_evaluate_bit_for_bit_as_one(tmp_path: Path, embedded_val: Path) -> None:
    subset(embedded_val, tmp_path / "set.tar", 3)
    for count in (1, 2):
        run_processes(count, "evaluate", tmp_path)
    for name, rows in (("many", 300), ("few", 3)):
        one = torch.load(tmp_path / f"{name}-0-1.pt")
        assert one.shape == (rows, 3) and len(one.unique(dim=0)) > rows // 2
        for rank in range(2):
            assert torch.equal(torch.load(tmp_path / f"{name}-{rank}-2.pt"), one)


def test_processes_that_differ_end_together(tmp_path: Path) -> None:
    run_processes(3, "disagree", tmp_path)
    for rank in range(3):
        said = json.loads((tmp_path / f"error-{rank}.json").read_text())
        assert said.startswith("the weights of process 1, 2 differ from those of process 0")
        assert "goes on from the last saved state" in said


def test_a_checksum_sees_one_value(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgevit.quantize.finetune import checksum

    tensors = {"a": torch.zeros(3, 4), "b": torch.ones(2)}
    changed = {"a": tensors["a"].clone(), "b": tensors["b"]}
    assert checksum(tensors) == checksum(changed)
    changed["a"][2, 1] = 1e-30
    assert checksum(tensors) != checksum(changed)


def of_processes(count: int) -> Group:
    group = Group.alone()
    group.size = count
    group.wait = lambda: None  # the others
    return group


def test_another_number_of_processes_is_gone_on_with_when_asked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "run"
    with run_folder(folder, "key", False, of_processes(2)):
        (folder / "state.safetensors").write_text("state")
    with run_folder(folder, "key", False, of_processes(2)):
        pass
    with (
        pytest.raises(InputError, match=r"2 processes, and here is 1 process: .*--resume-with-p"),
        run_folder(folder, "key", False, of_processes(1)),
    ):
        pytest.fail("the body must not run")
    assert not caplog.messages
    with run_folder(folder, "key", False, of_processes(1), True):
        assert (folder / "state.safetensors").read_text() == "state"
    assert "differ by rounding" in caplog.text
    # It is the run of one process now.
    with run_folder(folder, "key", False, of_processes(1)):
        pass
    with (
        pytest.raises(InputError, match="here are 2 processes"),
        run_folder(folder, "key", False, of_processes(2)),
    ):
        pytest.fail("the body must not run")
    with (
        pytest.raises(InputError, match="another model, options, data"),
        run_folder(folder, "other", False, of_processes(1), True),
    ):
        pytest.fail("the body must not run")
