"""Factors that are best for the outputs' error, and the proof that nothing else changes."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from edgevit.choices import PROFILES, Profile
from edgevit.graph import Graph
from edgevit.graph.equalize import FIXED, channel_groups
from edgevit.graph.float_run import GraphNet
from edgevit.ops import Conv2d, FloatWeights, Linear, Node, Relu6
from edgevit.quantize import equalize as module
from edgevit.quantize.equalize import best_factors, channel_levels, equalize, influence
from edgevit.quantize.net import QuantizedNet
from edgevit.quantize.place import observe, quantizers_from_ranges, weight_scale
from tests.programs import seeded_graph, seeded_images
from tests.random_graphs import IMAGE_SIZE, random_graph

SEEDS = range(12)


def outputs(graph: Graph, images: torch.Tensor) -> list[torch.Tensor]:
    with torch.no_grad():
        found = GraphNet(graph)(images)
    return [found] if isinstance(found, torch.Tensor) else list(found)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_random_net_computes_what_it_did(seed: int) -> None:
    graph = random_graph(seed, operations=10, softmax=seed % 3 == 0)
    images = seeded_images(6, IMAGE_SIZE, seed)
    found, proof = equalize(graph, [images[:4], images[4:]])
    assert proof is None or (proof.kept and proof.images == 6)
    for before, after in zip(outputs(graph, images), outputs(found, images), strict=True):
        assert (before - after).abs().max() <= 1e-5 * max(1.0, float(before.abs().max()))
    assert found.tensors() == graph.tensors()


def test_several_outputs_stay_what_they_are() -> None:
    graph = random_graph(3, operations=10)
    inner = next(n.name for n in graph.nodes if n.name not in graph.outputs and n.kind == "conv2d")
    both = replace(graph, outputs=(*graph.outputs, inner))
    images = seeded_images(4, IMAGE_SIZE)
    found, _ = equalize(both, [images])
    for before, after in zip(outputs(both, images), outputs(found, images), strict=True):
        assert (before - after).abs().max() <= 1e-5 * max(1.0, float(before.abs().max()))


def linear_net(*middle: Node, hidden: int = 8) -> Graph:
    """A 1×1 convolution whose channels differ by 100, what is given, and a head."""
    random = np.random.default_rng(0)
    size = np.logspace(-2, 0, hidden)
    weight = (random.normal(0, 1, (hidden, 3, 1, 1)) * size[:, None, None, None]).astype(np.float32)
    first = Conv2d(
        name="a", inputs=("input",), module="a",
        weights=FloatWeights(weight, np.zeros(hidden, np.float32)),
    )  # fmt: skip
    last = middle[-1].name if middle else "a"
    back = (random.normal(0, 1, (4, hidden, 1, 1)) / size[None, :, None, None]).astype(np.float32)
    second = Conv2d(
        name="b", inputs=(last,), module="b",
        weights=FloatWeights(back, np.zeros(4, np.float32)),
    )  # fmt: skip
    return Graph((1, 3, IMAGE_SIZE, IMAGE_SIZE), (first, *middle, second), ("b",))


def test_nothing_to_change_is_nothing_done() -> None:
    graph = linear_net(Relu6(name="act", inputs=("a",)))
    assert equalize(graph, [seeded_images(2, IMAGE_SIZE)]) == (graph, None)


@pytest.mark.parametrize("profile", PROFILES)
def test_small_channels_are_no_longer_lost(profile: Profile) -> None:
    """They count as much as the large ones here, and one scale serves them far worse."""
    graph, images = linear_net(), seeded_images(8, IMAGE_SIZE)
    found, proof = equalize(graph, [images])
    assert proof is not None and proof.kept and proof.channels == 8 and proof.spread > 20
    (wanted,) = outputs(graph, images)

    def error(net: Graph) -> float:
        quantizers = quantizers_from_ranges(net, observe(net, [images]), profile)
        quantized = QuantizedNet(
            net, quantizers, {n.module: weight_scale(n) for n in net.weighted()}
        )
        with torch.no_grad():
            return float((quantized.eval()(images) - wanted).square().mean().sqrt())

    assert error(found) < 0.5 * error(graph)


def test_no_other_factors_have_a_smaller_error() -> None:
    """Of those that only look at ranges, and of a hundred around the best ones."""
    graph, images = seeded_graph(), [seeded_images(4, 64)]
    groups, levels = channel_groups(graph), channel_levels(graph, images)
    weights = influence(graph, images)
    best = best_factors(graph, groups, levels, weights)

    def error(factors: dict[str, np.ndarray]) -> float:
        steps = {name: (levels[name] / factors[name]).max() for name in groups}
        owners = {graph.owner(name): 0.0 for name in groups}
        for name, step in steps.items():
            owners[graph.owner(name)] = max(owners[graph.owner(name)], step)
        return sum(
            float((weights[name] * (factors[name] * owners[graph.owner(name)]) ** 2).sum())
            for name in groups
            if name in weights and ((node := graph.makes(name)) is None or node.requantizes)
        )

    one = {name: np.ones(len(group)) for name, group in groups.items()}
    share = np.zeros(1 + max(int(group.max()) for group in groups.values()))
    for name, group in groups.items():
        np.maximum.at(share, group, levels[name] / levels[name].max())
    share = np.maximum(share, 1e-6)
    share[FIXED] = 1
    least = error(best)
    assert least < 0.9 * error(one)
    assert least <= error({name: share[group] for name, group in groups.items()})
    random = np.random.default_rng(1)
    for _ in range(100):
        noise = np.exp(random.normal(0, 0.05, len(share)))
        noise[FIXED] = 1
        assert least <= 1.001 * error({n: best[n] * noise[g] for n, g in groups.items()})


def test_influence_is_the_squared_gradient_of_the_outputs() -> None:
    """Against the gradients of every output, one by one, of a net of one position."""
    graph = linear_net()
    flat = Graph(
        (1, 3, 1, 1),
        (*graph.nodes,),
        graph.outputs,
    )
    images = torch.randn(512, 3, 1, 1, generator=torch.Generator().manual_seed(1))
    head = torch.from_numpy(graph.node("b").weight[:, :, 0, 0]).double()  # pyright: ignore[reportAttributeAccessIssue]
    (logits,) = outputs(flat, images[:64])
    expected = head.square().sum(0) / float(logits.var(correction=0))
    found = influence(flat, [images])["a"]
    assert np.allclose(found, expected.numpy(), rtol=0.5)
    assert np.array_equal(found, influence(flat, [images])["a"])


def test_a_net_that_would_move_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, images = seeded_graph(), [seeded_images(2, 64)]
    monkeypatch.setattr(module, "RELATIVE_BOUND", 0.0)
    found, proof = equalize(graph, images)
    assert found is graph and proof is not None and not proof.kept
    assert "left as they are" in str(proof) and "allowed 0" in str(proof)


def test_outputs_that_are_no_numbers_prove_nothing() -> None:
    graph = linear_net()
    nodes = [
        replace(node, weights=FloatWeights(node.weight * np.float32(np.inf), node.bias))
        if isinstance(node, Conv2d | Linear) and node.name == "b"
        else node
        for node in graph.nodes
    ]
    broken = graph.with_nodes(nodes)
    # In one batch of two: a number behind it does not hide it.
    clean, whole = seeded_images(2, IMAGE_SIZE), seeded_images(2, IMAGE_SIZE)
    found, proof = equalize(broken, [whole, torch.zeros_like(clean)])
    assert found is broken and proof is not None and not proof.kept
    assert json.dumps(proof.to_json(), allow_nan=False)
