"""Ranges of least quantization error: a few large values are cut off for finer steps of the others.

The mean square error of a quantizer is step² / 12 for each value inside its range (an exact 0 has
none) and the distance to the range's end, squared, for each outside. Both are read off a histogram
of the values seen, so that every candidate costs nothing (as TensorRT's and NNCF's histogram
observers do; Choukroun et al., arXiv 1902.06822, for the criterion).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from edgevit.choices import Profile
from edgevit.graph import Graph
from edgevit.graph.float_run import GraphNet
from edgevit.ops import INT8_MAX, INT8_MIN

Ranges = dict[str, tuple[float, float]]
"""The least and the largest value, by tensor."""
BINS = 2048
CANDIDATES = 64
SMALLEST_SHARE = 0.1
"""Of the range seen: below it the values cut off are no outliers any more."""
CUT_WEIGHT = 1.0
"""Of a square error at the ends against one of rounding; both 4 and 1/4 are worse (recipe.json)."""


@dataclass
class Histogram:
    """How often values fell into each of `BINS` equal bins between `low` and `high`."""

    low: float
    high: float
    counts: np.ndarray
    zeros: int = 0

    def add(self, value: Tensor) -> None:
        """Count a tensor's values, all of them between the ends."""
        if self.high <= self.low:
            return
        places = (value.flatten() - self.low) * (BINS / (self.high - self.low))
        # Not histc: it counts in float32, and CUDA refuses it where results must repeat.
        bins = places.clamp_(0, BINS - 1).to(torch.int32)
        self.counts += torch.bincount(bins, minlength=BINS).cpu().numpy()
        self.zeros += int((value == 0).sum())


def least_error_ranges(
    graph: Graph,
    images: Sequence[Tensor],
    seen: Mapping[str, tuple[float, float]],
    profile: Profile,
) -> Ranges:
    """(low, high) of least error for every tensor that is quantized; an owner's tensors share it.

    seen    the least and the largest value of every tensor on the same images
    """
    histograms = {
        owner: Histogram(
            min(0.0, *(seen[name][0] for name in graph.sources(owner))),
            max(0.0, *(seen[name][1] for name in graph.sources(owner))),
            np.zeros(BINS),
        )
        for owner in graph.owners()
        if graph.fixed(owner) is None
    }
    owner_of = {name: owner for owner in histograms for name in graph.sources(owner)}
    _fill(graph, images, histograms, owner_of)
    ranges = {owner: least_error_range(found, profile) for owner, found in histograms.items()}
    return {name: ranges[owner] for name, owner in owner_of.items()}


@torch.no_grad()
def _fill(
    graph: Graph,
    images: Sequence[Tensor],
    histograms: Mapping[str, Histogram],
    owner_of: Mapping[str, str],
) -> None:
    net = GraphNet(graph).to(images[0].device)
    for batch in images:
        if graph.input_name in owner_of:
            histograms[owner_of[graph.input_name]].add(batch)
        for name, value in net.run(batch):
            if name in owner_of:
                histograms[owner_of[name]].add(value)


def least_error_range(found: Histogram, profile: Profile) -> tuple[float, float]:
    """(low, high) of least mean square error, as `activation_quantizer` will use them."""
    if found.high <= found.low:
        return found.low, found.high
    shares = np.linspace(SMALLEST_SHARE, 1.0, CANDIDATES)
    if profile == "portable":
        step = max(found.high / INT8_MAX, found.low / INT8_MIN)
        lows, highs = INT8_MIN * step * shares, INT8_MAX * step * shares
    else:
        lows, highs = (
            axis.flatten() for axis in np.meshgrid(found.low * shares, found.high * shares)
        )
    best = int(np.argmin(_errors(found, lows, highs)))
    return max(float(lows[best]), found.low), min(float(highs[best]), found.high)


def _errors(found: Histogram, lows: np.ndarray, highs: np.ndarray) -> np.ndarray:
    """The summed square error for each candidate range."""
    edges = np.linspace(found.low, found.high, BINS + 1)
    middle = (edges[:-1] + edges[1:]) / 2
    # Sums from below of the counts and of their first two moments give a tail's error at once.
    moments = np.stack([found.counts, found.counts * middle, found.counts * middle**2])
    below = np.concatenate([np.zeros((3, 1)), moments.cumsum(1)], axis=1)
    first, last = np.searchsorted(middle, lows), np.searchsorted(middle, highs)

    def tail(sums: np.ndarray, end: np.ndarray) -> np.ndarray:
        count, total, squares = sums
        return squares - 2 * end * total + end**2 * count

    cut = tail(below[:, first], lows) + tail(below[:, -1:] - below[:, last], highs)
    inside = np.maximum(below[0, last] - below[0, first] - found.zeros, 0.0)
    steps = (highs - lows) / (INT8_MAX - INT8_MIN)
    return inside * steps**2 / 12 + CUT_WEIGHT * cut
