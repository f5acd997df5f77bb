"""Running a quantized graph exactly: the same result on any batch size, thread count and CPU.

The program's definition is the arithmetic of integer kernels (`Node.exact` of each operation): a
convolution's sum is exact, multiplied once by float32(s_in * s_w / s_out) and rounded half to even,
and so is a product by float32(s_a * s_b / s_out); every other operation is computed exactly on the
real values, rounded once to float32 and quantized as torch's quantize_per_tensor does. torch
itself, run on the q/dq graph in float32, sums a convolution in an order that depends on batch size,
threads and CPU; a value on a rounding edge then moves by a step, the next layers carry it on, and
one EuroSAT image in ten ends with another logit.

Tensors between operations are held as q - zero_point in float32: (N, C, H, W) or (N, C).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from edgevit.graph.graph import Graph
from edgevit.ops import Node, quantize


class Executor:
    """A graph made ready to run: float32 (N, C, H, W) to float32 outputs."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._steps = {
            node.name: node.exact(
                [graph.quantizer(name) for name in node.inputs], graph.quantizer(node.name)
            )
            for node in graph.nodes
        }
        self._last_uses = graph.last_uses()

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """Output name -> dequantized float32 values, in the graph's order."""
        found = {name: value for name, value in self._run(images) if name in self.graph.outputs}
        return {name: found[name] * self.graph.quantizer(name).scale for name in self.graph.outputs}

    def tensors(self, images: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Every tensor with a quantizer of its own, input first: canonical name, int8 values."""
        for name, value in self._run(images):
            if self.graph.owner(name) == name:
                yield name, self._int8(name, value)

    def step(self, node: Node, inputs: list[Tensor]) -> Tensor:
        """One operation on int8 inputs; int8 result. For checking a runtime op by op."""
        centred = [
            value.float() - self.graph.quantizer(name).zero_point
            for name, value in zip(node.inputs, inputs, strict=True)
        ]
        return self._int8(node.name, self._steps[node.name](*centred))

    def _int8(self, name: str, value: Tensor) -> Tensor:
        return (value + self.graph.quantizer(name).zero_point).to(torch.int8)

    def _run(self, images: Tensor) -> Iterator[tuple[str, Tensor]]:
        source = self.graph.input_name
        values = {source: quantize(images.clone(), self.graph.quantizer(source))}
        yield source, values[source]
        for node in self.graph.nodes:
            values[node.name] = self._steps[node.name](*(values[name] for name in node.inputs))
            for name in self._last_uses.get(node.name, ()):
                del values[name]
            yield node.name, values[node.name]
