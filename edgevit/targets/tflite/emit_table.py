"""Activations that XNNPACK has no int8 operator for, as float operators that it folds into a table.

    Given   Gelu "n" of int8 "x"
    Result  DEQUANTIZE "n.input", GELU "n.result", QUANTIZE "n"

XNNPACK runs such a chain, from int8 to int8, on all 256 values when it is loaded, and keeps the
table. An int8 GELU or HARD_SWISH it leaves to TFLite's own kernels, and the graph is cut there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgevit.ops import INT8_MAX, INT8_MIN, Curve, Gelu, HardSwish, Quantizer
from edgevit.targets.tflite.emitter import Emitter, nhwc


@dataclass(frozen=True)
class RealActivation:
    """How a file holds an activation.

    operator  TFLite's name
    exact     whether TFLite's int8 operator computes what the program does: then it is kept where
              a table's entry lies so near a rounding edge that a float32 kernel may miss it
    """

    operator: str
    exact: bool


REAL_ACTIVATIONS: dict[type[Curve], RealActivation] = {
    Gelu: RealActivation("GELU", exact=True),
    HardSwish: RealActivation("HARD_SWISH", exact=False),
}


def activation(e: Emitter, node: Gelu | HardSwish) -> None:
    """One int8 or float operator, or the three that XNNPACK makes a table of."""
    form, s = REAL_ACTIVATIONS[type(node)], e.schema
    options = s.GeluOptionsT(approximate=False) if form.operator == "GELU" else None
    if not (e.tables and e.quantized and (not form.exact or _rounds_surely(e, node))):
        e.operator(form.operator, e.sources(node), e.result(node.name), options)
        return
    shape = nhwc(e.graph.shape(node.name))
    argument = e.writer.activation(f"{node.name}.input", shape, "float32", None)
    result = e.writer.activation(f"{node.name}.result", shape, "float32", None)
    e.operator("DEQUANTIZE", e.sources(node), argument, s.DequantizeOptionsT())
    e.operator(form.operator, [argument], result, options, version=1)
    e.operator("QUANTIZE", [result], e.result(node.name), s.QuantizeOptionsT())


def _rounds_surely(e: Emitter, node: Curve) -> bool:
    (source,) = node.inputs
    return rounds_surely(type(node), e.graph.quantizer(source), e.graph.quantizer(node.name))


def rounds_surely(kind: type[Curve], source: Quantizer, result: Quantizer) -> bool:
    """Whether float32 kernels make the same 256 int8 values of the activation as real numbers do.

    `source` and `result` are the quantizers of what it reads and makes.
    """
    x = (np.arange(INT8_MIN, INT8_MAX + 1) - source.zero_point) * float(source.scale)
    steps, error = kind.steps(x, float(result.scale))
    low, high = (
        np.clip(np.rint(steps + off) + result.zero_point, INT8_MIN, INT8_MAX)
        for off in (-error, error)
    )
    return bool(np.array_equal(low, high))
