"""Each operation's exact integer forms against an oracle that shares no code with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from edgevit.kernels.exact import _GPU_SIDES, CompiledKernels, TorchKernels, kernels_for
from edgevit.ops import (
    BY_KIND,
    Add,
    AvgPool2d,
    Clamp,
    Concat,
    Conv2d,
    ConvTranspose2d,
    Fixed,
    Flatten,
    FloatWeights,
    Int8Weights,
    LayerNorm,
    Linear,
    MaxPool2d,
    Mean,
    Mul,
    Node,
    Pad,
    Quantizer,
    Relu,
    Relu6,
    Resize,
    SameAs,
    Shape,
    Slice,
    Softmax,
    Weighted,
)
from tests.ops import oracle
from tests.random_graphs import POINTWISE

BATCH = 3


def weights(
    shape: Sequence[int], axis: int = 0, seed: int = 0, bias: int = 2000, largest: int = 127
) -> Int8Weights:
    random = np.random.default_rng(seed)
    channels = shape[axis]
    return Int8Weights(
        random.integers(-largest, largest + 1, shape, np.int8),
        (random.uniform(0.5, 2, channels) / 64).astype(np.float16).astype(np.float32),
        random.integers(-bias, bias + 1, channels).astype(np.int32),
        np.zeros(channels, np.float32),
    )


def weighted(kind: type[Weighted], shape: Sequence[int], **fields: Any) -> Weighted:
    more = {name: fields.pop(name) for name in ("bias", "largest") if name in fields}
    made = weights(shape, kind.channel_axis, **more)
    return kind(name="out", inputs=("x",), module="out", weights=made, **fields)


def norm(channels: int, eps: float) -> LayerNorm:
    random = np.random.default_rng(channels)
    weight = random.normal(1, 0.4, channels).astype(np.float32)
    bias = random.normal(0, 0.4, channels).astype(np.float32)
    eps = float(np.float32(eps))
    return LayerNorm(name="out", inputs=("x",), eps=eps, weights=FloatWeights(weight, bias))


@dataclass(frozen=True)
class Case:
    node: Node
    shapes: tuple[Shape, ...]
    """Of one image, of each input."""

    def __str__(self) -> str:
        own = {k: v for k, v in vars(self.node).items() if k not in ("name", "inputs", "weights")}
        own.pop("module", None)
        return f"{self.node.kind} {own} of {self.shapes}"


def case(node: Node, *shapes: Shape) -> Case:
    return Case(node, shapes)


MAPS = (6, 8, 10)


def unary(kind: type[Node], shape: Shape = MAPS) -> Case:
    return case(kind(name="out", inputs=("x",)), shape)


def binary(kind: type[Node], first: Shape, second: Shape) -> Case:
    return case(kind(name="out", inputs=("x", "y")), first, second)


CASES = [
    case(weighted(Conv2d, (5, 6, 3, 3), padding=(1, 1)), MAPS),
    case(weighted(Conv2d, (5, 6, 3, 2), stride=(2, 3), padding=(2, 1), dilation=(2, 1)), MAPS),
    case(weighted(Conv2d, (6, 1, 3, 3), groups=6, padding=(1, 1), activation=Relu), MAPS),
    case(weighted(Conv2d, (12, 1, 1, 1), groups=6, activation=Relu6), MAPS),
    case(weighted(Conv2d, (4, 3, 1, 5), groups=2, padding=(0, 2)), MAPS),
    case(weighted(Conv2d, (3, 6, 1, 1), bias=2**31 - 1), MAPS),
    case(weighted(Conv2d, (6, 1, 3, 3), groups=6, bias=2**31 - 1), MAPS),
    case(weighted(Conv2d, (37, 1, 5, 3), groups=37, stride=(2, 1), padding=(3, 1),
                  dilation=(1, 2)), (37, 9, 11)),
    case(weighted(Conv2d, (24, 3, 3, 3), stride=(2, 2), padding=(1, 1)), (3, 16, 16)),
    case(weighted(Conv2d, (4, 3, 5, 5)), (3, 8, 8)),
    case(weighted(Conv2d, (3, 520, 3, 3), largest=127, bias=2**20), (520, 4, 4)),
    case(weighted(ConvTranspose2d, (6, 4, 3, 3)), MAPS),
    case(weighted(ConvTranspose2d, (6, 4, 4, 2), stride=(2, 3), padding=(1, 1)), MAPS),
    case(weighted(ConvTranspose2d, (6, 4, 3, 3), stride=(2, 2), padding=(1, 0),
                  output_padding=(1, 0), activation=Relu6), MAPS),
    case(weighted(Linear, (7, 40)), (40,)),
    case(weighted(Linear, (7, 40), activation=Relu, bias=2**30), (40,)),
    case(weighted(Linear, (7, 9000), bias=1), (9000,)),
    binary(Add, MAPS, MAPS), binary(Add, MAPS, (6, 1, 1)), binary(Add, (6, 1, 1), MAPS),
    binary(Add, (1, 8, 10), MAPS), binary(Add, (6, 8, 1), (1, 1, 10)), binary(Add, (40,), (40,)),
    binary(Mul, MAPS, MAPS), binary(Mul, MAPS, (6, 1, 1)), binary(Mul, (6, 1, 1), MAPS),
    binary(Mul, (6, 8, 1), (1, 1, 10)), binary(Mul, (40,), (1,)),
    *(unary(kind) for kind in (*POINTWISE, Mean)),
    *(unary(kind, (40,)) for kind in (*POINTWISE, Softmax)),
    unary(Mean, (4, 7, 7)), unary(Mean, (4, 1, 1)), unary(Softmax, (1,)),
    case(AvgPool2d(name="out", inputs=("x",), kernel=(2, 2), stride=(2, 2)), MAPS),
    case(AvgPool2d(name="out", inputs=("x",), kernel=(3, 4), stride=(1, 2)), MAPS),
    case(MaxPool2d(name="out", inputs=("x",), kernel=(3, 2), stride=(2, 1), padding=(1, 1)), MAPS),
    case(MaxPool2d(name="out", inputs=("x",), kernel=(2, 2), stride=(3, 2)), MAPS),
    *(case(norm(channels, eps), (channels, 8, 10))
      for channels, eps in ((6, 1e-6), (96, 1e-5), (1, 1e-6), (6, 30.0))),
    unary(Flatten), unary(Flatten, (40,)),
    case(Concat(name="out", inputs=("x",)), MAPS),
    case(Concat(name="out", inputs=("x", "y")), MAPS, (2, 8, 10)),
    case(Concat(name="out", inputs=("x", "y", "z")), (1, 8, 10), MAPS, (2, 8, 10)),
    case(Concat(name="out", inputs=("x", "y")), (3,), (5,)),
    *(case(Resize(name="out", inputs=("x",), size=(8 * a, 10 * b), mode=mode), MAPS)
      for mode in ("nearest", "bilinear")
      for a, b in ((1, 1), (2, 2), (1, 3), (4, 3), (6, 1), (5, 8))),
    case(Slice(name="out", inputs=("x",), axis=1, start=2, stop=5), MAPS),
    case(Slice(name="out", inputs=("x",), axis=3, start=1, stop=9, step=3), MAPS),
    case(Slice(name="out", inputs=("x",), axis=1, start=0, stop=40, step=7), (40,)),
    case(Pad(name="out", inputs=("x",), before=(1, 0), after=(2, 3)), MAPS),
]  # fmt: skip

GRIDS = {
    "symmetric": (((0.04736328125, 0), (0.0791015625, 0), (0.03125, 0)), (0.0552978515625, 0)),
    "asymmetric": (((0.03643798828125, -14), (0.0791015625, 90), (0.5, -128)), (0.1201171875, -77)),
    "coarse": (((0.5, 0), (0.25, 3), (1.0, 0)), (0.0101318359375, 0)),
}  # fmt: skip
"""Quantizers of up to three inputs, and of a result that has one of its own."""


def grids(node: Node, name: str) -> tuple[list[Quantizer], Quantizer]:
    inputs, output = GRIDS[name]
    quantizers = [Quantizer(*grid) for grid in inputs[: len(node.inputs)]]
    if isinstance(node.rule, Fixed):
        return quantizers, node.rule.quantizer
    if isinstance(node.rule, SameAs):
        return [quantizers[0]] * len(quantizers), quantizers[0]
    return quantizers, Quantizer(*output)


def values(shapes: Sequence[Shape], seed: int) -> list[np.ndarray]:
    """int8, every value among them where there are enough."""
    random = np.random.default_rng(seed)
    found = [random.integers(-128, 128, (BATCH, *shape), np.int8) for shape in shapes]
    for array in found:
        if array.size >= 256:
            array.reshape(-1)[:256] = np.arange(-128, 128)
    return found


class PaddedProducts(TorchKernels):
    """With matrices of the sides that a GPU's library takes."""

    def __init__(self, device: str) -> None:
        super().__init__(device)
        self._multiple, self._least_rows = _GPU_SIDES


KERNELS = {
    "padded": lambda: PaddedProducts("cpu"),
    "compiled": lambda: kernels_for(torch.device("cpu")),
    "torch": lambda: TorchKernels("cpu"),
    "float": lambda: TorchKernels("cpu"),
}


@pytest.fixture
def without_int8(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """As on a CPU whose instructions for int8 products saturate, or that has none."""
    if request.node.callspec.params["kernels"] == "float":
        monkeypatch.setattr("edgevit.kernels.exact.multiplies_int8", lambda device: False)


def test_the_compiled_kernels_are_among_those_tested() -> None:
    assert isinstance(kernels_for(torch.device("cpu")), CompiledKernels)


@pytest.mark.usefixtures("without_int8")
@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("each", CASES, ids=str)
def test_kernels_compute_what_the_definition_says(each: Case, grid: str, kernels: str) -> None:
    """In either layout, without a change to their inputs."""
    quantizers, output = grids(each.node, grid)
    step = each.node.integer(quantizers, output, KERNELS[kernels]())
    for seed in range(2):
        inputs = values(each.shapes, seed)
        expected = oracle.int8(each.node, inputs, quantizers, output)
        tensors = [torch.from_numpy(x) for x in inputs]
        nhwc = torch.channels_last
        turned = [x.contiguous(memory_format=nhwc) if x.dim() == 4 else x for x in tensors]
        for given in (tensors, turned):
            before = [x.clone() for x in given]
            found = step(*given)
            assert all(torch.equal(x, y) for x, y in zip(given, before)), "inputs were changed"
            assert found.dtype == torch.int8 and found.shape == expected.shape
            assert np.array_equal(found.numpy(), expected)


def test_kernels_give_an_image_alone_what_they_give_it_among_others() -> None:
    """And on one thread what they give on two: enough values that they share them."""
    node = weighted(Conv2d, (40, 1, 3, 3), groups=40, padding=(1, 1))
    point = weighted(Conv2d, (24, 40, 1, 1))
    quantizers, output = grids(node, "asymmetric")
    (x,) = (torch.from_numpy(v) for v in values([(40, 56, 56)], 0))
    threads = torch.get_num_threads()
    for each in (node, point, Add(name="out", inputs=("x", "y"))):
        count = len(each.inputs)
        step = each.integer(quantizers * count, output, kernels_for(torch.device("cpu")))
        try:
            torch.set_num_threads(2)
            together = step(*[x] * count)
            torch.set_num_threads(1)
            alone = [step(*[x[i : i + 1]] * count) for i in range(BATCH)]
        finally:
            torch.set_num_threads(threads)
        assert torch.equal(torch.cat(alone), together)


@pytest.mark.parametrize("largest", [127, 2])
def test_a_product_of_matrices_that_saturates_is_found(
    largest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As x86's vpmaddubsw does, in 16 bits, on sums of two products of an unsigned byte each."""

    def saturating(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        products = (a.int() + 128)[:, :, None] * b.int()[None]
        pairs = products.unflatten(1, (-1, 2)).sum(2).clamp(-(2**15), 2**15 - 1)
        return (pairs.sum(1) - 128 * b.int().sum(0)).to(torch.int32)

    monkeypatch.setattr("edgevit.kernels.exact._int_mm", saturating)
    monkeypatch.setattr("edgevit.kernels.exact.multiplies_int8", lambda device: True)
    random = np.random.default_rng(0)
    weight = random.integers(-largest, largest + 1, (5, 6), np.int8)
    x = np.full((3, 6), 127, np.int8)
    weight[0] = largest
    found = TorchKernels("cpu").products(weight)(torch.from_numpy(x))
    assert np.array_equal(found.numpy(), x.astype(np.int64) @ weight.astype(np.int64).T)
    wrong = saturating(torch.from_numpy(x), torch.from_numpy(weight.T.copy()))
    assert torch.equal(found, wrong) == (largest == 2)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("each", CASES, ids=str)
def test_an_operation_computes_what_its_definition_says(each: Case, grid: str) -> None:
    node = each.node
    quantizers, output = grids(node, grid)
    for seed in range(3):
        inputs = values(each.shapes, seed)
        expected = oracle.int8(node, inputs, quantizers, output)
        centred = [
            torch.from_numpy(x).float() - q.zero_point for x, q in zip(inputs, quantizers)
        ]  # fmt: skip
        before = [x.clone() for x in centred]
        found = node.exact(quantizers, output)(*centred)
        assert all(torch.equal(x, y) for x, y in zip(centred, before)), "inputs were changed"
        assert found.dtype == torch.float32
        found = found.numpy() + output.zero_point
        assert found.shape == expected.shape
        assert np.array_equal(found, expected), np.abs(found - expected).max()
        assert found.min() >= -128 and found.max() <= 127
        shape = node.output_shape([(1, *shape) for shape in each.shapes])
        assert (BATCH, *shape[1:]) == found.shape


def test_every_operation_has_a_case() -> None:
    assert {each.node.kind for each in CASES} == set(BY_KIND)


@pytest.mark.parametrize("each", CASES, ids=str)
def test_an_image_does_not_depend_on_its_neighbours_or_on_threads(each: Case) -> None:
    quantizers, output = grids(each.node, "asymmetric")
    inputs = [
        torch.from_numpy(x).float() - q.zero_point
        for x, q in zip(values(each.shapes, 5), quantizers)
    ]
    step = each.node.exact(quantizers, output)
    together = step(*inputs)
    alone = torch.cat([step(*(x[i : i + 1] for x in inputs)) for i in range(BATCH)])
    assert torch.equal(together, alone)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1 if threads > 1 else 2)
        assert torch.equal(step(*inputs), together)
    finally:
        torch.set_num_threads(threads)


def test_halves_of_a_bilinear_resize_are_exact_for_every_factor() -> None:
    """By 3 and by 6 float64 has no exact weights: its own interpolation rounds halves by chance."""
    x = torch.from_numpy(values([(4, 7, 5)], 0)[0]).float()
    quantizer, off = Quantizer(0.5, 0), 0
    for factor in (3, 5, 6, 7, 12):
        node = Resize(name="out", inputs=("x",), size=(7 * factor, 10), mode="bilinear")
        found = node.exact([quantizer], quantizer)(x)
        expected = oracle.int8(node, [x.numpy().astype(np.int8)], [quantizer], quantizer)
        assert np.array_equal(found.numpy(), expected)
        chance = node.compute([x.double()]).round().float()
        off += int((chance != found).sum())
        assert float((chance - found).abs().max()) <= 1
    assert off > 0


@pytest.mark.parametrize("kind", [Relu, Relu6])
def test_a_fused_clamp_is_the_clamp_of_what_is_not(kind: type[Clamp]) -> None:
    """Where the output's grid holds 6 between two steps, as where it ends below 6."""
    source = Quantizer(0.046875, -5)
    x = torch.from_numpy(values([MAPS], 1)[0]).float() + 5
    for scale, zero_point in ((0.03125, -100), (0.0203857421875, -128), (0.0999755859375, 0)):
        output = Quantizer(scale, zero_point)
        plain = weighted(Conv2d, (5, 6, 1, 1))
        fused = weighted(Conv2d, (5, 6, 1, 1), activation=kind)
        unclamped = plain.exact([source], output)(x)
        ceiling = round(kind.high / scale) if kind is Relu6 else 127 - zero_point
        expected = unclamped.clamp(0, min(ceiling, 127 - zero_point))
        assert torch.equal(fused.exact([source], output)(x), expected)


def test_a_sum_beyond_float32_is_exact() -> None:
    """One more than 2**24 is no float32; the accumulator has it, and it is rounded but once."""
    shape = (1, 1200, 1, 1)
    node = weighted(Conv2d, shape, bias=1)
    node.weights.weight[:] = 127
    node.weights.bias_q[:] = 1
    x = torch.full((1, 1200, 1, 1), 127.0)
    assert 1200 * 127 * 127 + 1 > 2**24
    source, output = Quantizer(2.0**-14, 0), Quantizer(1.0, 0)
    found = node.exact([source], output)(x)
    expected = oracle.int8(node, [x.numpy().astype(np.int8)], [source], output)
    assert np.array_equal(found.numpy(), expected)
