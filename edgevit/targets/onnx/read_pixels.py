"""What an ONNX file makes of raw pixels before its first operation, from the file alone.

uint8 pixels, dequantized at scale 1 (and shifted to int8 where the file's activations are), go
through a 1x1 depthwise convolution whose results are the program's input.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgevit.graph import INPUT
from edgevit.graph.diff import differs, same_array
from edgevit.ops import INT8_MAX, INT8_MIN, Quantizer

if TYPE_CHECKING:
    from edgevit.targets.qdq.read import Constant, Reader

_PIXELS = np.arange(256)


@dataclass(frozen=True)
class PixelLine:
    """The nodes that make the program's input of pixels.

    records    names of the file's nodes
    constants  the tensors of the convolution's weight and bias
    output     the tensor that it makes
    """

    records: frozenset[str]
    constants: tuple[str, str]
    output: str

    def values(self, weight: Constant, bias: Constant, quantizer: Quantizer) -> np.ndarray:
        """int8 (3, 256): round(M * (w * pixel + b)), rounded once, as integer kernels do."""
        if weight.values.shape != (3, 1, 1, 1) or weight.axis != 0 or bias.axis != 0:
            raise differs(INPUT, f"a convolution of {weight.values.shape} makes it of pixels")
        same_array(f"{INPUT}.bias", bias.scale, weight.scale, "its scale is not the weight's")
        totals = weight.values.reshape(3, 1).astype(np.int64) * _PIXELS + bias.values[:, None]
        factor = weight.scale / np.float32(quantizer.scale)
        steps = np.rint(totals.astype(np.float32) * factor[:, None]) + quantizer.zero_point
        return np.clip(steps, INT8_MIN, INT8_MAX).astype(np.int8)


def follow_pixels(reader: Reader, tensor: str) -> PixelLine:
    """The nodes from the model's input to the program's; EdgevitError where they are no such."""
    records: list[Any] = []

    def take(*kinds: str) -> Any:
        """The one node that reads the last tensor, of one of these kinds."""
        name = records[-1].output[0] if records else tensor
        found = [node for node in reader.model.graph.node if name in node.input]
        if len(found) != 1 or found[0].op_type not in kinds or found[0].input[0] != name:
            raise differs(INPUT, f"{name} is no pixel on its way to the program's input")
        records.append(found[0])
        return found[0]

    _check_unit(reader, take("DequantizeLinear"), np.uint8, 0)
    if take("QuantizeLinear", "Conv").op_type == "QuantizeLinear":
        _check_unit(reader, records[-1], np.int8, INT8_MIN)
        _check_unit(reader, take("DequantizeLinear"), np.int8, INT8_MIN)
        take("Conv")
    line = records[-1]
    found = reader.attributes(line)
    if found != {"kernel_shape": (1, 1), "group": 3}:
        raise differs(INPUT, f"a convolution with {found} makes it of pixels")
    _, weight, bias = line.input
    return PixelLine(frozenset(each.name for each in records), (weight, bias), line.output[0])


def _check_unit(reader: Reader, record: Any, kind: type[np.integer[Any]], zero_point: int) -> None:
    """A Q or DQ whose steps are pixel values."""
    scale, found = (reader.constant(each, INPUT) for each in record.input[1:])
    same = found.dtype == kind and found.shape == () and found == zero_point
    if reader.attributes(record) or scale.shape != () or scale != 1 or not same:
        raise differs(INPUT, f"scale {scale} and zero-point {found} do not hold raw pixels")
