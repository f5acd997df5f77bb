"""The quantized graph of a float one and given scales: nothing is chosen here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from edgevit.choices import PROFILES
from edgevit.errors import InputError
from edgevit.graph.graph import Graph
from edgevit.ops import (
    INT8_MAX,
    INT8_MIN,
    WEIGHT_MAX,
    How,
    Int8Weights,
    Node,
    Quantizer,
    Weighted,
    is_float16_exact,
)


def quantize_graph(
    graph: Graph,
    activations: Mapping[str, Quantizer],
    weight_scales: Mapping[str, np.ndarray],
    profile: str,
    weight_how: How = "learned",
) -> Graph:
    """The quantized Graph of a float one.

    activations     owner's canonical name -> its Quantizer, for every tensor that owns one
    weight_scales   module path -> float32 [O], for every convolution and linear
    weight_how      how the weight scales were set
    profile         "portable" (zero-points 0, fixed ones excepted) or "asymmetric"
    Weights are rounded half to even after a float32 multiplication by the reciprocal of their
    scale, as torch's fake_quantize does, and kept in -127..127.
    Raises InputError naming the tensor: without a quantizer, quantizer without a tensor, scale not
    float16-exact, another one than its operation fixes, zero-point against the profile, bias over
    int32.
    """
    _check_profile(profile)
    if graph.quantized:
        raise InputError("this graph is quantized already")
    _same_names("activation", set(graph.owners()), set(activations))
    _same_names("weight scale", {n.module for n in graph.weighted()}, set(weight_scales))
    for name in graph.owners():
        _check_activation(graph, name, activations[name], profile)

    def quantized(node: Node) -> Node:
        if not isinstance(node, Weighted):
            return node
        step = activations[graph.owner(node.inputs[0])].scale
        weights = _weights(node, weight_scales[node.module], step, weight_how)
        return replace(node, weights=weights)

    nodes = tuple(quantized(node) for node in graph.nodes)
    ordered = {name: activations[name] for name in graph.owners()}
    return replace(graph, nodes=nodes, quantizers=ordered)


def check_quantized(graph: Graph, profile: str) -> None:
    """The same rules on a finished graph, as a reader of a program file applies them."""
    _check_profile(profile)
    for name in graph.owners():
        _check_activation(graph, name, graph.quantizer(name), profile)
    for node in graph.weighted():
        if not isinstance(node.weights, Int8Weights) or not is_float16_exact(node.weight_scale):
            raise InputError(f"{node.module}: its weights are not int8 with float16-exact scales")


def _check_profile(profile: str) -> None:
    if profile not in PROFILES:
        raise InputError(f"profile {profile!r} is not one of {', '.join(PROFILES)}")


def _same_names(what: str, expected: set[str], given: set[str]) -> None:
    if missing := sorted(expected - given):
        raise InputError(
            f"{missing[0]}: no {what} quantizer was given for this tensor"
            + (f" ({len(missing) - 1} more)" if missing[1:] else "")
        )
    if unknown := sorted(given - expected):
        raise InputError(
            f"{unknown[0]}: a {what} quantizer was given for it, but the net holds no such tensor"
            + (f" ({len(unknown) - 1} more)" if unknown[1:] else "")
        )


def _check_activation(graph: Graph, name: str, quantizer: Quantizer, profile: str) -> None:
    """The rules of a program for one activation; InputError naming the tensor."""
    if not is_float16_exact(quantizer.scale):
        raise InputError(f"{name}: scale {quantizer.scale!r} is not float16-exact; snap it first")
    if (quantizer.quant_min, quantizer.quant_max) != (INT8_MIN, INT8_MAX):
        raise InputError(f"{name}: activations use all of int8, {INT8_MIN}..{INT8_MAX}")
    fixed = graph.fixed(name)
    if fixed is not None:
        if not quantizer.same_values(fixed):
            node = graph.node(name)
            raise InputError(
                f"{name}: a {node.kind}'s output is fixed at scale 1/{1 / fixed.scale:g}, "
                f"zero-point {fixed.zero_point}, not {quantizer.scale!r}, {quantizer.zero_point}"
            )
    elif profile == "portable" and quantizer.zero_point != 0:
        raise InputError(
            f"{name}: zero-point {quantizer.zero_point}; the portable profile is symmetric"
        )


def _weights(node: Weighted, scale: np.ndarray, input_scale: float, how: How) -> Int8Weights:
    scale = np.asarray(scale)
    if scale.dtype != np.float32 or scale.shape != (node.channels,):
        raise InputError(
            f"{node.module}: its weight scale is {scale.dtype} {scale.shape}, expected float32 "
            f"{(node.channels,)}"
        )
    if not is_float16_exact(scale):
        raise InputError(f"{node.module}: a weight scale is not float16-exact; snap it first")
    if not (np.isfinite(node.weight).all() and np.isfinite(node.bias).all()):
        raise InputError(f"{node.module}: a weight or bias is not a finite number")
    values = int8_values(node, scale)
    units = bias_on_grid(node.module, node.bias, input_scale, scale)
    bias = bias_value(units, input_scale, scale)
    # Where the grid is finer than float32, the float32 value decides: reading it back is exact.
    units = bias_on_grid(node.module, bias, input_scale, scale)
    return Int8Weights(values, scale, units, bias, how)


def int8_values(node: Weighted, scale: np.ndarray) -> np.ndarray:
    """A float node's weights as int8 at a float32 scale [O], rounded as `quantize_graph` says."""
    rounded = np.rint(node.weight * node.per_channel(np.float32(1) / scale))
    return np.clip(rounded, -WEIGHT_MAX, WEIGHT_MAX).astype(np.int8)


def bias_on_grid(
    module: str, bias: np.ndarray, input_scale: float, weight_scale: np.ndarray
) -> np.ndarray:
    """int32 bias at input_scale * weight_scale, rounded half to even in float64.

    The float32 value of the result, read again, gives the same integers: where the grid is finer
    than a float32 step, the step is what counts. Raises InputError naming the module on overflow.
    """
    grid = np.float64(input_scale) * weight_scale.astype(np.float64)
    units = np.rint(bias.astype(np.float64) / grid)
    limits = np.iinfo(np.int32)
    if not np.all((units >= limits.min) & (units <= limits.max)):
        channel = int(np.argmax(np.abs(units)))
        raise InputError(
            f"{module}: the bias of channel {channel} is {bias[channel]:g}, over int32 at "
            f"a step of {grid[channel]:g} (input scale * weight scale); raise its weight scale"
        )
    return units.astype(np.int32)


def bias_value(units: np.ndarray, input_scale: float, weight_scale: np.ndarray) -> np.ndarray:
    """The float32 bias that stands for int32 `units` in the program."""
    grid = np.float64(input_scale) * weight_scale.astype(np.float64)
    return (units * grid).astype(np.float32)
