"""Reading zips and JSON that a stranger may have written: everything is checked before it is used.

A program file is stored, never compressed, so a member cannot be larger than the file itself and
there is nothing to expand. Names are matched against the reader's own list.
"""

from __future__ import annotations

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any, BinaryIO

from edgevit.errors import InputError

MAX_FILE_BYTES = 2**30
MAX_MEMBERS = 4096
FIXED_TIME = (1980, 1, 1, 0, 0, 0)
"""Every member gets this time, so that the same program is the same bytes."""

_ZIP_ERRORS = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, OverflowError,
    NotImplementedError, UnicodeError, RuntimeError, ValueError, IndexError,
)  # fmt: skip


def read_zip(data: bytes, what: str, limits: Mapping[str, int]) -> dict[str, bytes]:
    """Every member of a stored zip: name -> bytes.

    data    the whole file
    what    names the file in errors
    limits  regular expression a name must match in full -> largest size in bytes
    Raises InputError for anything but a plain zip of exactly such members: a name that matches
    nothing or occurs twice, compression, encryption, a size that is not the bytes', a checksum
    that does not fit, bytes in front.
    """
    if len(data) > MAX_FILE_BYTES:
        raise InputError(f"{what} has {len(data)} bytes; the limit is {MAX_FILE_BYTES}")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            infos = archive.infolist()
            _check_members(infos, what, limits, len(data))
            return {info.filename: archive.read(info) for info in infos}
    except _ZIP_ERRORS as error:
        raise InputError(f"{what} is damaged or not a zip file: {error}") from error


def _check_members(
    infos: list[zipfile.ZipInfo], what: str, limits: Mapping[str, int], total: int
) -> None:
    if not infos or len(infos) > MAX_MEMBERS:
        raise InputError(f"{what} has {len(infos)} members; 1 to {MAX_MEMBERS} are allowed")
    if min(info.header_offset for info in infos) != 0:
        # A file cut off behind an inner zip looks like this, too.
        raise InputError(f"{what} is damaged, or has bytes in front of its zip")
    seen: set[str] = set()
    for info in infos:
        name = info.orig_filename
        if name in seen:
            raise InputError(f"{what} holds {name!r} twice")
        seen.add(name)
        limit = next((n for pattern, n in limits.items() if re.fullmatch(pattern, name)), None)
        if limit is None:
            raise InputError(f"{what} holds {name!r}, which does not belong in it")
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 0x1:
            raise InputError(f"{what}: {name} is compressed or encrypted; members are stored plain")
        if info.file_size != info.compress_size or info.file_size > min(limit, total):
            raise InputError(f"{what}: {name} claims {info.file_size} bytes (limit {limit})")


def write_zip(target: BinaryIO, members: Mapping[str, bytes]) -> None:
    """Writes members stored and with a fixed time, in the order given."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            info = zipfile.ZipInfo(name, FIXED_TIME)
            info.external_attr = 0o644 << 16
            archive.writestr(info, data)


def fields(value: Any, what: str, names: tuple[str, ...]) -> tuple[Any, ...]:
    """The values of a JSON object that has exactly these keys, in this order."""
    if not isinstance(value, dict) or set(value) != set(names):
        found = sorted(value) if isinstance(value, dict) else type(value).__name__
        raise InputError(f"{what}: expected the keys {sorted(names)}, found {found}")
    return tuple(value[name] for name in names)
