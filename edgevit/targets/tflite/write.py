"""A program as the bytes of a .tflite file: input and output around its operations, metadata."""

from __future__ import annotations

from edgevit.graph import Graph
from edgevit.ops import Softmax
from edgevit.program import Program
from edgevit.targets.base import float_form
from edgevit.targets.pixel_input import PixelInput, pixel_input
from edgevit.targets.pixels import as_uint8
from edgevit.targets.tflite.emit import EMITTERS, reshape, shape_constant
from edgevit.targets.tflite.emitter import Emitter, nhwc
from edgevit.targets.tflite.metadata import (
    METADATA_NAME,
    RUNTIME_NAME,
    append_labels,
    metadata,
    runtime_version,
)
from edgevit.targets.tflite.options import TfliteOptions
from edgevit.targets.tflite.real import RealOutputs

_BASE_RUNTIME = (1, 14, 0)
_RUNTIMES = {
    ("HARD_SWISH", 1): (1, 15, 0), ("RELU", 2): (2, 1, 0), ("RESIZE_BILINEAR", 3): (2, 2, 0),
    ("TRANSPOSE_CONV", 3): (2, 3, 0), ("CONV_2D", 5): (2, 4, 0), ("CONV_2D", 6): (2, 9, 0),
    ("DEPTHWISE_CONV_2D", 6): (2, 3, 0), ("GELU", 1): (2, 9, 0), ("GELU", 2): (2, 9, 0),
}  # fmt: skip
"""The first TFLite that has an operator's version, of those newer than the base."""


def tflite_bytes(program: Program, options: TfliteOptions) -> bytes:
    """The .tflite file of a program.

    Raises InputError naming the node or tensor: an operation that TFLite cannot hold, a tensor
    without a quantizer.
    """
    own, info = program.graph(), program.info
    graph = float_form(own) if options.precision == "float32" else own
    emitter = Emitter(graph, tables=options.activations == "table")
    source = _input(emitter, program, options.io)
    emitter.run(EMITTERS)
    real = RealOutputs(emitter)
    outputs = [
        _output(real.emitter, real.emit(name), label, "float32")
        if name in graph.real_outputs
        else _output(emitter, name, label, options.io)
        for name, label in labels(graph).items()
    ]
    runtimes = [_RUNTIMES.get(used, _BASE_RUNTIME) for used in emitter.writer.versions()]
    oldest = ".".join(map(str, max(runtimes, default=_BASE_RUNTIME)))
    inside = "float32" if options.precision == "float32" else "INT8"
    if options.weights_only == "on":
        inside = "INT8 weights, float32"
    entries = {
        RUNTIME_NAME: runtime_version(oldest),
        METADATA_NAME: metadata(info, own, options.io, inside),
    }
    model = emitter.writer.finish((graph.input_name, source), outputs, entries)
    return append_labels(model, info.labels)


def labels(graph: Graph) -> dict[str, str]:
    """Output's canonical name -> its name in the artifact's signature.

    The name that the net's author gave. Without one, a first vector is "logits", or "probabilities"
    behind a softmax; every other output keeps its tensor's name, as does a first one where another
    output is called so.
    """
    if graph.given_names:
        return dict(zip(graph.outputs, graph.given_names, strict=True))
    first, *others = graph.outputs
    label = "probabilities" if isinstance(graph.node(first), Softmax) else "logits"
    if len(graph.shape(first)) != 2 or label in others:
        label = first
    return {first: label, **{name: name for name in others}}


def _input(e: Emitter, program: Program, io: str) -> int:
    """The model's input; inside, a quantized graph is all int8."""
    name, shape = e.graph.input_name, nhwc(e.graph.input_shape)
    if not e.quantized or io == "int8":
        return e.result(name)
    if io == "float32":
        outer = e.writer.activation(f"{name}.float32", shape, "float32", None)
        e.operator("QUANTIZE", [outer], e.result(name), e.schema.QuantizeOptionsT())
        return outer
    pixels = pixel_input(program.info.preprocessing, e.graph.quantizer(name))
    return _pixel_input(e, pixels)


def _pixel_input(e: Emitter, pixels: PixelInput) -> int:
    """Raw pixels: shifted to int8, then normalised by a 1x1 depthwise convolution."""
    name, shape = e.graph.input_name, nhwc(e.graph.input_shape)
    outer = e.writer.activation(f"{name}.uint8", shape, "uint8", PixelInput.UINT8)
    shifted = e.writer.activation(f"{name}.shifted", shape, "int8", PixelInput.INT8)
    e.operator("QUANTIZE", [outer], shifted, e.schema.QuantizeOptionsT())
    weight, scale = pixels.weight.reshape(1, 1, 1, -1), pixels.weight_scale
    inputs = [
        shifted,
        e.writer.constant(f"{name}.weight", weight, scale, axis=3),
        e.writer.constant(f"{name}.bias", pixels.bias, scale),
    ]
    options = e.schema.DepthwiseConv2DOptionsT(
        padding=e.schema.Padding.VALID, strideW=1, strideH=1, depthMultiplier=1
    )
    e.operator("DEPTHWISE_CONV_2D", inputs, e.result(name), options)
    return outer


def _output(e: Emitter, name: str, label: str, io: str) -> tuple[str, int]:
    """An output's label and tensor: vectors as (1, C), maps in NHWC, in the element type `io`."""
    shape, kind = e.graph.shape(name), "int8" if e.quantized else "float32"
    inner, vector = e.tensors[name], len(shape) == 2
    if vector:
        own = _unused(e, label)
        target = shape_constant(e, f"{own}.shape", shape)
        inner = e.like(own if kind == io else f"{own}.int8", shape, name)
        reshape(e, [e.tensors[name], target], inner, shape)
    if kind == io:
        return label, inner
    own, outer_shape = _unused(e, label), shape if vector else nhwc(shape)
    if io == "float32":
        outer = e.writer.activation(own, outer_shape, "float32", None)
        e.operator("DEQUANTIZE", [inner], outer, e.schema.DequantizeOptionsT())
        return label, outer
    outer = e.writer.activation(own, outer_shape, "uint8", as_uint8(e.graph.quantizer(name)))
    e.operator("QUANTIZE", [inner], outer, e.schema.QuantizeOptionsT())
    return label, outer


def _unused(e: Emitter, label: str) -> str:
    """A name for an output's tensor that no tensor of the graph has."""
    while label in e.graph.tensors():
        label += ".output"
    return label
