"""Reads tensors out of .pth, .pt and .safetensors files that nobody vouches for.

No code from a file is ever run, and what a file claims about its sizes is checked before it is
believed. Every defect is an InputError that says what is wrong with the file and what to do.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor

from edgevit.errors import InputError

TORCH_SUFFIXES = (".pth", ".pt", ".pth.tar")
SAFETENSORS_SUFFIX = ".safetensors"
# The largest RepViT with optimizer state and an averaged copy takes 0.4 GB.
MAX_FILE_BYTES = 2 * 2**30
MAX_HEADER_BYTES = 8 * 2**20
MAX_TENSORS = 20_000
MAX_ZIP_MEMBERS = 100_000
MAX_NESTING = 6

# In the order in which they are opened when a checkpoint holds several.
WRAPPER_KEYS = ("model", "state_dict", "model_ema", "state_dict_ema", "module")
NAME_PREFIXES = ("module.", "_orig_mod.", "model.")

SAVE_HINT = "save the weights alone, with torch.save(model.state_dict(), 'weights.pth')"
COPY_HINT = "copy or download it again"


@dataclass(frozen=True)
class TensorFile:
    """The tensors of a file under their names, less what was wrapped around them.

    `wrappers` lists the dictionary keys that were opened and the name prefixes that were taken
    off, outermost first; `metadata` is that of a .safetensors file.
    """

    path: Path
    size_bytes: int
    tensors: dict[str, Tensor]
    wrappers: tuple[str, ...]
    metadata: dict[str, str]


def read(path: str | os.PathLike[str], weights: str | None = None) -> TensorFile:
    """Read a state dict, through the dictionaries and prefixes that are wrapped around it.

    `weights` names the wrapper key to open, such as "model_ema", where a file holds several;
    otherwise the first of WRAPPER_KEYS is opened.

    Raises InputError when the file is missing, empty, too large, truncated, of another kind,
    would run code, or holds no tensors.
    """
    path = Path(path)
    try:
        size = _checked_size(path)
        if path.name.endswith(SAFETENSORS_SUFFIX):
            value, metadata = _read_safetensors(path, size)
        elif path.name.endswith(TORCH_SUFFIXES):
            value, metadata = _read_torch(path), {}
        else:
            raise InputError(
                f"{path}: unknown kind of checkpoint; expected a name ending in "
                f"{', '.join((*TORCH_SUFFIXES, SAFETENSORS_SUFFIX))}"
            )
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    tensors, wrappers = _unwrap(path, value, weights)
    return TensorFile(path, size, tensors, wrappers, metadata)


def _checked_size(path: Path) -> int:
    if not path.exists():
        raise InputError(f"{path}: no such file")
    if not path.is_file():
        raise InputError(f"{path}: not a file; give a .pth, .pt or .safetensors checkpoint")
    size = path.stat().st_size
    if size == 0:
        raise InputError(f"{path}: the file is empty; {COPY_HINT}")
    if size > MAX_FILE_BYTES:
        raise InputError(
            f"{path}: {size} bytes, more than the {MAX_FILE_BYTES} that any RepViT checkpoint "
            f"needs; {SAVE_HINT}"
        )
    return size


def _read_safetensors(path: Path, size: int) -> tuple[Mapping[str, Tensor], dict[str, str]]:
    data = path.read_bytes()
    if data[:4] == b"PK\x03\x04":
        raise InputError(f"{path}: a torch file named .safetensors; rename it to .pth")
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
        tensors = load_safetensors(data)
    except (SafetensorError, ValueError, KeyError, RecursionError) as error:
        # torch has no type for some of the format's number formats: a KeyError names it.
        raise InputError(f"{path}: not a valid safetensors file ({error}); {COPY_HINT}") from error
    return tensors, dict(header.get("__metadata__", {}))


def _read_torch(path: Path) -> object:
    with path.open("rb") as file:
        start = file.read(512)
    if start[:2] == b"PK":
        _check_zip(path)
    elif start[:1] != b"\x80":
        raise InputError(f"{path}: not a torch checkpoint: {_what_it_looks_like(start)}")
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals([argparse.Namespace]):
            # It warns of old pickle protocols and storage types, which a reader cannot change.
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # a damaged pickle can raise anything at all
        raise InputError(f"{path}: {_load_failure(error)}") from error


def _what_it_looks_like(start: bytes) -> str:
    if start.startswith(b"version https://git-lfs"):
        return "this is a Git LFS pointer; fetch the file itself with `git lfs pull`"
    if start.lstrip()[:1] in (b"<", b"{"):
        return "this looks like a web page or text; download the file itself"
    if start[8:9] == b"{":
        return "this looks like a safetensors file; rename it to .safetensors"
    return f"it begins with {start[:4].hex(' ')}; {COPY_HINT}"


def _check_zip(path: Path) -> None:
    """Raises InputError unless the archive is whole, of bearable size and its checksums hold.

    torch itself reads past damaged weights without a word.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            names = {member.filename.partition("/")[2] for member in members}
            if "constants.pkl" in names:
                raise InputError(f"{path}: this is a TorchScript program, not weights; {SAVE_HINT}")
            if "data.pkl" not in names:
                raise InputError(f"{path}: this zip file is not a torch checkpoint; {SAVE_HINT}")
            total = sum(member.file_size for member in members)
            if len(members) > MAX_ZIP_MEMBERS or total > MAX_FILE_BYTES:
                raise InputError(
                    f"{path}: unpacks to {len(members)} parts and {total} bytes, more than any "
                    f"RepViT checkpoint needs; {SAVE_HINT}"
                )
            broken = archive.testzip()
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError) as error:
        raise InputError(f"{path}: truncated or damaged ({error}); {COPY_HINT}") from error
    if broken is not None:
        raise InputError(f"{path}: the checksum of its part {broken!r} is wrong; {COPY_HINT}")


def _load_failure(error: Exception) -> str:
    """Why torch.load refused, in one sentence; its own message advises to run the code."""
    message = str(error)
    wanted = re.search(r"GLOBAL ([\w.]+)", message)
    if wanted:
        return (
            f"its pickle wants to run {wanted[1]}, which is code and not weights; edgevit runs no "
            f"code from a checkpoint: {SAVE_HINT}"
        )
    if "WeightsUnpickler error" in message or "Weights only load failed" in message:
        detail = message.partition("WeightsUnpickler error:")[2].strip().partition("\n")[0]
        return f"its pickle is not one of tensors alone ({detail or 'refused'}); {SAVE_HINT}"
    reason = message.partition("\n")[0] or type(error).__name__
    return f"truncated or damaged ({reason}); {COPY_HINT}"


def _unwrap(
    path: Path, value: object, weights: str | None
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    if not isinstance(value, Mapping):
        kind = type(value).__name__
        raise InputError(f"{path}: holds a {kind}, not a dictionary of tensors; {SAVE_HINT}")
    opened: Mapping[Any, Any] = value
    wrappers: list[str] = []
    for _ in range(MAX_NESTING):
        wanted = (*([weights] if weights else []), *WRAPPER_KEYS)
        key = next((key for key in wanted if isinstance(opened.get(key), Mapping)), None)
        if key is None:
            break
        wrappers.append(key)
        opened = opened[key]
    if weights and weights not in wrappers:
        raise InputError(
            f"{path}: no weights under the key {weights!r}; found {wrappers or 'none'}"
        )
    tensors = {
        name: tensor
        for name, tensor in opened.items()
        if isinstance(name, str) and isinstance(tensor, Tensor)
    }
    if not tensors:
        found = ", ".join(sorted(map(str, opened))[:5]) or "nothing"
        raise InputError(
            f"{path}: no tensors in it (found: {found}); expected a state dict, bare or under one "
            f"of the keys {', '.join(WRAPPER_KEYS)}"
        )
    if len(tensors) > MAX_TENSORS:
        raise InputError(f"{path}: {len(tensors)} tensors, more than any RepViT has; {SAVE_HINT}")
    return _strip_prefixes(tensors, wrappers)


def _strip_prefixes(
    tensors: dict[str, Tensor], wrappers: list[str]
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    while True:
        shared = next(
            (prefix for prefix in NAME_PREFIXES if all(n.startswith(prefix) for n in tensors)), None
        )
        if shared is None:
            return tensors, tuple(wrappers)
        wrappers.append(shared)
        tensors = {name.removeprefix(shared): tensor for name, tensor in tensors.items()}
