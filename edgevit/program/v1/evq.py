"""The members of a version 1 file: program.pt2, and a table in evq.json that repeats its scales."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from edgevit.errors import InputError
from edgevit.graph import Graph
from edgevit.ops import HOW, INT8_MAX, INT8_MIN, WEIGHT_MAX, Weighted
from edgevit.program.v1.pt2_reader import read_pt2

PROGRAM = "program.pt2"


def unpack_v1(manifest: Mapping[str, Any], members: Mapping[str, bytes]) -> Graph:
    """The graph of a version 1 file.

    manifest  evq.json; its table must be the program's own
    members   the other members by name
    Raises InputError for whatever does not fit.
    """
    if PROGRAM not in members:
        raise InputError(f"it has no {PROGRAM}")
    table = manifest.get("tensors")
    graph = _with_how(read_pt2(members[PROGRAM]), table)
    _check_table(tensor_table(graph), table)
    return graph


def tensor_table(graph: Graph) -> list[dict[str, Any]]:
    """One row a quantized tensor: activations in execution order, then weights.

    low and high are the real values at the ends of an activation's range.
    """
    rows: list[dict[str, Any]] = []
    for name, quantizer in graph.activations().items():
        rows.append({
            "name": name, "kind": "activation", "shape": list(graph.shape(name)),
            "scale": quantizer.scale, "zero_point": quantizer.zero_point,
            "quant_min": INT8_MIN, "quant_max": INT8_MAX,
            "low": quantizer.low, "high": quantizer.high, "how": quantizer.how,
        })  # fmt: skip
    for node in graph.weighted():
        rows.append({
            "name": f"{node.module}.weight", "kind": "weight", "shape": list(node.weight.shape),
            "scales": [float(scale) for scale in node.weight_scale], "zero_point": 0,
            "quant_min": -WEIGHT_MAX, "quant_max": WEIGHT_MAX, "how": node.int8.how,
        })  # fmt: skip
    return rows


def _with_how(graph: Graph, table: Any) -> Graph:
    """`how` is the one thing that only the table knows."""
    if not isinstance(table, list) or not all(isinstance(row, dict) for row in table):
        raise InputError("evq.json: tensors is not a list of objects")
    how = {str(row.get("name")): row.get("how") for row in table}
    if any(value not in HOW for value in how.values()):
        raise InputError(f"evq.json: a tensor's how is not one of {', '.join(HOW)}")
    quantizers = {
        name: replace(quantizer, how=how.get(name, "learned"))
        for name, quantizer in graph.quantizers.items()
    }
    nodes = [
        replace(node, weights=replace(node.int8, how=how.get(f"{node.module}.weight", "learned")))
        if isinstance(node, Weighted)
        else node
        for node in graph.nodes
    ]
    return replace(graph, nodes=tuple(nodes), quantizers=quantizers)


def _check_table(expected: list[dict[str, Any]], found: Any) -> None:
    if [row.get("name") for row in found] != [row["name"] for row in expected]:
        raise InputError("evq.json: its tensors are not the program's")
    for want, have in zip(expected, found, strict=True):
        if want != have:
            key = next((k for k in (*want, *have) if want.get(k) != have.get(k)), "an entry")
            raise InputError(f"evq.json: {key} of {want['name']} is not the program's")
