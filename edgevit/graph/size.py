"""How large a traced net is, and how much it computes."""

from __future__ import annotations

from edgevit.graph.graph import Graph
from edgevit.ops import ConvTranspose2d


def weights_of(graph: Graph) -> int:
    """Weights and biases of convolutions and linear layers, branches merged and norms folded."""
    return sum(node.weight.size + node.bias.size for node in graph.weighted())


def macs_of(graph: Graph) -> int:
    """Multiply-accumulates of convolutions and linear layers for one image, as papers count them.

    Each weight is used once for every pixel of a convolution's result; of a transposed one, for
    every pixel of what it reads.
    """
    total = 0
    for node in graph.weighted():
        counted = node.inputs[0] if isinstance(node, ConvTranspose2d) else node.name
        pixels = 1
        for side in graph.shape(counted)[2:]:
            pixels *= side
        total += node.weight.size * pixels
    return total
