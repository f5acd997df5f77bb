"""A float graph as a module: what is calibrated, trained, exported and used as a teacher."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from edgevit.graph.graph import Graph
from edgevit.ops import Node, Weighted

Adjust = Callable[[Weighted, Tensor], Tensor]


class Layer(nn.Module):
    """One node of a graph as a module; it owns the weights, if there are any.

    weight, bias  float32 parameters, of a convolution, a linear or a norm
    """

    def __init__(self, node: Node) -> None:
        super().__init__()
        self.node = node
        self.weight: nn.Parameter | None = None
        self.bias: nn.Parameter | None = None
        if values := node.real_weights():
            weight, bias = (torch.tensor(value) for value in values)
            if weight.dim() == 4:  # as the kernels like it best
                weight = weight.contiguous(memory_format=torch.channels_last)
            self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    @property
    def weights(self) -> tuple[Tensor, ...]:
        """Weight and bias, or nothing."""
        if self.weight is None or self.bias is None:
            return ()
        return self.weight, self.bias

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.node.compute(inputs, self.weights)


class GraphNet(nn.Module):
    """Runs a graph's operations in float32, with weights that can be trained.

    float32 (N, C, H, W) to the output (N, …), or a tuple of them in the graph's order.
    """

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph
        # Direct children, not a ModuleList: NNCF names a call by the modules that were called.
        for place, node in enumerate(graph.nodes):
            self.add_module(f"layer_{place}", Layer(node))
        self._last_uses = graph.last_uses()

    def layer(self, name: str) -> Layer:
        """The layer that makes tensor `name`."""
        return next(found for found in self.nodes() if found.node.name == name)

    def nodes(self) -> list[Layer]:
        """Every layer, in execution order."""
        return [child for child in self.children() if isinstance(child, Layer)]

    def weighted(self) -> dict[str, Layer]:
        """Module path -> layer, of every convolution and linear."""
        return {
            layer.node.module: layer for layer in self.nodes() if isinstance(layer.node, Weighted)
        }

    def run(self, x: Tensor, adjust: Adjust | None = None) -> Iterator[tuple[str, Tensor]]:
        """Yield (name, tensor) of every operation; tensors are freed when nothing needs them.

        `adjust` may replace what a convolution or linear gives, before the activation behind it.
        """
        values = {self.graph.input_name: x}
        for layer in self.nodes():
            node = layer.node
            inputs = [values[name] for name in node.inputs]
            if adjust is not None and isinstance(node, Weighted):
                sums = node.sum_products(inputs[0], *layer.weights)
                values[node.name] = node.activated(adjust(node, sums))
            else:
                values[node.name] = layer(*inputs)
            for name in self._last_uses.get(node.name, ()):
                del values[name]
            yield node.name, values[node.name]

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        found = {name: value for name, value in self.run(x) if name in self.graph.outputs}
        return only_or_all([found[name] for name in self.graph.outputs])

    @torch.no_grad()
    def float_graph(self) -> Graph:
        """The graph with the weights as they are now."""
        nodes = []
        for layer in self.nodes():
            held = [t.detach().cpu().contiguous().numpy().copy() for t in layer.weights]
            nodes.append(layer.node.with_real_weights(held) if held else layer.node)
        return self.graph.with_nodes(nodes)


class FloatExecutor:
    """A graph without quantizers made ready to run, as `graph.execute.Executor` is for others.

    float32 (N, C, H, W) to float32 outputs, on the images' device.
    """

    def __init__(self, graph: Graph) -> None:
        self._net = GraphNet(graph).eval().requires_grad_(False)

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """Output name -> values, in the graph's order."""
        names = self._net.graph.outputs
        found = {name: value for name, value in self.tensors(images) if name in names}
        return {name: found[name] for name in names}

    def tensors(self, images: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Every tensor, the input first: canonical name, float32 values."""
        yield self._net.graph.input_name, images
        yield from self._net.to(images.device).run(images)


def only_or_all(outputs: Sequence[Tensor]) -> Tensor | tuple[Tensor, ...]:
    """A net's result as torch users expect it: the one output, or a tuple of several."""
    return outputs[0] if len(outputs) == 1 else tuple(outputs)
