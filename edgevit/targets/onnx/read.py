"""The ONNX target's file as the graph that it holds; nothing of `write` is used.

`qdq.read` reads it. Here is what this target's files have besides: a pair on every tensor, of int8
or uint8, also between a convolution and its clamp; int32 biases; and an input and outputs that may
be integers themselves (raw pixels: `read_pixels`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from edgevit.graph import INPUT, Graph
from edgevit.graph.diff import Stored, differs, same_array, same_quantizer
from edgevit.ops import Int8Weights, Quantizer, Weighted
from edgevit.targets.base import Reading
from edgevit.targets.onnx.read_pixels import PixelLine, follow_pixels
from edgevit.targets.qdq.read import Constant, Reader, Value

OPSETS = (20, 21, 22)
"""The versions of ONNX's operators in which the operators mean what they are read as."""
_RAW = ".raw"


def read_onnx(data: bytes) -> Reading:
    """What the bytes of an ONNX file hold.

    Raises EdgevitError naming the node or tensor that is no part of a quantized graph.
    """
    return _Reader.read(data)


class _Reader(Reader):
    integers_of_pairs = (np.int8, np.uint8)

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        edges = (*model.graph.input, *model.graph.output)
        self.types = {value.name: self._type(value) for value in edges}
        self.biases: dict[str, Constant] = {}
        self.kinds: dict[str, str] = {}  # element type of a pair -> a tensor with such a pair
        self.raw: dict[str, Quantizer] = {}  # of the pair before a fused clamp, by the clamp's name
        self.line: PixelLine | None = None

    def _type(self, value: Any) -> np.dtype:
        element = value.type.tensor_type.elem_type
        return np.dtype(self.package.helper.tensor_dtype_to_np_dtype(element))

    def run(self) -> Reading:
        opsets = [(each.domain, each.version) for each in self.model.opset_import]
        if len(opsets) != 1 or opsets[0][0] or opsets[0][1] not in OPSETS:
            raise differs("opset", f"is {opsets}, one of {OPSETS} is known")
        reading = super().run()
        if self.quantizers:
            self._check_pairs(reading.graph)
        values = None
        if self.line is not None:
            weight, bias = (self._behind(name) for name in self.line.constants)
            values = self.line.values(weight, bias, self.quantizers[INPUT])
        return replace(
            reading,
            stored=Stored() if self.quantizers else reading.stored,
            input_values=values,
            profile=self.metadata().get("profile", ""),
        )

    def _check_pairs(self, graph: Graph) -> None:
        """Every tensor has a pair, and all pairs inside are of one type."""
        for name in graph.tensors():
            if name not in self.quantizers and name not in graph.unquantized:
                raise differs(name, "its quantizer is missing: it has no pair of its own")
        for node in graph.weighted():
            real = graph.real_outputs | graph.unquantized
            if node.activation is None or node.name in real:
                continue
            if node.name not in self.raw:
                raise differs(node.name, "no pair stands before its clamp")
            same_quantizer(node.name, self.raw[node.name], self.quantizers[node.name])
        if len(self.kinds) != 1:
            names = [self.kinds[kind] for kind in sorted(self.kinds)]
            raise differs(names[0], f"its pair is of another type than that of {names[-1]}")

    # -- the input and the outputs ----------------------------------------------------------------

    def begin(self, source: Any) -> None:
        kind = self.types[source.name]
        if kind == np.uint8:
            self.line = follow_pixels(self, source.name)
            self.values[self.line.output] = Value(INPUT)
        elif kind == np.int8:
            self.tensors[INPUT] = source.name
        elif kind == np.float32:
            super().begin(source)
        else:
            raise differs(INPUT, f"the model takes {kind}")

    def output(self, value: Any) -> str:
        found, kind = self.values.get(value.name), self.types[value.name]
        if found is None or kind != (found.kind or np.float32):
            raise differs(value.name, f"no tensor of the program is given out as {kind}")
        return found.name

    # -- one node of the file ---------------------------------------------------------------------

    def record(self, record: Any, output: str) -> None:
        if self.line is not None and record.name in self.line.records:
            return
        if record.op_type == "Identity" and output in self.results:
            self.real(record.input[0], record.name)
            self.values[output] = self.values[record.input[0]]
            return
        super().record(record, output)

    def quantize(self, record: Any, output: str) -> None:
        name = self.real(record.input[0], record.name)
        known = self.quantizers.get(name)
        quantizer, kind = self.pair(record, name)
        if known is None:
            super().quantize(record, output)
            self.kinds.setdefault(kind.name, name)
            return
        # The values are on the grid already: only an edge of the model, in a type of its own.
        same_quantizer(name, quantizer, known)
        from_edge = name == INPUT and self.tensors[INPUT] in self.types
        if not from_edge and output not in self.results:
            raise differs(name, "it is quantized twice")
        if from_edge:
            self.tensors[INPUT] = output
            self.kinds.setdefault(kind.name, name)
        self.values[output] = Value(name, quantizer, kind)

    def dequantize(self, record: Any, output: str) -> None:
        source = record.input[0]
        if source in self.types and source == self.tensors.get(INPUT):
            quantizer, kind = self.pair(record, INPUT)
            if kind != np.int8 or INPUT in self.quantizers:
                raise differs(INPUT, f"{record.op_type} takes it as {kind}")
            self.quantizers[INPUT] = quantizer
            self.values[output] = Value(INPUT)
            if not self._is_quantized_next(output):
                self.kinds.setdefault(kind.name, INPUT)
            return
        super().dequantize(record, output)

    def _is_quantized_next(self, tensor: str) -> bool:
        readers = [node.op_type for node in self.model.graph.node if tensor in node.input]
        return readers == ["QuantizeLinear"]

    def constant_behind(self, record: Any, output: str) -> None:
        where = record.input[0].removesuffix(".q")
        values, scale, zero_point = (self.constant(each, where) for each in record.input)
        if values.dtype != np.int32:
            super().constant_behind(record, output)
            return
        if zero_point.dtype != np.int32 or zero_point.any() or zero_point.shape != scale.shape:
            raise differs(where, "has a zero-point that is not 0 or not int32")
        self.biases[output] = Constant(values, scale, self.axis(record, where))

    def bias(self, record: Any) -> np.ndarray:
        found = self.biases.get(record.input[2])
        return super().bias(record) if found is None else found.values

    def int8_weights(self, record: Any, weight: Constant, bias: np.ndarray) -> Int8Weights:
        """The bias is int32, at the scale of the products."""
        module = record.name.removesuffix(_RAW)
        held = self.biases.get(record.input[2])
        if held is None or held.axis != 0:
            raise differs(f"{module}.bias", "is not int32 behind its DequantizeLinear")
        (source,) = self.inputs(record)
        if source not in self.quantizers:
            raise differs(source, f"its quantizer is missing, and {module} reads it")
        scale = np.float32(self.quantizers[source].scale) * weight.scale
        what = f"its scale is not that of {source} times that of {module}.weight"
        same_array(f"{module}.bias", held.scale, scale, what)
        return Int8Weights(weight.values, weight.scale, bias, (bias * scale).astype(np.float32))

    def _behind(self, name: str) -> Constant:
        found = self.weights.get(name) or self.biases.get(name)
        if found is None:
            raise differs(INPUT, f"{name} is no constant behind a DequantizeLinear")
        return found

    def is_raw(self, record: Any, maker: Weighted) -> bool:
        """In a quantized file a pair stands between the two, and says so by its name."""
        if maker.name not in self.quantizers:
            return super().is_raw(record, maker)
        if maker.name != maker.module + _RAW or self.reads[record.input[0]] != 1:
            return False
        self.raw[record.name] = self.quantizers.pop(maker.name)
        return True
