"""Operations as ONNX operators: one emit function a class, in `EMITTERS`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

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
    LayerNorm,
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
)

if TYPE_CHECKING:
    from edgevit.targets.qdq.write import Writer


def _conv(writer: Writer, node: Conv2d) -> str:
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


def _conv_transpose(writer: Writer, node: ConvTranspose2d) -> str:
    return writer.weighted(
        node,
        "ConvTranspose",
        kernel_shape=node.weight.shape[2:],
        strides=node.stride,
        pads=(*node.padding, *node.padding),
        output_padding=node.output_padding,
        group=1,
    )


def _linear(writer: Writer, node: Linear) -> str:
    return writer.weighted(node, "Gemm", transB=1)


def _simple(kind: str, **attributes: Any) -> Callable[[Writer, Any], str]:
    """An ONNX operator of the operation's inputs alone."""
    return lambda writer, node: writer.node(kind, writer.read(node), node.name, **attributes)


def _clamp(writer: Writer, node: Relu | Relu6) -> str:
    (value,) = writer.read(node)
    return writer.clamp(type(node), value, node.name)


def _mean(writer: Writer, node: Mean) -> str:
    axes = writer.integers("mean.axes", 2, 3)
    return writer.node("ReduceMean", [*writer.read(node), axes], node.name, keepdims=1)


def _pool(kind: str) -> Callable[[Writer, Any], str]:
    def emit(writer: Writer, node: MaxPool2d | AvgPool2d) -> str:
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


def _resize(writer: Writer, node: Resize) -> str:
    sizes = writer.integers(f"{node.name}.sizes", *writer.graph.shape(node.name))
    how = (
        {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        if node.mode == "nearest"
        else {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    )
    return writer.node("Resize", [*writer.read(node), "", "", sizes], node.name, **how)


def _slice(writer: Writer, node: Slice) -> str:
    parts = {"start": node.start, "stop": node.stop, "axis": node.axis, "step": node.step}
    inputs = [writer.integers(f"{node.name}.{part}", value) for part, value in parts.items()]
    return writer.node("Slice", [*writer.read(node), *inputs], node.name)


def _pad(writer: Writer, node: Pad) -> str:
    amounts = writer.integers(f"{node.name}.pads", 0, 0, *node.before, 0, 0, *node.after)
    return writer.node("Pad", [*writer.read(node), amounts], node.name, mode="constant")


def _norm(writer: Writer, node: LayerNorm) -> str:
    """A float island: its parts in float32, whatever else is not quantized is."""
    (x,), name = writer.read(node), node.name
    if writer.real_type != np.float32:
        to = writer.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(np.float32))
        x = writer.node("Cast", [x], f"{name}.real", to=to)
    weight, bias = (v[None] for v in node.real_weights())
    axes = writer.integers("norm.axes", 1)
    eps = writer.constant(f"{name}.eps", np.array(node.eps, np.float32))

    def made(kind: str, inputs: list[str], part: str, **attributes: Any) -> str:
        return writer.node(kind, inputs, f"{name}.{part}", **attributes)

    centred = made("Sub", [x, made("ReduceMean", [x, axes], "mean", keepdims=1)], "centred")
    squares = made("Mul", [centred, centred], "squares")
    variance = made("ReduceMean", [squares, axes], "variance", keepdims=1)
    deviation = made("Sqrt", [made("Add", [variance, eps], "shifted")], "deviation")
    normal = made("Div", [centred, deviation], "normal")
    scaled = made("Mul", [normal, writer.constant(f"{name}.weight", weight)], "scaled")
    return writer.node("Add", [scaled, writer.constant(f"{name}.bias", bias)], name)


EMITTERS: dict[type[Node], Callable[[Writer, Any], str]] = {
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
    LayerNorm: _norm,
    Flatten: _simple("Flatten", axis=1),
    Concat: _simple("Concat", axis=1),
    Resize: _resize,
    Slice: _slice,
    Pad: _pad,
}
"""What writes each operation: the tensor of its result, before its own pair."""
