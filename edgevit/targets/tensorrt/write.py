"""Graph to a QDQ ONNX (opset 20), as TensorRT's explicit INT8 quantization wants it.

TensorRT 11 is strongly typed: what is float here is float there, so all of it is float16 unless
asked otherwise. A pair stands where a value is rounded to its grid; an operation that only moves
values (flatten, concat, max_pool2d) hands on what was dequantized. `qdq.write` has the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from edgevit.errors import InputError
from edgevit.graph import Graph
from edgevit.ops import Node
from edgevit.targets.qdq.write import Writer


@dataclass(frozen=True)
class Form:
    """What an ONNX of a graph is like.

    inner, outer  element types of what is float inside, and of the input and outputs
    outputs       the graph's output -> the model's name of it
    dropped       canonical names of the quantizers that are left out
    quantized     False: no quantizer, and float weights
    """

    inner: np.dtype
    outer: np.dtype
    outputs: Mapping[str, str]
    dropped: Mapping[str, str] = field(default_factory=dict)
    quantized: bool = True


def write_onnx(graph: Graph, form: Form, name: str, metadata: Mapping[str, str]) -> bytes:
    """The ONNX file of a quantized graph; the same graph is the same bytes.

    name      of the ONNX graph
    metadata  for the model's properties
    Raises InputError naming a tensor without a quantizer or one whose zero-point the target
    cannot hold, or an operation that it does not know; ToolMissing without onnx.
    """
    return _Writer(graph, form).run(name, metadata)


class _Writer(Writer):
    target = "TensorRT"

    def __init__(self, graph: Graph, form: Form) -> None:
        super().__init__(
            graph,
            quantized=form.quantized,
            real=form.inner,
            io=form.outer,
            outputs=form.outputs,
        )
        self.dropped = form.dropped

    def begin(self) -> None:
        self._finish(self.graph.input_name, self.graph.input_name, self.io, True)

    def finish(self, node: Node, value: str) -> None:
        made = np.dtype(np.float32) if node.runs_in_float else self.real_type
        self._finish(node.name, value, made, node.requantizes)

    def _finish(self, name: str, value: str, before: np.dtype, requantizes: bool) -> None:
        """Behind an operation: its pair, if it has one; for an output, its type and name."""
        if self.graph.quantized and name in self.graph.real_outputs:
            self._edge_of(name, value, before, self.io)
            self.values[name] = value
            if name not in {*self.graph.unquantized, *self.dropped}:
                self._pair(name, value, before, self.real_type, None)
            return
        requantizes = requantizes and name not in self.graph.unquantized
        after = self.io if name in self.outputs else self.real_type
        output = self.outputs.get(name)
        if self.graph.quantized and requantizes and name not in self.dropped:
            self._pair(name, value, before, after, output)
        elif before == after and output is None:
            self.values[name] = value
        else:
            self._edge_of(name, value, before, after)

    def _edge_of(self, name: str, value: str, before: np.dtype, after: np.dtype) -> None:
        """A tensor in the type of the model's edges, under an output's name where it is one."""
        output = self.outputs.get(name)
        kind = self.onnx.helper.np_dtype_to_tensor_dtype(after)
        self.values[name] = self.node("Cast", [value], f"{name}.cast", output=output, to=kind)

    def _pair(
        self, name: str, value: str, before: np.dtype, after: np.dtype, output: str | None
    ) -> None:
        quantizer = self.graph.quantizer(name)
        if quantizer.zero_point:
            raise InputError(
                f"{name}: zero-point {quantizer.zero_point}; TensorRT's INT8 is symmetric, and a "
                "sigmoid's pair can be left out only where nothing but a product reads it"
            )
        zero_point = self.constant("zero", np.zeros((), np.int8))
        scale = self._scale(name, quantizer.scale, before)
        inner = self.node("QuantizeLinear", [value, scale, zero_point], f"{name}.q")
        inputs = [inner, self._scale(name, quantizer.scale, after), zero_point]
        output = output or f"{name}.dq"
        self.values[name] = self.node("DequantizeLinear", inputs, f"{name}.dq", output=output)

    def _scale(self, name: str, scale: float, kind: np.dtype) -> str:
        return self.constant(f"{name}.scale.{kind.name}", np.array(scale, kind))
