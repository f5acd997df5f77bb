"""How large a graph is, as papers count it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgevit.graph.graph import Graph
from edgevit.ops.convolution import ConvTranspose2d


@dataclass(frozen=True)
class Counted:
    """Weights and biases, and multiply-accumulates of convolutions and linear layers for one image.

    Of a traced graph these are the fused net's, with one head, as RepViT's paper prints them.
    """

    parameters: int
    macs: int


def count(graph: Graph) -> Counted:
    """Nothing is run: shapes tell it."""
    parameters = macs = 0
    for node in graph.weighted():
        parameters += node.weight.size + node.bias.size
        # A transposed convolution multiplies every value that it reads, the others per value made.
        place = node.inputs[0] if isinstance(node, ConvTranspose2d) else node.name
        macs += node.weight.size * math.prod(graph.shape(place)[2:])
    return Counted(int(parameters), int(macs))
