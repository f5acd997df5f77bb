"""The .evq file: a stored zip, written so that the same program is the same bytes.

evq.json               what the program says about itself, and the sha256 of every other member
graph.json             MUST be there: the graph with its activation scales (see `graph_file`)
weights.safetensors    MUST be there: int8 weights with their scales, int32 biases
reference.safetensors  MAY be there: the program's answers on known images (see `compact`)
program.pt2            MAY be there: `Program.export("pt2")`, which nothing reads back

A reader MUST refuse other members and unknown keys, and runs nothing of what the file holds.
Version 1, which held its graph as program.pt2, is still read (`v1`).
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from edgevit.errors import InputError
from edgevit.files import open_file
from edgevit.graph import Graph, check_quantized
from edgevit.program.compact import MAX_BYTES as MAX_REFERENCE_BYTES
from edgevit.program.compact import read_reference, reference_bytes
from edgevit.program.container import MAX_FILE_BYTES, read_zip, write_zip
from edgevit.program.graph_file import GRAPH, WEIGHTS, graph_members, read_graph
from edgevit.program.info import CLASSIFICATION, ProgramInfo, Reference
from edgevit.program.v1 import unpack_v1
from edgevit.schema import check_json, parse_json

__all__ = ["MAX_FILE_BYTES", "check_info", "check_reference", "is_program", "pack", "unpack"]

FORMAT, SCHEMA_VERSION = "edgevit-program", 2
MANIFEST, PT2, REFERENCE = "evq.json", "program.pt2", "reference.safetensors"
_NAME_OFFSET = 30
"""Bytes of a zip in front of its first member's name."""
_LIMITS = {
    r"evq\.json": 2**25,
    r"graph\.json": 2**25,
    r"weights\.safetensors": 2**29,
    r"program\.pt2": 2**29,
    r"reference\.safetensors": MAX_REFERENCE_BYTES,
}
MAX_REASON = 500
"""Characters of a message about a file that cannot be read."""
MAX_VALUES = 2**28
"""Of tensors that one image needs at once: 1 GiB as float32. RepViT-M2.3 at 1024 px needs 2**25."""


@cache
def schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of evq.json."""
    path = Path(__file__).parent.parent / "schemas" / "evq.schema.json"
    return json.loads(path.read_text(encoding="utf-8"))


def pack(
    graph: Graph, info: ProgramInfo, reference: Reference | None, more: Mapping[str, bytes] = {}
) -> bytes:
    """The bytes of the .evq file; the same program gives the same bytes.

    more  derived members by name, such as program.pt2
    """
    members = {**graph_members(graph), **more}
    if reference is not None:
        first = graph.outputs[0]
        members[REFERENCE] = (
            reference.to_bytes()
            if first in graph.real_outputs
            else reference_bytes(reference, graph.quantizer(first))
        )
    manifest = {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        **info.to_json(),
        "members": {name: hashlib.sha256(data).hexdigest() for name, data in members.items()},
    }
    check_json(manifest, MANIFEST, schema())
    text = json.dumps(manifest, indent=1, ensure_ascii=False, allow_nan=False)
    members = {MANIFEST: text.encode("utf-8", "surrogatepass"), **members}
    parse_json(members[MANIFEST], MANIFEST)
    _check_sizes(members)
    buffer = io.BytesIO()
    write_zip(buffer, members)
    return buffer.getvalue()


def _check_sizes(members: Mapping[str, bytes]) -> None:
    """What is written can be read back."""
    if sum(map(len, members.values())) > MAX_FILE_BYTES - 2**20:
        raise InputError(
            f"the program would have over {MAX_FILE_BYTES} bytes, the most it may have"
        )
    for name, data in members.items():
        limit = next(n for pattern, n in _LIMITS.items() if re.fullmatch(pattern, name))
        if len(data) > limit:
            raise InputError(
                f"{name} would have {len(data)} bytes; {limit} is the most it may have"
            )


def is_program(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins as `pack` begins one; it may be damaged behind that.

    Raises InputError for what cannot be read.
    """
    if os.path.isdir(path):
        return False
    with open_file(path) as file:
        start = file.read(_NAME_OFFSET + len(MANIFEST))
    return start.startswith(b"PK\x03\x04") and start[_NAME_OFFSET:] == MANIFEST.encode()


Unpacked = tuple[Graph, ProgramInfo, Reference | None]


def unpack(data: bytes, what: str) -> Unpacked:
    """The inverse of `pack`. Runs nothing from the file; InputError for whatever does not fit.

    what    names the file in errors
    """
    try:
        return _unpack(data)
    except InputError as error:
        reason = str(error)
        if len(reason) > MAX_REASON:  # it may quote the file
            reason = reason[:MAX_REASON] + "…"
        raise InputError(f"{what} is not a program this edgevit can read: {reason}") from error


def _unpack(data: bytes) -> Unpacked:
    members = read_zip(data, "the file", _LIMITS)
    if MANIFEST not in members:
        raise InputError(f"it has no {MANIFEST}")
    manifest = parse_json(members[MANIFEST], MANIFEST)
    version = _version(manifest)
    stored = {name: data for name, data in members.items() if name != MANIFEST}
    _check_manifest(manifest, version)
    if set(manifest["members"]) != set(stored):
        raise InputError(f"{MANIFEST} lists {sorted(manifest['members'])}, not {sorted(stored)}")
    for name, sha256 in manifest["members"].items():
        if hashlib.sha256(stored[name]).hexdigest() != sha256:
            raise InputError(f"{name} is not the one {MANIFEST} was written with (sha256 differs)")
    info = ProgramInfo.from_json(manifest)
    graph = unpack_v1(manifest, stored) if version == 1 else read_graph(stored)
    check_quantized(graph, info.profile)
    check_info(graph, info)
    reference = read_reference(stored[REFERENCE]) if REFERENCE in stored else None
    check_reference(info, reference)
    return graph, info, reference


def _check_manifest(manifest: dict[str, Any], version: int) -> None:
    """evq.json against its schema. Version 1 has other members, and a table that `v1` checks."""
    if version == 1:
        if not isinstance(manifest.get("members"), dict) or "tensors" not in manifest:
            raise InputError(f"{MANIFEST}: members or tensors are missing")
        if foreign := sorted(set(manifest["members"]) - {PT2, REFERENCE}):
            raise InputError(f"{MANIFEST}: {foreign[0][:80]!r} is no member of a version 1 file")
        if any(not isinstance(sha256, str) for sha256 in manifest["members"].values()):
            raise InputError(f"{MANIFEST}: a member's sha256 is not text")
        blank = {name: "0" * 64 for name in (GRAPH, WEIGHTS)}
        manifest = {key: value for key, value in manifest.items() if key != "tensors"}
        manifest |= {"schema_version": SCHEMA_VERSION, "members": blank}
    check_json(manifest, MANIFEST, schema())


def _version(manifest: Any) -> int:
    """The schema version, read before the schema, so that a newer file is called newer."""
    if not isinstance(manifest, dict):
        raise InputError(f"{MANIFEST} is not a JSON object")
    version = manifest.get("schema_version")
    if type(version) is not int:
        raise InputError(f"{MANIFEST}: schema_version {str(version)[:80]!r} is not a whole number")
    if version > SCHEMA_VERSION:
        raise InputError(
            f"it has schema version {version}, newer than {SCHEMA_VERSION}; upgrade edgevit"
        )
    return 1 if version == 1 else SCHEMA_VERSION


def check_info(graph: Graph, info: ProgramInfo) -> None:
    """InputError when the graph is not the model that the info describes, or too large to run."""
    if graph.peak_values() > MAX_VALUES:
        raise InputError(
            f"one image needs {graph.peak_values()} values at once; {MAX_VALUES} is the limit"
        )
    rules, classes = info.preprocessing, info.model.classes
    if graph.input_shape != (1, *rules.input_shape):
        raise InputError(
            f"the program takes {graph.input_shape}, its info says {rules.size_text} images of "
            f"{rules.channel_count} channels"
        )
    if info.task == CLASSIFICATION and graph.shape(graph.outputs[0]) != (1, classes):
        found = graph.shape(graph.outputs[0])
        raise InputError(f"the program makes {found}, its info says {classes} classes")


def check_reference(info: ProgramInfo, reference: Reference | None) -> None:
    """InputError when the reference is not about this program's classes."""
    if reference is not None and reference.logits.shape[1] != info.model.classes:
        raise InputError(
            f"the reference has {reference.logits.shape[1]} classes, not {info.model.classes}"
        )
