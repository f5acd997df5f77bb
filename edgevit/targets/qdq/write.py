"""Graph to an ONNX model, node by node: what every target that writes QDQ ONNX shares.

    Given   conv2d "stem.conv1" -> gelu "stem.act1", both quantized
    Result  DequantizeLinear "stem.conv1.weight.dq" (int8 weights, axis 0), Conv "stem.conv1",
            Gelu "stem.act1", QuantizeLinear "stem.act1.q", DequantizeLinear "stem.act1.dq"

A float tensor has its canonical name, its quantized form ".q" behind it and the dequantized one
".dq". Where pairs stand, and what the model's input and outputs are, is each target's: it derives
a class from `Writer`. The operators are in `emit`.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from edgevit.errors import InputError
from edgevit.graph import Graph, float_graph
from edgevit.ops import Node, Relu, Weighted
from edgevit.program import Program
from edgevit.targets.qdq.emit import EMITTERS
from edgevit.targets.qdq.toolkit import METADATA_PREFIX, onnx

OPSET, IR_VERSION = 20, 10
OUTPUT_NAME = "logits"


def model_metadata(program: Program) -> dict[str, str]:
    """A model's properties: what it was made of, and how pictures and answers are meant."""
    info = program.info
    values = {
        "program_sha256": program.sha256,
        "labels": json.dumps(list(info.labels), ensure_ascii=False),
        "preprocessing": json.dumps(info.preprocessing.to_json()),
    }
    return {METADATA_PREFIX + key: value for key, value in values.items()}


def output_names(graph: Graph, label: str = OUTPUT_NAME) -> dict[str, str]:
    """The graph's outputs -> their names in the model.

    label  of an only output without a name of its author's; one of several, and an only one where
           the net itself calls something so, is "NAME.output"
    """
    if graph.given_names:
        return dict(zip(graph.outputs, graph.given_names, strict=True))
    taken = {*graph.tensors(), *(node.module for node in graph.weighted())}
    if len(graph.outputs) == 1 and label not in taken:
        return {graph.outputs[0]: label}
    return {name: f"{name}.output" for name in graph.outputs}


class Writer(ABC):
    """A graph on its way to a model.

    real     element type of what is not quantized
    io       element type of the model's input and outputs
    outputs  the graph's output -> the model's name of it
    Raises InputError naming a tensor without a quantizer, ToolMissing without onnx.
    """

    target: ClassVar[str]
    """In messages."""

    def __init__(
        self,
        graph: Graph,
        *,
        quantized: bool,
        real: np.dtype,
        io: np.dtype,
        outputs: Mapping[str, str],
        opset: int = OPSET,
    ) -> None:
        self.onnx, self.real_type, self.io, self.opset = onnx(), real, io, opset
        graph.activations()  # names a tensor without a quantizer
        self.graph = graph if quantized else float_graph(graph)
        self.outputs = outputs
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self.known: set[str] = set()
        self.values: dict[str, str] = {}  # canonical name -> tensor that its readers read

    def run(self, name: str, metadata: Mapping[str, str]) -> bytes:
        """The bytes of the model; the same graph is the same bytes.

        name      of the ONNX graph
        metadata  for the model's properties
        Raises InputError naming an operation that the target does not know, or cannot hold.
        """
        helper, graph = self.onnx.helper, self.graph
        self.begin()
        for node in graph.nodes:
            emit = EMITTERS.get(type(node))
            if emit is None:
                raise InputError(
                    f"{node.name}: the {self.target} target does not know {node.kind!r}"
                )
            self.finish(node, emit(self, node))
        made = helper.make_graph(
            self.nodes,
            name,
            [self._edge(graph.input_name, graph.input_name, self.io)],
            [
                self._edge(self.outputs[output], output, self.output_type(output))
                for output in graph.outputs
            ],
            self.initializers,
        )
        opset = helper.make_opsetid("", self.opset)
        model = helper.make_model(made, opset_imports=[opset], producer_name="edgevit")
        model.ir_version = IR_VERSION
        helper.set_model_props(model, dict(metadata))
        return model.SerializeToString(deterministic=True)

    def _edge(self, own: str, name: str, element: np.dtype) -> Any:
        kind = self.onnx.helper.np_dtype_to_tensor_dtype(element)
        return self.onnx.helper.make_tensor_value_info(own, kind, self.graph.shape(name))

    # -- what each target decides ---------------------------------------------------------------

    def output_type(self, name: str) -> np.dtype:
        """The element type of an output."""
        return self.io

    @abstractmethod
    def begin(self) -> None:
        """Sets `values` of the graph's input, behind what stands between the model's and it."""

    @abstractmethod
    def finish(self, node: Node, value: str) -> None:
        """Sets `values` of a node, behind its pair; of an output, gives it its type and name.

        value  the tensor that the node's operator makes
        """

    def bias(self, node: Weighted) -> str:
        """The tensor of a bias."""
        return self.real(f"{node.module}.bias", node.bias)

    def raw_name(self, node: Weighted) -> str:
        """The name of a convolution whose fused clamp has the node's name."""
        return node.module if node.module != node.name else f"{node.module}.raw"

    def before_clamp(self, node: Weighted, value: str) -> str:
        """What stands between a convolution and the clamp that is fused behind it."""
        return value

    # -- what the emitters use ------------------------------------------------------------------

    def read(self, node: Node) -> list[str]:
        """The tensors that a node reads."""
        return [self.values[name] for name in node.inputs]

    def constant(self, name: str, values: np.ndarray) -> str:
        """A constant of the file; the same name is the same constant."""
        if name not in self.known:
            self.known.add(name)
            self.initializers.append(self.onnx.numpy_helper.from_array(values, name))
        return name

    def integers(self, name: str, *values: int) -> str:
        """A constant of int64."""
        return self.constant(name, np.array(values, np.int64))

    def real(self, name: str, values: np.ndarray | float) -> str:
        """A constant of the type of what is not quantized."""
        return self.constant(name, np.asarray(values).astype(self.real_type))

    def node(
        self, kind: str, inputs: list[str], name: str, output: str | None = None, **attributes: Any
    ) -> str:
        """Appends an ONNX node and returns the tensor that it makes."""
        output = name if output is None else output
        self.nodes.append(
            self.onnx.helper.make_node(kind, inputs, [output], name=name, **attributes)
        )
        return output

    def weight(self, node: Weighted) -> str:
        """The weight as real numbers, behind its own dequantize where it is int8."""
        name = f"{node.module}.weight"
        if not self.graph.quantized:
            return self.real(name, node.weight)
        inputs = [
            self.constant(f"{name}.q", node.weight),
            self.real(f"{name}.scale", node.weight_scale),
            self.constant(f"{name}.zero_point", np.zeros(node.channels, np.int8)),
        ]
        return self.node("DequantizeLinear", inputs, f"{name}.dq", axis=node.channel_axis)

    def weighted(self, node: Weighted, kind: str, **attributes: Any) -> str:
        """A convolution or linear, and the activation that is fused behind it."""
        weight = self.weight(node)
        inputs = [*self.read(node), weight, self.bias(node)]
        if node.activation is None:
            return self.node(kind, inputs, node.module, **attributes)
        raw = self.node(kind, inputs, self.raw_name(node), **attributes)
        value = self.before_clamp(node, raw)
        return self.clamp(node.activation, value, node.name)

    def clamp(self, kind: type[Node], value: str, name: str) -> str:
        """ReLU, or Clip for ReLU6."""
        if kind is Relu:
            return self.node("Relu", [value], name)
        bounds = [self.real("relu6.min", 0.0), self.real("relu6.max", 6.0)]
        return self.node("Clip", [value, *bounds], name)
