"""Scales that fp16 holds and that leave operators next to no ties to round.

A requantized value that falls exactly between two steps is rounded to even by torch, Core ML and
ONNX, upwards by XNNPACK's ADD and by its MUL on ARM; and where a kernel multiplies by a reciprocal,
its last bit decides. One such value changes what is computed behind it, so that predictions agree
on 99.5 % of the images rather than on all. (In a trained quick-GELU net 57 sums in 3.7 million
differed between program and LiteRT: ties, all of them.) Scales are chosen so that there are few.

An operation's class counts its ties: `ties`, or `scales_on_one_grid` where one power of two under
all of its scales, and an odd multiple of it in the output, excludes them. Every other scale gets an
odd significand too, which makes ties of convolutions rare. What is left: a product or mean that a
sum reads keeps the sum's grid, and may have ties.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from fractions import Fraction

import numpy as np

from edgevit.graph.graph import Graph
from edgevit.ops import Node

FP16_SIGNIFICAND_BITS = 11
SMALLEST_NORMAL_FP16 = 2.0**-14
LARGEST_ODD_FP16 = 2047 * 2.0**5
_FARTHEST = 16


def to_fp16_grid(scale: np.ndarray) -> np.ndarray:
    """float32 values nearest to these that are normal fp16; its smallest, 2**-14, is the floor."""
    # Subnormals would be exact on paper, but accelerators flush them to zero.
    halves = np.asarray(scale, np.float32).astype(np.float16).astype(np.float32)
    return np.maximum(halves, np.float32(SMALLEST_NORMAL_FP16))


def tie_free(graph: Graph, scales: Mapping[str, float]) -> dict[str, float]:
    """fp16 scales near these, with as few ties for the graph's operations as there can be on grids.

    scales   by the name of the tensor that owns the quantizer; fixed ones stay as they are

    A scale moves by 2**-10 of the largest one that an add connects it to, of itself where there is
    none; by a few times that in the rare case that an output's is a simple fraction of an input's.
    """
    free = {name: scale for name, scale in scales.items() if graph.fixed(name) is None}
    on_grid = [_owners(graph, node) for node in graph.nodes if node.scales_on_one_grid]
    # A fixed scale is a power of two: it lies on any grid that is finer.
    on_grid = [
        tuple(name for name in owners if name in free) for owners in on_grid if owners[-1] in free
    ]
    units = _grids(free, on_grid)
    sums = {owners[-1] for owners in on_grid}
    result = {**scales, **_on_grids(free, units, sums)}
    for node in graph.nodes:
        *inputs, output = _owners(graph, node)
        if output in free and output not in sums and output == node.name:
            choices = list(_near(result[output], units.get(output)))
            result[output] = _without_ties(node, choices, [result[name] for name in inputs])
    return result


def _owners(graph: Graph, node: Node) -> tuple[str, ...]:
    """The owners of the scales of a node's inputs and, last, of its output."""
    return tuple(graph.owner(name) for name in (*node.inputs, node.name))


def _grids(scales: Mapping[str, float], adds: list[tuple[str, ...]]) -> dict[str, float]:
    """The power of two that divides its scale, of every tensor that adds connect to others."""
    return {
        name: max(_unit(scales[each]) for each in group)
        for group in _connected(adds)
        for name in group
    }


def _on_grids(
    scales: Mapping[str, float], units: Mapping[str, float], sums: Collection[str]
) -> dict[str, float]:
    """Every scale on its grid; an odd multiple, but for what an add reads."""
    return {
        name: _multiple(scale, units.get(name, _unit(scale)), name in sums or name not in units)
        for name, scale in scales.items()
    }


def _near(scale: float, unit: float | None) -> Iterator[float]:
    """fp16 scales around one, the nearest first.

    unit    they are multiples of it, as what an add reads must be; None: odd multiples of their own
    """
    step = 2 * _unit(scale) if unit is None else unit
    for away in range(_FARTHEST):
        for found in (scale + away * step, scale - away * step):
            held = _unit(found) == _unit(scale) if unit is None else _unit(found) <= unit
            if held and SMALLEST_NORMAL_FP16 <= found <= LARGEST_ODD_FP16:
                yield found


def _without_ties(node: Node, outputs: list[float], inputs: list[float]) -> float:
    """The first of the output scales that leaves the operation no tie, or the fewest."""
    exact = [Fraction(value) for value in inputs]
    fewest, best = node.ties(exact, Fraction(outputs[0])), outputs[0]
    for scale in outputs[1:]:
        if not any(fewest):
            break
        found = node.ties(exact, Fraction(scale))
        if found < fewest:
            fewest, best = found, scale
    return best


def _unit(scale: float) -> float:
    """The distance of fp16's values at `scale`."""
    bounded = min(max(scale, SMALLEST_NORMAL_FP16), LARGEST_ODD_FP16)
    return 2.0 ** (math.frexp(bounded)[1] - FP16_SIGNIFICAND_BITS)


def _multiple(scale: float, unit: float, odd: bool) -> float:
    """The nearest multiple of `unit`, an odd one if need be, that is a normal fp16 value."""
    step = 2 if odd else 1
    least = math.ceil(SMALLEST_NORMAL_FP16 / unit)
    wanted = min(scale, LARGEST_ODD_FP16) / unit
    multiple = 2 * math.floor(wanted / 2) + 1 if odd else round(wanted)
    while multiple < least:
        multiple += step
    return multiple * unit


def _connected(adds: Iterable[tuple[str, ...]]) -> list[set[str]]:
    """The tensors of adds that share a tensor, directly or over others."""
    groups: list[set[str]] = []
    for tensors in adds:
        apart = [group for group in groups if group.isdisjoint(tensors)]
        joined = set(tensors).union(*(group for group in groups if group not in apart))
        groups = [*apart, joined]
    return groups
