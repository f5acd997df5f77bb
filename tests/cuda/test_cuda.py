"""What only a GPU shows: the run end to end, its kernels, its captured step, its memory."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import edgevit
from edgevit.models.fuse import fuse
from edgevit.models.repvit import RepViT
from edgevit.program import Program
from edgevit.quantize import fakequant
from edgevit.quantize import step as steps
from edgevit.quantize.net import QuantizedNet
from edgevit.quantize.pipeline import Result
from edgevit.quantize.step import TrainingStep
from tests.image_sets import subset
from tests.programs import SMALL, seeded_graph, seeded_images
from tests.quantize.test_fakequant import GRIDS
from tests.quantize.test_net import quantizers
from tests.quantize.test_pipeline import TRAIN, VAL, tiny

pytestmark = pytest.mark.cuda
ASKED = {"epochs": 6, "batch_size": 16, "max_drop": 100, "allow_poor_float": True}


def quantized(device: str, **more: object) -> Result:
    return edgevit.quantize(tiny(), TRAIN, VAL, device=device, **(ASKED | more))


def check_near(a: Program, b: Program, steps: int) -> None:
    """The scales within a hundredth, the weights within so many steps."""
    one, two = a.graph(), b.graph()
    found, wanted = (np.array([q.scale for q in graph.quantizers.values()]) for graph in (one, two))
    assert np.allclose(found, wanted, rtol=1e-2)
    for x, y in zip(one.weighted(), two.weighted(), strict=True):
        assert abs(x.weight.astype(int) - y.weight.astype(int)).max() <= steps


@pytest.mark.parametrize("profile", ["portable", "asymmetric"])
def test_quantize_gives_a_program_like_the_cpus(profile: str, tmp_path: Path) -> None:
    here = quantized("cpu", profile=profile)
    there = quantized("cuda", profile=profile, precision="float32")
    assert set(here.metrics) == set(there.metrics)
    check_near(here.program, there.program, steps=2)
    loaded = Program.load(there.program.save(tmp_path / "m.evq"))
    artifact = loaded.compile("tflite", tmp_path / "tflite")
    assert artifact.parity(VAL, device="cuda") == artifact.parity(VAL, device="cpu")


def test_auto_is_this_gpu(card: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "edgevit"):
        quantized("auto", epochs=0)
    assert caplog.messages[0] == f"on cuda:0 ({card})"


def test_a_program_on_the_gpu_is_the_same_bit_for_bit(embedded_val: Path) -> None:
    program = quantized("cpu", epochs=0).program
    images = program.info.preprocessing.normalise(np.stack([p for p, _ in VAL]))
    assert torch.equal(program.run(images.cuda()).cpu(), program.run(images))


def test_a_killed_run_goes_on(
    tmp_path: Path, embedded_checkpoint: Path, embedded_train: Path, embedded_val: Path
) -> None:
    train = subset(embedded_train, tmp_path / "train.tar", 16)
    val = subset(embedded_val, tmp_path / "val.tar", 20)
    command = [
        sys.executable, "-m", "edgevit", "quantize", str(embedded_checkpoint), "--device", "cuda",
        "--data", str(train), "--eval-data", str(val), "--image-size", "32", "--epochs", "20",
        "--batch-size", "8", "--calibration-images", "16", "--evaluations", "4", "--max-drop",
        "100", "--allow-poor-float", "--snapshot-interval", "0.2",
    ]  # fmt: skip
    whole, killed = tmp_path / "whole.evq", tmp_path / "killed.evq"
    subprocess.run([*command, "-o", str(whole)], check=True, capture_output=True)
    state = tmp_path / "killed.evq.run" / "state.safetensors"
    process = subprocess.Popen([*command, "-o", str(killed)], stderr=subprocess.PIPE)
    started = time.monotonic()
    while process.poll() is None and not state.exists() and time.monotonic() - started < 120:
        time.sleep(0.01)
    assert process.poll() is None, "the run ended before it could be killed: make it longer"
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    subprocess.run([*command, "-o", str(killed)], check=True, capture_output=True)
    check_near(Program.load(whole), Program.load(killed), steps=1)


def test_fusing_is_proved_on_the_gpu() -> None:
    torch.manual_seed(0)
    found = fuse(RepViT(SMALL).eval().cuda(), seeded_images(4, 64).cuda())
    assert found.proof.max_abs_delta_logit is not None


@pytest.mark.parametrize(("scale", "zero"), [grid[:2] for grid in GRIDS])
def test_the_kernel_is_torchs_definition(scale: float, zero: float) -> None:
    from edgevit.quantize import triton_kernels

    x = 3 * torch.randn(32, 48, 57, 55, generator=torch.Generator().manual_seed(0))
    x = x.cuda().contiguous(memory_format=torch.channels_last)
    grad = torch.randn(x.shape, device="cuda").contiguous(memory_format=torch.channels_last)
    vectors = [torch.tensor([scale, 0.03]).cuda(), torch.tensor([zero, -11.0]).cuda()]
    definition = fakequant._TorchFakeQuantize.apply

    def run(both: bool, ours: bool) -> list[torch.Tensor]:
        leaf, s, z = (t.clone().requires_grad_() for t in (x, *vectors))
        if ours:
            grids = triton_kernels.Activations(s, z)
            y = grids.quantize_gelu(leaf * 1, 0, 1) if both else grids.quantize(leaf, 0)
        else:
            y = definition(leaf, s[:1], z[:1], -128, 127)
            y = definition(F.gelu(y), s[1:], z[1:], -128, 127) if both else y
        y.backward(grad)
        return [y.detach(), leaf.grad, s.grad, z.grad]

    found, wanted = run(False, True), run(False, False)
    assert torch.equal(found[0], wanted[0]) and torch.equal(found[1], wanted[1])
    again = run(False, True)
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))
    for both in (False, True):
        found, wanted = run(both, True), run(both, False)
        assert float((found[0] != wanted[0]).float().mean()) < 1e-3
        for a, b in zip(found[1:], wanted[1:], strict=True):
            assert float((a - b).norm()) < 0.01 * float(b.norm()) + 0.01 * len(x) ** 0.5


def test_a_net_in_one_launch_of_weights_is_the_torch_versions() -> None:
    graph, images = seeded_graph(), seeded_images(4, 64)
    net = QuantizedNet(graph, *quantizers(graph, images)).train()

    def run(kernels: bool) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        with pytest.MonkeyPatch.context() as patch:
            if not kernels:
                patch.setattr("edgevit.quantize.net.triton_kernels", lambda device: None)
            net.cuda().zero_grad()
            logits = net(images.cuda())
            F.cross_entropy(logits, torch.arange(4).cuda()).backward()
        return logits.detach(), {n: p.grad.clone() for n, p in net.named_parameters()}

    (found, ours), (wanted, theirs) = run(True), run(False)
    assert float((found - wanted).norm()) < 0.05 * float(wanted.norm())
    for name, grad in theirs.items():
        assert float((ours[name] - grad).norm()) <= 0.1 * float(grad.norm()) + 1e-5, name


def test_a_byte_an_element_is_kept() -> None:
    from edgevit.quantize import triton_kernels

    scale, zero = torch.full((2,), 0.1).cuda().requires_grad_(), torch.zeros(2).cuda()
    x = torch.randn(64, 64, 64, 64, device="cuda").requires_grad_()
    grids = triton_kernels.Activations(scale, zero)
    y = x * 1
    before = torch.cuda.memory_allocated()
    y = grids.quantize(y, 0, in_place=True)
    kept = torch.cuda.memory_allocated() - before
    assert kept == pytest.approx(x.numel(), rel=0.01)
    before = torch.cuda.memory_allocated()
    grids.quantize_gelu(y, 0, 1)
    assert torch.cuda.memory_allocated() - before == pytest.approx(2 * x.numel(), rel=0.01)


def test_a_captured_run_is_the_run(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[bool] = []
    run = TrainingStep.__call__

    def noted(self: TrainingStep, *batch: torch.Tensor) -> torch.Tensor:
        loss = run(self, *batch)
        seen.append(self.is_captured)
        return loss

    with pytest.MonkeyPatch.context() as patch, caplog.at_level(logging.WARNING, "edgevit"):
        patch.setattr(TrainingStep, "__call__", noted)
        captured = quantized("cuda", precision="float32")
        assert any(seen) and not caplog.messages
        seen.clear()
        patch.setattr(steps, "GRAPHS", {})
        plain = quantized("cuda", precision="float32")
        assert not any(seen)
    check_near(captured.program, plain.program, steps=1)


def test_a_step_never_waits_for_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the copies of the batch, which are made before."""
    run = TrainingStep._run

    def strict(self: TrainingStep, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        images, labels = images.cuda(), labels.cuda()
        torch.cuda.set_sync_debug_mode("error")
        try:
            return run(self, images, labels)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(steps, "GRAPHS", {})
    monkeypatch.setattr(TrainingStep, "_run", strict)
    assert quantized("cuda", epochs=3).history.step


def test_a_batch_that_the_memory_does_not_hold_is_halved(
    caplog: pytest.LogCaptureFixture,
) -> None:
    graph = seeded_graph()
    net = QuantizedNet(graph, *quantizers(graph, seeded_images(4, 64))).cuda().train()
    images, labels = torch.randn(512, 3, 64, 64), torch.zeros(512, dtype=torch.int64)

    def gradients(x: torch.Tensor, y: torch.Tensor, share: float) -> torch.Tensor:
        loss = F.cross_entropy(net(x), y)
        (loss * share).backward()
        return loss.detach()

    def run() -> tuple[float, torch.Tensor, int]:
        kept: list[torch.Tensor] = []
        step = TrainingStep(
            gradients,
            lambda: kept.append(torch.cat([p.grad.flatten() for p in net.parameters()])),
            lambda: None, net.zero_grad, torch.device("cuda", 0), "float32",
        )  # fmt: skip
        torch.cuda.reset_peak_memory_stats()
        loss = float(step(images, labels))
        return loss, kept[-1], step.pieces

    loss, wanted, pieces = run()
    assert pieces == 1
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    try:
        torch.cuda.set_per_process_memory_fraction(0.6 * torch.cuda.max_memory_allocated() / total)
        with caplog.at_level(logging.WARNING, "edgevit"):
            halved, found, pieces = run()
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert pieces > 1 and "adds up the gradients" in caplog.text
    assert halved == pytest.approx(loss, rel=1e-4)
    assert float((found - wanted).norm()) < 0.02 * float(wanted.norm())


def test_precision_is_as_before_afterwards() -> None:
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.conv.fp32_precision
    quantized("cuda", epochs=1)
    assert before == (
        torch.get_float32_matmul_precision(), torch.backends.cudnn.conv.fp32_precision
    )  # fmt: skip
