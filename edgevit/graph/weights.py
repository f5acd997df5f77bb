"""The form of a graph whose weights alone are int8: no value was seen, so no data is needed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgevit.errors import InputError
from edgevit.graph.graph import Graph
from edgevit.graph.passes import fuse_activations
from edgevit.graph.quantized import int8_values
from edgevit.graph.ties import to_fp16_grid
from edgevit.ops import WEIGHT_MAX, Int8Weights, Node, Weighted, is_float16_exact


def weights_form(graph: Graph) -> Graph:
    """The graph with int8 weights, symmetric per output channel, and nothing else quantized.

    Float weights get the scale of the channel's largest magnitude over 127, as fp16 holds it; those
    of a quantized graph stay as they are. Biases are real numbers, clamps fused as in a float
    graph.
    Raises InputError naming a module whose weights no fp16 scale covers.
    """

    def held(node: Node) -> Node:
        if not isinstance(node, Weighted):
            return node
        if isinstance(node.weights, Int8Weights):
            return replace(node, weights=replace(node.weights, bias_q=None))
        return replace(node, weights=_by_largest(node))

    nodes = tuple(held(node) for node in graph.nodes)
    return fuse_activations(replace(graph, nodes=nodes, quantizers={}))


def check_weights_form(graph: Graph) -> None:
    """Raises InputError where a graph has a quantizer, or weights that are not int8."""
    for name in graph.quantizers:
        raise InputError(f"{name}: it has a quantizer, where the weights alone are int8")
    for node in graph.weighted():
        weights = node.weights
        if not isinstance(weights, Int8Weights) or not is_float16_exact(weights.scale):
            raise InputError(f"{node.module}: its weights are not int8 with float16-exact scales")
        if weights.bias_q is not None:
            raise InputError(f"{node.module}: its bias is int32, where its input is real numbers")


def _by_largest(node: Weighted) -> Int8Weights:
    if not (np.isfinite(node.weight).all() and np.isfinite(node.bias).all()):
        raise InputError(f"{node.module}: a weight or bias is not a finite number")
    largest = np.abs(node.by_channel(node.weight)).max(1)
    with np.errstate(over="ignore"):
        scale = to_fp16_grid(largest / np.float32(WEIGHT_MAX))
    if not is_float16_exact(scale):
        raise InputError(f"{node.module}: a weight of {largest.max():g} is too large to be int8")
    return Int8Weights(int8_values(node, scale), scale, None, node.bias, "calibrated")
