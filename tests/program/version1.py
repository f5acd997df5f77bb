"""Program files of version 1: two that the code of commit 7b8d4bd wrote, and a writer of more.

tests/data/version1-PROFILE-ACTIVATION.evq.xz is what that commit's `make_program(profile=…,
activation=…).to_bytes()` of tests/programs.py gave, compressed here alone.
"""

from __future__ import annotations

import hashlib
import io
import json
import lzma
import zipfile
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from edgevit.program import Program, build_program
from edgevit.program.v1.evq import tensor_table
from tests.programs import (
    SMALL,
    make_info,
    quantizers,
    seeded_graph,
    seeded_images,
    weight_scales,
)

DATA = Path(__file__).parent.parent / "data"
REAL = (("portable", "gelu"), ("asymmetric", "hard-swish"))
Members = dict[str, bytes]
SNAPPED_THEN = {
    ("asymmetric", "hard-swish"): {"stages.1.blocks.0.se.mul": 0.023162841796875},
    ("portable", "gelu"): {
        "stages.0.blocks.0.se.mul": 0.02777099609375,
        "stages.1.blocks.0.se.mul": 0.02349853515625,
    },
}
"""Scales that today's snapping moves: of gates' products, off their ties and near-ties."""


def program_then(profile: str, activation: str) -> Program:
    """The program of today's code at the scales of then."""
    graph, images = seeded_graph(activation=activation), seeded_images(8, 64)
    found = quantizers(graph, images, profile)
    for name, scale in SNAPPED_THEN.get((profile, activation), {}).items():
        found[name] = replace(found[name], scale=scale)
    info = make_info(SMALL, 64, profile)
    return build_program(graph, found, weight_scales(graph), info, weight_how="calibrated")


@cache
def real(profile: str = "portable", activation: str = "gelu") -> bytes:
    """A file that edgevit wrote when version 1 was the newest."""
    path = DATA / f"version1-{profile}-{activation}.evq.xz"
    return lzma.decompress(path.read_bytes())


def written(program: Program) -> bytes:
    """The version 1 file of a program that version 1 could hold."""
    members = {"program.pt2": program.export("pt2")}
    if program.reference is not None:
        members["reference.safetensors"] = program.reference.to_bytes()
    manifest = {
        "format": "edgevit-program",
        "schema_version": 1,
        **program.info.to_json(),
        "tensors": tensor_table(program.graph()),
        "members": {name: hashlib.sha256(data).hexdigest() for name, data in members.items()},
    }
    return pack({"evq.json": json.dumps(manifest, indent=1).encode(), **members})


def unpack(data: bytes) -> Members:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def pack(members: Members, compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def repacked(members: Members, change: Any = None) -> bytes:
    """The .evq file of its members, with evq.json changed and its checksums right."""
    manifest = json.loads(members["evq.json"])
    for name in set(manifest["members"]) & set(members):
        manifest["members"][name] = hashlib.sha256(members[name]).hexdigest()
    if change is not None:
        change(manifest)
    return pack(members | {"evq.json": json.dumps(manifest).encode()})
