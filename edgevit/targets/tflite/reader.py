"""What reading TFLite's operators has in common: the graph so far, constants, padding."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np

from edgevit.errors import InputError
from edgevit.graph.diff import differs
from edgevit.ops import Clamp, Node, Quantizer, Relu, Relu6, Shape
from edgevit.targets.tflite.file import Operator, Tensor
from edgevit.targets.tflite.schema import schema

Pair = tuple[int, int]


class Reader(Protocol):
    """What a read function is given of the file and of the graph so far.

    quantized   whether it is an int8 file
    shapes      of the graph's tensors so far, (N, C, H, W) or (N, C)
    """

    quantized: bool
    shapes: dict[str, Shape]

    def taken(self, operator: Operator) -> list[Operator]:
        """The operators in front of one that stand for one operation with it, nearest first."""
        ...

    def maker(self, tensor: Tensor, *kinds: str) -> Operator | None:
        """The operator that makes a tensor, if it has one of these names."""
        ...

    def same_quantizer(self, tensor: Tensor, source: Tensor) -> None:
        """Raises EdgevitError where a tensor on the way has not another's quantizer."""
        ...

    def is_head(self, operator: Operator) -> bool:
        """Whether an output is the vector that an operator makes, without anything between."""
        ...

    def flattened(self, name: str) -> str:
        """The vector that a head reads of a map of one pixel; a flatten that is no operator."""
        ...


def nhwc(shape: Shape) -> Shape:
    """How the file holds (N, C, H, W) and (N, C)."""
    batch, channels, *size = shape
    return (batch, *(size or (1, 1)), channels)


def per_tensor(tensor: Tensor) -> Quantizer:
    """The one quantizer of a tensor; EdgevitError naming it where it has none or several."""
    try:
        (scale,), (zero_point,) = tensor.scale.tolist(), tensor.zero_point.tolist()
        return Quantizer(scale, zero_point)
    except (ValueError, InputError) as error:
        raise differs(tensor.name, f"it has no quantizer of int8: {error}") from error


def numbers(tensor: Tensor) -> list[int]:
    """The values of an int32 constant."""
    if tensor.values is None or tensor.dtype != "INT32":
        raise differs(tensor.name, f"it is {tensor.dtype}, or no constant, where int32 is expected")
    return tensor.values.reshape(-1).tolist()


def plain(kind: type[Node]) -> Callable[[Reader, Operator], Node]:
    """The read function of an operator without attributes."""

    def reader(r: Reader, operator: Operator) -> Node:
        unfused(operator)
        names = tuple(tensor.name for tensor in operator.inputs)
        return kind(name=operator.output.name, inputs=names)

    return reader


def unfused(operator: Operator) -> None:
    """Raises EdgevitError where an operator has an activation behind it."""
    if getattr(operator.options, "fusedActivationFunction", 0):
        raise differs(operator.output.name, f"{operator.name} has an activation behind it")


def pad_sides(operator: Operator) -> tuple[Pair, Pair]:
    """(top, left) and (bottom, right) of a PAD or PADV2."""
    amounts = numbers(operator.inputs[1])
    if len(amounts) != 8 or any(amounts[:2] + amounts[6:]):
        raise differs(operator.output.name, f"it pads other axes than rows and columns: {amounts}")
    top, bottom, left, right = amounts[2:6]
    return (top, left), (bottom, right)


def check_shape(operator: Operator) -> None:
    """Raises EdgevitError where a tensor on the way has not the shape that its operator makes.

    Of the graph's own tensors the operation knows the shape; of a padded map, the parts of a norm
    or what is only (de)quantized no operation does, and a runtime takes the file's word.
    """
    makes = _SHAPES.get(operator.name)
    if makes is None:
        return
    made = makes(operator)
    if operator.output.shape != made:
        what = f"shape {operator.output.shape}, its {operator.name} makes {made}"
        raise differs(operator.output.name, what)


def _padded_shape(operator: Operator) -> Shape:
    batch, height, width, channels = operator.inputs[0].shape
    (top, left), (bottom, right) = pad_sides(operator)
    return batch, height + top + bottom, width + left + right, channels


def _mean_shape(operator: Operator) -> Shape:
    axes = set(numbers(operator.inputs[1]))
    return tuple(1 if i in axes else size for i, size in enumerate(operator.inputs[0].shape))


def _same_shape(operator: Operator) -> Shape:
    return operator.inputs[0].shape


def _joint_shape(operator: Operator) -> Shape:
    return tuple(np.broadcast_shapes(*(tensor.shape for tensor in operator.inputs)))


_SHAPES: Mapping[str, Callable[[Operator], Shape]] = {
    **dict.fromkeys(("DEQUANTIZE", "QUANTIZE", "SQRT"), _same_shape),
    **dict.fromkeys(("ADD", "DIV", "MUL", "SUB"), _joint_shape),
    **dict.fromkeys(("PAD", "PADV2"), _padded_shape),
    "MEAN": _mean_shape,
    "TRANSPOSE": lambda o: tuple(o.inputs[0].shape[axis] for axis in numbers(o.inputs[1])),
}


def padding_in_front(r: Reader, operator: Operator, window: Pair, stride: Pair) -> Pair:
    """Pixels in front of the maps that an operator reads: of a PAD before it, and of its own."""
    (name, source), pad = (operator.output.name, operator.inputs[0]), (0, 0)
    for padded in r.taken(operator):
        pad, after = pad_sides(padded)
        if pad != after:
            raise differs(padded.output.name, f"it pads one side more than the other: {pad, after}")
        r.same_quantizer(padded.output, padded.inputs[0])
    if operator.options.padding == schema().Padding.VALID:
        return pad
    totals = [
        max((-(-size // step) - 1) * step + width - size, 0)
        for size, width, step in zip(source.shape[1:3], window, stride, strict=True)
    ]
    if any(total % 2 for total in totals):
        raise differs(name, "its padding SAME is more on one side than on the other")
    return pad[0] + totals[0] // 2, pad[1] + totals[1] // 2


def first_input(r: Reader, operator: Operator) -> Tensor:
    """The graph's tensor that an operator reads, in front of the operators that it takes in."""
    first = [operator, *r.taken(operator)][-1]
    return first.inputs[2 if first.name == "TRANSPOSE_CONV" else 0]


def fused(operator: Operator) -> type[Clamp] | None:
    """The activation behind an operator."""
    kinds = schema().ActivationFunctionType
    known: Mapping[int, type[Clamp] | None] = {
        kinds.NONE: None, kinds.RELU: Relu, kinds.RELU6: Relu6
    }  # fmt: skip
    found = operator.options.fusedActivationFunction
    if found not in known:
        raise differs(operator.output.name, f"activation {found} behind it")
    return known[found]


def ranges(operator: Operator) -> tuple[list[int], list[int], list[int], list[int]]:
    """Begin, end and step by axis of a STRIDED_SLICE, and the axes that are not whole."""
    options = operator.options
    others = (options.ellipsisMask, options.newAxisMask, options.shrinkAxisMask, options.offset)
    begin, end, steps = (numbers(tensor) for tensor in operator.inputs[1:4])
    axes = [axis for axis in range(4) if not options.beginMask & 1 << axis]
    rest = [steps[axis] for axis in range(4) if axis not in axes]
    if any(others) or options.beginMask != options.endMask or any(step != 1 for step in rest):
        raise differs(operator.output.name, "its masks cut more than ranges of whole axes")
    return begin, end, steps, axes
