"""Folding, merging and fusing: what is left of a net, and that it computes the same."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgevit.errors import InputError
from edgevit.graph import Graph, trace
from edgevit.graph.passes import fold_affines, fuse_activations, merge_branches
from edgevit.graph.trace import traced as traced_with
from edgevit.models.repvit import RepViT
from edgevit.ops import Conv2d, Linear, Relu, Relu6
from tests.nets import (
    SHAPE,
    Net,
    Scale,
    images,
    kinds,
    largest_difference,
    names,
    seeded,
    traced,
)
from tests.programs import SMALL, seeded_net


def conv(inputs: int = 4, outputs: int = 4, kernel: int = 1, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, **options)


def block(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*layers)


# -- norms and factors ------------------------------------------------------------------------


VECTOR = (nn.AdaptiveAvgPool2d(1), nn.Flatten())
FOLDED = {
    "conv": (block(conv(4, 6, 3, bias=False), nn.BatchNorm2d(6)), "conv2d"),
    "depthwise": (block(conv(4, 4, 3, groups=4), nn.BatchNorm2d(4)), "conv2d"),
    "without affine": (block(conv(4, 6), nn.BatchNorm2d(6, affine=False)), "conv2d"),
    "another epsilon": (block(conv(4, 6), nn.BatchNorm2d(6, eps=0.3)), "conv2d"),
    "transposed": (
        block(nn.ConvTranspose2d(4, 6, 3, 2), nn.BatchNorm2d(6), Scale(6, 1, 1)),
        "conv_transpose2d",
    ),
    "layer scale": (block(conv(4, 6), nn.BatchNorm2d(6), Scale(1, 6, 1, 1)), "conv2d"),
    "dropout between": (block(conv(4, 6), nn.Dropout(), nn.BatchNorm2d(6)), "conv2d"),
    "behind linear": (
        block(*VECTOR, nn.Linear(4, 5), nn.BatchNorm1d(5), Scale(5)),
        "mean flatten linear",
    ),
    "in front of linear": (
        block(*VECTOR, nn.BatchNorm1d(4), nn.Linear(4, 5)),
        "mean flatten linear",
    ),
    "three in front of linear": (
        block(*VECTOR, Scale(4), nn.BatchNorm1d(4), Scale(), nn.Linear(4, 5)),
        "mean flatten linear",
    ),
    "both sides of linear": (
        block(*VECTOR, Scale(4), nn.Linear(4, 5, bias=False), Scale()),
        "mean flatten linear",
    ),
    "behind pooling": (block(nn.MaxPool2d(2), nn.BatchNorm2d(4)), "max_pool2d conv2d"),
    "three behind pooling": (
        block(nn.AvgPool2d(2), nn.BatchNorm2d(4), Scale(1), nn.BatchNorm2d(4)),
        "avg_pool2d conv2d",
    ),
    "of the input": (block(nn.BatchNorm2d(4), conv(4, 2, 3, padding=1)), "conv2d conv2d"),
}  # fmt: skip


@pytest.mark.parametrize("name", FOLDED)
def test_norms_and_factors_disappear_where_a_neighbour_takes_them(name: str) -> None:
    net, becomes = FOLDED[name]
    graph = traced(seeded(copy.deepcopy(net)))
    assert kinds(graph) == becomes.split()
    norms = [n for n in graph.weighted() if isinstance(n, Conv2d) and n.weight.shape[2:] == (1, 1)]
    if name in ("behind pooling", "three behind pooling", "of the input"):
        assert norms[0].depthwise and norms[0].groups == 4


def test_a_norm_in_front_of_padding_is_not_folded_into_what_is_padded() -> None:
    """The convolution pads with zeros, and the norm would have to be undone there."""
    graph = traced(seeded(block(nn.BatchNorm2d(4), conv(kernel=3, padding=1))))
    first, second = graph.weighted()
    assert first.depthwise and not second.depthwise


def test_a_norm_of_a_tensor_that_others_read_stays() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        y = net.c(x)
        return net.b(y) * y

    graph = traced(seeded(Net(forward, c=conv(), b=nn.BatchNorm2d(4))))
    assert kinds(graph) == ["conv2d", "conv2d", "mul"]


def test_folding_rounds_the_weights_once() -> None:
    net = seeded(block(conv(4, 6, 3), nn.BatchNorm2d(6)))
    layer, norm = net
    (folded,) = trace(net, SHAPE).weighted()
    with torch.no_grad():
        gain = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
        weight = layer.weight.double() * gain.view(-1, 1, 1, 1)
        bias = (layer.bias.double() - norm.running_mean.double()) * gain + norm.bias.double()
    assert np.abs(folded.weight - weight.numpy()).max() <= 2.0**-24 * np.abs(folded.weight).max()
    assert np.allclose(folded.bias, bias.numpy(), rtol=2.0**-23, atol=1e-12)
    assert folded.weight.dtype == folded.bias.dtype == np.float32


def test_an_unfused_repvit_is_traced_as_it_computes() -> None:
    """Norms and parallel convolutions are gone; shortcuts stay, which only `fuse` merges."""
    net = seeded(RepViT(SMALL))
    graph = trace(net, (3, 64, 64))
    assert largest_difference(net, graph, (3, 64, 64)) < 1e-4
    fused = trace(net.fuse(), (3, 64, 64))
    assert set(kinds(graph)) == set(kinds(fused))
    assert len(graph.weighted()) < 1.3 * len(fused.weighted())


# -- branches ---------------------------------------------------------------------------------


class Sum(nn.Module):
    """The sum of branches of one input, in a module of its own."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return sum((branch(x) for branch in self.branches[1:]), self.branches[0](x))


def normed(layer: nn.Module) -> nn.Sequential:
    channels = layer.out_channels
    return block(layer, nn.BatchNorm2d(channels))


MERGED = {
    "RepVGG": [normed(conv(kernel=3, padding=1, bias=False)), normed(conv(bias=False)),
               nn.BatchNorm2d(4)],
    "RepVGG, strided": [normed(conv(4, 6, 3, padding=1, stride=2)), normed(conv(4, 6, stride=2))],
    "MobileOne": [*(normed(conv(kernel=3, padding=1, groups=4, bias=False)) for _ in range(3)),
                  normed(conv(groups=4, bias=False)), nn.BatchNorm2d(4)],
    "MobileOne, pointwise": [normed(conv()), normed(conv()), nn.BatchNorm2d(4)],
    "identity last": [normed(conv(kernel=3, padding=1, groups=4)), nn.BatchNorm2d(4)],
    "identity first": [nn.BatchNorm2d(4), conv(kernel=5, padding=2)],
    "a row and a column": [conv(kernel=3, padding=1), nn.Conv2d(4, 4, (1, 3), padding=(0, 1)),
                           nn.Conv2d(4, 4, (3, 1), padding=(1, 0))],
    "depthwise and grouped": [conv(groups=2), conv(groups=4)],
    "depthwise and dense": [conv(kernel=3, padding=1), conv(kernel=3, padding=1, groups=4)],
    "even kernels": [conv(kernel=4, padding=1), conv(kernel=2)],
    "even and strided": [conv(kernel=2, stride=2), conv(stride=2)],
}  # fmt: skip


@pytest.mark.parametrize("name", MERGED)
def test_branches_become_one_convolution(name: str) -> None:
    net = Net(lambda n, x: F.gelu(n.sum(x)), sum=Sum(*copy.deepcopy(MERGED[name])))
    graph = traced(seeded(net))
    assert kinds(graph) == ["conv2d", "gelu"]
    (merged,) = graph.weighted()
    assert merged.name == merged.module and merged.name.startswith("sum.add")


def test_a_relu_behind_merged_branches_is_fused() -> None:
    branches = Sum(normed(conv(kernel=3, padding=1)), normed(conv()), nn.BatchNorm2d(4))
    graph = traced(seeded(block(branches, nn.BatchNorm2d(4), nn.ReLU())))
    (node,) = graph.nodes
    assert isinstance(node, Conv2d) and node.activation is Relu and node.name == "2"


def depthwise(kernel: int = 3, **options: Any) -> nn.Conv2d:
    return conv(kernel=kernel, padding=kernel // 2, groups=4, **options)


RESIDUALS = {
    "a mixer with its scale": lambda n, x: x + n.scale(n.large(x) - n.norm(x)),
    "a norm behind the sum": lambda n, x: n.norm(n.large(x) + n.small(x) + x),
    "the source first": lambda n, x: x + n.large(x),
}


@pytest.mark.parametrize("name", RESIDUALS)
def test_a_depthwise_convolution_takes_its_source_in(name: str) -> None:
    layers = {"large": normed(depthwise()), "small": depthwise(1), "norm": nn.BatchNorm2d(4)}
    net = Net(RESIDUALS[name], scale=Scale(4, 1, 1), **layers)
    assert kinds(traced(seeded(net))) == ["conv2d"]


def test_a_source_that_a_convolution_makes_is_taken_in_as_any_other() -> None:
    net = Net(
        lambda n, x: (lambda y: y + n.d(y))(n.c(x)), c=normed(conv(kernel=3)), d=normed(depthwise())
    )
    assert kinds(traced(seeded(net))) == ["conv2d", "conv2d"]


def test_a_source_stays_where_it_is_no_part_of_the_convolution() -> None:
    layers: dict[str, nn.Module] = {"c": conv(kernel=3, padding=1), "d": depthwise()}
    dense = Net(lambda n, x: x + n.c(x), **copy.deepcopy(layers))
    assert kinds(traced(seeded(dense))) == ["conv2d", "add"]
    read_twice = Net(lambda n, x: (lambda y: (y + x) * y)(n.d(x)), **copy.deepcopy(layers))
    assert "add" in kinds(traced(seeded(read_twice)))
    clamped = Net(lambda n, x: x + n.d(x).relu(), **copy.deepcopy(layers))
    assert "add" in kinds(traced(seeded(clamped)))
    other = Net(lambda n, x: F.gelu(x) + n.d(x), **copy.deepcopy(layers))
    assert "add" in kinds(traced(seeded(other)))


def test_linears_that_are_summed_become_one() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        y = x.mean((2, 3))
        return net.a(y) + net.b(y)

    graph = traced(seeded(Net(forward, a=nn.Linear(4, 3), b=nn.Linear(4, 3))))
    assert kinds(graph) == ["mean", "flatten", "linear"] and isinstance(graph.nodes[-1], Linear)


APART = {
    "other strides": ([conv(kernel=5), conv(kernel=2, stride=2)], "conv2d conv2d add"),
    "dilation": ([conv(kernel=3, padding=2, dilation=2), conv()], "conv2d conv2d add"),
    "a kernel that sticks out": (
        [conv(kernel=3, padding=1), nn.Conv2d(4, 4, (1, 5), padding=(0, 2))], "conv2d conv2d add"),
    "groups that do not nest": (
        [conv(12, 12, groups=2), conv(12, 12, groups=3)], "conv2d conv2d add"),
    "one pixel against all": ([conv(kernel=8), conv()], "conv2d conv2d add"),
    "one channel against all": ([conv(4, 1, 3, padding=1), conv()], "conv2d conv2d add"),
}  # fmt: skip


@pytest.mark.parametrize("name", APART)
def test_branches_that_are_no_one_convolution_stay(name: str) -> None:
    branches, becomes = APART[name]
    net = seeded(Sum(*copy.deepcopy(branches)))
    assert kinds(traced(net, (branches[0].in_channels, 8, 8))) == becomes.split()


def test_a_branch_that_others_read_or_that_has_an_activation_stays() -> None:
    def read_twice(net: Any, x: Tensor) -> Tensor:
        y = net.c(x)
        return (y + net.d(x)) * y

    layers = {"c": conv(), "d": conv()}
    assert "add" in kinds(traced(seeded(Net(read_twice, **copy.deepcopy(layers)))))
    given_out = Net(lambda n, x: (lambda y: (y + n.d(x), y))(n.c(x)), **copy.deepcopy(layers))
    assert "add" in kinds(traced(seeded(given_out)))
    clamped = Net(lambda n, x: n.c(x).relu() + n.d(x), **copy.deepcopy(layers))
    assert "add" in kinds(traced(seeded(clamped)))
    doubled = Net(lambda n, x: (lambda y: y + y)(n.c(x)), **copy.deepcopy(layers))
    assert kinds(traced(seeded(doubled))) == ["conv2d", "add"]
    other_input = Net(lambda n, x: n.c(x) + n.d(F.gelu(x)), **copy.deepcopy(layers))
    assert "add" in kinds(traced(seeded(other_input)))


def test_passes_change_nothing_that_they_do_not_know() -> None:
    graph = trace(seeded_net(), (3, 64, 64))
    for graph_pass in (fold_affines, merge_branches, fuse_activations):
        again = graph_pass(graph)
        assert names(again) == names(graph) and again.outputs == graph.outputs


# -- activations behind -----------------------------------------------------------------------


@pytest.mark.parametrize(("act", "kind"), [(nn.ReLU, Relu), (nn.ReLU6, Relu6)])
@pytest.mark.parametrize("layer", ["conv", "transposed", "linear"])
def test_a_clamp_is_fused_behind_what_has_weights(layer: str, act: type, kind: type) -> None:
    layers = {"conv": conv(4, 3), "transposed": nn.ConvTranspose2d(4, 3, 2),
              "linear": nn.Linear(4, 3)}  # fmt: skip

    def forward(net: Any, x: Tensor) -> Tensor:
        return net.act(net.layer(x.mean((2, 3)) if layer == "linear" else x))

    graph = traced(seeded(Net(forward, layer=layers[layer], act=act())))
    node = graph.nodes[-1]
    assert node.name == "act" and node.module == "layer" and node.activation is kind
    wanted = Net(forward, layer=layers[layer], act=act())(images())
    assert wanted.min() == 0 and (kind is Relu or wanted.max() <= 6)


def test_of_two_clamps_one_is_fused() -> None:
    graph = traced(seeded(block(conv(), nn.ReLU(), nn.ReLU6())))
    assert kinds(graph) == ["conv2d", "relu6"] and graph.nodes[0].activation is Relu


def test_a_clamp_of_a_tensor_that_others_read_is_not_fused() -> None:
    graph = traced(seeded(Net(lambda n, x: (lambda y: y + y.relu())(n.c(x)), c=conv())))
    assert kinds(graph) == ["conv2d", "relu", "add"] and graph.nodes[0].activation is None


# -- without passes ---------------------------------------------------------------------------


def test_without_passes_everything_is_as_it_was_written() -> None:
    net = seeded(block(conv(), nn.BatchNorm2d(4), nn.ReLU(), Scale(4, 1, 1)))
    graph: Graph = traced_with(net, SHAPE, ())
    assert kinds(graph) == ["conv2d", "channel_affine", "relu", "channel_affine"]
    assert largest_difference(net, graph) < 2e-6


def test_a_norm_of_vectors_that_no_linear_is_next_to_is_refused_by_name() -> None:
    net = block(*VECTOR, nn.BatchNorm1d(4), nn.GELU())
    with pytest.raises(InputError, match=r"2: a norm or factor on \(N, C\) can be folded into"):
        trace(seeded(net), SHAPE)
