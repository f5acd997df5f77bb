"""The .evq file: a stored zip of evq.json, program.pt2 and, optionally, reference.safetensors.

program.pt2 is the source of truth. evq.json repeats its scales as a table that people and other
tools can read, and a reader MUST refuse a file where the two differ.
"""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from edgevit.errors import InputError
from edgevit.graph.graph import HOW, INT8_MAX, INT8_MIN, WEIGHT_MAX, Graph
from edgevit.program.build import check_quantized
from edgevit.program.container import MAX_FILE_BYTES, parse_json, read_zip, write_zip
from edgevit.program.info import ProgramInfo, Reference
from edgevit.program.pt2_reader import read_pt2
from edgevit.schema import check_json as check_json

__all__ = ["MAX_FILE_BYTES", "check_info", "check_reference", "pack", "tensor_table", "unpack"]

FORMAT, SCHEMA_VERSION = "edgevit-program", 1
MANIFEST, PROGRAM, REFERENCE = "evq.json", "program.pt2", "reference.safetensors"
_LIMITS = {r"evq\.json": 2**25, r"program\.pt2": 2**29, r"reference\.safetensors": 2**29}


@cache
def schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of evq.json."""
    path = Path(__file__).parent.parent / "schemas" / "evq.schema.json"
    return json.loads(path.read_text(encoding="utf-8"))


def pack(pt2: bytes, graph: Graph, info: ProgramInfo, reference: Reference | None) -> bytes:
    """The bytes of the .evq file; the same program gives the same bytes.

    pt2     program.pt2, of this graph
    """
    members = {PROGRAM: pt2}
    if reference is not None:
        members[REFERENCE] = reference.to_bytes()
    manifest = {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        **info.to_json(),
        "tensors": tensor_table(graph),
        "members": {name: hashlib.sha256(data).hexdigest() for name, data in members.items()},
    }
    check_json(manifest, MANIFEST, schema())
    text = json.dumps(manifest, indent=1, ensure_ascii=False, allow_nan=False)
    buffer = io.BytesIO()
    write_zip(buffer, {MANIFEST: text.encode(), **members})
    return buffer.getvalue()


Unpacked = tuple[bytes, Graph, ProgramInfo, Reference | None]


def unpack(data: bytes, what: str) -> Unpacked:
    """The inverse of `pack`. Runs nothing from the file; InputError for whatever does not fit.

    what    names the file in errors
    """
    try:
        return _unpack(data)
    except InputError as error:
        raise InputError(f"{what} is not a program this edgevit can read: {error}") from error


def _unpack(data: bytes) -> Unpacked:
    members = read_zip(data, "the file", _LIMITS)
    for name in (MANIFEST, PROGRAM):
        if name not in members:
            raise InputError(f"it has no {name}")
    manifest = parse_json(members[MANIFEST], MANIFEST)
    _check_version(manifest)
    # The table is compared with the program's own below, which is stricter, and much faster.
    check_json(manifest | {"tensors": []}, MANIFEST, schema())
    stored = {name: data for name, data in members.items() if name != MANIFEST}
    if set(manifest["members"]) != set(stored):
        raise InputError(f"{MANIFEST} lists {sorted(manifest['members'])}, not {sorted(stored)}")
    for name, sha256 in manifest["members"].items():
        if hashlib.sha256(stored[name]).hexdigest() != sha256:
            raise InputError(f"{name} is not the one {MANIFEST} was written with (sha256 differs)")
    info = ProgramInfo.from_json(manifest)
    table = manifest.get("tensors")
    graph = _with_how(read_pt2(stored[PROGRAM]), table)
    check_quantized(graph, info.profile)
    _check_table(tensor_table(graph), table)
    check_info(graph, info)
    reference = Reference.from_bytes(stored[REFERENCE]) if REFERENCE in stored else None
    check_reference(info, reference)
    return stored[PROGRAM], graph, info, reference


def _check_version(manifest: Any) -> None:
    """Before the schema, so that a newer file is called newer and not malformed."""
    if not isinstance(manifest, dict):
        raise InputError(f"{MANIFEST} is not a JSON object")
    version = manifest.get("schema_version")
    if type(version) is int and version > SCHEMA_VERSION:
        raise InputError(
            f"it has schema version {version}, newer than {SCHEMA_VERSION}; upgrade edgevit"
        )


def check_info(graph: Graph, info: ProgramInfo) -> None:
    """InputError when the graph is not the model that the info describes."""
    size, classes = info.model.image_size, info.model.classes
    if graph.input_shape != (1, 3, size, size):
        raise InputError(f"the program takes {graph.input_shape}, its info says {size} px images")
    if graph.shape(graph.output_name) != (1, classes):
        found = graph.shape(graph.output_name)
        raise InputError(f"the program makes {found}, its info says {classes} classes")


def check_reference(info: ProgramInfo, reference: Reference | None) -> None:
    """InputError when the reference is not about this program's classes."""
    if reference is not None and reference.logits.shape[1] != info.model.classes:
        raise InputError(
            f"the reference has {reference.logits.shape[1]} classes, not {info.model.classes}"
        )


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
            "quant_min": -WEIGHT_MAX, "quant_max": WEIGHT_MAX, "how": node.weight_how,
        })  # fmt: skip
    return rows


def _with_how(graph: Graph, table: Any) -> Graph:
    """`how` is the one thing that only the table knows."""
    if not isinstance(table, list) or not all(isinstance(row, dict) for row in table):
        raise InputError(f"{MANIFEST}: tensors is not a list of objects")
    how = {str(row.get("name")): row.get("how") for row in table}
    if any(value not in HOW for value in how.values()):
        raise InputError(f"{MANIFEST}: a tensor's how is not one of {', '.join(HOW)}")
    nodes = []
    for node in graph.nodes:
        if node.quantizer is not None:
            quantizer = replace(node.quantizer, how=how.get(node.name, "learned"))
            node = replace(node, quantizer=quantizer)
        if node.weight is not None:
            node = replace(node, weight_how=how.get(f"{node.module}.weight", "learned"))
        nodes.append(node)
    source = replace(graph.input_quantizer, how=how.get(graph.input_name, "learned"))
    return replace(graph, input_quantizer=source, nodes=tuple(nodes))


def _check_table(expected: list[dict[str, Any]], found: list[dict[str, Any]]) -> None:
    if [row.get("name") for row in found] != [row["name"] for row in expected]:
        raise InputError(f"{MANIFEST}: its tensors are not the program's")
    for want, have in zip(expected, found, strict=True):
        if want != have:
            key = next((k for k in (*want, *have) if want.get(k) != have.get(k)), "an entry")
            raise InputError(f"{MANIFEST}: {key} of {want['name']} is not the program's")
