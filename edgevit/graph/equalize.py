"""Factors for channels, which a net's function leaves free: one scale serves a tensor better then.

A tensor's int8 steps are as wide as its largest channel needs. Where a factor on a channel can be
put into the weights that make it and taken out by the weights that read it, the channels can be
brought to one size before anything is quantized, and the function stays: cross-layer equalization
(Nagel et al., arXiv 1906.04721), here for sums, gates, pooling and concatenations as well. Which
channels must have one factor follows from what each operation's class says (`Node.carried`).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgevit.graph.graph import Graph
from edgevit.ops import Weighted

FIXED = 0
"""The group of the channels that no factor may change."""


def channel_groups(graph: Graph) -> dict[str, np.ndarray]:
    """For every tensor the group of each channel (axis 1): channels of a group share one factor.

    Groups are numbered from 1; `FIXED` stands for those that reach the input, an output or an
    operation that lets no factor pass.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    start, count = {}, 1  # the first place stands for everything that is fixed
    for name in graph.tensors():
        start[name] = count
        count += graph.shape(name)[1]
    pairs: list[tuple[np.ndarray, np.ndarray]] = []

    def fix(name: str) -> None:
        channels = start[name] + np.arange(graph.shape(name)[1])
        pairs.append((np.zeros_like(channels), channels))

    for name in (graph.input_name, *graph.outputs):
        fix(name)
    for node in graph.nodes:
        if isinstance(node, Weighted):
            if node.activation is not None and not node.activation.passes_factors():
                fix(node.name)
            continue
        carried = node.carried([graph.shape(name) for name in node.inputs])
        if carried is None:
            for name in (*node.inputs, node.name):
                fix(name)
            continue
        made = start[node.name] + np.arange(graph.shape(node.name)[1])
        for name, channels in zip(node.inputs, carried, strict=True):
            given = channels >= 0
            if not given.any():
                fix(name)
            pairs.append((made[given], start[name] + channels[given]))
    first, second = (np.concatenate(side) for side in zip(*pairs, strict=True))
    edges = coo_array((np.ones(len(first)), (first, second)), shape=(count, count))
    _, labels = connected_components(edges, directed=False)
    # The labels follow the places, of which the first is the fixed one.
    return {name: labels[at : at + graph.shape(name)[1]] for name, at in start.items()}


def rescaled(graph: Graph, factors: Mapping[str, np.ndarray]) -> Graph:
    """The graph with each tensor divided by its channels' factors; its outputs stay what they are.

    factors     float64 (C,) above 0, for every tensor, the same within a group (`channel_groups`)
    """
    return graph.with_nodes(
        node.rescaled(factors[node.inputs[0]], factors[node.name])
        if isinstance(node, Weighted)
        else node
        for node in graph.nodes
    )
