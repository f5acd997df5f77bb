"""The artifact folder that every target writes: the artifact, manifest.json, the reference.

The artifact itself is a file (bytes here) or, as Core ML's package, a folder (path -> bytes).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from edgevit import __version__
from edgevit.errors import InputError
from edgevit.files import atomic_path, read_tree, sha256_bytes, write_tree
from edgevit.program import Program, Reference
from edgevit.program.container import parse_json
from edgevit.program.evq import check_json

SCHEMA_VERSION, KIND = 1, "edgevit-artifact"
MANIFEST_FILE, REFERENCE_FILE = "manifest.json", "reference.safetensors"
MAX_MANIFEST_BYTES = 16 * 2**20

ArtifactData = bytes | Mapping[str, bytes]
"""An artifact's contents: a file's bytes, or every file of a folder by relative path."""


class Affine(Protocol):
    """real = (q - zero_point) * scale."""

    @property
    def scale(self) -> float: ...
    @property
    def zero_point(self) -> int: ...


@dataclass(frozen=True)
class ArtifactTensor:
    """The artifact's input or output.

    dtype       "int8", "uint8", "float16" or "float32"
    quantizer   None for floats and for raw pixels
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


def size_bytes(data: ArtifactData) -> int:
    """The size of an artifact, in bytes; of a folder, of all its files."""
    return sum(map(len, data.values())) if isinstance(data, Mapping) else len(data)


@dataclass(frozen=True)
class Artifact:
    """A written artifact folder, read back and found whole."""

    folder: Path
    manifest: dict[str, Any]
    data: ArtifactData

    @property
    def path(self) -> Path:
        """The artifact itself, a file or a folder."""
        return self.folder / self.manifest["artifact"]["file"]


def load_manifest(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The manifest of an artifact folder; InputError when there is none that fits the schema."""
    path = Path(folder) / MANIFEST_FILE
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_MANIFEST_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(
            f"{folder} is not an artifact folder: it has no {MANIFEST_FILE} (edgevit compile "
            "writes one for each target)"
        ) from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > MAX_MANIFEST_BYTES:
        raise InputError(f"{path} is too large for a manifest")
    manifest = parse_json(data, str(path))
    check_json(manifest, str(path), manifest_schema())
    return manifest


def load_artifact(folder: str | os.PathLike[str]) -> Artifact:
    """Reads an artifact folder. Raises InputError when its contents are not the manifest's."""
    folder = Path(folder)
    manifest = load_manifest(folder)
    path = folder / manifest["artifact"]["file"]
    try:
        data = read_tree(path) if path.is_dir() else path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    if (found := sha256_bytes(data)) != manifest["artifact"]["sha256"]:
        raise InputError(
            f"{path} is not the artifact its manifest describes: sha256 {found}, expected "
            f"{manifest['artifact']['sha256']}; compile it again"
        )
    return Artifact(folder, manifest, data)


def table_of(manifest: Mapping[str, Any]) -> np.ndarray:
    """The input's values for a pixel of 0..255: float32 (3, 256)."""
    return np.array(manifest["input"]["table"], np.float32)


def manifest_of(
    program: Program,
    *,
    target: str,
    file: str,
    data: ArtifactData,
    tools: Mapping[str, str],
    options: Mapping[str, str],
    source: ArtifactTensor,
    output: ArtifactTensor,
    ops: Mapping[str, int],
    audited: tuple[int, int],
    drops: list[str] | None = None,
    commands: Mapping[str, str] | None = None,
    more_files: Mapping[str, bytes] | None = None,
) -> dict[str, Any]:
    """manifest.json as a dict.

    file, data  the artifact's name in its folder, and its contents
    options     what it was compiled with
    audited     activations and weight channels the scale audit found equal
    drops       canonical names of the quantizers this target does without
    commands    title -> command line that takes the artifact further on a device
    more_files  what lies beside the artifact without being it
    """
    info = program.info
    reference = None
    if program.reference is not None:
        reference = {
            "file": REFERENCE_FILE,
            "sha256": sha256_bytes(program.reference.to_bytes()),
            "dataset_sha256": program.reference.dataset_sha256,
            "count": len(program.reference.paths),
        }
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": KIND,
        "target": target,
        "artifact": {
            "file": file, "sha256": sha256_bytes(data), "size_bytes": size_bytes(data)
        },
        "program": {"file": program.file_name, "sha256": program.sha256},
        "profile": info.profile,
        "model": {"variant": info.model.variant, "classes": info.model.classes},
        "tools": dict(tools),
        "options": dict(options),
        "input": source.to_json(),
        "output": output.to_json(),
        "preprocessing": info.preprocessing.to_json(),
        "labels": list(info.labels),
        "drops": drops or [],
        "ops": dict(sorted(ops.items())),
        "audit": {"activations": audited[0], "weight_channels": audited[1], "exact": True},
        "reference": reference,
        **({"commands": dict(commands)} if commands else {}),
        **({"files": {n: sha256_bytes(d) for n, d in more_files.items()}} if more_files else {}),
    }  # fmt: skip


def write_artifact(
    folder: Path,
    data: ArtifactData,
    manifest: Mapping[str, Any],
    reference: Reference | None,
    force: bool,
    more_files: Mapping[str, bytes] | None = None,
) -> None:
    """Writes the folder with the artifact in it, whole or not at all.

    Raises InputError when it exists (unless `force`), and when the manifest does not fit its
    schema; nothing is left behind then.
    """
    check_json(manifest, MANIFEST_FILE, manifest_schema())
    with atomic_path(folder, force) as temporary:
        temporary.mkdir()
        artifact = temporary / manifest["artifact"]["file"]
        if isinstance(data, Mapping):
            write_tree(artifact, data)
        else:
            artifact.write_bytes(data)
        write_tree(temporary, more_files or {})
        if reference is not None:
            (temporary / REFERENCE_FILE).write_bytes(reference.to_bytes())
        text = json.dumps(manifest, indent=1, ensure_ascii=False, allow_nan=False)
        (temporary / MANIFEST_FILE).write_text(text + "\n", encoding="utf-8")
