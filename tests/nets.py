"""Small nets for tests of the tracer and the passes: layers by name, and a forward over them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from edgevit.graph import Graph, trace
from edgevit.graph.float_run import GraphNet

SHAPE = (4, 8, 8)
"""(C, H, W) of the input, where a test does not say another."""
ROUNDING = 2e-6
"""How far a graph may be from its net, relative to the largest value: kernels sum in another order,
and folding rounds weights to float32 once."""


class Net(nn.Module):
    """`forward` is called with the net itself, for its layers, and the input."""

    def __init__(self, forward: Callable[[Any, Tensor], Any], **layers: nn.Module) -> None:
        super().__init__()
        self.run = forward
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Any:
        return self.run(self, x)


class Scale(nn.Module):
    """A factor that is learned, in any shape."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.linspace(0.5, 2, max(1, torch.Size(shape).numel())))
        self.gamma.data = self.gamma.data.view(shape)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


def seeded(net: nn.Module, seed: int = 0) -> nn.Module:
    """The net in eval mode, its weights seeded and its norms as if they had seen images."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
        for module in net.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats:
                shape = (module.num_features,)
                module.running_mean.copy_(torch.randn(shape, generator=generator))
                module.running_var.copy_(torch.rand(shape, generator=generator) + 0.5)
    return net.eval()


def images(shape: tuple[int, ...] = SHAPE, count: int = 3, seed: int = 1) -> Tensor:
    """float32 (count, *shape), standard normal times two: what clamps cut off is among it."""
    return 2 * torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))


def tuple_of(outputs: Any) -> tuple[Tensor, ...]:
    return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)


@torch.no_grad()
def largest_difference(net: nn.Module, graph: Graph, shape: tuple[int, ...] = SHAPE) -> float:
    """Between the net's outputs and its graph's, relative to the largest value of each output.

    Both get images of their own, so that a net that writes into its input harms nobody.
    """
    wanted = tuple_of(net(images(shape)))
    found = tuple_of(GraphNet(graph)(images(shape)))
    assert len(wanted) == len(found)
    assert [w.shape for w in wanted] == [f.shape for f in found]
    return max(
        float((w - f).abs().max() / w.abs().max().clamp_min(1e-30)) for w, f in zip(wanted, found)
    )


def traced(net: nn.Module, shape: tuple[int, ...] = SHAPE) -> Graph:
    """The net's graph, proven to compute what the net does."""
    graph = trace(net, shape)
    difference = largest_difference(net, graph, shape)
    assert difference <= ROUNDING, difference
    return graph


def kinds(graph: Graph) -> list[str]:
    return [node.kind for node in graph.nodes]


def names(graph: Graph) -> list[str]:
    return [node.name for node in graph.nodes]
