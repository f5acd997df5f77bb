"""Training from scratch: it learns, resumes, and gives the same weights however it is run."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import edgevit
from edgevit.data.distributed import Group
from edgevit.data.source import ImageFolder
from edgevit.errors import GateFailed, InputError, ToolMissing
from edgevit.runs.options import MachineOptions
from edgevit.runs.snapshot import read_snapshot
from edgevit.train.images import Batches, TrainingImages, loaded
from edgevit.train.options import TrainOptions
from edgevit.train.run import TrainResult, train
from edgevit.train.timm_parts import transform
from tests.timm_compat import import_timm

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

SIZE = 32
MACHINE = MachineOptions(threads=1, workers=0)
PLAIN = TrainOptions(
    variant="repvit_m0_6", epochs=2, batch_size=16, lr=0.06, mixup=0, cutmix=0, clip_grad=0,
    auto_augment="none", random_erasing=0, color_jitter=0, crop_scale=0.9, ema=0.5,
)  # fmt: skip
FULL = TrainOptions(variant="repvit_m0_6", epochs=1.5, batch_size=16, ema=0.9)


@pytest.fixture(scope="module", autouse=True)
def timm() -> Any:
    return import_timm()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of 16 noisy pictures: red, green and blue ones."""
    random = np.random.default_rng(0)
    top = tmp_path_factory.mktemp("colours")
    for part in ("train", "val"):
        for index, name in enumerate(("blue", "green", "red")):
            (top / part / name).mkdir(parents=True)
            for i in range(16):
                pixels = random.integers(0, 120, (40, 48, 3))
                pixels[..., 2 - index] += 130
                Image.fromarray(pixels.astype(np.uint8)).save(top / part / name / f"{i}.png")
    return top


@pytest.fixture(scope="module")
def images(folder: Path) -> ImageFolder:
    return ImageFolder(folder / "train", SIZE)


def run(
    images: ImageFolder, out: Path, options: TrainOptions, workers: int = 0, **more: Any
) -> TrainResult:
    machine = dataclasses.replace(MACHINE, workers=workers)
    return train(images, None, out, options, machine, **more)


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "model.safetensors")


def same(one: Path, two: Path) -> bool:
    first, second = weights(one), weights(two)
    return first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)


def test_it_learns_and_what_it_writes_is_read(
    folder: Path, images: ImageFolder, tmp_path: Path
) -> None:
    val = ImageFolder(folder / "val", like=images)
    options = dataclasses.replace(PLAIN, epochs=32, holdout=0.2)
    before = torch.get_rng_state()
    result = train(images, val, tmp_path / "net", options, MACHINE)
    assert torch.equal(torch.get_rng_state(), before)
    assert result.top1 is not None and result.top1 > 0.9
    assert result.history.evaluations[-1]["step"] == options.steps(38)
    report = json.loads((tmp_path / "net" / "training.json").read_text())
    assert report["top1"] == result.top1 and report["report_data"]["images"] == 48
    assert not (tmp_path / "net.run").exists()
    curves = (tmp_path / "net" / "metrics.csv").read_text().splitlines()
    assert "holdout_top1" in curves[0] and len(curves) > 30

    loaded = edgevit.load(tmp_path / "net").eval()
    x = torch.from_numpy(np.random.default_rng(1).normal(size=(4, 3, SIZE, SIZE))).float()
    with torch.no_grad():
        # The trained one lies channels-last, which sums in another order.
        assert torch.allclose(loaded(x), result.net(x), atol=1e-5)


def test_timm_reads_the_folder(images: ImageFolder, tmp_path: Path, timm: Any) -> None:
    """timm has no M0.6."""
    options = dataclasses.replace(PLAIN, variant="repvit_m0_9", epochs=0.5)
    run(images, tmp_path / "net", options, teacher="tests.train.test_train:a_teacher")
    theirs = timm.create_model(f"local-dir:{tmp_path / 'net'}", pretrained=True).eval()
    x = torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(theirs(x), edgevit.load(tmp_path / "net").eval()(x), atol=1e-5)
    config = theirs.pretrained_cfg
    assert list(config["input_size"]) == [3, SIZE, SIZE] and config["label_names"] == images.classes


def test_workers_do_not_matter(images: ImageFolder) -> None:
    change = transform(FULL, images.preprocessing)
    batches = Batches(range(len(images)), range(2, 5), 8, 7, Group.alone())
    made = [
        list(loaded(TrainingImages(images, change, 7), batches, workers)) for workers in (0, 1, 3)
    ]
    for other in made[1:]:
        for (x, labels), (y, others) in zip(made[0], other, strict=True):
            assert torch.equal(x, y) and torch.equal(labels, others)
    pixels = [x for x, _ in made[0]]
    assert not torch.equal(pixels[0], pixels[1])


def test_processes_share_a_batch(images: ImageFolder) -> None:
    """The shares of two processes are, in turn, the batch of one."""
    change = transform(FULL, images.preprocessing)

    def taken(rank: int, size: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        group = Group.alone()
        group.rank, group.size = rank, size
        batches = Batches(range(len(images)), range(2), 8, 0, group)
        return list(loaded(TrainingImages(images, change, 0), batches, 0))

    whole, first, second = taken(0, 1), taken(0, 2), taken(1, 2)
    for (x, labels), (a, one), (b, two) in zip(whole, first, second, strict=True):
        assert torch.equal(x[0::2], a) and torch.equal(x[1::2], b)
        assert torch.equal(labels[0::2], one) and torch.equal(labels[1::2], two)


def test_a_run_that_was_stopped_ends_with_the_same_weights(
    images: ImageFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With Mixup, CutMix, RandAugment, erasing, averaging and two heads."""
    from edgevit.train.trainer import Trainer

    run(images, tmp_path / "teacher", PLAIN)
    machine = dataclasses.replace(MACHINE, snapshot_interval_s=0.0)
    asked: dict[str, Any] = {"teacher": str(tmp_path / "teacher" / "model.safetensors")}
    train(images, None, tmp_path / "whole", FULL, machine, **asked)
    step, calls = Trainer._step, []

    def stops(self: Trainer, *given: Any) -> torch.Tensor:
        calls.append(given)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return step(self, *given)

    monkeypatch.setattr(Trainer, "_step", stops)
    with pytest.raises(KeyboardInterrupt):
        train(images, None, tmp_path / "stopped", FULL, machine, **asked)
    assert not (tmp_path / "stopped").exists() and (tmp_path / "stopped.run").exists()
    with pytest.raises(InputError, match="--fresh"):
        train(images, None, tmp_path / "stopped", PLAIN, machine, **asked)
    machine = dataclasses.replace(machine, workers=2)
    train(images, None, tmp_path / "stopped", FULL, machine, **asked)
    assert calls[3][1] == 2  # from the third step on
    assert same(tmp_path / "whole", tmp_path / "stopped")
    assert "head.head_dist.l.weight" in weights(tmp_path / "whole")


def test_the_ablations_are_other_nets(images: ImageFolder, tmp_path: Path) -> None:
    options = dataclasses.replace(PLAIN, epochs=0.5, se="none", reparameterization=False, ema=0)
    run(images, tmp_path / "net", options)
    names = weights(tmp_path / "net")
    assert not any(".se." in name or ".conv1.weight" in name for name in names)
    assert edgevit.load(tmp_path / "net").config.se == "none"


@pytest.mark.parametrize("distillation", ["hard", "soft"])
def test_mixed_precision_and_both_distillations(
    images: ImageFolder, tmp_path: Path, distillation: str
) -> None:
    options = dataclasses.replace(FULL, epochs=0.7, distillation=distillation, amp="bfloat16")
    teacher = "tests.train.test_train:a_teacher"
    result = run(images, tmp_path / "net", options, teacher=teacher)
    assert all(np.isfinite(e["loss"]) for e in result.history.evaluations)


def a_teacher() -> Any:
    return lambda images: images.mean((2, 3))


def bad_teacher() -> Any:
    return lambda images: images.mean((1, 2, 3))[:, None].expand(-1, 5)


def test_bad_input_is_refused_and_leaves_nothing(
    folder: Path, images: ImageFolder, tmp_path: Path
) -> None:
    out = tmp_path / "net"
    odd = ImageFolder(folder / "train", like=dataclasses.replace(
        images.preprocessing, resize="exact"
    ))  # fmt: skip
    cases: list[tuple[str, Any]] = [
        ("rand-m9", lambda: run(images, out, dataclasses.replace(PLAIN, auto_augment="random!"))),
        ("smaller batch", lambda: run(images, out, dataclasses.replace(PLAIN, batch_size=512))),
        ("unknown variant", lambda: run(images, out, dataclasses.replace(PLAIN, variant="vit"))),
        ("it has 5 classes", lambda: run(
            images, out, PLAIN, teacher="tests.train.test_train:bad_teacher"
        )),
        ("timm:no_such_net", lambda: run(images, out, PLAIN, teacher="timm:no_such_net")),
        ("--resize-mode", lambda: run(odd, out, PLAIN)),
        ("holds the training images", lambda: train(images, images, out, PLAIN, MACHINE)),
    ]  # fmt: skip
    for words, call in cases:
        with pytest.raises(InputError, match=words):
            call()
    assert list(tmp_path.iterdir()) == []
    for wrong in (
        {"batch_size": 15, "mixup": 0.8}, {"min_lr": 1.0}, {"epochs": 0}, {"ema": 1.0},
        {"crop_scale": 0.0}, {"label_smoothing": 1.0},
    ):  # fmt: skip
        with pytest.raises(InputError):
            dataclasses.replace(PLAIN, **wrong)


def test_a_loss_that_is_no_number_ends_the_run(images: ImageFolder, tmp_path: Path) -> None:
    options = dataclasses.replace(PLAIN, lr=10, batch_size=48, epochs=40, min_lr=0)
    broken = "tests.train.test_train:a_teacher_of_nothing"
    options = dataclasses.replace(options, distillation="soft")
    with pytest.raises(GateFailed, match="diverged"):
        run(images, tmp_path / "net", options, teacher=broken)
    assert not (tmp_path / "net").exists()


def a_teacher_of_nothing() -> Any:
    return lambda images: torch.full((len(images), 3), float("nan"))


def test_timm_is_asked_for_by_name(
    images: ImageFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ToolMissing, match=r"pip install 'edgevit\[train\]'"):
        run(images, tmp_path / "net", PLAIN)


def command(*given: object) -> list[str]:
    return [sys.executable, "-m", "tests.train.with_timm", "train", *map(str, given)]


def test_the_command_killed_and_resumed(folder: Path, tmp_path: Path) -> None:
    asked = (
        "--data", folder / "train", "--image-size", SIZE, "--variant", "repvit_m0_6", "--epochs",
        6, "--batch-size", 16, "--threads", 1, "--workers", 1, "--snapshot-interval", 0,
    )  # fmt: skip
    done = subprocess.run(command(*asked, "-o", tmp_path / "whole"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "wrote" in done.stdout
    process = subprocess.Popen(
        command(*asked, "-o", tmp_path / "killed"), stderr=subprocess.PIPE, text=True
    )
    state = tmp_path / "killed.run" / "state.safetensors"
    while not state.exists() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    done = subprocess.run(
        command(*asked, "-o", tmp_path / "killed"), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert same(tmp_path / "whole", tmp_path / "killed")


def test_ctrl_c_saves_and_the_same_command_goes_on(folder: Path, tmp_path: Path) -> None:
    asked = (
        "--data", folder / "train", "--image-size", SIZE, "--variant", "repvit_m0_6", "--epochs",
        200, "--batch-size", 16, "--threads", 1, "--workers", 1, "--snapshot-interval", 0,
        "-o", tmp_path / "net",
    )  # fmt: skip
    process = subprocess.Popen(command(*asked), stderr=subprocess.PIPE, text=True)
    state = tmp_path / "net.run" / "state.safetensors"
    while not state.exists() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode == 130
    assert "and saved: the same command goes on" in said and "Traceback" not in said
    saved, _ = read_snapshot(state)
    assert saved and (tmp_path / "net.run" / "metrics.csv").read_text().startswith("step,loss,lr")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_image_is_named(folder: Path, tmp_path: Path, workers: int) -> None:
    shutil.copytree(folder / "train", tmp_path / "train")
    damaged = tmp_path / "train" / "red" / "3.png"
    damaged.write_bytes(damaged.read_bytes()[:200])
    images = ImageFolder(tmp_path / "train", SIZE)
    with pytest.raises(InputError, match=r"red/3.png cannot be decoded: damaged PNG"):
        run(images, tmp_path / "net", PLAIN, workers=workers)
    assert not (tmp_path / "net").exists() and not (tmp_path / "net.run").exists()
    sound = ImageFolder(tmp_path / "train", SIZE, skip_broken=True)
    run(sound, tmp_path / "net", dataclasses.replace(PLAIN, epochs=0.5), workers=workers)


def test_damaged_images_are_named_before_the_training(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "train", tmp_path / "train")
    damaged = tmp_path / "train" / "red" / "3.png"
    damaged.write_bytes(damaged.read_bytes()[:200])
    asked = (
        "--data", tmp_path / "train", "--image-size", SIZE, "--variant", "repvit_m0_6", "--epochs",
        0.5, "--batch-size", 16, "--threads", 1, "--workers", 0, "-o", tmp_path / "net",
        "--broken-list", tmp_path / "broken.txt",
    )  # fmt: skip
    done = subprocess.run(command(*asked), capture_output=True, text=True)
    assert done.returncode == 2 and "1 of 48 images" in done.stderr and "steps" not in done.stderr
    assert "red/3.png\tdamaged PNG" in (tmp_path / "broken.txt").read_text()
    assert not (tmp_path / "net.run").exists()
    done = subprocess.run(command(*asked, "--skip-broken"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "47 images" in done.stderr


def test_a_killed_worker_ends_the_run_and_the_state_is_kept(folder: Path, tmp_path: Path) -> None:
    asked = (
        "--data", folder / "train", "--image-size", SIZE, "--variant", "repvit_m0_6", "--epochs",
        200, "--batch-size", 16, "--threads", 1, "--workers", 1, "--snapshot-interval", 0,
        "-o", tmp_path / "net",
    )  # fmt: skip
    process = subprocess.Popen(command(*asked), stderr=subprocess.PIPE, text=True)
    state = tmp_path / "net.run" / "state.safetensors"
    while not state.exists() and process.poll() is None:
        time.sleep(0.05)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert children
    for child in children:
        os.kill(int(child), signal.SIGKILL)
    _, said = process.communicate()
    assert process.returncode == 1
    assert "ended from outside" in said and "--workers 0" in said and "Traceback" not in said
    assert read_snapshot(state)[1]["history"]["step"] > 0


@pytest.mark.full
def test_two_processes_train(folder: Path, tmp_path: Path) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2",
              "--standalone", "-m", "tests.train.with_timm", "train"]  # fmt: skip
    asked = [
        "--data", str(folder / "train"), "--eval-data", str(folder / "val"), "--image-size", "32",
        "--variant", "repvit_m0_6", "--epochs", "32", "--batch-size", "16", "--lr", "0.06",
        "--threads", "1", "--workers", "0", "--mixup", "0", "--cutmix", "0", "--clip-grad", "0",
        "--auto-augment", "none", "--ema", "0.5", "--json",
    ]  # fmt: skip
    done = subprocess.run(
        [*launch, *asked, "-o", str(tmp_path / "net")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["top1"] > 0.9
