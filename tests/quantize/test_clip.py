"""Ranges of least square error, against the errors that fake quantization makes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgevit.choices import PROFILES, Profile
from edgevit.ops import Quantizer
from edgevit.quantize.clip import BINS, Histogram, least_error_range, least_error_ranges
from edgevit.quantize.place import activation_quantizer, observe, quantizers_from_ranges
from tests.programs import seeded_images
from tests.random_graphs import IMAGE_SIZE, random_graph

SAMPLES = 200_000


def values_of(kind: str) -> torch.Tensor:
    draw = torch.Generator().manual_seed(3)
    normal = torch.randn(SAMPLES, generator=draw)
    return {
        "normal": normal,
        "heavy tails": normal**3,
        "an outlier": torch.cat([normal, torch.tensor([60.0])]),
        "mostly zero": torch.relu(normal - 1),
        "one side": normal.abs() + 0.5,
        "uniform": torch.rand(SAMPLES, generator=draw) * 2 - 1,
        "negative": -normal.abs(),
    }[kind]


KINDS = (
    "normal", "heavy tails", "an outlier", "mostly zero", "one side", "uniform", "negative",
)  # fmt: skip


def error(values: torch.Tensor, quantizer: Quantizer) -> float:
    """The mean square error, measured."""
    code = torch.clamp(
        torch.round(values.double() / quantizer.scale) + quantizer.zero_point, -128, 127
    )
    found = (code - quantizer.zero_point) * quantizer.scale
    return float((found - values).square().mean())


def histogram(values: torch.Tensor) -> Histogram:
    found = Histogram(min(0.0, float(values.min())), max(0.0, float(values.max())), np.zeros(BINS))
    for part in values.split(50_000):
        found.add(part)
    return found


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("kind", KINDS)
def test_no_other_range_is_much_better(kind: str, profile: Profile) -> None:
    """Not one of a hundred shares of what was seen, at both ends alike."""
    values = values_of(kind)
    found = histogram(values)
    assert found.counts.sum() == len(values)
    chosen = error(values, activation_quantizer(*least_error_range(found, profile), profile))
    others = [
        error(values, activation_quantizer(found.low * share, found.high * share, profile))
        for share in np.linspace(0.01, 1, 100)
    ]
    assert chosen <= 1.03 * min(others)


def test_an_outlier_is_cut_off_and_a_uniform_range_is_kept() -> None:
    _, high = least_error_range(histogram(values_of("an outlier")), "portable")
    assert high < 40  # of 60: at 30 it costs what the finer steps of all the others save
    _, high = least_error_range(histogram(values_of("uniform")), "portable")
    assert high > 0.97


def test_a_constant_tensor_keeps_its_range() -> None:
    empty = Histogram(0.0, 0.0, np.zeros(BINS))
    empty.add(torch.zeros(10))
    assert least_error_range(empty, "portable") == (0.0, 0.0)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("seed", range(4))
def test_every_tensor_of_a_net_has_its_range_inside_what_was_seen(
    seed: int, profile: Profile
) -> None:
    graph = random_graph(seed, operations=10)
    images = [seeded_images(4, IMAGE_SIZE, seed)]
    seen = observe(graph, images)
    ranges = least_error_ranges(graph, images, seen, profile)
    assert set(quantizers_from_ranges(graph, ranges, profile)) == set(graph.owners())
    for owner in graph.owners():
        if graph.fixed(owner) is None:
            sources = graph.sources(owner)
            assert len({ranges[name] for name in sources}) == 1, owner
            low, high = ranges[sources[0]]
            assert min(0.0, *(seen[n][0] for n in sources)) <= low <= 0 <= high, owner
            assert high <= max(0.0, *(seen[n][1] for n in sources)), owner
