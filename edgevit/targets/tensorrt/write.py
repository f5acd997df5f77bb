"""Graph to a QDQ ONNX (opset 20), as TensorRT's explicit INT8 quantization wants it.

    Given   conv2d "stem.conv1" -> gelu "stem.act1", both quantized
    Result  DequantizeLinear "stem.conv1.weight.dq" (int8 weights, axis 0), Conv "stem.conv1",
            Gelu "stem.act1", QuantizeLinear "stem.act1.q", DequantizeLinear "stem.act1.dq"

A float tensor has its canonical name, its int8 form ".q" behind it and the dequantized one ".dq".
TensorRT 11 is strongly typed: what is float here is float there, so all of it is float16 unless
asked otherwise. A pair stands where a value is rounded to its grid; an operation that only moves
values (flatten, concat, max_pool2d) hands on what was dequantized.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgevit.errors import InputError
from edgevit.graph import Graph, float_graph
from edgevit.ops import (
    Add,
    AvgPool2d,
    Concat,
    Conv2d,
    ConvTranspose2d,
    Flatten,
    Gelu,
    HardSigmoid,
    HardSwish,
    Linear,
    MaxPool2d,
    Mean,
    Mul,
    Node,
    Pad,
    Relu,
    Relu6,
    Resize,
    Sigmoid,
    Slice,
    Softmax,
    Tanh,
    Weighted,
)
from edgevit.targets.tensorrt.toolkit import onnx

OPSET, IR_VERSION = 20, 10


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
    return _Writer(graph, form).run(name, metadata).SerializeToString(deterministic=True)


class _Writer:
    def __init__(self, graph: Graph, form: Form) -> None:
        self.onnx, self.form = onnx(), form
        graph.activations()  # names a tensor without a quantizer
        self.graph = graph if form.quantized else float_graph(graph)
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self.known: set[str] = set()
        self.values: dict[str, str] = {}  # canonical name -> tensor that its readers read

    def run(self, name: str, metadata: Mapping[str, str]) -> Any:
        helper, graph, form = self.onnx.helper, self.graph, self.form
        self._finish(graph.input_name, graph.input_name, form.outer, True)
        for node in graph.nodes:
            emit = EMITTERS.get(type(node))
            if emit is None:
                raise InputError(f"{node.name}: the TensorRT target does not know {node.kind!r}")
            value = emit(self, node)
            self._finish(node.name, value, form.inner, node.requantizes)
        made = helper.make_graph(
            self.nodes,
            name,
            [self._edge(graph.input_name, graph.input_name)],
            [self._edge(form.outputs[output], output) for output in graph.outputs],
            self.initializers,
        )
        model = helper.make_model(
            made, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="edgevit"
        )
        model.ir_version = IR_VERSION
        helper.set_model_props(model, dict(metadata))
        return model

    def _edge(self, own: str, name: str) -> Any:
        kind = self.onnx.helper.np_dtype_to_tensor_dtype(self.form.outer)
        return self.onnx.helper.make_tensor_value_info(own, kind, self.graph.shape(name))

    # -- quantizers -----------------------------------------------------------------------------

    def _finish(self, name: str, value: str, before: np.dtype, requantizes: bool) -> None:
        """Behind an operation: its pair, if it has one; for an output, its type and name."""
        after = self.form.outer if name in self.form.outputs else self.form.inner
        if self.graph.quantized and requantizes and name not in self.form.dropped:
            self._pair(name, value, before, after)
            return
        output = self.form.outputs.get(name)
        if before == after and output is None:
            self.values[name] = value
            return
        kind = self.onnx.helper.np_dtype_to_tensor_dtype(after)
        self.values[name] = self.node("Cast", [value], f"{name}.cast", output=output, to=kind)

    def _pair(self, name: str, value: str, before: np.dtype, after: np.dtype) -> None:
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
        output = self.form.outputs.get(name, f"{name}.dq")
        self.values[name] = self.node("DequantizeLinear", inputs, f"{name}.dq", output=output)

    def _scale(self, name: str, scale: float, kind: np.dtype) -> str:
        return self.constant(f"{name}.scale.{kind.name}", np.array(scale, kind))

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
        """A constant of the inner element type."""
        return self.constant(name, np.asarray(values).astype(self.form.inner))

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
        bias = self.real(f"{node.module}.bias", node.bias)
        inputs = [*self.read(node), weight, bias]
        if node.activation is None:
            return self.node(kind, inputs, node.module, **attributes)
        raw = node.module if node.module != node.name else f"{node.module}.raw"
        value = self.node(kind, inputs, raw, **attributes)
        return self.clamp(node.activation, value, node.name)

    def clamp(self, kind: type[Node], value: str, name: str) -> str:
        """ReLU, or Clip for ReLU6."""
        if kind is Relu:
            return self.node("Relu", [value], name)
        bounds = [self.real("relu6.min", 0.0), self.real("relu6.max", 6.0)]
        return self.node("Clip", [value, *bounds], name)


def _conv(writer: _Writer, node: Conv2d) -> str:
    dilation: dict[str, Any] = {} if node.dilation == (1, 1) else {"dilations": node.dilation}
    return writer.weighted(
        node,
        "Conv",
        kernel_shape=node.weight.shape[2:],
        strides=node.stride,
        pads=(*node.padding, *node.padding),
        group=node.groups,
        **dilation,
    )


def _conv_transpose(writer: _Writer, node: ConvTranspose2d) -> str:
    return writer.weighted(
        node,
        "ConvTranspose",
        kernel_shape=node.weight.shape[2:],
        strides=node.stride,
        pads=(*node.padding, *node.padding),
        output_padding=node.output_padding,
        group=1,
    )


def _linear(writer: _Writer, node: Linear) -> str:
    return writer.weighted(node, "Gemm", transB=1)


def _simple(kind: str, **attributes: Any) -> Callable[[_Writer, Any], str]:
    """An ONNX operator of the operation's inputs alone."""
    return lambda writer, node: writer.node(kind, writer.read(node), node.name, **attributes)


def _clamp(writer: _Writer, node: Relu | Relu6) -> str:
    (value,) = writer.read(node)
    return writer.clamp(type(node), value, node.name)


def _mean(writer: _Writer, node: Mean) -> str:
    axes = writer.integers("mean.axes", 2, 3)
    return writer.node("ReduceMean", [*writer.read(node), axes], node.name, keepdims=1)


def _pool(kind: str) -> Callable[[_Writer, Any], str]:
    def emit(writer: _Writer, node: MaxPool2d | AvgPool2d) -> str:
        pads: dict[str, Any] = {"pads": (*node.padding, *node.padding)} if any(node.padding) else {}
        return writer.node(
            kind,
            writer.read(node),
            node.name,
            kernel_shape=node.kernel,
            strides=node.stride,
            **pads,
        )

    return emit


def _resize(writer: _Writer, node: Resize) -> str:
    sizes = writer.integers(f"{node.name}.sizes", *writer.graph.shape(node.name))
    how = (
        {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        if node.mode == "nearest"
        else {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    )
    return writer.node("Resize", [*writer.read(node), "", "", sizes], node.name, **how)


def _slice(writer: _Writer, node: Slice) -> str:
    parts = {"start": node.start, "stop": node.stop, "axis": node.axis, "step": node.step}
    inputs = [writer.integers(f"{node.name}.{part}", value) for part, value in parts.items()]
    return writer.node("Slice", [*writer.read(node), *inputs], node.name)


def _pad(writer: _Writer, node: Pad) -> str:
    amounts = writer.integers(f"{node.name}.pads", 0, 0, *node.before, 0, 0, *node.after)
    return writer.node("Pad", [*writer.read(node), amounts], node.name, mode="constant")


EMITTERS: dict[type[Node], Callable[[_Writer, Any], str]] = {
    Conv2d: _conv,
    ConvTranspose2d: _conv_transpose,
    Linear: _linear,
    Add: _simple("Add"),
    Mul: _simple("Mul"),
    Gelu: _simple("Gelu"),
    HardSwish: _simple("HardSwish"),
    Relu: _clamp,
    Relu6: _clamp,
    Sigmoid: _simple("Sigmoid"),
    Tanh: _simple("Tanh"),
    HardSigmoid: _simple("HardSigmoid", alpha=1 / 6, beta=0.5),
    Mean: _mean,
    AvgPool2d: _pool("AveragePool"),
    MaxPool2d: _pool("MaxPool"),
    Softmax: _simple("Softmax", axis=1),
    Flatten: _simple("Flatten", axis=1),
    Concat: _simple("Concat", axis=1),
    Resize: _resize,
    Slice: _slice,
    Pad: _pad,
}
"""What writes each operation: the tensor of its result, before its own pair."""
