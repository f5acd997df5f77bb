"""Running a quantized graph exactly: the same result on any batch size, thread count and device.

The program's definition is the arithmetic of integer kernels (`Node.exact` of each operation): a
convolution's sum is exact, multiplied once by float32(s_in * s_w / s_out) and rounded half to even,
and so is a product by float32(s_a * s_b / s_out); every other operation is computed exactly on the
real values, rounded once to float32 and quantized as torch's quantize_per_tensor does. torch
itself, run on the q/dq graph in float32, sums a convolution in an order that depends on batch size,
threads and CPU; a value on a rounding edge then moves by a step, the next layers carry it on, and
one EuroSAT image in ten ends with another logit.

It is run on int8 tensors by the kernels of the images' device (`Node.integer`), which give the same
values faster: sums of int8 products in int32 where the processor has instructions for them.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from edgevit.graph.graph import Graph
from edgevit.kernels.exact import TorchKernels, kernels_for
from edgevit.ops import Node, quantize
from edgevit.ops.base import Step


class Executor:
    """A graph made ready to run: float32 (N, C, H, W) to float32 outputs, on the images' device."""

    def __init__(
        self, graph: Graph, kernels: TorchKernels | None = None, *, by_definition: bool = False
    ) -> None:
        """
        kernels         those to run by; default: the fastest of the images' device
        by_definition   run `Node.exact` itself, for comparison
        """
        for name in graph.tensors():
            if name not in graph.unquantized:
                graph.quantizer(name)
        self.graph = graph
        self._kernels, self._by_definition = kernels, by_definition
        self._steps: dict[torch.device, dict[str, Step]] = {}
        self._real_names = graph.real_outputs | graph.unquantized
        self._real_steps: dict[str, Step] = {}
        self._last_uses = graph.last_uses()

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """Output name -> dequantized float32 values, in the graph's order."""
        real: dict[str, Tensor] = {}
        for name, value in self._run(images, real):
            if name in self.graph.outputs and name not in self.graph.real_outputs:
                real[name] = self._real(name, value)
        return {name: real[name] for name in self.graph.outputs}

    def tensors(self, images: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Every tensor with a quantizer of its own, input first: canonical name, int8 values."""
        for name, value in self._run(images):
            if self.graph.owner(name) == name:
                yield name, value

    def step(self, node: Node, inputs: list[Tensor]) -> Tensor:
        """One operation on int8 inputs; int8 result. For checking a runtime op by op."""
        return self._step(node, inputs[0].device)(*inputs)

    def _step(self, node: Node, device: torch.device) -> Step:
        steps = self._steps.setdefault(device, {})
        if node.name not in steps:
            inputs = [self.graph.quantizer(name) for name in node.inputs]
            output = self.graph.quantizer(node.name)
            kernels = None if self._by_definition else self._kernels or kernels_for(device)
            steps[node.name] = (
                node.by_definition(inputs, output)
                if kernels is None
                else node.integer(inputs, output, kernels)
            )
        return steps[node.name]

    def _real(self, name: str, value: Tensor) -> Tensor:
        quantizer = self.graph.quantizer(name)
        return (value.float() - quantizer.zero_point) * quantizer.scale

    def _real_result(
        self, node: Node, values: dict[str, Tensor], real: dict[str, Tensor]
    ) -> Tensor:
        """A real output, or what one is made of, from int8 values or from what is real itself."""
        if not any(name in self.graph.unquantized for name in node.inputs):
            if node.name not in self._real_steps:
                inputs = [self.graph.quantizer(name) for name in node.inputs]
                self._real_steps[node.name] = node.real(inputs)
            return self._real_steps[node.name](*(values[name] for name in node.inputs))
        return node.compute(
            [real[name] if name in real else self._real(name, values[name]) for name in node.inputs]
        )

    def _run(
        self, images: Tensor, real: dict[str, Tensor] | None = None
    ) -> Iterator[tuple[str, Tensor]]:
        """Every tensor as int8; the real outputs are put into `real`."""
        source = self.graph.input_name
        quantizer = self.graph.quantizer(source)
        centred = quantize(images.clone(), quantizer)
        values = {source: centred.add_(quantizer.zero_point).to(torch.int8)}
        yield source, values[source]
        for node in self.graph.nodes:
            given = [values.get(name) for name in node.inputs]
            if real is not None and node.name in self._real_names:
                real[node.name] = self._real_result(node, values, real)
            if node.name not in self.graph.unquantized:
                values[node.name] = self._step(node, images.device)(*given)
            for name in self._last_uses.get(node.name, ()):
                values.pop(name, None)
            if node.name in values:
                yield node.name, values[node.name]
