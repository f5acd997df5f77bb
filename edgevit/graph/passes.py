"""Passes: functions from a float graph to a float graph that computes the same.

The net's values stay what they are but for rounding; each pass says what it takes and makes.
Folding is done in float64, so that one rounding is left, the one to the final float32 weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from edgevit.choices import Activation
from edgevit.errors import InputError
from edgevit.graph.graph import Graph
from edgevit.graph.norms import find_norms
from edgevit.ops import (
    Add,
    ChannelAffine,
    Clamp,
    Conv2d,
    FloatWeights,
    Gelu,
    HardSwish,
    LayerNorm,
    Linear,
    Node,
    Relu6,
    Silu,
    Weighted,
)

GAIN = 1.702
"""x * sigmoid(GAIN * x) is within 0.021 of GELU everywhere (arXiv 1606.08415)."""


def drop_identities(graph: Graph) -> Graph:
    """A factor of 1 and an offset of 0 are left out.

    Given   x -> channel_affine (1, 0) -> reader
    Result  x -> reader
    """
    renamed: dict[str, str] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        node = node.renamed(renamed)
        if isinstance(node, ChannelAffine) and node.is_identity:
            renamed[node.name] = node.inputs[0]
        else:
            nodes.append(node)
    return graph.with_nodes(nodes, [renamed.get(name, name) for name in graph.outputs])


def fold_affines(graph: Graph) -> Graph:
    """Batch norms and constant factors disappear into weights.

    Given   conv2d (or linear, conv_transpose2d) -> channel_affine; or channel_affine -> linear;
            or channel_affine -> channel_affine; or layer_norm -> channel_affine
    Result  one conv2d or linear with scaled weights and a shifted bias, under its own name; or one
            channel_affine, under the second one's

    An affine that has no such neighbour stays.
    """
    nodes: dict[str, Node] = {}
    renamed: dict[str, str] = {}
    for original in graph.nodes:
        node = original.renamed(renamed)
        maker = nodes.get(node.inputs[0])
        alone = _read_alone(graph, original.inputs[0])
        if isinstance(node, Linear) and isinstance(maker, ChannelAffine) and alone:
            del nodes[maker.name]
            nodes[node.name] = _folded_forward(maker, node)
        elif isinstance(node, ChannelAffine) and isinstance(maker, Weighted) and alone:
            nodes[maker.name] = _folded(maker, node)
            renamed[node.name] = maker.name
        elif isinstance(node, ChannelAffine) and isinstance(maker, LayerNorm) and alone:
            weight, bias = maker.weights.weight * node.gain, maker.weights.bias * node.gain
            nodes[maker.name] = maker.with_real_weights(
                [v.astype(np.float32) for v in (weight, bias + node.offset)]
            )
            renamed[node.name] = maker.name
        elif isinstance(node, ChannelAffine) and isinstance(maker, ChannelAffine) and alone:
            del nodes[maker.name]
            gain, offset = node.gain * maker.gain, node.gain * maker.offset + node.offset
            nodes[node.name] = replace(node, inputs=maker.inputs, gain=gain, offset=offset)
        else:
            nodes[node.name] = node
    return graph.with_nodes(nodes.values(), [renamed.get(name, name) for name in graph.outputs])


def _read_alone(graph: Graph, name: str) -> bool:
    """Whether one node reads the tensor and nothing else does."""
    return len(graph.readers(name)) == 1 and name not in graph.outputs


def _folded(node: Weighted, affine: ChannelAffine) -> Weighted:
    gain = np.broadcast_to(affine.gain, (node.channels,))
    offset = np.broadcast_to(affine.offset, (node.channels,))
    weight = node.weight.astype(np.float64) * node.per_channel(gain)
    bias = node.bias.astype(np.float64) * gain + offset
    return replace(node, weights=_float_weights(weight, bias))


def _folded_forward(affine: ChannelAffine, node: Linear) -> Linear:
    inputs = node.weight.shape[1]
    gain = np.broadcast_to(affine.gain, (inputs,))
    offset = np.broadcast_to(affine.offset, (inputs,))
    weight = node.weight.astype(np.float64)
    bias = node.bias.astype(np.float64) + weight @ offset
    return replace(node, inputs=affine.inputs, weights=_float_weights(weight * gain, bias))


def _float_weights(weight: np.ndarray, bias: np.ndarray) -> FloatWeights:
    return FloatWeights(weight.astype(np.float32), bias.astype(np.float32))


def branches_to_convolutions(graph: Graph) -> Graph:
    """A norm beside a convolution in a sum becomes one, so that `merge_branches` can take it.

    Given   add(conv2d (x), channel_affine (x))
    Result  add(conv2d (x), depthwise conv2d 1×1 (x))

    A norm on a branch of its own stays: what makes its input may still become a convolution that
    takes the norm in.
    """
    nodes = {node.name: node for node in graph.nodes}
    branches: set[str] = set()
    for node in graph.nodes:
        if isinstance(node, Add) and node.inputs[0] != node.inputs[1]:
            made = [nodes.get(name) for name in node.inputs]
            kinds = all(isinstance(each, Conv2d | ChannelAffine) for each in made)
            sources = {each.inputs for each in made if each is not None}
            branches |= set(node.inputs) if kinds and len(sources) == 1 else set()
    return graph.with_nodes(
        _as_convolution(node, graph.shape(node.name))
        if isinstance(node, ChannelAffine)
        and node.name in branches
        and len(graph.shape(node.name)) == 4
        else node
        for node in graph.nodes
    )


def affines_to_convolutions(graph: Graph) -> Graph:
    """What could not be folded becomes a depthwise 1×1 convolution.

    Given   max_pool2d -> channel_affine
    Result  max_pool2d -> depthwise conv2d 1×1

    Raises InputError for an affine of (N, C) that no linear layer is next to.
    """
    return graph.with_nodes(
        _as_convolution(node, graph.shape(node.name)) if isinstance(node, ChannelAffine) else node
        for node in graph.nodes
    )


def _as_convolution(node: ChannelAffine, shape: tuple[int, ...]) -> Conv2d:
    if len(shape) != 4:
        raise InputError(
            f"{node.name}: a norm or factor on (N, C) can be folded into a linear layer only"
        )
    channels = shape[1]
    weight = np.broadcast_to(node.gain, (channels,)).reshape(channels, 1, 1, 1)
    bias = np.broadcast_to(node.offset, (channels,))
    return Conv2d(
        name=node.name,
        inputs=node.inputs,
        module=node.name,
        groups=channels,
        weights=_float_weights(weight, bias),
    )


def merge_branches(graph: Graph) -> Graph:
    """Parallel convolutions or linears that are summed become one: reparameterization, of any net.

    Given   add(conv2d 3×3 (x), conv2d 1×1 (x)), each read by the add alone, of one stride;
            or add(x, depthwise conv2d 3×3 (x))
    Result  one conv2d 3×3 (x), named after the sum
    """
    nodes = {node.name: node for node in graph.nodes}
    for node in graph.nodes:
        if not isinstance(node, Add) or node.inputs[0] == node.inputs[1]:
            continue
        branches = _branches(nodes, node)
        if branches is None:
            continue
        own = [each for each in branches if each.name in node.inputs]
        if any(b.activation or not _read_alone(graph, b.name) for b in own):
            continue
        if any(graph.shape(name) != graph.shape(node.name) for name in node.inputs):
            continue  # one of them broadcasts
        merged = _merged(*branches)
        if merged is not None:
            for each in own:
                del nodes[each.name]
            nodes[node.name] = replace(merged, name=node.name, module=node.name)
    return graph.with_nodes(nodes.values())


def _branches(nodes: dict[str, Node], total: Add) -> tuple[Weighted, Weighted] | None:
    """The two operations that a sum adds up, of which one may stand for its plain source.

    Beside a dense convolution a plain source stays a sum: that is a residual, whose weights of 1
    would cost the others their resolution as int8.
    """
    first, second = (nodes.get(name) for name in total.inputs)
    if (
        isinstance(first, Weighted)
        and isinstance(second, Weighted)
        and first.inputs == second.inputs
    ):
        return first, second
    for branch, source in ((first, total.inputs[1]), (second, total.inputs[0])):
        if isinstance(branch, Conv2d) and branch.depthwise and branch.inputs == (source,):
            ones, zeros = np.ones(branch.channels), np.zeros(branch.channels)
            shape = (1, branch.channels, 1, 1)
            identity = ChannelAffine(
                name=f"{total.name}.source", inputs=branch.inputs, gain=ones, offset=zeros
            )
            return branch, _as_convolution(identity, shape)
    return None


def _merged(first: Weighted, second: Weighted) -> Weighted | None:
    """The operation that equals the sum of two, if there is one of the larger kernel."""
    if first.inputs != second.inputs:
        return None
    bias = first.bias.astype(np.float64) + second.bias.astype(np.float64)
    if isinstance(first, Linear) and isinstance(second, Linear):
        weight = first.weight.astype(np.float64) + second.weight
        return replace(first, weights=_float_weights(weight, bias))
    if not (isinstance(first, Conv2d) and isinstance(second, Conv2d)):
        return None
    if first.stride != second.stride or {first.dilation, second.dilation} != {(1, 1)}:
        return None
    if _window(first) < _window(second):
        first, second = second, first
    if first.groups != second.groups and {first.depthwise, second.depthwise} != {True, False}:
        return None
    large, small = first.weight.shape[2:], second.weight.shape[2:]
    shifts = [pad - inner for pad, inner in zip(first.padding, second.padding)]
    if any(s < 0 or s + w > size for s, w, size in zip(shifts, small, large)):
        return None
    groups = min(first.groups, second.groups)
    weight = _dense(first, groups)
    (top, left), (height, width) = shifts, small
    weight[:, :, top : top + height, left : left + width] += _dense(second, groups)
    return replace(first, groups=groups, weights=_float_weights(weight, bias))


def _window(node: Conv2d) -> int:
    return node.weight.shape[2] * node.weight.shape[3]


def _dense(node: Conv2d, groups: int) -> np.ndarray:
    """float64 weights, with the zeros that a depthwise convolution leaves out where it must."""
    weight = node.weight.astype(np.float64)
    if node.groups == groups:
        return weight
    per_group = node.channels // groups
    dense = np.zeros((node.channels, per_group, *weight.shape[2:]))
    dense[np.arange(node.channels), np.arange(node.channels) % per_group] = weight[:, 0]
    return dense


def fuse_activations(graph: Graph) -> Graph:
    """A ReLU that alone reads a convolution or linear is fused behind it, as every runtime does.

    Given   conv2d "conv" -> relu "act"
    Result  conv2d "act" of module "conv", its activation a Relu
    """
    nodes = {node.name: node for node in graph.nodes}
    for node in graph.nodes:
        maker = nodes.get(node.inputs[0])
        if (
            isinstance(node, Clamp)
            and isinstance(maker, Weighted)
            and maker.activation is None
            and len(graph.readers(maker.name)) == 1
            and maker.name not in graph.outputs
        ):
            nodes[node.name] = replace(maker, name=node.name, activation=type(node))
            del nodes[maker.name]
    return graph.with_nodes(nodes.values())


def fold_and_merge(graph: Graph) -> Graph:
    """Norms folded and branches merged, until neither finds more.

    Given   add(x, channel_affine(add(conv2d (x), channel_affine (x)))), a mixer of FastViT
    Result  one conv2d (x)
    """
    while True:
        found = merge_branches(branches_to_convolutions(fold_affines(graph)))
        if [n.name for n in found.nodes] == [n.name for n in graph.nodes]:
            return found
        graph = found


TRACE_PASSES: tuple[Callable[[Graph], Graph], ...] = (
    find_norms,
    drop_identities,
    fold_and_merge,
    affines_to_convolutions,
    fuse_activations,  # behind the merged ones
)
"""What `trace` runs, in this order."""


def swap_gelus(graph: Graph, activation: Activation) -> Graph:
    """The graph with another activation for every GELU, which older runtimes such as NNAPI lack.

    Given   conv2d a -> gelu -> conv2d b
    Result  conv2d a * 1.702 -> activation -> conv2d b / 1.702

    Quick-GELU is x * sigmoid(1.702 x). An INT8 runtime has no operation for that, but
    y * sigmoid(y) / 1.702 with y = 1.702 x is the same function, and both factors disappear into
    the weights around it: what is left is a sigmoid and a product. int8 weights stay what they are,
    only their scales change. Hard-swish gets the same factor: it then differs from GELU by 0.07 at
    most, where hard-swish of x itself differs by 0.30.

    activation  "gelu" (nothing changes), "quick-gelu" or "hard-swish"
    Raises InputError, naming the GELU, where it does not stand between convolutions alone, so that
    the factor has nowhere to go; a ReLU6 behind the first one would not let it through.
    """
    if activation == "gelu":
        return graph
    nodes: dict[str, Node] = {node.name: node for node in graph.nodes}
    gelus = [node for node in graph.nodes if isinstance(node, Gelu)]
    for gelu in gelus:
        before, *behind = _around(graph, nodes, gelu)
        gain = np.float32(GAIN)
        nodes[before.name] = _reweighted(before, before.weight * gain, before.bias * gain)
        for node in behind:
            nodes[node.name] = _reweighted(node, node.weight / gain, node.bias)
    renamed: dict[str, str] = {}
    result: list[Node] = []
    for node in nodes.values():
        if not isinstance(node, Gelu):
            result.append(node.renamed(renamed))
        elif activation == "quick-gelu":
            made = Silu.nodes(node.name, node.inputs[0])
            renamed[node.name] = made[-1].name
            result += made
        else:
            result.append(HardSwish(name=node.name, inputs=node.inputs))
    return graph.with_nodes(result, [renamed.get(name, name) for name in graph.outputs])


def _reweighted(node: Weighted, weight: np.ndarray, bias: np.ndarray) -> Weighted:
    return replace(node, weights=FloatWeights(weight, bias))


def _around(graph: Graph, nodes: dict[str, Node], gelu: Gelu) -> list[Weighted]:
    """The convolution before `gelu`, and those behind it."""
    (source,) = gelu.inputs
    found = [nodes.get(source), *(nodes[reader.name] for reader in graph.readers(gelu.name))]
    weighted = [node for node in found if isinstance(node, Weighted)]
    siblings = graph.readers(source)
    outside = gelu.name in graph.outputs or source in graph.outputs
    cut_off = any(isinstance(w, Weighted) and w.activation is Relu6 for w in found[:1])
    if len(siblings) != 1 or len(found) < 2 or len(weighted) != len(found) or outside or cut_off:
        raise InputError(
            f"{gelu.name}: this GELU does not stand between convolutions alone, so it cannot be "
            "swapped; quantize with --activation gelu"
        )
    return weighted
