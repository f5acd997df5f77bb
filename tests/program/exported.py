"""A program's exported q/dq graph, each operation in float64 and on the program's own inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from edgevit.graph import Graph
from edgevit.ops import AvgPool2d, Node, Resize, Weighted
from edgevit.program.torch_program import graph_module
from tests.ops import oracle


class _StepByStep(fx.Interpreter):
    """Every call in float64, rounded to float32 once; what is quantized is compared, and the known
    int8 values go on, so that no difference grows."""

    def __init__(self, graph: Graph, known: Mapping[str, np.ndarray]) -> None:
        super().__init__(graph_module(graph))
        own = [node.name for node in graph.nodes if node.requantizes]
        self.names = iter([graph.input_name, *own])
        self.known = known
        self.steps: dict[str, Tensor] = {}

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if "quantize_per_tensor" in str(target) and "dequantize" not in str(target):
            found = super().call_function(target, args, kwargs)
            name = next(self.names)
            known = torch.from_numpy(self.known[name])
            self.steps[name] = (found.int() - known.int()).abs()
            return known
        if "dequantize" in str(target):
            return super().call_function(target, args, kwargs)

        def double(value: Any) -> Any:
            return value.double() if isinstance(value, Tensor) else value

        args = fx.node.map_aggregate(args, double)
        return super().call_function(target, args, kwargs).float()


@torch.no_grad()
def steps_apart(graph: Graph, images: Tensor) -> dict[str, tuple[int, float]]:
    """Tensor -> how far the exported graph is from the program: largest, in steps, and the share of
    its values that differ."""
    interpreter = _StepByStep(graph, oracle.run(graph, images.numpy()))
    interpreter.run(images)
    assert next(interpreter.names, None) is None
    return {
        name: (int(steps.max()), float((steps > 0).double().mean()))
        for name, steps in interpreter.steps.items()
    }


def check_exported(graph: Graph, images: Tensor) -> None:
    """The exported graph is the program in every operation.

    A convolution is rounded to the real value there and once more to the grid; averages and
    bilinear resizes have halves to round that real values do not hold exactly.
    """
    differing = 0
    for name, (largest, share) in steps_apart(graph, images).items():
        node: Node | None = graph.makes(name)
        if isinstance(node, AvgPool2d | Resize):
            assert largest <= 1 and share <= 0.25, (name, largest, share)
        elif isinstance(node, Weighted):
            assert largest <= 1, (name, largest, share)
            differing += round(share * len(images) * np.prod(graph.shape(name)))
        else:
            assert largest == 0, (name, largest, share)
    sums = sum(int(np.prod(graph.shape(node.name))) for node in graph.weighted()) * len(images)
    assert differing <= 1 + 2e-6 * sums, (differing, sums)
