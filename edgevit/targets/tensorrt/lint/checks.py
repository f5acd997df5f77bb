"""The lint itself: every check over one graph, and their findings in order of the rules."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from edgevit.targets.tensorrt.lint import parameters, placement
from edgevit.targets.tensorrt.lint.graph import Graph
from edgevit.targets.tensorrt.lint.reading import printable, read_model
from edgevit.targets.tensorrt.lint.rules import ERROR, FLOAT_WEIGHTED, RULES, Finding

if TYPE_CHECKING:
    import onnx

_CHECKS = (*parameters.CHECKS, *placement.CHECKS)


def lint(
    model: onnx.ModelProto | bytes | str | os.PathLike[str], *, strict: bool = False
) -> list[Finding]:
    """What TensorRT will refuse or run badly in a QDQ ONNX model, by rule and then by node.

    model   the model, its bytes, or the path of an ONNX file
    strict  makes a weighted operator without quantization an error

    A per-tensor pair whose two nodes share scale and zero-point is reported once, at its
    QuantizeLinear. Only the main graph is looked into; what else there is, is a finding.

    Raises InputError for what is no ONNX, too large, or keeps its data in other files, and
    ToolMissing without the onnx package.
    """
    graph = Graph(read_model(model))
    found: dict[Finding, None] = {}
    for check in _CHECKS:
        for rule_id, node, what in check(graph):
            rule = RULES[rule_id]
            level = ERROR if strict and rule_id == FLOAT_WEIGHTED else rule.level
            name = printable(node.name or f"{graph.op(node)} of {', '.join(node.output)}")
            found[Finding(rule_id, level, name, printable(what, 400), rule.why, rule.fix)] = None
    return sorted(found, key=lambda finding: finding.rule)
