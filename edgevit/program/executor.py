"""Running a program exactly: the same result on any batch size, thread count and CPU.

The program's definition is its q/dq graph over real numbers: each operation is computed exactly,
rounded once to float32, and quantized as torch's quantize_per_tensor does. torch itself, run on
that graph in float32, sums a convolution in an order that depends on batch size, threads and CPU;
a value on a rounding edge then moves by a step, the next layers carry it on, and one EuroSAT
image in ten ends with another logit. So here a convolution is done on the integers: sums of int8
products stay below 2**24, where float32 is exact whatever the order (float64 where they might
not), and the one rounding is the multiplication by input scale * weight scale, itself exact in
float32. The int8 kernels of a runtime do the same: XNNPACK's give these values but for ties.

Tensors between operations are held as q - zero_point in float32: (N, C, H, W) or (N, C).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from edgevit.graph.graph import INT8_MAX, INT8_MIN, Graph, Node, Quantizer

EXACT_FLOAT32 = 2**24
"""Every integer below this is a float32, and so is every partial sum of a bounded total."""


_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "hard_swish": functional.hardswish,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
}
"""Operations on one value alone."""


def quantize(values: Tensor, quantizer: Quantizer) -> Tensor:
    """q - zero_point as float32; `values` (float32) is overwritten.

    clamp(round(x * float32(1 / scale)) + zero_point), ties to even: torch's quantize_per_tensor.
    """
    zero_point = quantizer.zero_point
    values.mul_(1.0 / quantizer.scale).round_()
    return values.clamp_(INT8_MIN - zero_point, INT8_MAX - zero_point)


class Executor:
    """A graph made ready to run: float32 (N, 3, H, W) to float32 (N, classes)."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._steps = {node.name: _make_step(graph, node) for node in graph.nodes}
        self._last_use = {name: node.name for node in graph.nodes for name in node.inputs}

    def __call__(self, images: Tensor) -> Tensor:
        output = self.graph.output_name
        for name, value in self._run(images):
            if name == output:
                return value * self.graph.quantizer(output).scale
        raise AssertionError("a checked graph makes its output")

    def tensors(self, images: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Every tensor with a quantizer of its own, input first: canonical name, int8 values."""
        for name, value in self._run(images):
            if name == self.graph.input_name or self.graph.node(name).op != "flatten":
                yield name, (value + self.graph.quantizer(name).zero_point).to(torch.int8)

    def step(self, node: Node, inputs: list[Tensor]) -> Tensor:
        """One operation on int8 inputs; int8 result. For checking a runtime op by op."""
        centred = [
            value.float() - self.graph.quantizer(name).zero_point
            for name, value in zip(node.inputs, inputs, strict=True)
        ]
        result = self._steps[node.name](*centred)
        return (result + self.graph.quantizer(node.name).zero_point).to(torch.int8)

    def _run(self, images: Tensor) -> Iterator[tuple[str, Tensor]]:
        source = self.graph.input_name
        values = {source: quantize(images.clone(), self.graph.quantizer(source))}
        yield source, values[source]
        for node in self.graph.nodes:
            values[node.name] = self._steps[node.name](*(values[name] for name in node.inputs))
            for name in set(node.inputs):
                if self._last_use[name] == node.name:
                    del values[name]
            yield node.name, values[node.name]


def _make_step(graph: Graph, node: Node):
    """The function of one operation, from and to q - zero_point in float32."""
    inputs = [graph.quantizer(name) for name in node.inputs]
    output = graph.quantizer(node.name)
    if node.op in ("conv2d", "linear"):
        return _weighted(node, inputs[0], output)
    if node.op in _FUNCTIONS:
        return _lookup(node.op, inputs[0], output)
    if node.op == "mean":
        return lambda x: quantize(_mean(x, inputs[0].scale), output)
    if node.op == "flatten":
        return lambda x: x.flatten(1)
    combine = torch.Tensor.add_ if node.op == "add" else torch.Tensor.mul_
    a, b = inputs[0].scale, inputs[1].scale
    # No mul of a RepViT has the larger operand second, so the result has the first one's shape.
    return lambda x, y: quantize(combine(x * a, y * b), output)


def _weighted(node: Node, source: Quantizer, output: Quantizer):
    weight, bias = torch.tensor(node.weight).float(), torch.tensor(node.bias_q).double()
    per_channel = (1, -1, 1, 1) if node.op == "conv2d" else (1, -1)
    scale = torch.tensor(node.weight_scale).double().mul_(source.scale).view(per_channel)
    largest_input = max(INT8_MAX - source.zero_point, source.zero_point - INT8_MIN)
    bound = weight.abs().flatten(1).sum(1).double() * largest_input + bias.abs()
    exact = torch.float32 if bound.max() < EXACT_FLOAT32 else torch.float64
    weight, bias, scale = weight.to(exact), bias.to(exact), scale.to(exact)

    def step(x: Tensor) -> Tensor:
        if node.op == "linear":
            total = functional.linear(x.to(exact), weight, bias)
        else:
            total = functional.conv2d(
                x.to(exact), weight, bias, node.stride, node.padding, 1, node.groups
            )
        total.mul_(scale)
        if node.relu:
            total.relu_()
        return quantize(total.float(), output)

    return step


def _mean(x: Tensor, scale: float) -> Tensor:
    """Mean over H and W of q * scale: an exact integer sum, then one rounding to float32."""
    total = x.sum((2, 3), keepdim=True, dtype=torch.float64)
    return total.mul_(scale).div_(x.shape[2] * x.shape[3]).float()


def _lookup(op: str, source: Quantizer, output: Quantizer):
    """A function of one int8 value is a table of 256, as runtimes have it too."""
    q = np.arange(INT8_MIN, INT8_MAX + 1, dtype=np.float64) - source.zero_point
    x = torch.from_numpy((q * source.scale).astype(np.float32)).double()
    table = quantize(_FUNCTIONS[op](x).float(), output)
    offset = source.zero_point - INT8_MIN

    def step(x: Tensor) -> Tensor:
        index = x.add(offset).to(torch.int32).flatten()
        return table.index_select(0, index).view(x.shape)

    return step
