"""An ONNX model as the graph that it holds, by onnx's own reader; nothing of `write` is used.

A tensor is known by the node that makes its real values: that node's name is the canonical name.
Q and DQ give it a quantizer, and a Relu or Clip right behind a convolution is the convolution's
activation. What a target's file has besides, its own class reads. The operators are in `operators`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from edgevit.errors import EdgevitError, InputError
from edgevit.graph import INPUT, Graph
from edgevit.graph.diff import Stored, differs
from edgevit.graph.norm_form import NormForm
from edgevit.ops import (
    INT8_MIN,
    FloatWeights,
    Int8Weights,
    Node,
    Quantizer,
    Relu,
    Relu6,
    Weighted,
)
from edgevit.targets.base import Reading
from edgevit.targets.qdq.operators import READERS
from edgevit.targets.qdq.operators_norm import norms
from edgevit.targets.qdq.toolkit import METADATA_PREFIX, onnx

_UNREADABLE = (LookupError, ValueError, TypeError, AttributeError, ArithmeticError)
"""What reading a node raises that has not the inputs or attributes that it should have."""


@dataclass(frozen=True)
class Value:
    """A tensor of the file: whose real values it has, and how it is quantized.

    kind  the element type of a quantized one, int8 or uint8
    raw   whether they are what the operation made, not rounded to int8
    """

    name: str
    quantizer: Quantizer | None = None
    kind: np.dtype | None = None
    raw: bool = False


@dataclass(frozen=True)
class Constant:
    """An integer constant of the file behind its DequantizeLinear."""

    values: np.ndarray
    scale: np.ndarray
    axis: int


class Reader:
    """The graph that is read so far. `read` is the way in."""

    integers_of_pairs: ClassVar[tuple[type[np.integer[Any]], ...]] = (np.int8,)
    """Element types that a quantized activation may have."""

    def __init__(self, model: Any) -> None:
        self.package, self.model = onnx(), model
        self.constants = {
            tensor.name: self.package.numpy_helper.to_array(tensor)
            for tensor in model.graph.initializer
        }
        self.values: dict[str, Value] = {}
        self.weights: dict[str, Constant] = {}
        self.nodes: dict[str, Node] = {}
        self.quantizers: dict[str, Quantizer] = {}
        self.tensors: dict[str, str] = {}
        self.real_types: dict[str, np.dtype] = {}
        self.reads = Counter(name for node in model.graph.node for name in node.input)
        self.results = {value.name for value in model.graph.output}
        self.norms: dict[str, NormForm] = {}

    @classmethod
    def read(cls, data: bytes) -> Reading:
        """What the bytes of an ONNX file hold.

        Raises EdgevitError naming the node or tensor that is no part of a quantized graph.
        """
        package = onnx()
        from google.protobuf.message import DecodeError

        try:
            model = package.load_model_from_string(data)
            package.checker.check_model(model)
            return cls(model).run()
        except InputError as error:  # of the graph's own checks, which name the tensor
            raise EdgevitError(f"scale audit: {error}; the artifact was not kept") from error
        except (DecodeError, package.checker.ValidationError, *_UNREADABLE) as error:
            raise EdgevitError(f"scale audit: the file is not a readable model: {error}") from error

    def run(self) -> Reading:
        """Reads every node of the file in turn."""
        names = Counter(record.name for record in self.model.graph.node if record.name)
        if twice := [name for name, count in names.items() if count > 1]:
            raise differs(twice[0], "two nodes have this name")
        source = self._source()
        self.norms = norms(self)
        inside = {name for norm in self.norms.values() for name in norm.inside}
        self.begin(source)
        for record in self.model.graph.node:
            if len(record.output) != 1 or record.domain:
                raise differs(record.name, f"{record.op_type} is not part of the program")
            if record.output[0] not in inside:
                self.record(record, record.output[0])
        outputs = [self.output(value) for value in self.model.graph.output]
        shape = tuple(side.dim_value for side in source.type.tensor_type.shape.dim)
        real = {
            self.values[value.name].name
            for value in self.model.graph.output
            if self.quantizers and self.values[value.name].raw
        }
        nodes = tuple(self.nodes.values())
        graph = Graph(shape, nodes, tuple(outputs), real_outputs=frozenset(real))
        for value, name in zip(self.model.graph.output, outputs, strict=True):
            found = tuple(side.dim_value for side in value.type.tensor_type.shape.dim)
            if found != graph.shape(name):
                raise differs(name, f"the output has shape {found}, made {graph.shape(name)}")
        metadata = self.metadata()
        return Reading(
            graph=graph,
            quantizers=self.quantizers,
            operators=Counter(node.op_type for node in self.model.graph.node),
            tensors=self.tensors,
            stored=Stored(real_types=self.real_types, integer_biases=False),
            outputs=tuple(value.name for value in self.model.graph.output),
            program_sha256=metadata.get("program_sha256", ""),
            labels=tuple(json_of(metadata, "labels") or ()),
            preprocessing=json_of(metadata, "preprocessing") or {},
        )

    def metadata(self) -> dict[str, str]:
        """The model's properties of ours, without their prefix."""
        rows = {row.key: row.value for row in self.model.metadata_props}
        prefix = METADATA_PREFIX
        return {k.removeprefix(prefix): v for k, v in rows.items() if k.startswith(prefix)}

    def _source(self) -> Any:
        inputs = [value for value in self.model.graph.input if value.name not in self.constants]
        if len(inputs) != 1:
            raise differs(INPUT, f"the model takes {[value.name for value in inputs]}")
        return inputs[0]

    # -- what a target may read otherwise ---------------------------------------------------------

    def begin(self, source: Any) -> None:
        """The model's input: here it has the graph's real values."""
        self.values[source.name] = Value(INPUT)
        self.tensors[INPUT] = source.name

    def output(self, value: Any) -> str:
        """Whose values an output of the model has: here they are real."""
        return self.real(value.name, value.name)

    def record(self, record: Any, output: str) -> None:
        """One node of the file, which makes the tensor `output`."""
        if record.op_type == "QuantizeLinear":
            self.quantize(record, output)
        elif record.op_type == "DequantizeLinear":
            self.dequantize(record, output)
        else:
            self._operation(record, output)

    def quantize(self, record: Any, output: str) -> None:
        """A QuantizeLinear of an activation."""
        name = self.real(record.input[0], record.name)
        if name in self.quantizers:
            raise differs(name, "it is quantized twice")
        quantizer, kind = self.pair(record, name)
        self.quantizers[name], self.tensors[name] = quantizer, output
        self.values[output] = Value(name, quantizer, kind)

    def dequantize(self, record: Any, output: str) -> None:
        """A DequantizeLinear of an activation, or of a constant."""
        source = record.input[0]
        if source in self.constants:
            self.constant_behind(record, output)
            return
        value = self.values.get(source)
        if value is None or value.quantizer is None:
            raise differs(record.name, f"it dequantizes {source}, which is not quantized")
        quantizer, kind = self.pair(record, value.name)
        if not value.quantizer.same_values(quantizer) or kind != value.kind:
            raise differs(value.name, "DequantizeLinear has another scale or zero-point")
        self.values[output] = Value(value.name)

    def constant_behind(self, record: Any, output: str) -> None:
        """A DequantizeLinear of a constant: here a weight's."""
        where = record.input[0].removesuffix(".q")
        values, scale, zero_point = (self.constant(each, where) for each in record.input)
        if values.dtype != np.int8:
            raise differs(where, f"its values are {values.dtype}, not int8")
        if zero_point.dtype != np.int8 or zero_point.any() or zero_point.shape != scale.shape:
            raise differs(where, "has a zero-point that is not 0 or not int8")
        self.weights[output] = Constant(values, scale, self.axis(record, where))

    def axis(self, record: Any, where: str) -> int:
        """Along which axis of a constant its scales lie."""
        found = self.attributes(record)
        if set(found) - {"axis"}:
            raise differs(where, f"{record.op_type} has the attributes {found}")
        return found.get("axis", 1)

    def bias(self, record: Any) -> np.ndarray:
        """The real bias that a node reads, as the file holds it."""
        return self.constant(record.input[2], f"{record.name}.bias")

    def is_raw(self, record: Any, maker: Weighted) -> bool:
        """Whether a clamp is the activation of the convolution that it reads."""
        return self.reads[record.input[0]] == 1 and maker.name not in self.quantizers

    # -- what the readers use -------------------------------------------------------------------

    def pair(self, record: Any, name: str) -> tuple[Quantizer, np.dtype]:
        """The quantizer of a Q or DQ, as one of int8, and the element type that it has."""
        scale, zero_point = (self.constant(each, name) for each in record.input[1:])
        known = zero_point.dtype in self.integers_of_pairs
        if scale.shape != () or zero_point.shape != () or not known:
            raise differs(name, f"{record.op_type} has scale {scale}, zero-point {zero_point}")
        if not np.isfinite(scale) or scale <= 0:
            raise differs(name, f"{record.op_type} has scale {scale}")
        if found := self.attributes(record):
            raise differs(name, f"{record.op_type} has the attributes {found}")
        shift = INT8_MIN if zero_point.dtype == np.uint8 else 0
        try:
            return Quantizer(float(scale), int(zero_point) + shift), zero_point.dtype
        except InputError as error:
            raise differs(name, f"{record.op_type}: {error}") from error

    def _operation(self, record: Any, output: str) -> None:
        read, norm = READERS.get(record.op_type), self.norms.get(output)
        made: Node
        if norm is not None:
            self.real_types[record.name] = np.dtype(np.float32)
            made = norm.node(record.name, self.real(norm.source, record.name))
        elif read is not None:
            made = read(self, record)
        else:
            raise differs(record.name, f"{record.op_type} is not part of the program")
        if made.name in self.nodes or made.name == INPUT:
            raise differs(made.name, "two nodes have this name")
        self.nodes[made.name] = made
        read_raw = any(self.values[each].raw for each in record.input if each in self.values)
        self.values[output] = Value(made.name, raw=made.requantizes or read_raw)
        self.tensors.setdefault(made.name, output)

    def inputs(self, record: Any, count: int = 1) -> tuple[str, ...]:
        """The canonical names of the first inputs of a node."""
        return tuple(self.real(name, record.name) for name in record.input[:count])

    def attributes(self, record: Any) -> dict[str, Any]:
        """A node's attributes; texts decoded, lists as tuples."""
        read = self.package.helper.get_attribute_value
        found = {each.name: read(each) for each in record.attribute}
        plain = {n: v.decode() if isinstance(v, bytes) else v for n, v in found.items()}
        return {n: tuple(v) if isinstance(v, list) else v for n, v in plain.items()}

    def constant(self, name: str, where: str) -> np.ndarray:
        """A constant of the file."""
        if name not in self.constants:
            raise differs(where, f"{name} is not a constant of the file")
        return self.constants[name]

    def integers(self, record: Any, place: int) -> list[int]:
        """The int64 constant that a node reads at a place."""
        return [int(v) for v in self.constant(record.input[place], record.name).reshape(-1)]

    def weighted(self, record: Any, kind: type[Weighted], **attributes: Any) -> Weighted:
        """A convolution or linear of the node's weight and bias."""
        weight, bias = record.input[1], self.bias(record)
        name, module = record.name, weight.removesuffix(".dq").removesuffix(".weight")
        weights: FloatWeights | Int8Weights
        if (found := self.weights.get(weight)) is not None:
            if found.axis != kind.channel_axis:
                raise differs(f"{name}.weight", "is not quantized per output channel")
            weights = self.int8_weights(record, found, bias)
        else:
            self.real_types[name] = bias.dtype
            values = self.constant(weight, f"{name}.weight")
            weights = FloatWeights(values.astype(np.float32), bias.astype(np.float32))
        return kind(
            name=name, inputs=self.inputs(record), module=module, weights=weights, **attributes
        )

    def int8_weights(self, record: Any, weight: Constant, bias: np.ndarray) -> Int8Weights:
        """Weights of a quantized operation: here the bias is a real number."""
        self.real_types[record.name] = bias.dtype
        units = np.zeros(bias.shape, np.int32)
        scale = weight.scale.astype(np.float32)
        return Int8Weights(weight.values, scale, units, bias.astype(np.float32))

    def clamp(self, record: Any, kind: type[Relu] | type[Relu6]) -> Node:
        """An activation: fused where it alone reads a convolution's raw values."""
        (source,) = self.inputs(record)
        maker = self.nodes.get(source)
        is_output = record.input[0] in self.results
        fits = isinstance(maker, Weighted) and maker.activation is None and not is_output
        if isinstance(maker, Weighted) and fits and self.is_raw(record, maker):
            del self.nodes[source]
            if source in self.real_types:
                self.real_types[record.name] = self.real_types.pop(source)
            self.tensors.pop(source, None)
            return replace(maker, name=record.name, activation=kind)
        return kind(name=record.name, inputs=(source,))

    def real(self, tensor: str, where: str) -> str:
        """Whose real values a tensor of the file has."""
        value = self.values.get(tensor)
        if value is None:
            raise differs(where, f"it reads {tensor}, which is no tensor of the program")
        if value.quantizer is not None:
            raise differs(value.name, f"{where} reads it quantized")
        return value.name


def json_of(metadata: Mapping[str, str], key: str) -> Any:
    """A property of the model as JSON; None where it is none."""
    try:
        return json.loads(metadata.get(key, "null"))
    except ValueError:
        return None
