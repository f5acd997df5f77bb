"""The TFLite target: a quantized program as a full-INT8 .tflite file.

`write` makes the file: `emit` and `emit_weighted` turn operations into operators over `emitter`,
`metadata` is what Android reads, `flatbuffer` the format. Raw pixels (`targets.pixel_input`) and
hard sigmoids (`targets.exact`) are lines that a convolution computes exactly; GELU and hard-swish
are tables (`emit_table`). `read` reads it back:
`file` its tensors and operators, `operators` and `operators_weighted` what they mean. `runner` runs
it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

from edgevit.graph import Graph
from edgevit.ops import AvgPool2d, HardSwish, LayerNorm, Node, Relu, Relu6, Resize
from edgevit.options import NoOptions
from edgevit.program import Program
from edgevit.targets.artifact import Artifact, ArtifactData
from edgevit.targets.base import Reading, Target, require_bytes
from edgevit.targets.manifest import Affine, InputTensor, OutputTensor
from edgevit.targets.pixel_input import PixelInput
from edgevit.targets.pixels import as_uint8, quantized_pixels
from edgevit.targets.tflite.emitter import elided, nhwc
from edgevit.targets.tflite.options import TfliteOptions
from edgevit.targets.tflite.read import FLATTENED, read
from edgevit.targets.tflite.runner import TfliteRunner
from edgevit.targets.tflite.write import labels, tflite_bytes


class Tflite(Target[TfliteOptions, NoOptions]):
    """The TFLite target."""

    name = "tflite"
    summary = "TFLite / LiteRT: full INT8, for Android and Linux"
    file = "model.tflite"
    Options = TfliteOptions
    RunOptions = NoOptions
    maps_last = True
    packages = ("ai-edge-litert", "flatbuffers", "numpy")
    # LiteRT rounds a mean or a blend that lies between two steps away from zero, the program to
    # even; XNNPACK has no int8 HARD_SWISH, and TFLite's own rounds more than once, as
    # its ReLU does where the output's scale is more than twice the input's. A layer norm's float32
    # results are a last bit off the program's exact ones.
    tolerance_steps: ClassVar[Mapping[type[Node], float]] = {
        AvgPool2d: 1,
        Resize: 1,
        HardSwish: 1,
        LayerNorm: 1,
        Relu: 1,
        Relu6: 1,
    }

    def write(self, program: Program, options: TfliteOptions) -> bytes:
        return tflite_bytes(program, options)

    def read(self, data: ArtifactData) -> Reading:
        return read(require_bytes(data, self.name))

    def edges(
        self, program: Program, options: TfliteOptions
    ) -> tuple[InputTensor, tuple[OutputTensor, ...]]:
        """A vector is (1, C), a map is in NHWC."""
        return _input(program, options.io), tuple(_outputs(program.graph(), options.io))

    def open(self, artifact: Artifact, options: NoOptions) -> TfliteRunner:
        return TfliteRunner(artifact)

    def spelling(self, graph: Graph) -> Callable[[str], str]:
        """A flatten that moves nothing is no operator; `read` calls it after its source."""
        names = {name: FLATTENED.format(source) for name, source in elided(graph).items()}
        return lambda name: names.get(name, name)

    def is_float(self, options: TfliteOptions) -> bool:
        return options.precision == "float32"

    def weights_only(self, options: TfliteOptions) -> bool:
        return options.weights_only == "on"


def _input(program: Program, io: str) -> InputTensor:
    graph, rules = program.graph(), program.info.preprocessing
    name, shape = graph.input_name, nhwc(graph.input_shape)
    if io == "float32":
        return InputTensor.of(name, shape, "NHWC", io, None, rules.table())
    if io == "uint8":
        return InputTensor.of(name, shape, "NHWC", io, PixelInput.UINT8, [range(256)] * shape[3])
    quantizer = graph.quantizer(name)
    return InputTensor.of(name, shape, "NHWC", io, quantizer, quantized_pixels(rules, quantizer))


def _outputs(graph: Graph, io: str) -> list[OutputTensor]:
    found = []
    for name, label in labels(graph).items():
        kind = "float32" if name in graph.real_outputs else io
        shape, quantizer = graph.shape(name), _edge(graph, name, kind)
        held = shape if len(shape) == 2 else nhwc(shape)
        found.append(OutputTensor.of(label, held, kind, quantizer))
    return found


def _edge(graph: Graph, name: str, io: str) -> Affine | None:
    """How an output of this type holds real numbers."""
    if io == "float32":
        return None
    quantizer = graph.quantizer(name)
    return as_uint8(quantizer) if io == "uint8" else quantizer


TARGET = Tflite()
