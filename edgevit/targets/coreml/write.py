"""Graph to ML Program: through torch.export and coremltools, with a short list of passes.

    Given   conv2d "stem.conv1" and its quantizer
    Result  constexpr int8 weights, conv, quantize "stem_conv1_q", dequantize "stem_conv1_dq"

Variables carry the canonical tensor names ("_" for "."; coremltools appends "_cast_fp16" and the
like), so that a layer has the same name in Xcode's performance report as in parity.json.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from edgevit.data.images import Preprocessing
from edgevit.errors import EdgevitError, InputError
from edgevit.graph import Graph, float_graph
from edgevit.ops import (
    Add,
    AvgPool2d,
    Concat,
    Conv2d,
    ConvTranspose2d,
    Flatten,
    Gelu,
    HardSigmoid,
    HardSwish,
    LayerNorm,
    Linear,
    MaxPool2d,
    Mean,
    Mul,
    Node,
    Pad,
    Quantizer,
    Relu,
    Relu6,
    Resize,
    Sigmoid,
    Slice,
    Softmax,
    Tanh,
)
from edgevit.program import Program
from edgevit.targets.coreml.options import CoremlOptions
from edgevit.targets.coreml.save import package_files
from edgevit.targets.coreml.toolkit import coremltools, quiet
from edgevit.targets.pixels import quantized, quantized_pixels

if TYPE_CHECKING:
    import torch

INPUT_NAME, LOGITS_NAME = "image", "logits"
LABEL_NAME, PROBABILITIES_NAME = "classLabel", "classLabel_probs"
_PASSES = (
    "update_output_dtypes", "noop_elimination", "int_op_canonicalization",
    "nullify_redundant_quantization_zero_point", "dequantize_to_constexpr", "const_elimination",
    "sanitize_input_output_names", "const_deduplication", "fuse_linear_bias", "fuse_conv_bias",
    "remove_symbolic_reshape", "add_fp16_cast", "cast_optimization", "const_elimination",
    "dead_code_elimination", "const_deduplication", "dedup_op_and_var_names",
    "dead_code_elimination",
)  # fmt: skip
"""What the conversion needs and no more. Of coremltools' default passes one rewrites the scales of
residual adds (distributive_quantized_binary_op_scale_normalization), another makes a batch_norm of
the normalisation, whose epsilon changes the values; the rest find nothing."""


def write_package(program: Program, options: CoremlOptions) -> dict[str, bytes]:
    """The files of a program's .mlpackage. Raises what `convert` does."""
    return package_files(convert(program, options), program.sha256, program.info)


def convert(program: Program, options: CoremlOptions) -> Any:
    """The coremltools model of a program, not saved.

    Raises InputError naming an operation that Core ML cannot hold or a tensor without a quantizer;
    EdgevitError when torch.export changed the operations; ToolMissing.
    """
    graph = program.graph()
    for node in graph.nodes:
        hindrance = HINDRANCES.get(type(node))
        if hindrance is None:
            raise InputError(f"{node.name}: the Core ML target does not know {node.kind!r}")
        if why := hindrance(node, graph):
            raise InputError(f"{node.name}: {why}")
    if options.weights_only == "off":
        graph.activations()  # names a tensor without a quantizer
    _check_outputs(program, options)
    if graph.quantized and options.compute_precision == "float16":
        _check_squares(graph)
    if options.input_type == "image" and program.info.preprocessing.channels == "RGBA":
        raise InputError(
            "Core ML's images have no alpha, which this program's RGBA input needs; compile with "
            "--input-type tensor"
        )
    if options.precision == "float16":
        graph = float_graph(graph)
    ct = coremltools()
    with quiet():
        exported = _export(graph, _edge_constants(program, options), options)
        model = ct.convert(
            exported,
            inputs=[_input_type(graph, program.info.preprocessing.channels, options)],
            outputs=None if options.output_type == "classifier" else [
                ct.TensorType(name, dtype=np.float32) for name in output_names(graph).values()
            ],
            classifier_config=ct.ClassifierConfig(list(program.info.labels), LABEL_NAME)
            if options.output_type == "classifier" else None,
            minimum_deployment_target=getattr(ct.target, options.deployment_target),
            compute_precision=_compute_precision(options),
            pass_pipeline=ct.PassPipeline([f"common::{name}" for name in _PASSES]),
            skip_model_load=True,
        )  # fmt: skip
    return model


def _check_squares(graph: Graph) -> None:
    """A norm squares its input, and the largest float16 is 65504."""
    for node in graph.nodes:
        if not isinstance(node, LayerNorm):
            continue
        quantizer = graph.quantizer(node.inputs[0])
        span = quantizer.high - quantizer.low
        if span**2 > float(np.finfo(np.float16).max):
            raise InputError(
                f"{node.name}: this layer norm's input spans {span:.4g}, the square of which "
                "float16 does not hold; compile with --compute-precision float32"
            )


def output_names(graph: Graph) -> dict[str, str]:
    """The graph's outputs -> their names in the package.

    The author's, with "_" for what no Swift name may hold; without one "logits", or NAME_output of
    several.
    """
    if graph.given_names:
        names = (re.sub(r"^(?=\d)|\W", "_", name, flags=re.ASCII) for name in graph.given_names)
        return dict(zip(graph.outputs, names, strict=True))
    if len(graph.outputs) == 1:
        return {graph.outputs[0]: LOGITS_NAME}
    return {name: f"{name.replace('.', '_')}_output" for name in graph.outputs}


def _check_outputs(program: Program, options: CoremlOptions) -> None:
    graph = program.graph()
    names = list(output_names(graph).values())
    inside = {name.replace(".", "_") for name in graph.tensors() if graph.given_names}
    if len(set(names)) < len(names) or inside & set(names) or INPUT_NAME in names:
        raise InputError(
            f"outputs {', '.join(graph.public_names)}: Core ML would name two of them, or one and "
            "another tensor, alike; give other names (output_names=)"
        )
    if options.output_type == "logits":
        return
    shapes = [graph.shape(name) for name in graph.outputs]
    if shapes != [(1, len(program.info.labels))]:
        raise InputError(
            f"{graph.outputs[0]}: a Core ML classifier has one output with a score for each of its "
            f"{len(program.info.labels)} labels, not {shapes}; compile with --output-type logits"
        )
    if isinstance(graph.node(graph.outputs[0]), Softmax):
        raise InputError(
            f"{graph.outputs[0]}: the net ends in a softmax, and a Core ML classifier adds one of "
            "its own; compile with --output-type logits"
        )


# -- what Core ML cannot hold -------------------------------------------------------------------

Hindrance = Callable[[Any, Graph], str | None]


def _none(node: Node, graph: Graph) -> None:
    return None


def _identity(node: Node, graph: Graph) -> str | None:
    """coremltools leaves such operations out, and what it leaves out cannot be compared."""
    (source,) = set(node.inputs) if len(set(node.inputs)) == 1 else (None,)
    if source is None or graph.shape(source) != graph.shape(node.name):
        return None
    return f"this {node.kind} changes nothing, and Core ML has no such operation; leave it out"


def _transposed(node: ConvTranspose2d, graph: Graph) -> str | None:
    if all(rest <= side for rest, side in zip(node.output_padding, node.padding, strict=True)):
        return None
    return (
        f"Core ML has no transposed convolution with output_padding {node.output_padding} over its "
        f"padding {node.padding}; the targets tflite, onnx and tensorrt have"
    )


HINDRANCES: dict[type[Node], Hindrance] = {
    **dict.fromkeys((Conv2d, Linear, Add, Mul, Gelu, HardSwish, Relu, Relu6, Sigmoid), _none),
    **dict.fromkeys((HardSigmoid, Tanh, Mean, AvgPool2d, MaxPool2d, Softmax, Resize), _none),
    LayerNorm: _none,
    **dict.fromkeys((Flatten, Concat, Slice, Pad), _identity),
    ConvTranspose2d: _transposed,
}
"""What keeps an operation out of a package, of every operation that the target knows.

coremltools turns the calls of `Node.compute` into MIL; nothing is emitted here by hand."""


def _compute_precision(options: CoremlOptions) -> Any:
    """float16 but for the normalisation and the input's quantize.

    In float16 those would move many an input value by a step: it has 11 bits, and 8 of them go
    into the step's number. In float32 every pixel value gives exactly the program's input.
    """
    ct = coremltools()
    if options.compute_precision == "float32":
        return ct.precision.FLOAT32
    return ct.transform.FP16ComputePrecision(op_selector=lambda op: not _is_edge(op))


def _is_edge(op: Any) -> bool:
    source = op.inputs.get("input") if op.op_type == "quantize" else None
    return op.name in _NORMALISATION or (source is not None and source.name in _INPUTS)


def _input_type(graph: Graph, channels: str, options: CoremlOptions) -> Any:
    ct, shape = coremltools(), graph.input_shape
    if options.input_type == "image":
        layouts = {
            "RGB": ct.colorlayout.RGB, "BGR": ct.colorlayout.BGR, "L": ct.colorlayout.GRAYSCALE
        }  # fmt: skip
        return ct.ImageType(INPUT_NAME, shape=shape, color_layout=layouts[channels])
    return ct.TensorType(INPUT_NAME, shape=shape, dtype=np.float32)


def normalisation(
    preprocessing: Preprocessing, quantizer: Quantizer | None
) -> tuple[np.ndarray, np.ndarray]:
    """float32 gain and offset, one a channel: (pixel / 255 - mean) / std = pixel * gain + offset.

    The ones nearest to the exact quotients, or a few of their last bits beside them, so that all
    256 products of a channel fall on the program's own input values; the nearest where those are
    real numbers (None). Raises EdgevitError where none do (no such case is known).
    """
    if quantizer is None:
        mean, std = (np.array(each) for each in (preprocessing.mean, preprocessing.std))
        return (1 / (255 * std)).astype(np.float32), (-mean / std).astype(np.float32)
    wanted = quantized_pixels(preprocessing, quantizer)
    found = [
        _channel(wanted[channel], 1 / (255 * std), -mean / std, quantizer)
        for channel, (mean, std) in enumerate(zip(preprocessing.mean, preprocessing.std))
    ]
    gain, offset = zip(*found, strict=True)
    return np.array(gain, np.float32), np.array(offset, np.float32)


def _channel(
    wanted: np.ndarray, gain: float, offset: float, quantizer: Quantizer
) -> tuple[np.float32, np.float32]:
    pixels = np.arange(256, dtype=np.float32)
    for distance in sorted(np.ndindex(9, 9), key=lambda d: abs(d[0] - 4) + abs(d[1] - 4)):
        a, b = (
            np.float32(value) + np.float32(bits - 4) * np.spacing(np.float32(value))
            for value, bits in zip((gain, offset), distance)
        )
        if np.array_equal(quantized(pixels * a + b, quantizer), wanted):
            return a, b
    raise EdgevitError("no float32 gain and offset give the program's input for every pixel")


def _edge_constants(
    program: Program, options: CoremlOptions
) -> tuple[np.ndarray, np.ndarray] | None:
    """Gain and offset of an image input; None for a tensor, which comes normalised."""
    if options.input_type == "tensor":
        return None
    graph = program.graph()
    quantizer = graph.quantizer(graph.input_name) if graph.quantized else None
    return normalisation(program.info.preprocessing, quantizer)


def _export(
    graph: Graph, edge: tuple[np.ndarray, np.ndarray] | None, options: CoremlOptions
) -> Any:
    """The graph with its edges as a torch.export program (ATen dialect), canonically named."""
    import torch

    from edgevit.program.torch_program import graph_module

    net = graph_module(graph)
    edges = torch.nn.Sequential()
    if edge is not None:
        edges.append(_normalise(*edge))
    edges.append(net)
    if options.output_type == "classifier":
        edges.append(torch.nn.Softmax(1))
    example = torch.zeros(graph.input_shape)
    with torch.no_grad():
        exported = torch.export.export(edges, (example,)).run_decompositions({})
    _rename(exported, net, _NORMALISATION if edge is not None else ())
    return exported


def _normalise(gain: np.ndarray, offset: np.ndarray) -> torch.nn.Module:
    """Raw pixels 0..255 to the network's input, exact per channel (ImageType has one scale)."""
    import torch

    class Normalise(torch.nn.Module):
        gain: torch.Tensor
        offset: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("gain", torch.from_numpy(gain).view(1, -1, 1, 1))
            self.register_buffer("offset", torch.from_numpy(offset).view(1, -1, 1, 1))

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return pixels * self.gain + self.offset

    return Normalise()


_NORMALISATION = ("normalise_gain", "normalise_offset")
_INPUTS = (INPUT_NAME, _NORMALISATION[-1])
"""What the input's quantize may read."""


def _rename(exported: Any, net: torch.fx.GraphModule, before: tuple[str, ...]) -> None:
    """Gives the traced calls the names they have in the program, after those named `before`."""
    written = [node for node in net.graph.nodes if node.op in ("call_function", "call_method")]
    traced = [node for node in exported.graph.nodes if node.op == "call_function"]
    traced = traced[: len(before) + len(written)]
    if len(traced) != len(before) + len(written):
        raise EdgevitError("torch.export changed the operations of the program")
    for node in traced:
        node._rename(f"tmp_{node.name}")  # so that no new name meets an old one
    names = [*before, *(node.name for node in written)]
    for name, node in zip(names, traced, strict=True):
        node._rename(name)
    (results,) = exported.graph.output_node().args
    for spec, made in zip(exported.graph_signature.output_specs, results, strict=True):
        spec.arg.name = made.name
