"""torchrun with two real processes against one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from edgevit.program import Program
from tests.image_sets import subset

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
        "two": [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2",
                "--standalone", "-m", "edgevit"],
    }  # fmt: skip
    programs = {}
    for name, command in launch.items():
        out = tmp_path / f"{name}.evq"
        done = subprocess.run(
            [*command, *base, *OPTIONS, "-o", str(out)], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        # Only the main process prints.
        assert json.loads(done.stdout)["gate"]["count"] == 50
        programs[name] = Program.load(out).graph()
    # Sums are added in another order, so weights may differ by rounding, and only by that.
    changed = total = 0
    for one, two in zip(programs["one"].weighted(), programs["two"].weighted(), strict=True):
        difference = abs(one.weight.astype(int) - two.weight.astype(int))
        assert difference.max() <= 2
        changed += int((difference > 0).sum())
        total += difference.size
    assert changed < 0.02 * total
