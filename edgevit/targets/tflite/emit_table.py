"""Activations that XNNPACK has no int8 operator for, as float operators that it folds into a table.

    Given   Gelu "n" of int8 "x"
    Result  DEQUANTIZE "n.input", GELU "n.result", QUANTIZE "n"

XNNPACK runs such a chain, from int8 to int8, on all 256 values when it is loaded, and keeps the
table. An int8 GELU or HARD_SWISH it leaves to TFLite's own kernels, and the graph is cut there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edgevit.ops import INT8_MAX, INT8_MIN, Gelu, HardSwish, Node, Quantizer
from edgevit.targets.tflite.emitter import Emitter, nhwc

FLOAT32_ERROR = 6e-7
"""Error of a float32 kernel's result by its argument's size. Of XNNPACK's and torch's GELU 2e-7
each was measured; the rest is of rounding the argument and of multiplying by 1 / scale."""


@dataclass(frozen=True)
class RealActivation:
    """How a file holds an activation.

    operator  TFLite's name
    value     float64 of float64
    exact     whether TFLite's int8 operator computes what the program does: then it is kept where
              a table's entry lies so near a rounding edge that a float32 kernel may miss it
    """

    operator: str
    value: Callable[[np.ndarray], np.ndarray]
    exact: bool


def _gelu(x: np.ndarray) -> np.ndarray:
    # erfc, since 1 + erf cancels on the negative side.
    return x * np.array([0.5 * math.erfc(-each / math.sqrt(2.0)) for each in x])


def _hard_swish(x: np.ndarray) -> np.ndarray:
    return x * np.clip(x + 3.0, 0.0, 6.0) / 6.0


REAL_ACTIVATIONS: dict[type[Node], RealActivation] = {
    Gelu: RealActivation("GELU", _gelu, exact=True),
    HardSwish: RealActivation("HARD_SWISH", _hard_swish, exact=False),
}


def activation(e: Emitter, node: Gelu | HardSwish) -> None:
    """One int8 or float operator, or the three that XNNPACK makes a table of."""
    form, s = REAL_ACTIVATIONS[type(node)], e.schema
    options = s.GeluOptionsT(approximate=False) if form.operator == "GELU" else None
    if not (e.tables and e.quantized and _is_table(e, node, form)):
        e.operator(form.operator, e.sources(node), e.result(node.name), options)
        return
    shape = nhwc(e.graph.shape(node.name))
    argument = e.writer.activation(f"{node.name}.input", shape, "float32", None)
    result = e.writer.activation(f"{node.name}.result", shape, "float32", None)
    e.operator("DEQUANTIZE", e.sources(node), argument, s.DequantizeOptionsT())
    e.operator(form.operator, [argument], result, options, version=1)
    e.operator("QUANTIZE", [result], e.result(node.name), s.QuantizeOptionsT())


def _is_table(e: Emitter, node: Node, form: RealActivation) -> bool:
    (source,) = node.inputs
    found = e.graph.quantizer(source), e.graph.quantizer(node.name)
    return not form.exact or rounds_surely(form, *found)


def rounds_surely(form: RealActivation, source: Quantizer, result: Quantizer) -> bool:
    """Whether float32 kernels make the same 256 int8 values of the activation as real numbers do.

    `source` and `result` are the quantizers of what it reads and makes.
    """
    x = (np.arange(INT8_MIN, INT8_MAX + 1) - source.zero_point) * float(source.scale)
    steps, error = form.value(x) / result.scale, FLOAT32_ERROR * np.abs(x) / result.scale
    low, high = (
        np.clip(np.rint(steps + off) + result.zero_point, INT8_MIN, INT8_MAX)
        for off in (-error, error)
    )
    return bool(np.array_equal(low, high))
