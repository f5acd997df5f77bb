"""What runs on a GPU, on the stand-in device; `tests/quantize/test_device.py` runs these tests.

In a process of their own: torch's autograd knows only the devices that were there when it began.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import edgevit
from edgevit.data.distributed import Group
from edgevit.device import chosen_device
from edgevit.errors import GateFailed, InputError
from edgevit.models.fuse import fuse
from edgevit.models.repvit import RepViT
from edgevit.quantize import step as steps
from edgevit.quantize.finetune import FineTuner
from edgevit.quantize.pipeline import Result
from edgevit.quantize.step import TrainingStep
from edgevit.runs.folder import STATE
from edgevit.runs.snapshot import read_snapshot
from tests.programs import SMALL, seeded_images
from tests.quantize.test_pipeline import CLASSES, TRAIN, VAL, tiny
from tests.standin import NAME, StandInGraph, copies, standin

ASKED = {"epochs": 6, "batch_size": 16, "max_drop": 100, "allow_poor_float": True}


@pytest.fixture(scope="module", autouse=True)
def device() -> torch.device:
    return standin()


@pytest.fixture
def captured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(steps.GRAPHS, NAME, StandInGraph)


def quantized(device: str, **more: object) -> Result:
    return edgevit.quantize(tiny(), TRAIN, VAL, device=device, **(ASKED | more))


def weights(result: Result) -> list[np.ndarray]:
    return [node.weight for node in result.program.graph().weighted()]


def scales(result: Result) -> list[float]:
    return [q.scale for q in result.program.graph().quantizers.values()]


def test_the_stand_in_refuses_what_cuda_refuses(device: torch.device) -> None:
    """The guard itself: each of these would pass in silence if the stand-in were the CPU."""
    there, here = torch.ones(2, 3, device=device), torch.ones(2, 3)
    for mixed in (
        lambda: there + here,
        lambda: F.linear(there, torch.ones(4, 3)),
        lambda: F.conv2d(there.view(1, 2, 3, 1), torch.ones(1, 2, 1, 1)),
        lambda: torch.cat([there, here]),
        lambda: there[torch.tensor([0])] + here[:1],
        lambda: torch.where(there > 0, here, there),
    ):
        with pytest.raises(RuntimeError, match="same device"):
            mixed()
    with pytest.raises(TypeError, match="to numpy"):
        there.numpy()
    with pytest.raises(TypeError, match="to numpy"):
        np.asarray(there)
    before = copies("host")
    assert float((there + torch.tensor(1.0)).sum()) == 12.0
    assert copies("host") == before + 1


def test_a_capture_is_replayed_as_cuda_does(device: torch.device) -> None:
    """On the memory and with the Python numbers of the capture, which itself changes nothing."""
    x, factor = torch.ones(3, device=device), 2.0
    graph = StandInGraph()
    y = graph.record(lambda: x.add_(1.0) * factor)
    assert x.tolist() == [1.0] * 3
    factor = 5.0
    graph.replay()
    graph.replay()
    assert x.tolist() == [3.0] * 3 and y.tolist() == [6.0] * 3
    for waits in (lambda: float(x.sum()), lambda: x.cpu(), lambda: x + torch.ones(3).to(device)):
        with pytest.raises(RuntimeError, match="not permitted while a step is captured"):
            StandInGraph().record(waits)


@pytest.mark.parametrize(
    "more",
    # Of a loss of 1e-6 Adam follows the roundings: the longer it does, the farther apart.
    [{}, {"profile": "asymmetric"}, {"activation": "hard-swish", "epochs": 4}, {"epochs": 0}],
    ids=["portable", "asymmetric", "swapped", "post-training"],
)
def test_quantize_is_the_cpus_from_end_to_end(more: dict[str, object]) -> None:
    here, there = quantized("cpu", **more), quantized(NAME, **more)
    assert set(here.metrics) == set(there.metrics)
    # A learning rate in float32 there, and scales by torch's exponential: rounding alone.
    assert np.allclose(scales(here), scales(there), rtol=2e-3)
    for a, b in zip(weights(here), weights(there), strict=True):
        assert abs(a.astype(int) - b.astype(int)).max() <= 1


def test_teachers_come_to_the_device() -> None:
    def constant(images: torch.Tensor) -> torch.Tensor:
        return images.new_zeros(len(images), CLASSES)

    for teacher in (tiny(), constant):
        assert quantized(NAME, epochs=1, teacher=teacher).history.step


def test_a_captured_run_is_the_run(captured: None) -> None:
    found = quantized(NAME)
    del steps.GRAPHS[NAME]
    plain = quantized(NAME)
    assert found.history == plain.history
    assert scales(found) == scales(plain)
    for a, b in zip(weights(found), weights(plain), strict=True):
        assert np.array_equal(a, b)


def test_a_captured_run_goes_on_to_the_same_weights(
    captured: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = quantized(NAME)
    save, saves = FineTuner._save, []

    def stop(self: FineTuner) -> None:
        save(self)
        saves.append(self.history.step)
        if len(saves) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(FineTuner, "_save", stop)
    with pytest.raises(KeyboardInterrupt):
        quantized(NAME, run_dir=tmp_path / "run", snapshot_interval_s=0)
    monkeypatch.undo()
    found = quantized(NAME, run_dir=tmp_path / "run", snapshot_interval_s=0)
    assert 0 < saves[-1] < found.history.step
    assert scales(found) == scales(whole)
    for a, b in zip(weights(found), weights(whole), strict=True):
        assert np.array_equal(a, b)


def test_a_step_never_waits_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images and labels are there when it begins; no number is copied either way."""
    waits: list[int] = []
    run = TrainingStep.__call__

    def counted(self: TrainingStep, *batch: torch.Tensor) -> torch.Tensor:
        before = copies("host"), copies("device")
        loss = run(self, *batch)
        waits.append(copies("host") - before[0])
        assert copies("device") == before[1]
        return loss

    monkeypatch.setattr(TrainingStep, "__call__", counted)
    assert quantized(NAME).history.step == len(waits) > 10
    assert not any(waits)


def test_a_step_that_cannot_be_captured_says_why(
    captured: None, caplog: pytest.LogCaptureFixture
) -> None:
    def waiting(images: torch.Tensor) -> torch.Tensor:
        assert float(images.sum()) < 1e9
        return images.new_zeros(len(images), CLASSES)

    with caplog.at_level(logging.WARNING, "edgevit"):
        found = quantized(NAME, teacher=waiting)
    said = [line for line in caplog.messages if "cannot be captured" in line]
    assert len(said) == 1 and "a tensor's value on the host is not permitted" in said[0]
    monkey = quantized(NAME, teacher=lambda images: images.new_zeros(len(images), CLASSES))
    assert scales(found) == scales(monkey)


def test_a_loss_that_is_no_number_is_found(captured: None) -> None:
    def broken(images: torch.Tensor) -> torch.Tensor:
        return images.new_full((len(images), CLASSES), float("nan"))

    with pytest.raises(GateFailed, match="diverged"):
        quantized(NAME, teacher=broken)


def test_a_checkpoint_is_fused_and_proved_there(device: torch.device) -> None:
    torch.manual_seed(0)
    net = RepViT(SMALL).eval()
    found = fuse(net.to(device), seeded_images(4, 64).to(device))
    assert found.proof.images == 4 and found.proof.max_abs_delta_logit is not None
    with pytest.raises(RuntimeError, match="should be the same"):
        fuse(net, seeded_images(4, 64))


def test_a_program_runs_there_and_is_the_same(device: torch.device, tmp_path: Path) -> None:
    program = quantized("cpu", epochs=0).program
    artifact = program.compile("tflite", tmp_path / "tflite")
    assert artifact.parity(VAL, device=NAME) == artifact.parity(VAL, device="cpu")
    images = program.info.preprocessing.normalise(np.stack([p for p, _ in VAL]))
    assert torch.equal(program.run(images.to(device)).cpu(), program.run(images))


def test_devices_are_chosen() -> None:
    assert chosen_device("cpu") == Group("cpu").device == torch.device("cpu")
    assert Group(NAME).device.type == Group.alone(NAME).device.type == NAME
    if not torch.cuda.is_available():
        assert chosen_device("auto").type == "cpu"
        with pytest.raises(InputError, match="sees no CUDA device"):
            chosen_device("cuda")


class Hungry(nn.Module):
    """A teacher that a batch of more than so many images does not fit beside."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.net, self.most = tiny(), most

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if len(images) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore.")
        return self.net(images)


@pytest.mark.parametrize("place", ["cpu", NAME])
def test_a_batch_that_does_not_fit_is_halved(
    place: str, captured: None, caplog: pytest.LogCaptureFixture
) -> None:
    asked = {"label_weight": 0.5, "teacher": Hungry(100)}
    whole = quantized(place, **asked)
    with caplog.at_level(logging.WARNING, "edgevit"):
        halved = quantized(place, **(asked | {"teacher": Hungry(5)}))
    said = [line for line in caplog.messages if "adds up the gradients" in line]
    assert [line.split("pieces")[0].split()[-1] for line in said] == ["2", "4"]
    assert "(CUDA out of memory. Tried to allocate 2.00 GiB.)" in said[0]
    assert np.allclose(scales(halved), scales(whole), rtol=2e-3)
    for a, b in zip(weights(halved), weights(whole), strict=True):
        assert abs(a.astype(int) - b.astype(int)).max() <= 1


def test_a_device_that_holds_no_image_at_all_is_named() -> None:
    class Full(Hungry):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            if torch.is_grad_enabled() or len(images) == 1 or len(images) > 5:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return super().forward(images)

    step = TrainingStep(
        lambda images, labels, share: Full(0)(images),
        lambda: None, lambda: None, lambda: None, torch.device("cpu"),
    )  # fmt: skip
    with pytest.raises(InputError, match="single image: CUDA out of memory"):
        step(torch.zeros(6, 3, 16, 16), torch.zeros(6))


@pytest.mark.parametrize("place", ["cpu", NAME])
def test_the_state_that_is_left_of_a_diverged_run_is_sound(place: str, tmp_path: Path) -> None:
    class Spoilt(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.calls = tiny(), 0

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            self.calls += len(images) == ASKED["batch_size"]
            return self.net(images) * (float("nan") if self.calls > 7 else 1.0)

    with pytest.raises(GateFailed, match="diverged"):
        quantized(place, teacher=Spoilt(), run_dir=tmp_path / "run", snapshot_interval_s=0)
    tensors, state = read_snapshot(tmp_path / "run" / STATE)
    assert state["step"] == 7
    assert all(bool(torch.isfinite(t).all()) for t in tensors.values())
