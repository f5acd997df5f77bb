"""The reference interpreter beside the program, operation by operation.

Every quantized variable is compared and then replaced by the program's own values, so that each
operation reads what the program's reads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from edgevit.graph import Graph
from edgevit.graph.execute import Executor
from edgevit.ops import INT8_MIN, Node
from edgevit.program import Program
from edgevit.targets.coreml import TARGET
from edgevit.targets.coreml.interpreter import Interpreter
from edgevit.targets.coreml.package import Operation, read_package


@dataclass
class Difference:
    """Of one operation's result, in steps of its quantizer."""

    values: int = 0
    differing: int = 0
    max_steps: float = 0.0

    def add(self, found: Tensor, expected: Tensor) -> None:
        steps = (found.double() - expected.double()).abs()
        self.values += steps.numel()
        self.differing += int((steps > 0).sum())
        self.max_steps = max(self.max_steps, float(steps.max()))


def differences(
    files: Mapping[str, bytes],
    program: Program,
    images: Tensor,
    arithmetic: str = "float32",
    rounding: str = "reciprocal",
) -> dict[str, Difference]:
    """Canonical name -> how far the interpreter's result is from the program's; input first."""
    graph = program.graph()
    reading, _ = TARGET.audit(files, program)
    spelled = TARGET.spelling(graph)
    variables = {reading.tensors[spelled(name)]: name for name in graph.tensors()}
    expected = dict(all_tensors(graph, images))
    beside = _Beside(read_package(files), arithmetic, rounding)
    beside.follow(variables, expected, graph)
    beside(images)
    return beside.found


def all_tensors(graph: Graph, images: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Every tensor's int8 values, of those that share a quantizer, too."""
    executor = Executor(graph)
    _, first = next(executor.tensors(images))
    values = {graph.input_name: first}
    yield graph.input_name, first
    for node in graph.nodes:
        values[node.name] = executor.step(node, [values[name] for name in node.inputs])
        yield node.name, values[node.name]


def nodes_by_name(program: Program) -> dict[str, Node]:
    return {node.name: node for node in program.graph().nodes}


class _Beside(Interpreter):
    """Compares what it makes, and goes on with the program's values."""

    def follow(self, variables: Mapping[str, str], expected: Any, graph: Graph) -> None:
        self.variables, self.expected, self.graph = variables, expected, graph
        self.found: dict[str, Difference] = {}

    def _execute(self, op: Operation, env: Mapping[str, Tensor]) -> Tensor:
        result = super()._execute(op, env)
        name = getattr(self, "variables", {}).get(op.name)
        if name is None:
            return result
        wanted = self.expected[name].float()
        quantizer = self.graph.quantizer(name)
        if op.kind == "quantize":
            offset = INT8_MIN if op.dtype == "uint8" else 0
            self._compare(name, result + offset, wanted)
            return wanted - offset
        steps = result.double() / quantizer.scale + quantizer.zero_point
        self._compare(name, steps, wanted)
        return result

    def _compare(self, name: str, found: Tensor, wanted: Tensor) -> None:
        assert torch.equal(torch.tensor(found.shape), torch.tensor(wanted.shape)), name
        self.found.setdefault(name, Difference()).add(found, wanted)
