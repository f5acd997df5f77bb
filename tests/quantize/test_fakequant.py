"""The fake-quantize kernel against torch's own operators, and its torch version."""

from __future__ import annotations

import pytest
import torch

from edgevit.quantize import fakequant

GRIDS = [(0.037, 0.0, -128, 127), (0.011, -37.0, -128, 127), (0.25, 0.0, -127, 127)]


def kernel(name: str):
    if name == "compiled":
        assert fakequant.compiled_kernel(), "the kernel must build wherever the tests run"
        return torch.ops.edgevit.fake_quantize
    return fakequant._TorchFakeQuantize.apply


@pytest.mark.parametrize("name", ["compiled", "torch"])
@pytest.mark.parametrize(("scale", "zero", "low", "high"), GRIDS)
def test_forward_is_quantize_per_tensor_bit_for_bit(name, scale, zero, low, high) -> None:
    import torch.ao.quantization.fx._decomposed  # registers quantized_decomposed

    x = 3 * torch.randn(5, 7, 33, 19, generator=torch.Generator().manual_seed(0))
    ops = torch.ops.quantized_decomposed
    s, z = float(torch.tensor(scale)), int(zero)
    codes = ops.quantize_per_tensor(x, s, z, low, high, torch.int8)
    wanted = ops.dequantize_per_tensor(codes, s, z, low, high, torch.int8)
    found = kernel(name)(x, torch.tensor([scale]), torch.tensor([zero]), low, high)
    assert torch.equal(found, wanted)


@pytest.mark.parametrize("name", ["compiled", "torch"])
@pytest.mark.parametrize(("scale", "zero", "low", "high"), GRIDS)
def test_gradients_are_straight_through_and_lsq(name, scale, zero, low, high) -> None:
    generator = torch.Generator().manual_seed(1)
    x = 3 * torch.randn(64, 1000, generator=generator)
    grad = torch.randn(x.shape, generator=generator)
    leaves = [x.clone(), torch.tensor([scale]), torch.tensor([zero])]
    for leaf in leaves:
        leaf.requires_grad_()
    kernel(name)(*leaves, low, high).backward(grad)
    reference = x.clone().requires_grad_()
    torch.fake_quantize_per_tensor_affine(reference, scale, int(zero), low, high).backward(grad)
    assert torch.equal(leaves[0].grad, reference.grad)
    position = x.double() / scale
    inside = reference.grad == grad
    code = position.round().clamp(low - zero, high - zero)
    slope = torch.where(inside, position.round() - position, code)
    assert 0 < int(inside.sum()) <= inside.numel()
    wanted_scale = float((grad * slope).sum())
    wanted_zero = float(-scale * grad[~inside].double().sum())
    # The compiled kernel keeps the rounding residual to 1/504; errors of either sign cancel.
    assert float(leaves[1].grad) == pytest.approx(wanted_scale, rel=2e-3, abs=2.0)
    assert float(leaves[2].grad) == pytest.approx(wanted_zero, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("name", ["compiled", "torch"])
def test_weights_have_one_scale_a_channel(name) -> None:
    weight = torch.randn(6, 3, 3, 3, generator=torch.Generator().manual_seed(2))
    grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(3))
    scale = (weight.abs().amax((1, 2, 3)) / 100).requires_grad_()
    leaf = weight.clone().requires_grad_()
    output = kernel(name)(leaf, scale, torch.zeros(1), -127, 127)
    output.backward(grad)
    for channel in range(6):
        one = scale[channel : channel + 1].detach().requires_grad_()
        part = weight[channel].clone().requires_grad_()
        alone = kernel(name)(part, one, torch.zeros(1), -127, 127)
        alone.backward(grad[channel])
        assert torch.equal(alone, output[channel])
        assert torch.equal(part.grad, leaf.grad[channel])
        assert torch.allclose(one.grad, scale.grad[channel], rtol=1e-5, atol=1e-6)


def test_results_do_not_depend_on_threads_or_memory_format() -> None:
    x = torch.randn(8, 24, 40, 40, generator=torch.Generator().manual_seed(4))
    results = []
    threads = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            for source in (x, x.contiguous(memory_format=torch.channels_last)):
                leaf, scale = source.clone().requires_grad_(), torch.tensor([0.01]).requires_grad_()
                y = kernel("compiled")(leaf, scale, torch.zeros(1), -128, 127)
                y.square().sum().backward()
                results.append((y.detach(), leaf.grad, scale.grad))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert torch.equal(results[0][0], other[0]) and torch.equal(results[0][1], other[1])
    assert torch.equal(results[0][2], results[2][2])
    assert torch.allclose(results[0][2], results[1][2], rtol=1e-4)


def test_in_place_and_fused_gelu_change_no_bit() -> None:
    import torch.nn.functional as F

    generator = torch.Generator().manual_seed(5)
    image = torch.randn(4, 8, 20, 20, generator=generator)
    image = image.contiguous(memory_format=torch.channels_last)
    weight = torch.randn(16, 8, 1, 1, generator=generator)
    assert fakequant.compiled_kernel()

    def run(gelu) -> list[torch.Tensor]:
        w, *grids = (
            t.clone().requires_grad_()
            for t in (weight, *(torch.tensor([v]) for v in (0.05, 7.0, 0.03, -11.0)))
        )
        y = gelu(F.conv2d(image, w), *grids)
        y.square().sum().backward()
        return [y.detach(), w.grad, *(grid.grad for grid in grids)]

    def in_turn(in_place: bool):
        def run(x, s, z, s2, z2) -> torch.Tensor:
            inner = F.gelu(fakequant.fake_quantize(x, s, z, -128, 127, in_place))
            return fakequant.fake_quantize(inner, s2, z2, -128, 127, in_place)

        return run

    plain, in_place = run(in_turn(False)), run(in_turn(True))
    fused = run(lambda *given: fakequant.fake_quantize_gelu(*given, -128, 127))
    for wanted, a, b in zip(plain, in_place, fused, strict=True):
        assert torch.equal(wanted, a) and torch.equal(wanted, b)
