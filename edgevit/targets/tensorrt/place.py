"""Which quantizers TensorRT is better without: the pairs that the QDQ ONNX leaves out, with why.

TensorRT fuses what lies between a dequantize and the next quantize into one kernel. A pair inside
such a group breaks it apart:

- between a convolution and its activation (x * sigmoid(x) is one too): it blocks the fusion of the
  two;
- on the convolution's side of a residual add: it blocks conv + add; the shortcut keeps its pair,
  without which the add's other input would be float (TensorRT issues 2383, 1992, 3861);
- after a sigmoid that gates: of squeeze-excite it is a handful of values, of x * sigmoid(x) the
  middle of one kernel.
"""

from __future__ import annotations

from edgevit.graph import Graph
from edgevit.ops import Add, Clamp, Gelu, HardSwish, Mul, Node, Sigmoid, Weighted

ACTIVATIONS = (Gelu, HardSwish, Clamp, Sigmoid)
BEFORE_ACTIVATION = "between a convolution and its activation"
RESIDUAL = "on the convolution's side of a residual add"
GATE = "after the sigmoid of a gate"


def dropped(graph: Graph) -> dict[str, str]:
    """Canonical name -> reason, of every quantizer that the TensorRT artifact does without."""
    readers: dict[str, list[str]] = {}
    for node in graph.nodes:
        for name in node.inputs:
            readers.setdefault(name, []).append(node.name)
    by_name = {node.name: node for node in graph.nodes}
    found: dict[str, str] = {}
    for node in graph.nodes:
        reading = [by_name[name] for name in readers.get(node.name, ())]
        if isinstance(node, Weighted) and reading and all(_activates(r, by_name) for r in reading):
            found[node.name] = BEFORE_ACTIVATION
        elif isinstance(node, Sigmoid) and {type(reader) for reader in reading} == {Mul}:
            found[node.name] = GATE
    for node in graph.nodes:
        if isinstance(node, Add) and (branch := _branch(graph, node.inputs, readers)):
            found[branch] = RESIDUAL
    return {name: found[name] for name in graph.activations() if name in found}


def _activates(node: Node, by_name: dict[str, Node]) -> bool:
    """Whether a node is an activation, or the product of x * sigmoid(x)."""
    if not isinstance(node, Mul):
        return isinstance(node, ACTIVATIONS)
    value, gate = (by_name.get(name) for name in node.inputs)
    return None not in (value, gate) and isinstance(gate, Sigmoid) and gate.inputs == (value.name,)


def _branch(graph: Graph, inputs: tuple[str, ...], readers: dict[str, list[str]]) -> str | None:
    """The input of an add that a convolution makes for it alone; the later one where both do."""
    alone = [
        node.name
        for node in graph.nodes
        if node.name in inputs and isinstance(node, Weighted) and len(readers[node.name]) == 1
    ]
    return alone[-1] if alone else None
