"""What a run needs on the device, as files: tars that hold the same bytes for the same content."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgevit.data.images import ImageSet
from edgevit.errors import InputError, ToolMissing
from edgevit.files import open_file, read_file, read_tree
from edgevit.limits import MAX_MANIFEST_BYTES, MAX_TREE_BYTES
from edgevit.program.info import CLASSIFICATION
from edgevit.schema import parse_json
from edgevit.tasks import load_task, task_names

# e_machine of an ELF file, by what `uname -m` calls the machines that run it.
_ELF_MACHINES = {
    "x86_64": {62, 3}, "i686": {3}, "aarch64": {183, 40}, "armv7l": {40}, "armv8l": {40},
    "riscv64": {243},
}  # fmt: skip
_ELF_NAMES = {62: "x86_64", 3: "i686", 183: "aarch64", 40: "32-bit ARM", 243: "riscv64"}


def pack_artifact(artifact_dir: Path, out: Path) -> None:
    """The manifest and the files it names, as a tar: not what validate and parity wrote beside.

    Raises InputError when the manifest names something that is not a file or folder of its own.
    """
    manifest_path = artifact_dir / "manifest.json"
    try:
        text = read_file(manifest_path, MAX_MANIFEST_BYTES, "a manifest")
        manifest = parse_json(text, str(manifest_path))
        names = [manifest["artifact"]["file"]]
        names += [manifest["reference"]["file"]] if manifest.get("reference") else []
    except (InputError, KeyError, TypeError) as error:
        raise InputError(f"{manifest_path} is not a readable manifest: {error}") from error
    with tarfile.open(out, "w", format=tarfile.PAX_FORMAT) as archive:
        _add(archive, "manifest.json", text)
        for name in dict.fromkeys(names):
            for relative, data in _contents(artifact_dir, name).items():
                _add(archive, relative, data)


def labels_of(artifact_dir: Path) -> list[str] | None:
    """The labels in the manifest, none of a task without classes; None where the harness will say
    what is wrong with it."""
    try:
        path = artifact_dir / "manifest.json"
        manifest = parse_json(read_file(path, MAX_MANIFEST_BYTES), str(path))
        labels, task = manifest["labels"], manifest.get("task", CLASSIFICATION)
    except (InputError, KeyError, TypeError, AttributeError):
        return None
    if task in task_names() and not load_task(task).has_labels:
        return []
    return labels if isinstance(labels, list) and all(isinstance(n, str) for n in labels) else None


def pack_images(data: Path, out: Path, labels: Sequence[str] | None = None) -> None:
    """An image folder as a tar that has the same entries, in their order.

    labels   the model's, which tell a class folder from a folder around the classes; none of a
             task without classes, whose folders mean nothing

    One folder stands around the class folders, and is dropped again by whoever reads the tar:
    without it a lone class folder would be.
    """
    labelled = labels is None or len(labels) > 0
    images = ImageSet.open(data, labels or None, labelled=labelled)
    around = "images/" if labelled else ""
    with tarfile.open(out, "w", format=tarfile.PAX_FORMAT) as archive:
        for i, (name, _) in enumerate(images.entries):
            _add(archive, f"{around}{name}", images.read_bytes(i))


def check_machine(path: Path, machine: str, what: str) -> None:
    """Raises ToolMissing when an ELF file is for another machine than `uname -m` names."""
    with open_file(path) as file:
        head = file.read(20)
    if head[:4] != b"\x7fELF" or len(head) < 20 or machine not in _ELF_MACHINES:
        return
    found = int.from_bytes(head[18:20], "little" if head[5] == 1 else "big")
    if found not in _ELF_MACHINES[machine]:
        raise ToolMissing(
            f"{what} {path} is for {_ELF_NAMES.get(found, f'ELF machine {found}')}, the device is "
            f"{machine}: name one that was built for it"
        )


def _contents(artifact_dir: Path, name: Any) -> dict[str, bytes]:
    if not isinstance(name, str) or name in ("", ".", "..") or Path(name).name != name:
        raise InputError(f"{artifact_dir}/manifest.json names {name!r}, not a file beside it")
    path = artifact_dir / name
    if path.is_symlink() or not path.exists():
        raise InputError(f"{path}: missing, or a link; the manifest names it as a part")
    if path.is_dir():
        return {f"{name}/{inner}": data for inner, data in sorted(read_tree(path).items())}
    return {name: read_file(path, MAX_TREE_BYTES, "an artifact")}


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(os.fsdecode(name))
    member.size, member.mode, member.mtime = len(data), 0o600, 0
    archive.addfile(member, io.BytesIO(data))
