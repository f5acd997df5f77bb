"""What the checks ask of a graph, found in one pass forward and one backward over its nodes.

onnx.checker has seen to it that nodes are in topological order and that names are unique.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgevit.targets.tensorrt.lint.reading import onnx_module, subgraphs

if TYPE_CHECKING:
    import onnx

FLOAT, UINT8, INT8, INT32, FLOAT16, DOUBLE, BFLOAT16 = 1, 2, 3, 6, 10, 11, 16
"""TensorProto.DataType."""

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
MAX_HOPS = 16
MAX_SCALES = 2**20
MAX_RANK = 16

# Operators that move values and change none: TensorRT moves Q and DQ across them.
_MOVES = {
    "Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "Identity", "MaxPool", "Pad",
    "Reshape", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
}  # fmt: skip
_RANDOM = {
    "Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform",
    "RandomUniformLike",
}  # fmt: skip


@dataclass(frozen=True)
class Weight:
    """A dequantized constant on its way into an operator.

    axes    the operator's axis k is axis axes[k] of the tensor that `node` dequantizes, as
            Transpose may lie between; None where the rank is unknown
    """

    node: onnx.NodeProto
    axes: tuple[int, ...] | None


class Graph:
    """A model's main graph, read only.

    opset        version of the default domain
    exposed      tensors read outside of the node list: graph outputs, and what subgraphs read
    constant     tensors that hold the same values in every run
    dequantized  tensors that came out of a DequantizeLinear, possibly moved since
    quantized    integer tensors that came out of a QuantizeLinear or are an int8 graph input
    read_back    tensors whose every reader is a DequantizeLinear, or the outside
    source       tensor -> the node that computed it, Identity and Cast skipped
    weight       tensor -> Weight
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        self.model = model
        self.nodes = list(graph.node)
        self.opset = max(
            (o.version for o in model.opset_import if _is_default(o.domain)), default=1
        )
        self.initializers = {tensor.name: tensor for tensor in graph.initializer}
        self.constant = {*self.initializers, *(t.values.name for t in graph.sparse_initializer)}
        self.exposed = {value.name for value in graph.output} | _captured(self.nodes)
        self.producer: dict[str, onnx.NodeProto] = {}
        self.consumers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in self.nodes:
            self.producer.update((name, node) for name in node.output if name)
            for name in dict.fromkeys(node.input):
                self.consumers[name].append(node)
        self._read_types(graph)
        self.dequantized: set[str] = set()
        self.quantized = {v.name for v in graph.input if self.types.get(v.name) == INT8}
        self.source: dict[str, onnx.NodeProto] = {}
        self.weight: dict[str, Weight] = {}
        for node in self.nodes:
            self._follow(node)
        self.read_back: set[str] = set()
        for node in reversed(self.nodes):
            self.read_back.update(name for name in node.output if name and self._is_read_back(name))

    def of(self, *ops: str) -> Iterator[onnx.NodeProto]:
        """The nodes of these operators."""
        return (node for node in self.nodes if self.op(node) in ops)

    @staticmethod
    def op(node: onnx.NodeProto | None) -> str:
        """The operator's name, behind its domain unless that is ONNX's own; "" for no node."""
        if node is None:
            return ""
        return node.op_type if _is_default(node.domain) else f"{node.domain}::{node.op_type}"

    @staticmethod
    def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
        """An attribute's value."""
        for attribute in node.attribute:
            if attribute.name == name:
                return onnx_module().helper.get_attribute_value(attribute)
        return default

    def source_op(self, name: str) -> str:
        """The operator that computed a tensor, Identity and Cast skipped; "" for none."""
        return self.op(self.source.get(name))

    def rank(self, name: str) -> int | None:
        """The number of a tensor's dimensions, where known."""
        shape = self.shapes.get(name)
        return None if shape is None else len(shape)

    def dequantizer(self, name: str) -> onnx.NodeProto | None:
        """The DequantizeLinear a tensor comes from, Identity and Cast skipped."""
        node = self.source.get(name)
        return node if self.op(node) == DEQUANTIZE else None

    def quantizer(self, dequantize: onnx.NodeProto) -> onnx.NodeProto | None:
        """The QuantizeLinear that a DequantizeLinear reads, Identity skipped."""
        node = self.source.get(dequantize.input[0])
        return node if self.op(node) == QUANTIZE else None

    def quantized_type(self, node: onnx.NodeProto) -> int | None:
        """The integer type of a Q or DQ node as ONNX defines it (TensorProto.DataType)."""
        if self.op(node) == DEQUANTIZE:
            return self.types.get(node.input[0])
        if zero_point := _input(node, 2):
            return self.types.get(zero_point)
        return self.attribute(node, "output_dtype", 0) or UINT8

    def value(self, name: str) -> np.ndarray | None:
        """The values of an initializer or Constant, through Identity and Cast; else None.

        None as well behind more than MAX_HOPS nodes, and for more than MAX_SCALES values.
        """
        casts: list[int] = []
        for _ in range(MAX_HOPS):
            node = self.producer.get(name)
            if node is None:
                tensor = self.initializers.get(name)
                return None if tensor is None else _array(tensor, casts)
            if self.op(node) == "Constant":
                return _array(_constant(node), casts)
            if self.op(node) not in {"Identity", "Cast"}:
                return None
            if self.op(node) == "Cast":
                casts.append(self.attribute(node, "to", 0))
            name = node.input[0]
        return None

    def _read_types(self, graph: onnx.GraphProto) -> None:
        """Element type and shape by tensor, None for a dimension that is not fixed."""
        self.types: dict[str, int] = {}
        self.shapes: dict[str, tuple[int | None, ...]] = {}
        for value in (*graph.value_info, *graph.output, *graph.input):
            tensor = value.type.tensor_type
            if tensor.elem_type:
                self.types[value.name] = tensor.elem_type
            if tensor.HasField("shape"):
                self.shapes[value.name] = tuple(
                    dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim
                )
        for name, tensor in self.initializers.items():
            self.types[name] = tensor.data_type
            self.shapes[name] = tuple(tensor.dims)

    def _follow(self, node: onnx.NodeProto) -> None:
        """Add what is known of a node's outputs from what is known of its inputs."""
        op, outputs = self.op(node), [name for name in node.output if name]
        inputs = [name for name in node.input if name]
        if op == "Constant" or (
            inputs
            and all(name in self.constant for name in inputs)
            and op not in _RANDOM
            and not subgraphs(node)
        ):
            self.constant.update(outputs)
        data = _moved(node, op)
        for name in outputs:
            if op in {"Identity", "Cast"}:
                if origin := self.source.get(node.input[0]):
                    self.source[name] = origin
            else:
                self.source[name] = node
        if op == DEQUANTIZE or (data and all(name in self.dequantized for name in data)):
            self.dequantized.update(outputs)
        if op == QUANTIZE or (op != "Cast" and data and all(n in self.quantized for n in data)):
            self.quantized.update(outputs)
        if outputs and (weight := self._weight_after(node, op)):
            self.weight[outputs[0]] = weight

    def _weight_after(self, node: onnx.NodeProto, op: str) -> Weight | None:
        if op == DEQUANTIZE:
            rank = self.rank(node.input[0])
            axes = tuple(range(rank)) if rank is not None and rank <= MAX_RANK else None
            return Weight(node, axes) if node.input[0] in self.constant else None
        weight = self.weight.get(node.input[0]) if node.input else None
        if weight is None or op not in {"Identity", "Cast", "Transpose"}:
            return None
        if op != "Transpose" or weight.axes is None:
            return weight
        order = self.attribute(node, "perm", tuple(reversed(range(len(weight.axes)))))
        if sorted(order) != list(range(len(weight.axes))):
            return Weight(weight.node, None)
        return Weight(weight.node, tuple(weight.axes[axis] for axis in order))

    def _is_read_back(self, name: str) -> bool:
        readers = self.consumers.get(name, [])
        if not readers:
            return name in self.exposed
        return all(self._reads_back(reader, name) for reader in readers)

    def _reads_back(self, reader: onnx.NodeProto, name: str) -> bool:
        op = self.op(reader)
        if op == DEQUANTIZE:
            return reader.input[0] == name
        if op == "Cast" or name not in _moved(reader, op):
            return False
        live = [o for o in reader.output if o and (self.consumers.get(o) or o in self.exposed)]
        return bool(live) and all(output in self.read_back for output in live)


def _is_default(domain: str) -> bool:
    return domain in {"", "ai.onnx"}


def _input(node: onnx.NodeProto, index: int) -> str:
    return node.input[index] if len(node.input) > index else ""


def _moved(node: onnx.NodeProto, op: str) -> list[str]:
    """The inputs whose values a moving operator (or Cast) passes on; [] for any other."""
    if op == "Concat":
        return list(node.input)
    return list(node.input[:1]) if op in _MOVES or op == "Cast" else []


def _captured(nodes: list[onnx.NodeProto]) -> set[str]:
    """Every name that a node within a subgraph reads, or that one gives out."""
    names: set[str] = set()
    waiting = [graph for node in nodes for graph in subgraphs(node)]
    while waiting:
        graph = waiting.pop()
        names.update(value.name for value in graph.output)
        for node in graph.node:
            names.update(node.input)
            waiting.extend(subgraphs(node))
    return names


def _constant(node: onnx.NodeProto) -> onnx.TensorProto | np.ndarray | None:
    for attribute in node.attribute:
        if attribute.name == "value":
            return attribute.t
        if attribute.name in {"value_float", "value_floats"}:
            return np.array(onnx_module().helper.get_attribute_value(attribute), np.float32)
        if attribute.name in {"value_int", "value_ints"}:
            return np.array(onnx_module().helper.get_attribute_value(attribute), np.int64)
    return None


def _array(tensor: onnx.TensorProto | np.ndarray | None, casts: list[int]) -> np.ndarray | None:
    onnx = onnx_module()
    if tensor is None:
        return None
    try:
        if isinstance(tensor, np.ndarray):
            values = tensor
        elif math.prod(tensor.dims) > MAX_SCALES:
            return None
        else:
            values = onnx.numpy_helper.to_array(tensor)
        with np.errstate(over="ignore", invalid="ignore"):
            for to in reversed(casts):
                values = values.astype(onnx.helper.tensor_dtype_to_np_dtype(to))
    # Values that are damaged (too few, of no known type) are no values.
    except (ValueError, TypeError, KeyError, OverflowError):
        return None
    return values
