"""The two formats of torch.save, read without torch's unpickler: nothing in a file is run.

A tensor stays a description (`StoredTensor`) until its values are asked for, and every size and
stride is compared with the bytes that are really there before they are.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from edgevit.models.inert import (
    PLAIN_BUILDERS,
    Budget,
    Builder,
    Global,
    PickleError,
    Standin,
    read_pickle,
)

MAX_PICKLE_BYTES = 64 * 2**20
"""The structure without the weights: 0.2 MB for a RepViT, a few MB with arrays beside it."""

MAX_ZIP_MEMBERS = 100_000
MAX_DIMENSIONS = 64

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_STORAGE_TYPES = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
    "ComplexDouble": torch.complex128,
    "ComplexFloat": torch.complex64,
    "Untyped": torch.uint8,
}
"""Without "Storage"; those of quantized tensors are missing on purpose."""


@dataclass(eq=False)
class Storage:
    """Numbers of one type in a row: `count` of them, read when they are asked for."""

    dtype: torch.dtype | None
    count: int
    read: Callable[[], bytes]

    @cached_property
    def values(self) -> Tensor:
        """All of them, 1-D. Raises PickleError where the file holds fewer."""
        assert self.dtype is not None
        data = bytearray(self.read())
        if len(data) < self.count * self.dtype.itemsize:
            raise PickleError("the file holds fewer numbers than its tensors need")
        if not self.count:
            return torch.empty(0, dtype=self.dtype)
        return torch.frombuffer(data, dtype=self.dtype, count=self.count)


@dataclass(eq=False, frozen=True)
class StoredTensor:
    """A tensor as a file describes it.

    problem   what it is, where its values are no plain numbers: "sparse"; "" otherwise
    load      gives its values; only where there is no problem
    """

    shape: tuple[int, ...]
    dtype: torch.dtype | None
    problem: str = ""
    load: Callable[[], Tensor] = lambda: torch.empty(0)

    @classmethod
    def of(cls, tensor: Tensor) -> StoredTensor:
        """One that is in memory already."""
        return cls(tuple(tensor.shape), tensor.dtype, load=lambda: tensor)


class ArchiveError(ValueError):
    """The archive is damaged, too large or of another kind; the text says which."""


def read_archive(path: Path, max_bytes: int) -> Any:
    """What torch.save or torch.jit.save wrote as a zip, with StoredTensors for its tensors.

    The file stays open for as long as one of them is kept. Raises ArchiveError, PickleError, and
    what `zipfile` raises for a damaged archive.
    """
    archive = zipfile.ZipFile(path)
    folder = _checked_folder(archive, max_bytes)
    sizes = {member.filename: member.file_size for member in archive.infolist()}
    storages: dict[tuple[str, torch.dtype | None], Storage] = {}

    def storage(identity: Any) -> Storage:
        kind, key, count = _storage_identity(identity)
        name = f"{folder}data/{key}"
        if name not in sizes:
            raise PickleError(f"its storage {key!r} is missing")
        if count * (kind.itemsize if kind else 1) > sizes[name]:
            raise PickleError("a storage is shorter than it says")
        # One for all tensors that share it: each would read the whole of it.
        found = storages.setdefault((key, kind), Storage(kind, count, lambda: archive.read(name)))
        if found.count != count:
            raise PickleError(f"its storage {key!r} has two sizes")
        return found

    return read_pickle(io.BytesIO(archive.read(f"{folder}data.pkl")), _BUILDERS, storage)


def _checked_folder(archive: zipfile.ZipFile, max_bytes: int) -> str:
    """The folder in an archive that is whole, of bearable size and holds a checkpoint."""
    members = archive.infolist()
    names = [member.filename for member in members]
    found = [name for name in names if name == "data.pkl" or name.endswith("/data.pkl")]
    if not found:
        raise ArchiveError(f"this zip file is not a torch checkpoint: {_what_a_zip_holds(names)}")
    pickled = min(found, key=len)
    total = sum(member.file_size for member in members)
    if len(members) > MAX_ZIP_MEMBERS or total > max_bytes:
        raise ArchiveError(
            f"it unpacks to {len(members)} parts and {total} bytes, more than any RepViT "
            "checkpoint needs"
        )
    size = archive.getinfo(pickled).file_size
    if size > MAX_PICKLE_BYTES:
        raise ArchiveError(
            f"its structure alone takes {size} bytes, more than the {MAX_PICKLE_BYTES} that any "
            "RepViT checkpoint needs"
        )
    # torch itself reads past damaged weights without a word.
    broken = archive.testzip()
    if broken is not None:
        raise zipfile.BadZipFile(f"the checksum of its part {broken!r} is wrong")
    folder = pickled.removesuffix("data.pkl")
    order = f"{folder}byteorder"
    if order in names and archive.read(order).strip() != b"little":
        raise ArchiveError("its numbers are big-endian: save it on a little-endian machine")
    return folder


def read_stream(data: bytes, budget: Budget | None = None) -> Any:
    """What torch.save wrote before its version 1.6, or a plain pickle of tensors.

    Raises PickleError.
    """
    budget = budget or Budget()
    file = io.BytesIO(data)
    # Whatever follows the header of the old format is more pickles, then raw numbers.
    first = _limited(file, {}, None, budget)
    if first != _MAGIC:
        file.seek(0)
        nested = {"torch.storage._load_from_bytes": lambda given: _nested(given, budget)}
        return _limited(file, {**_BUILDERS, **nested}, None, budget)
    if _limited(file, {}, None, budget) != _PROTOCOL:
        raise PickleError("it is of an unknown version of torch's old format")
    about = _limited(file, {}, None, budget)
    if isinstance(about, dict) and about.get("little_endian") is False:
        raise PickleError("its numbers are big-endian: save it on a little-endian machine")
    places: dict[str, tuple[int, int]] = {}
    asked: dict[str, Storage] = {}

    def storage(identity: Any) -> Any:
        if isinstance(identity, tuple) and identity[:1] == ("module",) and len(identity) == 4:
            return identity[1]  # a class with its source text, which nobody here reads
        kind, key, count = _storage_identity(identity)

        def read() -> bytes:
            start, size = places[key]
            return data[start : start + size]

        found = asked.setdefault(key, Storage(kind, count, read))
        if (found.dtype, found.count) != (kind, count):
            raise PickleError(f"its storage {key!r} has two sizes")
        return found

    value = _limited(file, _BUILDERS, storage, budget)
    keys = _limited(file, {}, None, budget)
    if not isinstance(keys, list) or not all(key in asked for key in keys):
        raise PickleError("its list of storages does not fit its tensors")
    _place_storages(file, data, keys, asked, places)
    return value


def _place_storages(
    file: BinaryIO,
    data: bytes,
    keys: list[str],
    asked: Mapping[str, Storage],
    places: dict[str, tuple[int, int]],
) -> None:
    """Where each storage's numbers lie: its count, eight bytes, then the numbers."""
    for key in keys:
        found = asked[key]
        count = int.from_bytes(file.read(8), "little")
        size = count * (found.dtype.itemsize if found.dtype else 1)
        start = file.tell()
        if count < found.count or start + size > len(data):
            raise PickleError("the file ends inside its numbers")
        places[key] = (start, size)
        file.seek(size, io.SEEK_CUR)
    if missing := set(asked) - set(places):
        raise PickleError(f"its storage {min(missing)!r} is missing")


def _limited(
    file: BinaryIO,
    builders: Mapping[str, Builder],
    persistent: Callable[[Any], Any] | None,
    budget: Budget,
) -> Any:
    return read_pickle(file, {**PLAIN_BUILDERS, **builders}, persistent, budget)


def _nested(given: Any, budget: Budget) -> Any:
    """The storage that a plain pickle of a tensor holds, saved in the old format."""
    if not isinstance(given, bytes):
        raise PickleError("a storage is no bytes")
    if given[:2] == b"PK" or given == b"":
        raise PickleError("a storage is in a format that edgevit does not know")
    return read_stream(given, budget)


def _what_a_zip_holds(names: list[str]) -> str:
    """For a message: what the archive is instead of a checkpoint."""
    suffixes = {Path(name).suffix.lower() for name in names if not name.endswith("/")}
    if "evq.json" in names:
        return "it is an edgevit program (.evq): `edgevit compile` takes it"
    if any(
        name.endswith(("serialized_exported_program.json", "models/model.json")) for name in names
    ):
        return "it is a torch.export program"
    if not names:
        return "it is empty"
    if suffixes == {".npy"}:
        return "it holds NumPy arrays (.npz)"
    if suffixes and suffixes <= {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff"}:
        return f"it holds {len(names)} images"
    weights = [n for n in names if n.endswith((".pth", ".pt", ".ckpt", ".bin", ".safetensors"))]
    if weights:
        return f"it holds a checkpoint: unpack {weights[0]!r} from it"
    return f"it holds {', '.join(repr(n) for n in names[:3])}"


# --- what a pickle of tensors names ----------------------------------------------------------


def _storage_identity(identity: Any) -> tuple[torch.dtype | None, str, int]:
    if not isinstance(identity, tuple) or len(identity) < 5 or identity[0] != "storage":
        raise PickleError("it refers to something that is no storage")
    kind, key, _, count = identity[1:5]
    if len(identity) > 5 and identity[5] is not None:
        raise PickleError("its storages are parts of others, as before torch 0.4: save it anew")
    if not isinstance(kind, Global) or not isinstance(key, str | int) or not _is_count(count):
        raise PickleError("it describes a storage wrongly")
    name = kind.name.rpartition(".")[2].removesuffix("Storage")
    return _STORAGE_TYPES.get(name), str(key), count


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _sizes(value: Any) -> tuple[int, ...]:
    if isinstance(value, Standin) and len(value.arguments) == 1:
        value = value.arguments[0]  # torch.Size
    if not isinstance(value, tuple | list) or len(value) > MAX_DIMENSIONS:
        raise PickleError("a tensor's shape is no list of sizes")
    if not all(_is_count(size) for size in value):
        raise PickleError("a tensor's shape holds something that is no size")
    return tuple(value)


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *more: Any) -> StoredTensor:
    return _tensor_of_type(storage, offset, size, stride, None)


def _typed_tensor(
    storage: Any, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, dtype: Any, *more: Any
) -> StoredTensor:
    return _tensor_of_type(storage, offset, size, stride, _dtype(dtype))


def _tensor_of_type(
    storage: Any, offset: Any, size: Any, stride: Any, dtype: torch.dtype | None
) -> StoredTensor:
    if not isinstance(storage, Storage):
        raise PickleError("a tensor without a storage")
    shape, steps = _sizes(size), _sizes(stride)
    if not _is_count(offset) or len(shape) != len(steps):
        raise PickleError("a tensor's shape and strides do not fit")
    if storage.dtype is None:
        return StoredTensor(shape, None, "quantized")
    dtype = dtype or storage.dtype
    held = storage.count * storage.dtype.itemsize // dtype.itemsize
    last = offset + sum((n - 1) * step for n, step in zip(shape, steps, strict=True))
    if 0 not in shape and last >= held:
        raise PickleError("a tensor reaches beyond its storage")

    def load() -> Tensor:
        return storage.values.view(dtype).as_strided(shape, steps, offset)

    return StoredTensor(shape, dtype, load=load)


def _dtype(value: Any) -> torch.dtype:
    name = value.name if isinstance(value, Global) else ""
    found = getattr(torch, name.removeprefix("torch."), None) if name.count(".") == 1 else None
    if not name.startswith("torch.") or not isinstance(found, torch.dtype):
        raise PickleError(f"a tensor of the unknown type {name!r}")
    return found


def _of_no_use(what: str, shape_at: int, dtype_at: int | None = None) -> Builder:
    """A builder of tensors without plain numbers, which may well be beside the weights."""

    def build(*given: Any) -> StoredTensor:
        dtype = None if dtype_at is None else _dtype(given[dtype_at])
        return StoredTensor(_sizes(given[shape_at]), dtype, what)

    return build


def _sparse(layout: Any, parts: Any, *more: Any) -> StoredTensor:
    sizes = [part for part in parts if isinstance(part, tuple | list | Standin)]
    return StoredTensor(_sizes(sizes[0]) if sizes else (), None, "sparse")


def _parameter(data: Any, *more: Any) -> StoredTensor:
    if not isinstance(data, StoredTensor):
        raise PickleError("a parameter that is no tensor")
    return data


def _of_class(function: Any, kind: Any, arguments: Any, *more: Any) -> Any:
    """A tensor of a subclass, or with attributes: the plain one that it is made of."""
    build = _BUILDERS.get(function.name) if isinstance(function, Global) else None
    if build is None or not isinstance(arguments, tuple):
        return Standin(kind.name if isinstance(kind, Global) else "")
    return build(*arguments)


_BUILDERS: dict[str, Builder] = {
    **PLAIN_BUILDERS,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _typed_tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch.nn.parameter.Parameter": _parameter,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _parameter,
    "torch._utils._rebuild_qtensor": _of_no_use("quantized", 2),
    "torch._utils._rebuild_sparse_tensor": _sparse,
    "torch._utils._rebuild_meta_tensor_no_storage": _of_no_use("on meta, without values", 1, 0),
    "torch._utils._rebuild_wrapper_subclass": _of_no_use("distributed or of a class of its own", 2),
    "torch._tensor._rebuild_from_type": _of_class,
    "torch._tensor._rebuild_from_type_v2": _of_class,
}
