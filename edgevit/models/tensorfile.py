"""Opens checkpoint files that nobody vouches for: what a file is, its first bytes say.

No code from a file is ever run, and what a file claims about its sizes is checked before it is
believed. Every defect is an InputError that says what is wrong with the file and what to do.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgevit.errors import InputError
from edgevit.files import sha256_file
from edgevit.models.inert import CodeInPickle, PickleError
from edgevit.models.signature import what_it_looks_like

# The largest RepViT with optimizer state and an averaged copy takes 0.4 GB.
MAX_FILE_BYTES = 2 * 2**30
MAX_HEADER_BYTES = 8 * 2**20
MAX_SHARDS = 1000

SAVE_HINT = "save the weights alone, with torch.save(model.state_dict(), 'weights.pth')"
COPY_HINT = "copy or download it again"

FOLDER_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "open_clip_pytorch_model.bin",
    "checkpoint.pth",
)
"""Where a model folder of the Hugging Face kind keeps its weights, the first one found is taken."""


@dataclass(frozen=True)
class TensorFile:
    """What a checkpoint holds, with a StoredTensor in place of each tensor.

    path      as it was given, or the file of a folder
    files     every file that was read: several, where an index names shards
    value     dictionaries, lists, plain values and stand-ins (`edgevit.models.inert`)
    metadata  of a .safetensors file
    """

    path: Path
    files: tuple[Path, ...]
    value: Any
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        """Of all files."""
        return sum(file.stat().st_size for file in self.files)

    @property
    def sha256(self) -> str:
        """Hex: of the file; where there are several, of the lines "<sha256>  <name>\\n"."""
        if len(self.files) == 1:
            return sha256_file(self.files[0])
        lines = (f"{sha256_file(file)}  {file.name}\n" for file in self.files)
        return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()


def read(path: str | os.PathLike[str]) -> TensorFile:
    """Open a checkpoint: torch's two formats, TorchScript, safetensors, an index of shards, or a
    folder that holds one of them as Hugging Face lays it out. Its name does not matter.

    Raises InputError when it is missing, empty, too large, truncated, or of another kind.
    """
    path = Path(path)
    try:
        return _read(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error


def _read(path: Path) -> TensorFile:
    if path.is_dir():
        return _read(_weights_of_folder(path))
    size = _checked_size(path)
    start = _start(path)
    # The length that a safetensors file begins with has zeros at its end, and text has none.
    if start.lstrip()[:1] == b"{" and start[7:8] != b"\0" and size <= MAX_HEADER_BYTES:
        return _read_index(path)
    return _read_one(path, size, start)


def _read_one(path: Path, size: int, start: bytes) -> TensorFile:
    if start[:2] == b"PK":
        return TensorFile(path, (path,), _read_zip(path))
    if start[:1] == b"\x80":
        return TensorFile(path, (path,), _read_pickle(path))
    other = what_it_looks_like(start)
    if start[8:9] == b"{" or (path.suffix == ".safetensors" and not other):
        value, metadata = _read_safetensors(path, size)
        return TensorFile(path, (path,), value, metadata)
    other = other or f"it begins with {start[:4].hex(' ')}; {COPY_HINT}"
    raise InputError(f"{path}: not a checkpoint: {other}")


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(512)


def _checked_size(path: Path) -> int:
    if not path.exists():
        broken = " (a link to a file that is gone)" if path.is_symlink() else ""
        raise InputError(f"{path}: no such file{broken}")
    if not path.is_file():
        raise InputError(f"{path}: not a file; give a checkpoint, such as net.pth")
    size = path.stat().st_size
    if size == 0:
        raise InputError(f"{path}: the file is empty; {COPY_HINT}")
    if size > MAX_FILE_BYTES:
        raise InputError(
            f"{path}: {size} bytes, more than the {MAX_FILE_BYTES} that any RepViT checkpoint "
            f"needs; {SAVE_HINT}"
        )
    return size


def _weights_of_folder(folder: Path) -> Path:
    for name in FOLDER_FILES:
        if (folder / name).is_file():
            return folder / name
    names = sorted(os.listdir(folder))
    likely = [n for n in names if n.endswith((".safetensors", ".bin", ".pth", ".pt", ".ckpt"))]
    if len(likely) == 1 and (folder / likely[0]).is_file():
        return folder / likely[0]
    if ".metadata" in names:
        raise InputError(
            f"{folder}: a distributed checkpoint; make one file of it with `python -m "
            "torch.distributed.checkpoint.format_utils dcp_to_torch`"
        )
    if "data.pkl" in names:
        raise InputError(f"{folder}: an unpacked torch checkpoint; give the .pth file itself")
    held = ", ".join((likely or names)[:5]) or "nothing"
    raise InputError(
        f"{folder}: a folder that is not a file and has no {FOLDER_FILES[0]} or {FOLDER_FILES[2]} "
        f"in it (found: {held}); name the checkpoint itself"
    )


def _read_zip(path: Path) -> Any:
    from edgevit.models.torchfile import ArchiveError, read_archive

    try:
        return read_archive(path, MAX_FILE_BYTES)
    except PickleError as error:
        raise InputError(f"{path}: {_pickle_failure(error)}") from error
    except ArchiveError as error:
        raise InputError(f"{path}: {error}; {SAVE_HINT}") from error
    except (
        zipfile.BadZipFile, zlib.error, EOFError, ValueError, KeyError, RuntimeError,
    ) as error:  # fmt: skip
        raise InputError(f"{path}: truncated or damaged ({error}); {COPY_HINT}") from error


def _read_pickle(path: Path) -> Any:
    from edgevit.models.torchfile import read_stream

    try:
        return read_stream(path.read_bytes())
    except PickleError as error:
        raise InputError(f"{path}: {_pickle_failure(error)}") from error


def _pickle_failure(error: PickleError) -> str:
    if isinstance(error, CodeInPickle):
        return (
            f"its pickle wants to run {error}, which is code and not weights; edgevit runs no "
            f"code from a checkpoint: {SAVE_HINT}"
        )
    return f"its pickle is truncated or damaged ({error}); {COPY_HINT}"


def _read_safetensors(path: Path, size: int) -> tuple[dict[str, Any], dict[str, str]]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    from edgevit.models.torchfile import StoredTensor

    data = path.read_bytes()
    header_bytes = int.from_bytes(data[:8], "little")
    if header_bytes > MAX_HEADER_BYTES:
        raise InputError(
            f"{path}: not a safetensors file: its header would take {header_bytes} bytes "
            f"(at most {MAX_HEADER_BYTES} are accepted)"
        )
    if size < 8 + header_bytes:
        raise InputError(f"{path}: the file ends inside its header; {COPY_HINT}")
    try:
        header = json.loads(data[8 : 8 + header_bytes])
        tensors = load(data)
        metadata = header.get("__metadata__") or {}
        if not isinstance(metadata, dict):
            raise ValueError("its metadata is no object")
    except (SafetensorError, ValueError, KeyError, AttributeError, RecursionError) as error:
        # torch has no type for some of the format's number formats: a KeyError names it.
        raise InputError(f"{path}: not a valid safetensors file ({error}); {COPY_HINT}") from error
    return {name: StoredTensor.of(tensor) for name, tensor in tensors.items()}, dict(metadata)


def _read_index(path: Path) -> TensorFile:
    """The tensors of all shards that an index names; each lies beside it."""
    try:
        names = json.loads(path.read_bytes())["weight_map"].values()
        shards = sorted({name for name in names if isinstance(name, str)})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{path}: not a checkpoint: this is JSON text, and no index of shards; give the file "
            "that holds the weights"
        ) from error
    if len(shards) > MAX_SHARDS:
        raise InputError(f"{path}: names {len(shards)} files; no RepViT has so many")
    if outside := [name for name in shards if Path(name).name != name]:
        raise InputError(f"{path}: names the file {outside[0]!r}, which does not lie beside it")
    files = tuple(path.parent / name for name in shards)
    sizes = [_checked_size(file) for file in files]
    if sum(sizes) > MAX_FILE_BYTES:
        raise InputError(f"{path}: its shards are larger than any RepViT checkpoint; {SAVE_HINT}")
    parts = [_read_one(file, size, _start(file)) for file, size in zip(files, sizes, strict=True)]
    value: dict[str, Any] = {}
    for part in parts:
        if not isinstance(part.value, dict):
            raise InputError(f"{part.path}: not a dictionary of tensors, as a shard is")
        value.update(part.value)
    return TensorFile(path, (path, *files), value)
