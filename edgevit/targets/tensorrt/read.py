"""A QDQ ONNX as the graph that it holds, by onnx's own reader; nothing of `write` is used.

A tensor is known by the node that makes its real values: that node's name is the canonical name.
Q and DQ give it a quantizer, a cast changes nothing, and a Relu or Clip right behind a convolution
is the convolution's activation.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgevit.errors import EdgevitError, InputError
from edgevit.graph import INPUT, Graph
from edgevit.graph.diff import Stored, differs
from edgevit.ops import (
    Add,
    AvgPool2d,
    Concat,
    Conv2d,
    ConvTranspose2d,
    Flatten,
    FloatWeights,
    Gelu,
    HardSigmoid,
    HardSwish,
    Int8Weights,
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
    Sigmoid,
    Slice,
    Softmax,
    Tanh,
    Weighted,
)
from edgevit.targets.base import Reading
from edgevit.targets.tensorrt.toolkit import onnx

METADATA_PREFIX = "edgevit."


def read_onnx(data: bytes) -> Reading:
    """What the bytes of an ONNX file hold.

    Raises EdgevitError naming the node or tensor that is no part of a quantized graph.
    """
    package = onnx()
    from google.protobuf.message import DecodeError

    try:
        model = package.load_model_from_string(data)
        package.checker.check_model(model)
        return _Reader(model).run()
    except InputError as error:  # of the graph's own checks, which name the tensor
        raise EdgevitError(f"scale audit: {error}; the artifact was not kept") from error
    except (DecodeError, package.checker.ValidationError, ValueError, TypeError) as error:
        raise EdgevitError(f"scale audit: the file is not a readable model: {error}") from error


@dataclass(frozen=True)
class _Value:
    """A tensor of the file: whose real values it has, and whether as int8 (`quantizer`)."""

    name: str
    quantizer: Quantizer | None = None


class _Reader:
    def __init__(self, model: Any) -> None:
        self.package, self.model = onnx(), model
        self.constants = {
            tensor.name: self.package.numpy_helper.to_array(tensor)
            for tensor in model.graph.initializer
        }
        self.values: dict[str, _Value] = {}
        self.weights: dict[str, tuple[np.ndarray, np.ndarray, int]] = {}  # values, scale, axis
        self.nodes: dict[str, Node] = {}
        self.quantizers: dict[str, Quantizer] = {}
        self.tensors: dict[str, str] = {}
        self.real_types: dict[str, np.dtype] = {}
        self.reads = Counter(name for node in model.graph.node for name in node.input)

    def run(self) -> Reading:
        (source,) = self._edges(self.model.graph.input)
        self.values[source.name] = _Value(INPUT)
        self.tensors[INPUT] = source.name
        for record in self.model.graph.node:
            self._record(record)
        outputs = [self._real(value.name, value.name) for value in self.model.graph.output]
        shape = tuple(side.dim_value for side in source.type.tensor_type.shape.dim)
        graph = Graph(shape, tuple(self.nodes.values()), tuple(outputs))
        for value, name in zip(self.model.graph.output, outputs, strict=True):
            found = tuple(side.dim_value for side in value.type.tensor_type.shape.dim)
            if found != graph.shape(name):
                raise differs(name, f"the output has shape {found}, made {graph.shape(name)}")
        metadata = {row.key: row.value for row in self.model.metadata_props}
        return Reading(
            graph=graph,
            quantizers=self.quantizers,
            operators=Counter(node.op_type for node in self.model.graph.node),
            tensors=self.tensors,
            stored=Stored(real_types=self.real_types, integer_biases=False),
            outputs=tuple(value.name for value in self.model.graph.output),
            program_sha256=metadata.get(METADATA_PREFIX + "program_sha256", ""),
            labels=tuple(_json(metadata, "labels") or ()),
            preprocessing=_json(metadata, "preprocessing") or {},
        )

    def _edges(self, found: Any) -> list[Any]:
        inputs = [value for value in found if value.name not in self.constants]
        if len(inputs) != 1:
            raise differs(INPUT, f"the model takes {[value.name for value in inputs]}")
        return inputs

    # -- one node of the file -------------------------------------------------------------------

    def _record(self, record: Any) -> None:
        if len(record.output) != 1 or record.domain:
            raise differs(record.name, f"{record.op_type} is not part of the program")
        (output,) = record.output
        if record.op_type == "QuantizeLinear":
            self._quantize(record, output)
        elif record.op_type == "DequantizeLinear":
            self._dequantize(record, output)
        elif record.op_type == "Cast":
            name = self._real(record.input[0], record.name)
            self._check_cast(record, output, name)
            self.values[output] = _Value(name)
        else:
            self._operation(record, output)

    def _check_cast(self, record: Any, output: str, name: str) -> None:
        """A cast is to a float type, and to the one that an output says it has."""
        declared = {v.name: v.type.tensor_type.elem_type for v in self.model.graph.output}
        kinds = self.package.TensorProto
        found = self.attributes(record)
        allowed = (declared[output],) if output in declared else (kinds.FLOAT, kinds.FLOAT16)
        if set(found) != {"to"} or found["to"] not in allowed:
            raise differs(name, f"Cast has the attributes {found}")

    def _quantize(self, record: Any, output: str) -> None:
        name = self._real(record.input[0], record.name)
        quantizer = self._pair(record, name)
        if name in self.quantizers:
            raise differs(name, "it is quantized twice")
        self.quantizers[name], self.tensors[name] = quantizer, output
        self.values[output] = _Value(name, quantizer)

    def _dequantize(self, record: Any, output: str) -> None:
        source = record.input[0]
        if source in self.constants:
            self._weight(record, output)
            return
        value = self.values.get(source)
        if value is None or value.quantizer is None:
            raise differs(record.name, f"it dequantizes {source}, which is not quantized")
        if not value.quantizer.same_values(self._pair(record, value.name)):
            raise differs(value.name, "DequantizeLinear has another scale or zero-point")
        self.values[output] = _Value(value.name)

    def _pair(self, record: Any, name: str) -> Quantizer:
        scale, zero_point = (self.constant(each, name) for each in record.input[1:])
        if scale.shape != () or zero_point.shape != () or zero_point.dtype != np.int8:
            raise differs(name, f"{record.op_type} has scale {scale}, zero-point {zero_point}")
        if not np.isfinite(scale) or scale <= 0:
            raise differs(name, f"{record.op_type} has scale {scale}")
        try:
            return Quantizer(float(scale), int(zero_point))
        except InputError as error:
            raise differs(name, f"{record.op_type}: {error}") from error

    def _weight(self, record: Any, output: str) -> None:
        where = record.input[0].removesuffix(".q")
        values, scale, zero_point = (self.constant(each, where) for each in record.input)
        if values.dtype != np.int8:
            raise differs(where, f"its values are {values.dtype}, not int8")
        if zero_point.dtype != np.int8 or zero_point.any():
            raise differs(where, "has a zero-point that is not 0 or not int8")
        self.weights[output] = (values, scale, self.attributes(record).get("axis", 1))

    def _operation(self, record: Any, output: str) -> None:
        read = READERS.get(record.op_type)
        if read is None:
            raise differs(record.name, f"{record.op_type} is not part of the program")
        made = read(self, record)
        if made.name in self.nodes or made.name == INPUT:
            raise differs(made.name, "two nodes have this name")
        self.nodes[made.name] = made
        self.values[output] = _Value(made.name)
        self.tensors.setdefault(made.name, output)

    # -- what the readers use -------------------------------------------------------------------

    def inputs(self, record: Any, count: int = 1) -> tuple[str, ...]:
        """The canonical names of the first inputs of a node."""
        return tuple(self._real(name, record.name) for name in record.input[:count])

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
        weight, bias = record.input[1], self.constant(record.input[2], f"{record.name}.bias")
        name, module = record.name, weight.removesuffix(".dq").removesuffix(".weight")
        self.real_types[name] = bias.dtype
        real = bias.astype(np.float32)
        weights: FloatWeights | Int8Weights
        if weight in self.weights:
            values, scale, axis = self.weights[weight]
            if axis != kind.channel_axis:
                raise differs(f"{name}.weight", "is not quantized per output channel")
            units = np.zeros(bias.shape, np.int32)
            weights = Int8Weights(values, scale.astype(np.float32), units, real)
        else:
            values = self.constant(weight, f"{name}.weight")
            weights = FloatWeights(values.astype(np.float32), real)
        return kind(
            name=name, inputs=self.inputs(record), module=module, weights=weights, **attributes
        )

    def clamp(self, record: Any, kind: type[Relu] | type[Relu6]) -> Node:
        """An activation: fused where it alone reads a convolution's raw values."""
        (source,) = self.inputs(record)
        maker = self.nodes.get(source)
        raw = self.reads[record.input[0]] == 1 and source not in self.quantizers
        is_output = record.input[0] in {value.name for value in self.model.graph.output}
        if isinstance(maker, Weighted) and maker.activation is None and raw and not is_output:
            del self.nodes[source]
            self.real_types[record.name] = self.real_types.pop(source)
            self.tensors.pop(source, None)
            return replace(maker, name=record.name, activation=kind)
        return kind(name=record.name, inputs=(source,))

    def _real(self, tensor: str, where: str) -> str:
        value = self.values.get(tensor)
        if value is None:
            raise differs(where, f"it reads {tensor}, which is no tensor of the program")
        if value.quantizer is not None:
            raise differs(value.name, f"{where} reads it as int8")
        return value.name


def _json(metadata: Mapping[str, str], key: str) -> Any:
    try:
        return json.loads(metadata.get(METADATA_PREFIX + key, "null"))
    except ValueError:
        return None


def _expect(record: Any, found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Raises EdgevitError unless a node has these attributes and no others."""
    if dict(found) != dict(expected):
        raise differs(record.name, f"has the attributes {dict(found)}, expected {dict(expected)}")


def _sides(record: Any, pads: tuple[int, ...]) -> tuple[int, int]:
    top, left, bottom, right = pads
    if (top, left) != (bottom, right):
        raise differs(record.name, f"padding {pads} differs from side to side")
    return top, left


def _simple(kind: type[Node], count: int = 1, **expected: Any) -> Callable[[_Reader, Any], Node]:
    """An operator of inputs alone, with attributes that are always these."""

    def read(reader: _Reader, record: Any) -> Node:
        found = reader.attributes(record)
        if set(found) != set(expected) or any(
            not np.isclose(found[key], value) if isinstance(value, float) else found[key] != value
            for key, value in expected.items()
        ):
            raise differs(record.name, f"has the attributes {found}, expected {expected}")
        if len(record.input) != count:
            raise differs(record.name, f"{record.op_type} of {len(record.input)} tensors")
        return kind(name=record.name, inputs=reader.inputs(record, count))

    return read


def _gelu(reader: _Reader, record: Any) -> Node:
    if reader.attributes(record).get("approximate", "none") != "none":
        raise differs(record.name, "GELU is the approximate one")
    return Gelu(name=record.name, inputs=reader.inputs(record))


def _conv(reader: _Reader, record: Any) -> Node:
    found = reader.attributes(record)
    node = reader.weighted(
        record,
        Conv2d,
        stride=found.get("strides", (1, 1)),
        padding=_sides(record, found.get("pads", (0, 0, 0, 0))),
        dilation=found.get("dilations", (1, 1)),
        groups=found.get("group", 1),
    )
    known = {"kernel_shape", "strides", "pads", "dilations", "group"}
    _expect_kernel(record, found, known, node)
    return node


def _conv_transpose(reader: _Reader, record: Any) -> Node:
    found = reader.attributes(record)
    node = reader.weighted(
        record,
        ConvTranspose2d,
        stride=found.get("strides", (1, 1)),
        padding=_sides(record, found.get("pads", (0, 0, 0, 0))),
        output_padding=found.get("output_padding", (0, 0)),
    )
    known = {"kernel_shape", "strides", "pads", "output_padding", "group"}
    _expect_kernel(record, found, known, node)
    if found.get("group", 1) != 1:
        raise differs(record.name, f"{found['group']} groups of a transposed convolution")
    return node


def _expect_kernel(record: Any, found: Mapping[str, Any], known: set[str], node: Weighted) -> None:
    kernel = node.weight.shape[2:]
    if set(found) - known or found.get("kernel_shape", kernel) != kernel:
        raise differs(record.name, f"has the attributes {dict(found)} for a kernel of {kernel}")


def _gemm(reader: _Reader, record: Any) -> Node:
    _expect(record, reader.attributes(record), {"transB": 1})
    return reader.weighted(record, Linear)


def _relu(reader: _Reader, record: Any) -> Node:
    return reader.clamp(record, Relu)


def _clip(reader: _Reader, record: Any) -> Node:
    bounds = [float(reader.constant(each, record.name)) for each in record.input[1:]]
    if bounds != [0.0, 6.0]:
        raise differs(record.name, f"it clips to {bounds}")
    return reader.clamp(record, Relu6)


def _mean(reader: _Reader, record: Any) -> Node:
    axes = reader.integers(record, 1)
    if axes != [2, 3] or reader.attributes(record).get("keepdims", 1) != 1:
        raise differs(record.name, f"the mean is over axes {axes}")
    return Mean(name=record.name, inputs=reader.inputs(record))


def _pool(kind: type[MaxPool2d] | type[AvgPool2d]) -> Callable[[_Reader, Any], Node]:
    def read(reader: _Reader, record: Any) -> Node:
        found = reader.attributes(record)
        if set(found) - {"kernel_shape", "strides", "pads"}:
            raise differs(record.name, f"has the attributes {found}")
        return kind(
            name=record.name,
            inputs=reader.inputs(record),
            kernel=found["kernel_shape"],
            stride=found.get("strides", (1, 1)),
            padding=_sides(record, found.get("pads", (0, 0, 0, 0))),
        )

    return read


def _resize(reader: _Reader, record: Any) -> Node:
    found = reader.attributes(record)
    forms = {
        "nearest": {
            "mode": "nearest",
            "coordinate_transformation_mode": "asymmetric",
            "nearest_mode": "floor",
        },
        "bilinear": {"mode": "linear", "coordinate_transformation_mode": "half_pixel"},
    }
    mode = next((name for name, form in forms.items() if form == found), None)
    sizes = reader.integers(record, 3)
    if mode is None or len(sizes) != 4 or any(record.input[1:3]):
        raise differs(record.name, f"resizes to {sizes} by {found}")
    return Resize(
        name=record.name, inputs=reader.inputs(record), size=(sizes[2], sizes[3]), mode=mode
    )


def _slice(reader: _Reader, record: Any) -> Node:
    parts = [reader.integers(record, place) for place in (1, 2, 3, 4)]
    if any(len(part) != 1 for part in parts):
        raise differs(record.name, "it slices along several axes")
    (start,), (stop,), (axis,), (step,) = parts
    return Slice(
        name=record.name,
        inputs=reader.inputs(record),
        axis=axis,
        start=start,
        stop=stop,
        step=step,
    )


def _pad(reader: _Reader, record: Any) -> Node:
    amounts = reader.integers(record, 1)
    if len(record.input) > 2 or reader.attributes(record) != {"mode": "constant"}:
        raise differs(record.name, "it does not pad with zeros")
    if len(amounts) != 8 or any(amounts[i] for i in (0, 1, 4, 5)):
        raise differs(record.name, f"it pads other axes: {amounts}")
    before, after = (amounts[2], amounts[3]), (amounts[6], amounts[7])
    return Pad(name=record.name, inputs=reader.inputs(record), before=before, after=after)


def _concat(reader: _Reader, record: Any) -> Node:
    _expect(record, reader.attributes(record), {"axis": 1})
    return Concat(name=record.name, inputs=reader.inputs(record, len(record.input)))


READERS: dict[str, Callable[[_Reader, Any], Node]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "Add": _simple(Add, 2),
    "Mul": _simple(Mul, 2),
    "Gelu": _gelu,
    "HardSwish": _simple(HardSwish),
    "Relu": _relu,
    "Clip": _clip,
    "Sigmoid": _simple(Sigmoid),
    "Tanh": _simple(Tanh),
    "HardSigmoid": _simple(HardSigmoid, alpha=1 / 6, beta=0.5),
    "ReduceMean": _mean,
    "AveragePool": _pool(AvgPool2d),
    "MaxPool": _pool(MaxPool2d),
    "Softmax": _simple(Softmax, axis=1),
    "Flatten": _simple(Flatten, axis=1),
    "Concat": _concat,
    "Resize": _resize,
    "Slice": _slice,
    "Pad": _pad,
}
"""What reads each operator of the file."""
