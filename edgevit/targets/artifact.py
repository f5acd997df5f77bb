"""The artifact folder that every target writes: the artifact, manifest.json, the reference.

The artifact itself is a file (bytes here) or, as Core ML's package, a folder (path -> bytes).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import TypeGuard, cast

from edgevit import __version__
from edgevit.errors import InputError
from edgevit.files import atomic_path, read_file, read_tree, sha256_bytes, write_tree
from edgevit.limits import MAX_LOGITS_BYTES, MAX_TREE_BYTES
from edgevit.ops import Softmax
from edgevit.program import Program, Reference
from edgevit.targets.manifest import (
    MANIFEST_FILE,
    PARITY_FILE,
    REFERENCE_FILE,
    VALIDATION_FILE,
    ArtifactFile,
    Audit,
    InputTensor,
    Manifest,
    Model,
    OutputTensor,
    Profile,
    ProgramFile,
    ReferenceFile,
)
from edgevit.targets.placement import Placement

MAX_COPIED_REFERENCE_BYTES = 4 * 2**20
"""Of the program's answers that an artifact folder holds; larger ones stay in the program file."""

ArtifactData = bytes | Mapping[str, bytes]
"""An artifact's contents: a file's bytes, or every file of a folder by relative path."""


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
    manifest: Manifest
    data: ArtifactData

    @property
    def path(self) -> Path:
        """The artifact itself, a file or a folder."""
        return self.folder / self.manifest.artifact.file

    def reference(self) -> Reference | None:
        """The program's recorded answers. Raises InputError when they are not the manifest's."""
        recorded = self.manifest.reference
        if recorded is None:
            return None
        path = self.folder / recorded.file
        data = read_file(path, MAX_LOGITS_BYTES, "recorded logits")
        if sha256_bytes(data) != recorded.sha256:
            raise InputError(f"{path} is not what the manifest describes; compile it again")
        return Reference.from_bytes(data)


def load_artifact(folder: str | os.PathLike[str]) -> Artifact:
    """Reads an artifact folder. Raises InputError when its contents are not the manifest's."""
    folder = Path(folder)
    manifest = Manifest.load(folder)
    path = folder / manifest.artifact.file
    data = read_tree(path) if path.is_dir() else read_file(path, MAX_TREE_BYTES, "an artifact")
    if (found := sha256_bytes(data)) != manifest.artifact.sha256:
        raise InputError(
            f"{path} is not the artifact its manifest describes: sha256 {found}, expected "
            f"{manifest.artifact.sha256}; compile it again"
        )
    return Artifact(folder, manifest, data)


@dataclass(frozen=True)
class Held:
    """A tensor at an artifact's border, as its runtime describes it; scale None without one."""

    shape: tuple[int, ...]
    dtype: str
    scale: float | None = None
    zero_point: int | None = None


def check_held(artifact: Artifact, source: Held, outputs: Sequence[Held]) -> None:
    """Raises InputError where an artifact's tensors are not what its manifest says of them."""
    manifest = artifact.manifest
    if len(outputs) != len(manifest.outputs):
        raise InputError(
            f"{artifact.path} has {len(outputs)} outputs, its manifest {len(manifest.outputs)}; "
            "compile it again"
        )
    pairs = zip((manifest.input, *manifest.outputs), (source, *outputs), strict=True)
    for said, held in pairs:
        found = Held(said.shape, said.dtype, said.scale, said.zero_point)
        if found != held:
            raise InputError(
                f"{artifact.path}: its {said.name} is {_text(held)}, its manifest says "
                f"{_text(found)}; compile it again"
            )


def _text(tensor: Held) -> str:
    scale = f", scale {tensor.scale:.9g}, zero-point {tensor.zero_point}" if tensor.scale else ""
    return f"{tensor.dtype} {list(tensor.shape)}{scale}"


def written_files(folder: Path) -> set[str]:
    """Relative paths of what edgevit wrote into an artifact folder; none without a manifest.

    A package (Core ML's) is edgevit's as a whole while it is what the manifest says; after that
    nobody knows which of its files are.
    """
    try:
        manifest = Manifest.load(folder)
        names = {MANIFEST_FILE, VALIDATION_FILE, PARITY_FILE, *manifest.files}
        if manifest.reference is not None:
            names.add(manifest.reference.file)
        file, path = manifest.artifact.file, folder / manifest.artifact.file
        if not path.is_dir():
            return names | {file}
        tree = read_tree(path)
    except InputError:
        return set()
    if sha256_bytes(tree) != manifest.artifact.sha256:
        return names
    return names | {f"{file}/{name}" for name in tree}


@dataclass(frozen=True, kw_only=True)
class Compiled:
    """What a target made of a program, before it is written.

    file, data  the artifact's name in its folder, and its contents
    tools       package name -> version of what it was written with
    options     what it was compiled with
    audit       None for a float artifact, which is there to compare with
    profile     None: the program's
    drops       canonical names of the quantizers that this target leaves out
    islands     canonical names of the operations that are computed on real numbers
    commands    title -> command line that takes the artifact further on a device
    files       name -> contents of what lies beside the artifact
    placement   of each SoC that it was compiled for ahead of time
    """

    target: str
    file: str
    data: ArtifactData
    tools: Mapping[str, str]
    options: Mapping[str, str]
    input: InputTensor
    outputs: tuple[OutputTensor, ...]
    ops: Mapping[str, int]
    audit: Audit | None
    profile: str | None = None
    drops: tuple[str, ...] = ()
    islands: tuple[str, ...] = ()
    commands: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)
    placement: tuple[Placement, ...] = ()

    def manifest(self, program: Program) -> Manifest:
        """The manifest of the artifact, which was made of `program`."""
        info = program.info
        return Manifest(
            schema_version=info.preprocessing.schema_version,
            target=self.target,
            task=info.task,
            artifact=ArtifactFile(self.file, sha256_bytes(self.data), size_bytes(self.data)),
            program=ProgramFile(program.file_name, program.sha256),
            profile=cast(Profile, self.profile or info.profile),
            model=Model(info.model.variant, info.model.classes),
            tools=dict(self.tools),
            options=dict(self.options),
            input=self.input,
            outputs=_with_meaning(self.outputs, program),
            preprocessing=info.preprocessing,
            labels=info.labels,
            drops=self.drops,
            islands=self.islands,
            ops=dict(sorted(self.ops.items())),
            audit=self.audit,
            reference=_reference_file(program.reference),
            commands=dict(self.commands),
            files={name: sha256_bytes(data) for name, data in self.files.items()},
            placement=self.placement,
        )


def _with_meaning(outputs: tuple[OutputTensor, ...], program: Program) -> tuple[OutputTensor, ...]:
    """The outputs, the first one marked where the net ends in a softmax."""
    graph = program.graph()
    if not isinstance(graph.node(graph.outputs[0]), Softmax):
        return outputs
    return replace(outputs[0], meaning="probabilities"), *outputs[1:]


def _is_copied(reference: Reference | None) -> TypeGuard[Reference]:
    """Whether the answers go along with an artifact; many are taken from the program's file."""
    return reference is not None and reference.size_bytes <= MAX_COPIED_REFERENCE_BYTES


def _reference_file(reference: Reference | None) -> ReferenceFile | None:
    if not _is_copied(reference):
        return None
    digest = sha256_bytes(reference.to_bytes())
    return ReferenceFile(REFERENCE_FILE, digest, reference.dataset_sha256, len(reference.paths))


def write_artifact(folder: Path, program: Program, compiled: Compiled, force: bool) -> Manifest:
    """Writes the folder with the artifact in it, whole or not at all; returns its manifest.

    Raises InputError when the folder exists (unless `force`), and for a manifest that could not
    be read back; nothing is left behind then.
    """
    manifest = compiled.manifest(program)
    text = manifest.text()
    with atomic_path(folder, force, listing=written_files) as temporary:
        temporary.mkdir()
        artifact = temporary / compiled.file
        if isinstance(compiled.data, Mapping):
            write_tree(artifact, compiled.data)
        else:
            artifact.write_bytes(compiled.data)
        write_tree(temporary, compiled.files)
        if _is_copied(program.reference):
            (temporary / REFERENCE_FILE).write_bytes(program.reference.to_bytes())
        (temporary / MANIFEST_FILE).write_bytes(text)
    return manifest
