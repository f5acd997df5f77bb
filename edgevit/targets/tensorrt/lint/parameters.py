"""Checks of scales, zero-points, axes and types. Each yields (rule, node, what is there)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from edgevit.targets.tensorrt.lint.graph import (
    BFLOAT16,
    DEQUANTIZE,
    DOUBLE,
    FLOAT,
    FLOAT16,
    INT8,
    INT32,
    QUANTIZE,
    Graph,
)  # fmt: skip
from edgevit.targets.tensorrt.lint.reading import onnx_module

if TYPE_CHECKING:
    import onnx

Found = Iterator[tuple[str, "onnx.NodeProto", str]]
Check = Callable[[Graph], Found]

_TAKEN = {FLOAT, FLOAT16, BFLOAT16}
_ONE_TYPE = (
    "Add", "Clip", "Concat", "Conv", "ConvTranspose", "Div", "Gemm", "MatMul", "Max", "Mean", "Min",
    "Mul", "PRelu", "Sub", "Sum", "Where",
)  # fmt: skip


def check_parameters(graph: Graph) -> Found:
    """Scale, zero-point and type of every Q and DQ node."""
    for node in graph.of(QUANTIZE, DEQUANTIZE):
        quantizer = graph.quantizer(node) if graph.op(node) == DEQUANTIZE else None
        if quantizer is not None and quantizer.input[1:] == node.input[1:]:
            continue
        if graph.op(node) == DEQUANTIZE and graph.quantized_type(node) == INT32:
            yield "TRT017", node, f"it reads int32 {node.input[0]}"
            continue
        yield from _check_scale(graph, node)
        yield from _check_zero_point(graph, node)


def _check_scale(graph: Graph, node: onnx.NodeProto) -> Found:
    name = node.input[1]
    kind = graph.types.get(name)
    if kind is not None and kind not in _TAKEN:
        yield "TRT014", node, f"scale {name} is {_type_name(kind)}"
        return
    scale = graph.value(name)
    if scale is None:
        rule = "TRT018" if name in graph.constant else "TRT001"
        yield rule, node, f"scale {name} is {_origin(graph, name)}"
        return
    values = scale.astype(np.float64).ravel()
    wrong = np.flatnonzero(~(np.isfinite(values) & (values > 0)))
    if wrong.size or not values.size:
        at = f"{values[wrong[0]]:g} at index {wrong[0]}" if wrong.size else "no value"
        more = f", {wrong.size} such of {values.size}" if wrong.size > 1 else ""
        yield "TRT002", node, f"scale {name} has {at}{more}"
    if scale.size > 1 and node.input[0] not in graph.constant:
        yield "TRT005", node, f"{node.input[0]} has {scale.size} scales"
    if scale.size > 1 and graph.opset < 13:
        yield "TRT016", node, f"{scale.size} scales in opset {graph.opset}"


def _check_zero_point(graph: Graph, node: onnx.NodeProto) -> Found:
    name = node.input[2] if len(node.input) > 2 else ""
    kind = graph.quantized_type(node)
    if kind is not None and kind != INT8:
        how = f"zero-point {name}" if name else "no zero-point and no output_dtype"
        yield "TRT004", node, f"{_type_name(kind)} ({how})"
    if not name:
        return
    zero_point = graph.value(name)
    if zero_point is None:
        rule = "TRT018" if name in graph.constant else "TRT003"
        yield rule, node, f"zero-point {name} is {_origin(graph, name)}"
    elif (wrong := zero_point[zero_point != 0]).size:
        yield "TRT003", node, f"zero-point {name} is {wrong.ravel()[0]}"


def check_weights(graph: Graph) -> Found:
    """The axis of per-channel weights, and that they are per channel."""
    for node in graph.of("Conv", "ConvTranspose", "Gemm", "MatMul"):
        name = node.input[1]
        weight, rank = graph.weight.get(name), graph.rank(name)
        if weight is None or weight.axes is None or graph.opset < 13:
            continue
        axis = _output_axis(graph, node, rank)
        if axis is None or not 0 <= axis < len(weight.axes):
            continue
        quantizer = graph.quantizer(weight.node)
        for each in (weight.node, quantizer):
            if each is not None:
                yield from _check_axis(graph, each, weight.axes[axis], graph.op(node))


def _output_axis(graph: Graph, node: onnx.NodeProto, rank: int | None) -> int | None:
    """The axis of a weight (input 1) that its operator's output channels lie on."""
    op = graph.op(node)
    if op == "MatMul":
        return rank - 1 if rank is not None and rank > 1 else None
    if op == "Gemm":
        return 0 if graph.attribute(node, "transB", 0) else 1
    return 1 if op == "ConvTranspose" else 0


def _check_axis(graph: Graph, node: onnx.NodeProto, wanted: int, op: str) -> Found:
    scale, shape = graph.value(node.input[1]), graph.shapes.get(node.input[0])
    if scale is None or not scale.size or shape is None:
        return
    channels = shape[wanted]
    if scale.size == 1:
        if channels != 1 and graph.op(node) == DEQUANTIZE:
            yield "TRT007", node, f"one scale for {channels or 'all'} output channels of {op}"
        return
    axis = graph.attribute(node, "axis", 1)
    axis += len(shape) if axis < 0 else 0
    if scale.ndim != 1:
        yield "TRT006", node, f"scales in blocks of shape {list(scale.shape)} for {op}"
    elif axis != wanted:
        yield "TRT006", node, f"axis {axis}, and {op} has its output channels on axis {wanted}"
    elif channels is not None and channels != scale.size:
        yield "TRT006", node, f"{scale.size} scales for {channels} output channels of {op}"


def check_float_types(graph: Graph) -> Found:
    """Operators that ONNX and a strongly typed network want in one float type."""
    for node in graph.of(*_ONE_TYPE):
        known = {graph.types[name] for name in node.input if name and name in graph.types}
        kinds = known & (_TAKEN | {DOUBLE})
        if len(kinds) > 1:
            names = " and ".join(sorted(_type_name(kind) for kind in kinds))
            yield "TRT015", node, f"{graph.op(node)} reads {names}"


def _type_name(kind: int) -> str:
    """ "float16" for TensorProto.DataType 10."""
    try:
        name = onnx_module().TensorProto.DataType.Name(kind).lower()
    except ValueError:
        return f"type {kind}"
    return "float32" if name == "float" else name


def _origin(graph: Graph, name: str) -> str:
    node = graph.producer.get(name)
    if node is not None:
        return f"computed by {graph.op(node)}"
    return "a constant that is not read" if name in graph.constant else "a graph input"


CHECKS: tuple[Check, ...] = (check_parameters, check_weights, check_float_types)
