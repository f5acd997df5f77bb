"""Which quantizers TensorRT is better without: the pairs that the QDQ ONNX leaves out, with why.

TensorRT fuses what lies between a dequantize and the next quantize into one kernel. A pair inside
such a group breaks it apart:

- between a convolution and its activation (x * sigmoid(x) is one too): it blocks the fusion of the
  two;
- on the convolution's side of a residual add: it blocks conv + add; the shortcut keeps its pair,
  without which the add's other input would be float (TensorRT issues 2383, 1992, 3861);
- after a gate in 0…1 (a sigmoid's scale and zero-point are fixed): of squeeze-excite it is a
  handful of values, of x * sigmoid(x) the middle of one kernel;
- of such values as the net's output, which is real anyway.
"""

from __future__ import annotations

from edgevit.graph import Graph
from edgevit.ops import Add, Fixed, Mul, Node, Unary, Weighted

BEFORE_ACTIVATION = "between a convolution and its activation"
RESIDUAL = "on the convolution's side of a residual add"
GATE = "after the sigmoid of a gate"
OUTPUT = "of an output in 0…1"


def dropped(graph: Graph) -> dict[str, str]:
    """Canonical name -> reason, of every quantizer that the TensorRT artifact does without."""
    readers: dict[str, list[Node]] = {name: [] for name in graph.tensors()}
    for node in graph.nodes:
        for name in node.inputs:
            readers[name].append(node)
    found: dict[str, str] = {}
    for node in graph.nodes:
        reading = readers[node.name]
        is_output = node.name in graph.outputs and node.name not in graph.real_outputs
        if _is_lopsided(node):
            if not reading:
                found[node.name] = OUTPUT
            elif not is_output and all(isinstance(reader, Mul) for reader in reading):
                found[node.name] = GATE
        elif (
            isinstance(node, Weighted)
            and reading
            and not is_output
            and all(_activates(reader, graph) for reader in reading)
        ):
            found[node.name] = BEFORE_ACTIVATION
    for node in graph.nodes:
        if isinstance(node, Add) and (branch := _branch(graph, node.inputs, readers)):
            found[branch] = RESIDUAL
    return {name: found[name] for name in graph.owners() if name in found}


def _is_lopsided(node: Node) -> bool:
    """Whether the quantizer is fixed with a zero-point other than 0, which no pair can have."""
    return isinstance(node.rule, Fixed) and node.rule.quantizer.zero_point != 0


def _activates(node: Node, graph: Graph) -> bool:
    """Whether a node is an activation, or the product of x * sigmoid(x)."""
    if not isinstance(node, Mul):
        return isinstance(node, Unary)
    value, gate = (graph.makes(name) for name in node.inputs)
    if value is None or gate is None:
        return False
    return _is_lopsided(gate) and gate.inputs == (value.name,)


def _branch(graph: Graph, inputs: tuple[str, ...], readers: dict[str, list[Node]]) -> str | None:
    """The input of an add that a convolution makes for it alone; the later one where both do."""
    alone = [
        node.name
        for node in graph.nodes
        if node.name in inputs
        and isinstance(node, Weighted)
        and len(readers[node.name]) == 1
        and node.name not in graph.outputs
    ]
    return alone[-1] if alone else None
