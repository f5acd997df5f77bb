"""Checks of where Q and DQ stand. Each yields (rule, node, what is there)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgevit.targets.tensorrt.lint.graph import DEQUANTIZE, QUANTIZE, Graph
from edgevit.targets.tensorrt.lint.parameters import Check, Found
from edgevit.targets.tensorrt.lint.reading import subgraphs

if TYPE_CHECKING:
    import onnx

_CONVOLUTIONS = ("Conv", "ConvTranspose")
_WEIGHTED = (*_CONVOLUTIONS, "Gemm", "MatMul")
_ACTIVATIONS = {
    "Celu", "Clip", "Elu", "Erf", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "PRelu",
    "Relu", "Selu", "Sigmoid", "Softplus", "Swish", "Tanh", "ThresholdedRelu",
}  # fmt: skip
# What GELU, HardSwish and their like are written with when they are no operator of their own:
# x / √2 before Erf, x + 3 before Clip, a polynomial before Tanh.
_STEPS = {"Add", "Cast", "Div", "Identity", "Mul", "Pow", "Sub"}
_MAX_STEPS = 6


def check_weighted(graph: Graph) -> Found:
    """Operators with weights have both inputs quantized."""
    for node in graph.of(*_WEIGHTED):
        names = list(node.input[:2])
        fixed = [name in graph.constant for name in names]
        quantized = [name in graph.dequantized for name in names]
        if all(fixed) or all(quantized):
            continue
        parts = ["weight" if each else "activation" for each in fixed]
        if not any(fixed):
            parts = ["first input", "second input"]
        if any(quantized):
            yes, no = (parts[0], parts[1]) if quantized[0] else (parts[1], parts[0])
            yield "TRT008", node, f"{graph.op(node)}: its {yes} is quantized, its {no} is not"
        # A product of two activations is no layer, and often float on purpose.
        elif graph.op(node) != "MatMul" or any(fixed):
            yield "TRT009", node, f"float {graph.op(node)}"


def check_pairs(graph: Graph) -> Found:
    """Each Q is read by DQ only, and each DQ reads a Q, a constant or an int8 input."""
    for node in graph.of(QUANTIZE, DEQUANTIZE):
        if graph.op(node) == QUANTIZE and node.output[0] not in graph.read_back:
            readers = sorted({graph.op(n) for n in graph.consumers.get(node.output[0], [])})
            yield "TRT010", node, f"its output is read by {', '.join(readers) or 'nothing'}"
        if graph.op(node) == DEQUANTIZE and not (
            node.input[0] in graph.quantized or node.input[0] in graph.constant
        ):
            origin = graph.source_op(node.input[0]) or "a graph input that is not int8"
            yield "TRT010", node, f"it reads {node.input[0]}, which comes from {origin}"


def check_activations(graph: Graph) -> Found:
    """No Q/DQ between a convolution or matrix product and its activation."""
    for node in graph.of(QUANTIZE):
        weighted = _weighted_before(graph, node.input[0])
        if not weighted:
            continue
        for reader in graph.consumers.get(node.output[0], []):
            if graph.op(reader) != DEQUANTIZE:
                continue
            if activation := _activation_after(graph, reader.output[0]):
                yield "TRT011", node, f"it stands between {weighted} and {activation}"
                break


def check_residuals(graph: Graph) -> Found:
    """A residual Add reads a convolution's float output and a quantized shortcut."""
    for node in graph.of("Add"):
        names = list(node.input)
        if names[0] == names[1] or any(name in graph.constant for name in names):
            continue
        sources = [graph.source[name] for name in names if name in graph.source]
        direct = [source for source in sources if graph.op(source) in _CONVOLUTIONS]
        blocking = [q for name in names if (q := _blocking_quantizer(graph, name)) is not None]
        quantized = sum(name in graph.dequantized for name in names)
        blocked = bool(blocking) and not direct
        if blocked:
            readers = f"read by {graph.op(node)} {node.name}".rstrip()
            yield "TRT012", blocking[0], f"it stands behind a convolution and is only {readers}"
        # A float convolution is a finding of its own: nothing is gained by a shortcut in int8.
        int8 = any(all(name in graph.dequantized for name in conv.input[:2]) for conv in direct)
        if (int8 and not quantized) or (blocked and quantized == 1):
            float_names = [name for name in names if name not in graph.dequantized]
            yield "TRT013", node, f"it reads {' and '.join(float_names)} in float"


def check_all_is_seen(graph: Graph) -> Found:
    """No node holds nodes of its own."""
    functions = {(function.domain, function.name) for function in graph.model.functions}
    for node in graph.nodes:
        if subgraphs(node):
            yield "TRT018", node, f"{graph.op(node)} holds a subgraph"
        elif (node.domain, node.op_type) in functions:
            yield "TRT018", node, f"{graph.op(node)} is a function of the model"


def _weighted_before(graph: Graph, name: str) -> str:
    """The weighted operator that a tensor comes from, a bias Add between or not; "" for none."""
    node = graph.source.get(name)
    if node is not None and graph.op(node) == "Add":
        rest = [each for each in node.input if each not in graph.constant]
        node = graph.source.get(rest[0]) if len(rest) == 1 else None
    return graph.op(node) if graph.op(node) in _WEIGHTED else ""


def _activation_after(graph: Graph, name: str) -> str:
    """The activation a tensor goes into, at once or by a few steps with constants; "" for none."""
    waiting = [(name, 0)]
    while waiting:
        name, steps = waiting.pop()
        for reader in graph.consumers.get(name, []):
            op = graph.op(reader)
            if op in _ACTIVATIONS:
                return op
            alone = all(each == name or each in graph.constant for each in reader.input)
            if op in _STEPS and alone and steps < _MAX_STEPS:
                waiting.append((reader.output[0], steps + 1))
    return ""


def _blocking_quantizer(graph: Graph, name: str) -> onnx.NodeProto | None:
    """The Q of a pair between a convolution and this tensor, when nothing else reads the pair.

    A pair that other nodes read is needed for them, as that of a block's input, which its first
    convolution and its shortcut share.
    """
    dequantize = graph.dequantizer(name)
    if dequantize is None:
        return None
    quantize = graph.quantizer(dequantize)
    if quantize is None or graph.source_op(quantize.input[0]) not in _CONVOLUTIONS:
        return None
    for tensor in (quantize.input[0], dequantize.input[0], name):
        if tensor in graph.exposed or len(graph.consumers.get(tensor, [])) != 1:
            return None
    return quantize


CHECKS: tuple[Check, ...] = (
    check_weighted, check_pairs, check_activations, check_residuals, check_all_is_seen,
)  # fmt: skip
