"""Data workers: the same batches for any number of them, and no end of theirs goes unnoticed."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import edgevit
from edgevit.data import source as source_module
from edgevit.data.batches import Finish, on_device, outputs_of, training_batches
from edgevit.data.distributed import Group
from edgevit.data.image_set import DamagedImages
from edgevit.data.preprocessing import Preprocessing
from edgevit.data.source import ImageFolder, ImageSource
from edgevit.data.workers import reader_of, workers_for
from edgevit.errors import InputError
from tests.image_sets import subset

ENDED_S = 10.0
"""Within which workers are gone after their parent."""


@pytest.fixture(scope="module")
def tar(tmp_path_factory: pytest.TempPathFactory, embedded_val: Path) -> Path:
    return subset(embedded_val, tmp_path_factory.mktemp("workers") / "few.tar", 25)


@pytest.fixture(scope="module")
def folder(tar: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("unpacked")
    subprocess.run(["tar", "-xf", tar, "-C", root], check=True)
    return root


class Numbers:
    """A map-style Dataset: no picture of it is in memory before it is asked for."""

    classes = ("0", "1")

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        if not 0 <= index < 40:
            raise IndexError(index)
        return np.random.default_rng(index).integers(0, 256, (64, 64, 3), np.uint8), index % 2


def of_folder(folder: Path, tar: Path) -> ImageSource:
    return ImageFolder(folder, size=48, resize=64)


def of_tar(folder: Path, tar: Path) -> ImageSource:
    return ImageFolder(tar, size=48, resize=64)


def of_sequence(folder: Path, tar: Path) -> ImageSource:
    return edgevit.from_sequence(Numbers(), size=48, resize=64)


def group_with(workers: int | None, rank: int = 0, size: int = 1) -> Group:
    group = Group.alone(workers=workers)
    group.rank, group.size = rank, size
    return group


def batches(source: ImageSource, group: Group, kind: str) -> list[tuple[bytes, list[int]]]:
    found = training_batches(source, range(3, len(source)), range(1, 6), 7, 5, kind, group)
    return [(images.numpy().tobytes(), labels.tolist()) for images, labels in found]


@pytest.mark.parametrize("keep", [True, False], ids=["kept", "not-kept"])
@pytest.mark.parametrize("make", [of_folder, of_tar, of_sequence])
def test_any_number_of_workers_gives_the_same_batches(
    make: Callable[[Path, Path], ImageSource],
    keep: bool,
    folder: Path,
    tar: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not keep:
        monkeypatch.setattr(source_module, "CACHE_BYTES", 1)
    kind = "dihedral" if keep else "flip"
    here = batches(make(folder, tar), group_with(0), kind)
    assert len(here) == 5 and len({images for images, _ in here}) == 5
    for workers in (1, 3):
        assert batches(make(folder, tar), group_with(workers), kind) == here


def test_a_small_shared_memory_is_left_alone(tar: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_module, "CACHE_BYTES", 1)
    here = batches(of_tar(tar, tar), group_with(0), "flip")
    asked: list[int] = []
    monkeypatch.setattr("edgevit.data.workers._fits_shared_memory", asked.append)
    assert batches(of_tar(tar, tar), group_with(2), "flip") == here
    # Two of each worker and those in use, float32.
    assert asked == [(2 * 2 + 2) * 7 * 48 * 48 * 3 * 4]


def test_processes_divide_the_batches_of_one(tar: Path) -> None:
    source = of_tar(tar, tar)
    one = list(training_batches(source, range(40), range(3), 9, 0, "flip", group_with(0)))
    for rank in range(2):
        group = group_with(1, rank, 2)
        mine = list(training_batches(source, range(40), range(3), 9, 0, "flip", group))
        for (images, labels), (part, its) in zip(one, mine, strict=True):
            assert torch.equal(images[rank::2], part) and torch.equal(labels[rank::2], its)


def test_a_process_decodes_its_own_share_only(tar: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_module, "CACHE_BYTES", 1)
    source, asked = ImageFolder(tar, size=32), []
    pixels = ImageFolder.pixels
    monkeypatch.setattr(ImageFolder, "pixels", lambda s, i: asked.extend(i) or pixels(s, i))
    group = group_with(0, 1, 2)
    list(training_batches(source, range(40), range(4), 10, 0, "none", group))
    assert len(asked) == len(set(asked)) == 20


def test_evaluation_uses_them(tar: Path) -> None:
    def net(images: torch.Tensor) -> torch.Tensor:
        return images[:, :, 3, 5]

    def kept(outputs: torch.Tensor) -> torch.Tensor:
        return outputs

    source, order = of_tar(tar, tar), [5, 3, 30, 4, 39]
    here = outputs_of(net, kept, source, order, group_with(0), "t", 2)
    assert torch.equal(here, net(source.preprocessing.normalise(source.pixels(order))))
    there = ImageFolder(tar, like=source)
    assert torch.equal(outputs_of(net, kept, there, order, group_with(2), "t", 2), here)


@pytest.mark.parametrize("channels", ["RGB", "L"])
def test_a_device_looks_up_what_the_host_would(channels: Any) -> None:
    rules = Preprocessing(8, channels=channels)
    crops = np.random.default_rng(0).integers(0, 256, (3, *rules.pixel_shape), np.uint8)
    found = on_device(Finish("none", rules, True)(crops, None), rules, torch.device("cpu"))
    wanted = Finish("none", rules, False)(crops, None)
    assert torch.equal(found, wanted)
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_small_sets_start_no_workers_unasked(tar: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = of_tar(tar, tar)
    assert workers_for(source, None) == 0 and workers_for(source, 3) == 3
    monkeypatch.setattr("edgevit.data.workers.AUTO_PIXELS", 1)
    cores = len(os.sched_getaffinity(0))
    assert workers_for(source, None) == cores
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(cores))
    assert workers_for(source, None) == 1


def test_what_cannot_be_sent_is_read_here(caplog: pytest.LogCaptureFixture) -> None:
    class Local(Numbers):
        """Of a function: no other process can import it."""

    source = edgevit.from_sequence(Local(), size=48, resize=64)
    caplog.clear()
    with caplog.at_level("INFO", "edgevit"):
        assert reader_of(source) is None and reader_of(source) is None
    (line,) = caplog.messages  # said once
    assert "is read in this process: it cannot be sent to another" in line
    wanted = edgevit.from_sequence(Numbers(), size=48, resize=64)
    assert batches(source, group_with(2), "flip") == batches(wanted, group_with(0), "flip")


def test_a_source_too_large_to_copy_is_read_here(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("edgevit.data.workers.MAX_SOURCE_BYTES", 2**20)
    rows = [(np.zeros((64, 64, 3), np.uint8), i % 2) for i in range(120)]
    with caplog.at_level("INFO", "edgevit"):
        assert reader_of(edgevit.from_sequence(rows, size=48, resize=64)) is None
    assert "it holds over 1 MiB, which every worker would copy" in caplog.text


def test_a_damaged_image_is_the_same_error(tmp_path: Path) -> None:
    for i in range(6):
        path = tmp_path / "set" / f"c{i % 2}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9), (i, 0, 0)).save(path)
    source = ImageFolder(tmp_path / "set", size=8)
    bad = tmp_path / "set" / "c1" / "3.png"
    bad.write_bytes(bad.read_bytes()[:-20])
    messages = []
    for workers in (0, 2):
        fresh = ImageFolder(tmp_path / "set", like=source)
        with pytest.raises(DamagedImages, match=r"c1/3.png cannot be decoded") as found:
            list(training_batches(fresh, range(6), range(3), 2, 0, "none", group_with(workers)))
        assert found.value.names == ("c1/3.png",) and found.value.path == source.path
        messages.append(str(found.value))
    assert messages[0] == messages[1]
    again = pickle.loads(pickle.dumps(found.value))
    assert (str(again), again.path, again.names) == (messages[0], source.path, ("c1/3.png",))


def test_an_image_that_is_gone_is_named(tmp_path: Path, folder: Path) -> None:
    copy = tmp_path / "set"
    subprocess.run(["cp", "-r", folder, copy], check=True)
    source = ImageFolder(copy, size=32)
    name = source.names[7]
    (copy / name).unlink()
    with pytest.raises(InputError, match=f"{name} cannot be read: No such file"):
        list(training_batches(source, range(40), range(4), 10, 0, "none", group_with(2)))


def test_the_callers_random_state_stays(tar: Path) -> None:
    torch.manual_seed(3)
    wanted = torch.get_rng_state()
    batches(of_tar(tar, tar), group_with(1), "flip")
    assert torch.equal(torch.get_rng_state(), wanted)


# A script without the guard that spawned processes need: it would start itself again.
DRIVER = """
import multiprocessing, os, sys, time
import edgevit
from edgevit.cli import _run
from edgevit.data.batches import training_batches
from edgevit.data.distributed import Group
print("started", flush=True)
group = Group.alone(workers=2)
source = edgevit.ImageFolder(sys.argv[1], size=64)
def work():
    found = training_batches(source, range(40), range(10**6), 8, 0, "flip", group)
    for step, _ in enumerate(found):
        if step == 3:
            workers = [child.pid for child in multiprocessing.active_children()]
            print(*workers, flush=True)
        time.sleep(0.01)
"""
PLAIN = DRIVER + "work()"
COMMAND = DRIVER + (
    "from edgevit import cli\ncli.cli.main = lambda *a, **k: work()\nsys.exit(_run([]))\n"
)


def started(script: str, tar: Path, tmp_path: Path) -> tuple[subprocess.Popen[str], list[int]]:
    """The process, and its workers' numbers once they work."""
    path = tmp_path / "script.py"
    path.write_text(script)
    process = subprocess.Popen(
        [sys.executable, str(path), str(tar)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    workers = [int(word) for word in process.stdout.readline().split()]
    assert len(workers) == 2, process.communicate()
    return process, workers


def are_gone(workers: list[int]) -> bool:
    end = time.monotonic() + ENDED_S
    while time.monotonic() < end:
        if not any(Path(f"/proc/{pid}").exists() for pid in workers):
            return True
        time.sleep(0.1)
    return False


def test_workers_end_with_a_parent_that_is_killed(tar: Path, tmp_path: Path) -> None:
    process, workers = started(PLAIN, tar, tmp_path)
    process.kill()
    assert are_gone(workers)
    process.communicate()


def test_an_interrupt_is_one_line(tar: Path, tmp_path: Path) -> None:
    process, workers = started(COMMAND, tar, tmp_path)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers, too
    out, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert (out, error) == ("", "edgevit: interrupted\n")
    assert are_gone(workers)


def test_a_worker_that_is_killed_ends_the_work(tar: Path, tmp_path: Path) -> None:
    process, workers = started(COMMAND, tar, tmp_path)
    os.kill(workers[0], signal.SIGKILL)  # as the kernel does when memory is short
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1, error
    assert "ended from outside, most often for lack of memory" in error
    assert "--workers 1" in error and "Traceback" not in error
    assert are_gone(workers)
