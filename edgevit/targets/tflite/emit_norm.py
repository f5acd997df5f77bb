"""A layer norm as TFLite operators: the float island of a full-INT8 file.

    Given   LayerNorm "n" of int8 "x"
    Result  DEQUANTIZE "n.input", MEAN "n.mean", SUB "n.centred", MUL "n.squares",
            MEAN "n.variance", ADD "n.shifted", SQRT "n.deviation", DIV "n.normal",
            MUL "n.scaled", ADD "n.result", QUANTIZE "n"

Channels are the last axis here.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgevit.ops import LayerNorm, Node
from edgevit.targets.tflite.emitter import Emit, Emitter, nhwc


def _norm(e: Emitter, node: LayerNorm) -> None:
    s, shape = e.schema, nhwc(e.graph.shape(node.name))
    plane = (*shape[:3], 1)
    axis = e.writer.shared_constant("norm.axis", np.array([3], np.int32))

    def made(kind: str, inputs: list[int], part: str, shape: Any, options: Any = None) -> int:
        result = e.writer.activation(f"{node.name}.{part}", shape, "float32", None)
        e.operator(kind, inputs, result, options, version=1)
        return result

    def held(part: str, values: Any) -> int:
        return e.writer.constant(f"{node.name}.{part}", np.asarray(values, np.float32))

    keep = s.ReducerOptionsT(keepDims=True)
    (x,) = e.sources(node)
    if e.quantized:
        source, x = x, e.writer.activation(f"{node.name}.input", shape, "float32", None)
        e.operator("DEQUANTIZE", [source], x, s.DequantizeOptionsT())
    mean = made("MEAN", [x, axis], "mean", plane, keep)
    centred = made("SUB", [x, mean], "centred", shape, s.SubOptionsT())
    squares = made("MUL", [centred, centred], "squares", shape, s.MulOptionsT())
    variance = made("MEAN", [squares, axis], "variance", plane, keep)
    eps = held("eps", [node.eps])
    shifted = made("ADD", [variance, eps], "shifted", plane, s.AddOptionsT())
    deviation = made("SQRT", [shifted], "deviation", plane)
    normal = made("DIV", [centred, deviation], "normal", shape, s.DivOptionsT())
    weight = held("weight", node.weights.weight)
    scaled = made("MUL", [normal, weight], "scaled", shape, s.MulOptionsT())
    inputs = [scaled, held("bias", node.weights.bias)]
    if not e.quantized:
        e.operator("ADD", inputs, e.result(node.name), s.AddOptionsT(), version=1)
        return
    real = made("ADD", inputs, "result", shape, s.AddOptionsT())
    e.operator("QUANTIZE", [real], e.result(node.name), s.QuantizeOptionsT())


NORMS: dict[type[Node], Emit] = {LayerNorm: _norm}
