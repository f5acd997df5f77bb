"""A graph on its way into a .tflite file: NHWC, batch 1.

A tensor has its canonical name, and a weight its module's, so that they can be found in the file.
(1, C) is held as (1, 1, 1, C), as the head's convolution has it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from edgevit.errors import InputError
from edgevit.graph import Graph
from edgevit.ops import Flatten, Linear, Node, Shape
from edgevit.targets.tflite.flatbuffer import ModelWriter

INT8_VERSIONS = {
    "ADD": 2, "AVERAGE_POOL_2D": 2, "CONCATENATION": 2, "CONV_2D": 3, "DEPTHWISE_CONV_2D": 3,
    "DEQUANTIZE": 2, "GELU": 2, "HARD_SWISH": 1, "LOGISTIC": 2, "MAX_POOL_2D": 2, "MEAN": 2,
    "MUL": 2, "PAD": 2, "PADV2": 2, "QUANTIZE": 1, "RELU": 2, "RELU6": 2, "RESHAPE": 1,
    "RESIZE_NEAREST_NEIGHBOR": 2, "SOFTMAX": 2, "STRIDED_SLICE": 2, "TANH": 2,
    "TRANSPOSE": 2,
}  # fmt: skip
"""Operator versions that introduced int8 (per-channel int8 for convolutions); floats are all 1."""
Sides = tuple[int, int]
"""One number for the height and one for the width."""


Emit = Callable[["Emitter", Any], None]
"""Appends the operators of one node."""


class Emitter:
    """A graph on its way into a ModelWriter: which tensor of the file holds which of the graph's.

    graph   quantized, or float for a float artifact
    tables  whether an activation may be float operators that XNNPACK makes a table of
    """

    def __init__(
        self, graph: Graph, writer: ModelWriter | None = None, *, tables: bool = False
    ) -> None:
        """writer: of the file that the operators belong to; default: of a file of their own"""
        self.graph, self.quantized, self.tables = graph, graph.quantized, tables
        kind = "int8" if self.quantized else "float32"
        self.writer = writer or ModelWriter(f"edgevit {kind}")
        self.schema = self.writer.schema
        self.tensors: dict[str, int] = {}
        self.elided = elided(graph)

    def run(self, emitters: Mapping[type[Node], Emit]) -> None:
        """Every node of the graph by its class's function, behind an input that is there already.

        Raises InputError naming the node that TFLite cannot hold, or the tensor without a
        quantizer.
        """
        for node in self.graph.nodes:
            emit = emitters.get(type(node))
            if emit is None:
                raise InputError(f"{node.name}: the TFLite target does not know {node.kind!r}")
            if node.name not in self.graph.unquantized:
                emit(self, node)

    def sources(self, node: Node) -> list[int]:
        """The tensors that a node reads."""
        return [self.tensors[name] for name in node.inputs]

    def result(self, name: str) -> int:
        """The tensor of the graph's own of this name."""
        self.tensors[name] = self.like(name, nhwc(self.graph.shape(name)), name)
        return self.tensors[name]

    def like(self, name: str, shape: Shape, other: str) -> int:
        """A tensor on the way, of the element type and the quantizer of the graph's `other`."""
        if not self.quantized:
            return self.writer.activation(name, shape, "float32", None)
        return self.writer.activation(name, shape, "int8", self.graph.quantizer(other))

    def operator(
        self,
        name: str,
        inputs: list[int],
        result: int,
        options: Any = None,
        version: int | None = None,
    ) -> None:
        """An operator of the version that its element types need, or of a given one."""
        if version is None:
            version = INT8_VERSIONS[name] if self.quantized else 1
        self.writer.operator(name, version, inputs, result, options)


def nhwc(shape: Shape) -> Shape:
    """(1, C, H, W) to (1, H, W, C); (1, C) to (1, 1, 1, C)."""
    if len(shape) == 2:
        return shape[0], 1, 1, shape[1]
    return shape[0], shape[2], shape[3], shape[1]


def elided(graph: Graph) -> dict[str, str]:
    """Name -> source, of every flatten that is no operator: (1, C, 1, 1) in front of the head.

    In NHWC it moves nothing, and the head is a 1x1 convolution. That its result goes straight into
    an output says what it is; in front of anything else a flatten is written out.
    """
    found: dict[str, str] = {}
    for node in graph.nodes:
        if not isinstance(node, Flatten) or node.name in graph.outputs:
            continue
        (source,) = node.inputs
        heads = [
            isinstance(n, Linear) and n.name in graph.outputs for n in graph.readers(node.name)
        ]
        pixel = graph.shape(source)[2:] == (1, 1)
        if pixel and all(heads) and source not in found.values():
            found[node.name] = source
    return found


def pad_amounts(
    e: Emitter, name: str, before: Sides, after: Sides
) -> tuple[tuple[int, int, int, int], np.ndarray]:
    """The shape of a padded tensor, and PAD's second input."""
    _, channels, height, width = e.graph.shape(name)
    (top, left), (bottom, right) = before, after
    amounts = np.array([[0, 0], [top, bottom], [left, right], [0, 0]], np.int32)
    return (1, height + top + bottom, width + left + right, channels), amounts


def strided_slice(
    e: Emitter,
    name: str,
    source: int,
    result: int,
    begin: Sequence[int],
    end: Sequence[int],
    cut: int,
    steps: Sequence[int] = (1, 1, 1, 1),
) -> None:
    """A STRIDED_SLICE; bit i of `cut` is set where axis i is not whole."""
    ranges = [("begin", begin), ("end", end), ("steps", steps)]
    constants = [
        e.writer.shared_constant(f"{name}.{what}", np.array(values, np.int32))
        for what, values in ranges
    ]
    whole = 0b1111 & ~cut
    options = e.schema.StridedSliceOptionsT(beginMask=whole, endMask=whole)
    e.operator("STRIDED_SLICE", [source, *constants], result, options)
