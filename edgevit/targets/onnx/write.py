"""Graph to a QDQ ONNX with a pair on every quantized tensor, as every ONNX runtime reads it.

A runtime that finds a pair on every input and output of an operator can run it on integers, and
must not choose a scale. So a pair stands behind each operation, also between a convolution and the
clamp that is fused behind it, and behind one that only moves values; biases are int32 behind a
DequantizeLinear. `qdq.write` has the rest.
"""

from __future__ import annotations

import json

import numpy as np

from edgevit.graph import Graph
from edgevit.ops import INT8_MIN, Node, Quantizer, Softmax, Weighted
from edgevit.program import Program
from edgevit.targets.onnx.options import OnnxOptions
from edgevit.targets.onnx.session import settings_of
from edgevit.targets.pixel_input import PixelInput, pixel_input
from edgevit.targets.qdq.toolkit import METADATA_PREFIX, PROBABILITIES
from edgevit.targets.qdq.write import OUTPUT_NAME, Writer, model_metadata, output_names


def onnx_bytes(program: Program, options: OnnxOptions) -> bytes:
    """The .onnx file of a program; the same program and options are the same bytes.

    Raises InputError naming a tensor without a quantizer or an operation that the target does not
    know; ToolMissing without onnx.
    """
    info = program.info
    more = {"profile": info.profile, "onnxruntime": json.dumps(settings_of(options))}
    named = {METADATA_PREFIX + key: value for key, value in more.items()}
    writer = _Writer(program, options)
    return writer.run(f"edgevit {info.model.variant}", model_metadata(program) | named)


def labels(graph: Graph) -> dict[str, str]:
    """The graph's outputs -> their names: "logits", "probabilities" behind a softmax."""
    ends_in_softmax = isinstance(graph.node(graph.outputs[0]), Softmax)
    return output_names(graph, PROBABILITIES if ends_in_softmax else OUTPUT_NAME)


class _Writer(Writer):
    target = "ONNX"

    def __init__(self, program: Program, options: OnnxOptions) -> None:
        graph = program.graph()
        super().__init__(
            graph,
            quantized=options.precision == "int8",
            real=np.dtype(np.float32),
            io=np.dtype(options.io),
            outputs=labels(graph),
            opset=int(options.opset),
        )
        self.inner = np.dtype(options.activation_type)
        self.preprocessing = program.info.preprocessing

    def begin(self) -> None:
        name = self.graph.input_name
        if not self.graph.quantized:
            self.values[name] = name
        elif self.io == np.float32:
            self._pair(name, name)
        elif self.io == np.uint8:
            pixels = pixel_input(self.preprocessing, self.graph.quantizer(name))
            self._pair(name, self._of_pixels(name, pixels))
        elif self.inner == self.io:
            self.values[name] = self._dequantize(name, name, f"{name}.dq", self.io)
        else:
            self._pair(name, self._dequantize(name, name, f"{name}.{self.io.name}.dq", self.io))

    def _of_pixels(self, name: str, pixels: PixelInput) -> str:
        """Raw pixels, normalised by a 1x1 depthwise convolution: values of the program's input."""
        ends: list[tuple[str, np.dtype, int]] = [("pixels", np.dtype(np.uint8), 0)]
        if self.inner != np.uint8:  # a runtime's convolution gives the type that it takes
            ends.append(("shifted", self.inner, INT8_MIN))
        value, one = name, self.real("pixels.scale", PixelInput.UINT8.scale)
        for end, kind, zero_point in ends:
            pair = [one, self.constant(f"{name}.{end}.zero_point", np.array(zero_point, kind))]
            if end == "shifted":
                value = self.node("QuantizeLinear", [value, *pair], f"{name}.{end}.q")
            value = self.node("DequantizeLinear", [value, *pair], f"{name}.{end}.dq")
        weight, scale = pixels.weight.reshape(-1, 1, 1, 1), pixels.weight_scale
        inputs = [
            value,
            self._constant_behind(f"{name}.weight", weight, scale),
            self._constant_behind(f"{name}.bias", pixels.bias, scale),
        ]
        return self.node("Conv", inputs, f"{name}.normalised", kernel_shape=(1, 1), group=3)

    def output_type(self, name: str) -> np.dtype:
        is_real = name in self.graph.real_outputs
        return np.dtype(np.float32) if is_real else self.io

    def finish(self, node: Node, value: str) -> None:
        name = node.name
        output = self.outputs.get(name)
        if not self.graph.quantized or self._is_real(name):
            self.values[name] = value
            if output is not None:
                self.node("Identity", [value], output)
            if self.graph.quantized and name not in self.graph.unquantized:
                self._pair(name, value)
        elif output is None or self.io == np.float32:
            self._pair(name, value, dequantized=output)
        else:
            self._integer_output(name, value, output)

    def _is_real(self, name: str) -> bool:
        return name in self.graph.real_outputs or name in self.graph.unquantized

    def _integer_output(self, name: str, value: str, output: str) -> None:
        if self.inner != self.io:
            self._pair(name, value)
            self._quantize(name, self.values[name], f"{name}.{self.io.name}.q", self.io, output)
            return
        held = self._quantize(name, value, f"{name}.q", self.io, output)
        if self.graph.readers(name):
            self.values[name] = self._dequantize(name, held, f"{name}.dq", self.io)

    def bias(self, node: Weighted) -> str:
        if not self.graph.quantized:
            return super().bias(node)
        # Scales are float16, so that a product of two is a float32.
        scale = np.float32(self.graph.quantizer(node.inputs[0]).scale) * node.weight_scale
        return self._constant_behind(f"{node.module}.bias", node.bias_q, scale)

    def raw_name(self, node: Weighted) -> str:
        return f"{node.module}.raw"

    def before_clamp(self, node: Weighted, value: str) -> str:
        if not self.graph.quantized or self._is_real(node.name):
            return value
        inner = self._quantize(node.name, value, f"{value}.q", self.inner)
        return self._dequantize(node.name, inner, f"{value}.dq", self.inner)

    # -- Q and DQ -------------------------------------------------------------------------------

    def _pair(self, name: str, value: str, dequantized: str | None = None) -> None:
        """A tensor's pair, whose result is what the tensor's readers read.

        dequantized  its name, where it is an output
        """
        held = self._quantize(name, value, f"{name}.q", self.inner)
        self.values[name] = self._dequantize(name, held, f"{name}.dq", self.inner, dequantized)

    def _quantize(
        self, name: str, value: str, own: str, kind: np.dtype, output: str | None = None
    ) -> str:
        return self.node("QuantizeLinear", [value, *self._affine(name, kind)], own, output)

    def _dequantize(
        self, name: str, value: str, own: str, kind: np.dtype, output: str | None = None
    ) -> str:
        return self.node("DequantizeLinear", [value, *self._affine(name, kind)], own, output)

    def _affine(self, name: str, kind: np.dtype) -> list[str]:
        """Scale and zero-point of a tensor in an integer type."""
        quantizer: Quantizer = self.graph.quantizer(name)
        shift = 0 if kind == np.int8 else -INT8_MIN
        zero_point = np.array(quantizer.zero_point + shift, kind)
        end = "" if kind == self.inner else f".{kind.name}"
        return [
            self.real(f"{name}.scale", quantizer.scale),
            self.constant(f"{name}.zero_point{end}", zero_point),
        ]

    def _constant_behind(self, name: str, values: np.ndarray, scale: np.ndarray) -> str:
        """A constant with a scale for each of its first axis, behind its DequantizeLinear."""
        inputs = [
            self.constant(f"{name}.q", values),
            self.real(f"{name}.scale", scale),
            self.constant(f"{name}.zero_point", np.zeros(scale.shape, values.dtype)),
        ]
        return self.node("DequantizeLinear", inputs, f"{name}.dq", axis=0)
