"""The Triton kernels by Triton's interpreter; `test_triton_kernels.py` runs these tests.

In a process of their own: Triton reads TRITON_INTERPRET when a kernel is defined.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from edgevit.graph import trace
from edgevit.quantize import fakequant, net, triton_kernels
from edgevit.quantize.net import QuantizedNet, quantized_weight
from tests.programs import seeded_images
from tests.quantize.test_fakequant import GRIDS
from tests.quantize.test_net import quantizers
from tests.quantize.test_pipeline import tiny
from tests.random_graphs import random_graph

DEFINITION = fakequant._TorchFakeQuantize.apply
RESIDUAL = 0.5 / 252
"""What the byte of a rounding residual is off by, of the gradient."""


def leaves(values: list[Tensor]) -> list[Tensor]:
    return [value.clone().requires_grad_() for value in values]


def wild(*shape: int, seed: int = 0) -> Tensor:
    """Values inside of the range, beyond it, on its edges and half-way between two steps."""
    x = 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    flat = x.view(-1)
    flat[:8] = torch.tensor([0.0, -0.0, 1e30, -1e30, float("inf"), -float("inf"), 0.0185, -0.0555])
    return x


@pytest.mark.parametrize(("scale", "zero"), [grid[:2] for grid in GRIDS])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_an_activations_kernel_is_the_definition(
    scale: float, zero: float, layout: torch.memory_format
) -> None:
    x = wild(3, 5, 33, 19).contiguous(memory_format=layout)
    grad = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    vectors = [torch.tensor([0.5, scale, 0.02]), torch.tensor([3.0, zero, -5.0])]
    found, wanted = leaves([x, *vectors]), leaves([x, *vectors])
    y = triton_kernels.Activations(*found[1:]).quantize(found[0], 1)
    expected = DEFINITION(wanted[0], wanted[1][1:2], wanted[2][1:2], -128, 127)
    assert torch.equal(y, expected) and y.stride() == x.stride()
    y.backward(grad)
    expected.backward(grad)
    assert torch.equal(found[0].grad, wanted[0].grad)
    off = (found[1].grad - wanted[1].grad).abs()
    assert off[0] == off[2] == 0
    assert float(off[1]) < 4 * RESIDUAL * float(grad.norm()) + 1e-3
    assert torch.allclose(found[2].grad, wanted[2].grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("zeros", [(0.0, 0.0), (7.0, -11.0)])
def test_gelu_between_two_quantizers_is_the_definition(zeros: tuple[float, float]) -> None:
    x = wild(3, 5, 33, 19)
    grad = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    vectors = [torch.tensor([0.05, 0.5, 0.03]), torch.tensor([zeros[0], 1.0, zeros[1]])]
    found, wanted = leaves([x, *vectors]), leaves([x, *vectors])
    y = triton_kernels.Activations(*found[1:]).quantize_gelu(found[0] * 1, 0, 2)
    inner = F.gelu(DEFINITION(wanted[0], wanted[1][0:1], wanted[2][0:1], -128, 127))
    expected = DEFINITION(inner, wanted[1][2:], wanted[2][2:], -128, 127)
    # erf's last bit may be another one, and a value on an edge go to the other side.
    assert float((y != expected).float().mean()) < 1e-3
    y.backward(grad)
    expected.backward(grad)
    assert torch.allclose(found[0].grad, wanted[0].grad, rtol=1e-4, atol=2e-6)
    off = (found[1].grad - wanted[1].grad).abs()
    assert off[1] == 0 and float(off.max()) < 4 * RESIDUAL * float(grad.norm()) + 1e-3
    assert torch.allclose(found[2].grad, wanted[2].grad, rtol=1e-3, atol=1e-4)


def test_more_blocks_than_programs_are_all_summed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_kernels, "PROGRAMS", 3)
    x = torch.full((5 * triton_kernels.BLOCK + 17,), 100.0)
    scale, zero = leaves([torch.tensor([0.1]), torch.tensor([0.0])])
    triton_kernels.Activations(scale, zero).quantize(x, 0).sum().backward()
    assert float(scale.grad) == 127.0 * len(x)


def test_a_nan_stays_one() -> None:
    grids = triton_kernels.Activations(torch.tensor([0.1, 0.1]), torch.zeros(2))
    x = torch.tensor([1.0, float("nan"), 2.0])
    assert grids.quantize(x, 0).isnan().tolist() == [False, True, False]
    assert grids.quantize_gelu(x, 0, 1).isnan().tolist() == [False, True, False]


def test_weights_in_one_launch_are_each_layers_own() -> None:
    nodes = [node for seed in range(4) for node in random_graph(seed, operations=10).weighted()]
    nodes = [node for node in nodes if node.channel_axis == 0]
    weights = [torch.tensor(node.real_weight()) for node in nodes]
    weights = [
        w.contiguous(memory_format=torch.channels_last) if w.dim() == 4 and i % 2 else w
        for i, w in enumerate(weights)
    ]
    assert any(not w.is_contiguous() for w in weights)
    scales = [w.flatten(1).abs().amax(1).clamp(min=1e-3) / 90 for w in weights]
    found, wanted = leaves([*weights, torch.cat(scales)]), leaves([*weights, *scales])
    made = triton_kernels.quantize_weights(
        found[-1], triton_kernels.row_starts(weights), found[:-1]
    )
    grads = [
        torch.randn(w.shape, generator=torch.Generator().manual_seed(i))
        for i, w in enumerate(weights)
    ]
    count = len(weights)
    for node, y, w, s in zip(nodes, made, wanted, wanted[count:]):
        expected = quantized_weight(node, w, s)
        assert torch.equal(y, expected) and y.stride() == w.stride()
    sum((y * g).sum() for y, g in zip(made, grads, strict=True)).backward()
    for node, w, s, g in zip(nodes, wanted, wanted[count:], grads):
        (quantized_weight(node, w, s) * g).sum().backward()
    for a, b in zip(found[:-1], wanted, strict=False):
        assert torch.equal(a.grad, b.grad) and a.grad.stride() == b.grad.stride()
    for a, b, g in zip(found[-1].grad.split([len(w) for w in weights]), wanted[count:], grads):
        limit = 4 * RESIDUAL * g.flatten(1).norm(dim=1) + 1e-3
        assert ((a - b.grad).abs() < limit).all()


@pytest.mark.parametrize("snapped", [False, True])
def test_a_net_computes_the_same_and_learns_the_same(
    snapped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph, images = trace(tiny(), (3, 16, 16)), seeded_images(4, 16)
    asked: list[object] = []

    def run(kernels: object) -> tuple[Tensor, dict[str, Tensor]]:
        monkeypatch.setattr(net, "triton_kernels", lambda device: asked.append(device) or kernels)
        quantized = QuantizedNet(graph, *quantizers(graph, images, "asymmetric")).train()
        if snapped:
            quantized.snap()
        logits = quantized(images)
        F.cross_entropy(logits, torch.arange(4) % 3).backward()
        grads = {n: p.grad for n, p in quantized.named_parameters() if p.grad is not None}
        return logits.detach(), grads

    (found, ours), (wanted, theirs) = run(triton_kernels), run(None)
    assert len(asked) == 2 and ("log_scale" in theirs) != snapped
    assert torch.allclose(found, wanted, atol=1e-5)
    assert set(ours) == set(theirs)
    for name, grad in theirs.items():
        assert float((ours[name] - grad).norm()) <= 0.02 * float(grad.norm()) + 1e-6, name


def test_a_step_without_gradients_keeps_nothing() -> None:
    scale, zero = leaves([torch.tensor([0.1]), torch.tensor([0.0])])
    with torch.no_grad():
        grids = triton_kernels.Activations(scale, zero)
        y = grids.quantize(torch.ones(4), 0)
    assert grids.sums is None and not y.requires_grad
    assert torch.equal(y, DEFINITION(torch.ones(4), scale, zero, -128, 127))
