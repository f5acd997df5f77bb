"""ONNX operators as operations: one read function an operator, in `READERS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from edgevit.graph.diff import differs
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

if TYPE_CHECKING:
    from edgevit.targets.qdq.read import Reader


def _expect(record: Any, found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Raises EdgevitError unless a node has these attributes and no others."""
    if dict(found) != dict(expected):
        raise differs(record.name, f"has the attributes {dict(found)}, expected {dict(expected)}")


def _sides(record: Any, pads: tuple[int, ...]) -> tuple[int, int]:
    top, left, bottom, right = pads
    if (top, left) != (bottom, right):
        raise differs(record.name, f"padding {pads} differs from side to side")
    return top, left


def _simple(kind: type[Node], count: int = 1, **expected: Any) -> Callable[[Reader, Any], Node]:
    """An operator of inputs alone, with attributes that are always these."""

    def read(reader: Reader, record: Any) -> Node:
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


def _gelu(reader: Reader, record: Any) -> Node:
    if reader.attributes(record).get("approximate", "none") != "none":
        raise differs(record.name, "GELU is the approximate one")
    return Gelu(name=record.name, inputs=reader.inputs(record))


def _conv(reader: Reader, record: Any) -> Node:
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


def _conv_transpose(reader: Reader, record: Any) -> Node:
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


def _gemm(reader: Reader, record: Any) -> Node:
    _expect(record, reader.attributes(record), {"transB": 1})
    return reader.weighted(record, Linear)


def _relu(reader: Reader, record: Any) -> Node:
    return reader.clamp(record, Relu)


def _clip(reader: Reader, record: Any) -> Node:
    bounds = [float(reader.constant(each, record.name)) for each in record.input[1:]]
    if bounds != [0.0, 6.0]:
        raise differs(record.name, f"it clips to {bounds}")
    return reader.clamp(record, Relu6)


def _mean(reader: Reader, record: Any) -> Node:
    axes = reader.integers(record, 1)
    if axes != [2, 3] or reader.attributes(record).get("keepdims", 1) != 1:
        raise differs(record.name, f"the mean is over axes {axes}")
    return Mean(name=record.name, inputs=reader.inputs(record))


def _pool(kind: type[MaxPool2d] | type[AvgPool2d]) -> Callable[[Reader, Any], Node]:
    def read(reader: Reader, record: Any) -> Node:
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


def _resize(reader: Reader, record: Any) -> Node:
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


def _slice(reader: Reader, record: Any) -> Node:
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


def _pad(reader: Reader, record: Any) -> Node:
    amounts = reader.integers(record, 1)
    if len(record.input) > 2 or reader.attributes(record) != {"mode": "constant"}:
        raise differs(record.name, "it does not pad with zeros")
    if len(amounts) != 8 or any(amounts[i] for i in (0, 1, 4, 5)):
        raise differs(record.name, f"it pads other axes: {amounts}")
    before, after = (amounts[2], amounts[3]), (amounts[6], amounts[7])
    return Pad(name=record.name, inputs=reader.inputs(record), before=before, after=after)


def _concat(reader: Reader, record: Any) -> Node:
    _expect(record, reader.attributes(record), {"axis": 1})
    return Concat(name=record.name, inputs=reader.inputs(record, len(record.input)))


READERS: dict[str, Callable[[Reader, Any], Node]] = {
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
