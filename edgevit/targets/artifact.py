"""The artifact folder that every target writes: the artifact, manifest.json, the reference."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

from edgevit import __version__
from edgevit.files import atomic_path
from edgevit.program import Program, Reference
from edgevit.program.evq import check_json

SCHEMA_VERSION, KIND = 1, "edgevit-artifact"
MANIFEST_FILE, REFERENCE_FILE = "manifest.json", "reference.safetensors"


class Affine(Protocol):
    """real = (q - zero_point) * scale."""

    @property
    def scale(self) -> float: ...
    @property
    def zero_point(self) -> int: ...


@dataclass(frozen=True)
class ArtifactTensor:
    """The artifact's input or output.

    dtype       "int8", "uint8" or "float32"
    quantizer   None for float32
    layout      "NHWC" or "NCHW", of the input
    table       of the input: [R, G, B], each the 256 values the tensor holds for a pixel of 0..255
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    quantizer: Affine | None
    layout: str | None = None
    table: list[list[float]] | None = None

    def to_json(self) -> dict[str, Any]:
        row: dict[str, Any] = {"name": self.name, "shape": list(self.shape)}
        if self.layout is not None:
            row["layout"] = self.layout
        row["dtype"] = self.dtype
        row["scale"] = self.quantizer.scale if self.quantizer else None
        row["zero_point"] = self.quantizer.zero_point if self.quantizer else None
        if self.table is not None:
            row["table"] = self.table
        return row


@cache
def manifest_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of manifest.json."""
    path = Path(__file__).parent.parent / "schemas" / "manifest.schema.json"
    return json.loads(path.read_text(encoding="utf-8"))


def tool_versions(*packages: str) -> dict[str, str]:
    """edgevit's version and those of the installed packages a target is written with."""
    return {"edgevit": __version__} | {name: metadata.version(name) for name in packages}


def manifest_of(
    program: Program,
    *,
    target: str,
    file: str,
    data: bytes,
    tools: Mapping[str, str],
    source: ArtifactTensor,
    output: ArtifactTensor,
    ops: Mapping[str, int],
    audited: tuple[int, int],
    drops: list[str] | None = None,
) -> dict[str, Any]:
    """manifest.json as a dict.

    file, data  the artifact's name in its folder, and its bytes
    audited     activations and weight channels the scale audit found equal
    drops       canonical names of the quantizers this target does without
    """
    info = program.info
    reference = None
    if program.reference is not None:
        reference = {
            "file": REFERENCE_FILE,
            "sha256": hashlib.sha256(program.reference.to_bytes()).hexdigest(),
            "dataset_sha256": program.reference.dataset_sha256,
            "count": len(program.reference.paths),
        }
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": KIND,
        "target": target,
        "artifact": {
            "file": file, "sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)
        },
        "program": {"file": program.file_name, "sha256": program.sha256},
        "profile": info.profile,
        "model": {"variant": info.model.variant, "classes": info.model.classes},
        "tools": dict(tools),
        "input": source.to_json(),
        "output": output.to_json(),
        "preprocessing": info.preprocessing.to_json(),
        "labels": list(info.labels),
        "drops": drops or [],
        "ops": dict(sorted(ops.items())),
        "audit": {"activations": audited[0], "weight_channels": audited[1], "exact": True},
        "reference": reference,
    }  # fmt: skip


def write_artifact(
    folder: Path,
    files: Mapping[str, bytes],
    manifest: Mapping[str, Any],
    reference: Reference | None,
    force: bool,
) -> None:
    """Writes the folder, whole or not at all.

    Raises InputError when it exists (unless `force`), and when the manifest does not fit its
    schema; nothing is left behind then.
    """
    check_json(manifest, MANIFEST_FILE, manifest_schema())
    with atomic_path(folder, force) as temporary:
        temporary.mkdir()
        for name, data in files.items():
            (temporary / name).write_bytes(data)
        if reference is not None:
            (temporary / REFERENCE_FILE).write_bytes(reference.to_bytes())
        text = json.dumps(manifest, indent=1, ensure_ascii=False, allow_nan=False)
        (temporary / MANIFEST_FILE).write_text(text + "\n", encoding="utf-8")
