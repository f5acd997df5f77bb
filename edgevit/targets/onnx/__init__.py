"""The ONNX target: a quantized program as a QDQ ONNX with a pair on every tensor.

It is for every runtime that reads ONNX: ONNX Runtime, OpenVINO, QNN. `write` writes it and `read`
reads it, over `targets.qdq`; `session` is what ONNX Runtime must be told.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from edgevit.ops import Add, HardSwish, LayerNorm, Mul, Node, Relu, Relu6
from edgevit.options import NoOptions
from edgevit.program import Program
from edgevit.targets import make_options
from edgevit.targets.artifact import Artifact, ArtifactData
from edgevit.targets.base import Reading, Target, require_bytes
from edgevit.targets.manifest import Affine, InputTensor, OutputTensor
from edgevit.targets.onnx.options import OnnxOptions
from edgevit.targets.onnx.read import read_onnx
from edgevit.targets.onnx.session import settings_of
from edgevit.targets.onnx.write import labels, onnx_bytes
from edgevit.targets.pixel_input import PixelInput
from edgevit.targets.pixels import as_uint8, quantized_pixels
from edgevit.targets.qdq.runner import OnnxRunner


class Onnx(Target[OnnxOptions, NoOptions]):
    """A QDQ ONNX without a dropped pair; see the module."""

    name = "onnx"
    summary = "ONNX: QDQ with a pair on every tensor, for ONNX Runtime, OpenVINO and others"
    file = "model.onnx"
    Options, RunOptions = OnnxOptions, NoOptions
    packages = ("onnx", "numpy")
    # ONNX Runtime divides by a scale where the program multiplies by its reciprocal, and its sums
    # and products have factors of their own: on scales with ties up to 1 value of 470 is a step
    # off, on those that `graph.ties` chooses none. A layer norm is float32: a last bit off.
    tolerance_steps: ClassVar[Mapping[type[Node], float]] = {
        kind: 1 for kind in (Add, Mul, Relu, Relu6, HardSwish, LayerNorm)
    }

    def write(self, program: Program, options: OnnxOptions) -> bytes:
        return onnx_bytes(program, options)

    def read(self, data: ArtifactData) -> Reading:
        return read_onnx(require_bytes(data, "ONNX"))

    def edges(
        self, program: Program, options: OnnxOptions
    ) -> tuple[InputTensor, tuple[OutputTensor, ...]]:
        graph, io = program.graph(), options.io
        outputs = []
        for name, own in labels(graph).items():
            if name in graph.real_outputs:
                outputs.append(OutputTensor.of(own, graph.shape(name), "float32", None))
                continue
            quantizer = graph.quantizer(name)
            held: dict[str, Affine | None] = {"int8": quantizer, "uint8": as_uint8(quantizer)}
            outputs.append(OutputTensor.of(own, graph.shape(name), io, held.get(io)))
        return _input(program, io), tuple(outputs)

    def open(self, artifact: Artifact, options: NoOptions) -> OnnxRunner:
        chosen = make_options(self.name, OnnxOptions, artifact.manifest.options)
        how = chosen.activation_type if chosen.precision == "int8" else chosen.precision
        return OnnxRunner(artifact, read_onnx, how, settings_of(chosen))

    def is_float(self, options: OnnxOptions) -> bool:
        return options.precision == "float32"


def _input(program: Program, io: str) -> InputTensor:
    graph, rules = program.graph(), program.info.preprocessing
    name, shape = graph.input_name, graph.input_shape
    if io == "float32":
        return InputTensor.of(name, shape, "NCHW", io, None, rules.table())
    if io == "uint8":
        return InputTensor.of(name, shape, "NCHW", io, PixelInput.UINT8, [range(256)] * 3)
    quantizer = graph.quantizer(name)
    return InputTensor.of(name, shape, "NCHW", io, quantizer, quantized_pixels(rules, quantizer))


TARGET = Onnx()
