"""Factors for channels: which must be one, and that none of them changes what a net computes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgevit.graph import Graph, trace
from edgevit.graph.equalize import FIXED, channel_groups, rescaled
from edgevit.graph.float_run import GraphNet
from edgevit.ops import (
    OPERATIONS,
    Add,
    Concat,
    Conv2d,
    ConvTranspose2d,
    Flatten,
    FloatWeights,
    Linear,
    Mean,
    Mul,
    Node,
    Relu,
    Relu6,
    Sigmoid,
    Slice,
)
from tests.programs import seeded_graph, seeded_images
from tests.random_graphs import IMAGE_SIZE, random_graph

SEEDS = range(24)
INPUT = (1, 3, 8, 8)


def conv(name: str, source: str, channels: tuple[int, int], seed: int = 0, **more: int) -> Conv2d:
    random = np.random.default_rng(seed)
    made, read = channels
    weight = random.normal(0, 1, (made, read, 1, 1)).astype(np.float32)
    bias = random.normal(0, 1, made).astype(np.float32)
    return Conv2d(
        name=name, inputs=(source,), module=name, weights=FloatWeights(weight, bias), **more
    )


def factors_of(graph: Graph, seed: int) -> dict[str, np.ndarray]:
    """A random factor for every group, from 1/8 to 8."""
    groups = channel_groups(graph)
    count = 1 + max(int(group.max()) for group in groups.values())
    factor = 2.0 ** np.random.default_rng(seed).integers(-3, 4, count)
    factor[FIXED] = 1.0
    return {name: factor[group] for name, group in groups.items()}


@torch.no_grad()
def tensors(graph: Graph, images: torch.Tensor) -> dict[str, torch.Tensor]:
    return {graph.input_name: images, **dict(GraphNet(graph).run(images))}


def check(graph: Graph, images: torch.Tensor, seed: int) -> dict[str, np.ndarray]:
    """Every tensor is divided by its channels' factors, and the outputs are what they were."""
    factors = factors_of(graph, seed)
    before, after = tensors(graph, images), tensors(rescaled(graph, factors), images)
    assert list(before) == list(after)
    for name, expected in before.items():
        factor = torch.from_numpy(factors[name]).float()
        divided = expected / factor.view(1, -1, *(1,) * (expected.dim() - 2))
        torch.testing.assert_close(after[name], divided, rtol=1e-4, atol=1e-5, msg=name)
    for name in graph.outputs:
        assert (factors[name] == 1).all()
    return factors


def test_no_random_net_computes_anything_else() -> None:
    free, kinds = 0, set()
    for seed in SEEDS:
        graph = random_graph(seed, operations=10, softmax=seed % 4 == 0)
        factors = check(graph, seeded_images(2, IMAGE_SIZE, seed), seed)
        free += sum(int((factor != 1).sum()) for factor in factors.values())
        kinds |= {type(node) for node in graph.nodes}
    assert kinds == set(OPERATIONS)
    assert free > 1000, "the random nets must have channels that are free"


def test_a_repvit_has_a_group_a_block_and_no_gelu_in_it() -> None:
    graph = seeded_graph()
    factors = check(graph, seeded_images(2, 64), 0)
    groups = channel_groups(graph)
    for node in graph.nodes:
        if node.kind == "gelu":
            assert (groups[node.name] == FIXED).all() and (groups[node.inputs[0]] == FIXED).all()
        if node.kind == "add":
            assert (groups[node.name] != FIXED).all()
            assert all(np.array_equal(groups[node.name], groups[name]) for name in node.inputs)
    assert sum(int((factor != 1).sum()) for factor in factors.values()) > 100


def graph_of(*nodes: Node, outputs: tuple[str, ...] | None = None) -> Graph:
    return Graph(INPUT, nodes, outputs or (nodes[-1].name,))


def images() -> torch.Tensor:
    return torch.randn(2, *INPUT[1:], generator=torch.Generator().manual_seed(0))


def test_what_reaches_the_input_or_an_output_stays() -> None:
    """A tensor that is an output is fixed though others read it; so is what a sum ties to it."""
    first, second = conv("a", "input", (4, 3)), conv("b", "a", (4, 4), 1)
    total = Add(name="sum", inputs=("a", "b"))
    graph = graph_of(first, second, total, conv("c", "sum", (2, 4), 2), outputs=("b", "c"))
    assert all((group == FIXED).all() for group in channel_groups(graph).values())
    check(graph, images(), 1)


def test_a_relu_lets_factors_pass_and_a_relu6_does_not() -> None:
    for activation, passes in ((Relu, True), (Relu6, False)):
        nodes = (
            conv("a", "input", (4, 3)),
            activation(name="act", inputs=("a",)),
            conv("b", "act", (2, 4), 1),
        )
        fused = conv("a", "input", (4, 3), activation=activation)
        for graph in (graph_of(*nodes), graph_of(fused, conv("b", "a", (2, 4), 1))):
            assert (channel_groups(graph)["a"] != FIXED).all() == passes
            check(graph, images(), 2)


def test_a_gate_stays_and_what_it_gates_is_carried() -> None:
    """Whichever of the two comes first; a square carries nothing."""
    first = conv("a", "input", (4, 3))
    gate = (
        Mean(name="mean", inputs=("a",)),
        conv("fc", "mean", (4, 4), 1),
        Sigmoid(name="gate", inputs=("fc",)),
    )
    for pair in (("a", "gate"), ("gate", "a")):
        graph = graph_of(first, *gate, Mul(name="mul", inputs=pair), conv("b", "mul", (2, 4), 2))
        groups = channel_groups(graph)
        assert np.array_equal(groups["mul"], groups["a"]) and (groups["a"] != FIXED).all()
        assert np.array_equal(groups["mean"], groups["a"])
        assert (groups["gate"] == FIXED).all() and (groups["fc"] == FIXED).all()
        check(graph, images(), 3)
    square = graph_of(first, Mul(name="mul", inputs=("a", "a")), conv("b", "mul", (2, 4), 1))
    assert (channel_groups(square)["a"] == FIXED).all()


def test_channels_keep_their_place_through_slices_and_concatenations() -> None:
    graph = graph_of(
        conv("a", "input", (6, 3)),
        Slice(name="part", inputs=("a",), axis=1, start=1, stop=6, step=2),
        conv("b", "a", (2, 6), 1),
        Concat(name="cat", inputs=("b", "part")),
        Flatten(name="flat", inputs=("cat",)),
        Linear(
            name="head", inputs=("flat",), module="head",
            weights=FloatWeights(
                np.random.default_rng(5).normal(0, 1, (2, 5 * 64)).astype(np.float32),
                np.zeros(2, np.float32),
            ),
        ),
    )  # fmt: skip
    groups = channel_groups(graph)
    assert list(groups["part"]) == [groups["a"][i] for i in (1, 3, 5)]
    assert list(groups["cat"]) == [*groups["b"], *groups["part"]]
    assert list(groups["flat"][::64]) == list(groups["cat"])
    assert len({*groups["a"], *groups["b"]}) == 8
    check(graph, images(), 4)


def test_grouped_and_transposed_convolutions_take_factors_in() -> None:
    random = np.random.default_rng(6)
    grouped = Conv2d(
        name="g", inputs=("a",), module="g", groups=2, padding=(1, 1),
        weights=FloatWeights(
            random.normal(0, 1, (4, 3, 3, 3)).astype(np.float32), np.ones(4, np.float32)
        ),
    )  # fmt: skip
    transposed = ConvTranspose2d(
        name="t", inputs=("g",), module="t", stride=(2, 2),
        weights=FloatWeights(
            random.normal(0, 1, (4, 5, 2, 2)).astype(np.float32), np.ones(5, np.float32)
        ),
    )  # fmt: skip
    graph = graph_of(conv("a", "input", (6, 3)), grouped, transposed, conv("b", "t", (2, 5), 1))
    factors = check(graph, images(), 7)
    assert all((factors[name] != 1).any() for name in ("a", "g", "t"))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_sum_that_broadcasts_ties_what_it_spreads(channels: int) -> None:
    """One channel added to three: its factor is the factor of all of them."""

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = torch.nn.Conv2d(3, 3, 1)
            self.b = torch.nn.Conv2d(3, channels, 3)
            self.c = torch.nn.Conv2d(3, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = torch.relu(self.a(x))
            return self.c(y + torch.relu(self.b(y)).mean((2, 3), keepdim=True))

    torch.manual_seed(0)
    graph = trace(Net().eval(), INPUT[1:])
    groups = channel_groups(graph)
    total = next(node for node in graph.nodes if node.kind == "add")
    assert len(set(groups[total.name])) == channels
    check(graph, images(), 8)
