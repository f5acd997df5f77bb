"""Whether an encoded image is whole, told from its structure, without decoding it.

The rules are those of targets/harness/structure.cpp, so that both languages refuse the same files.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass

from edgevit.data.bitmap import Bitmap, read_bmp, read_ppm
from edgevit.data.kinds import READ_KINDS, kind_of
from edgevit.errors import InputError
from edgevit.limits import MAX_IMAGE_PIXELS

_PNG_START = 8
_PNG_CRITICAL = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
_PALETTE = 3
_JPEG_END, _JPEG_SCAN = 0xD9, 0xDA
_NO_LENGTH = frozenset((0x01, *range(0xD0, 0xD8)))
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = frozenset((0xC2, 0xCA))
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_ANIMATED = 0x02


@dataclass(frozen=True)
class Structure:
    """Of a whole file.

    kind      "JPEG", "PNG", "WebP", "BMP" or "PPM"
    pixels    width and height
    data      the bytes to decode: the file's, of a PNG without what no decoder needs
    bitmap    of a BMP or PPM
    """

    kind: str
    width: int
    height: int
    data: bytes
    bitmap: Bitmap | None = None


def structure_of(data: bytes) -> Structure:
    """The parts of an encoded image.

    Raises InputError, without naming the file, when it is no image that is read, is cut short or
    damaged, or has over 64 million pixels.
    """
    kind = kind_of(data)
    if kind not in READ_KINDS:
        raise InputError(_unread(data, kind))
    found = _READERS[kind](data)
    if found.width * found.height > MAX_IMAGE_PIXELS or not found.width * found.height:
        raise InputError(f"it has {found.width}x{found.height} pixels; 1 to 64 million are read")
    return found


def _unread(data: bytes, kind: str) -> str:
    if not data:
        return "the file is empty"
    neither = "neither a JPEG nor a PNG, WebP, BMP or PPM"
    return f"{'an' if kind[0] in 'AEIX' else 'a'} {kind}, and {neither}" if kind else neither


def _jpeg(data: bytes) -> Structure:
    at, size, scans = 2, (0, 0), _Scans()
    while True:
        start = data.find(b"\xff", at)
        while 0 <= start < len(data) - 1 and data[start + 1] == 0xFF:
            start += 1
        if start < 0 or start + 1 >= len(data):
            raise InputError("damaged JPEG: the file ends inside the image")
        marker, at = data[start + 1], start + 2
        if marker == _JPEG_END:
            break
        if marker in _NO_LENGTH or marker == 0:
            continue
        length = int.from_bytes(data[at : at + 2], "big")
        if length < 2 or at + length > len(data):
            raise InputError("damaged JPEG: the file ends inside the image")
        body, at = data[at + 2 : at + length], at + length
        if marker in _FRAMES and len(body) >= 6:
            size = (int.from_bytes(body[3:5], "big"), int.from_bytes(body[1:3], "big"))
            scans.frame(marker, body)
        elif marker == _JPEG_SCAN:
            scans.scan(body)
            found = _MARKER.search(data, at)
            at = found.start() if found else len(data)
    if not scans.seen:
        raise InputError("damaged JPEG: the file ends before the image")
    if not scans.are_complete():
        raise InputError("damaged JPEG: the last scans of a progressive image are missing")
    return Structure("JPEG", *size, data)


class _Scans:
    """Which coefficients the scans of a progressive JPEG have brought, and to the last bit."""

    def __init__(self) -> None:
        self.seen = False
        self._missing: dict[int, set[int]] = {}

    def frame(self, marker: int, body: bytes) -> None:
        if marker in _PROGRESSIVE:
            self._missing = {component: set(range(64)) for component in body[6::3][: body[5]]}

    def scan(self, body: bytes) -> None:
        count = body[0] if body else 0
        if len(body) < 4 + 2 * count:
            raise InputError("damaged JPEG: a scan without its header")
        self.seen = True
        first, last, bits = body[1 + 2 * count : 4 + 2 * count]
        if bits & 15 == 0:
            for component in body[1 : 1 + 2 * count : 2]:
                self._missing.get(component, set()).difference_update(range(first, last + 1))

    def are_complete(self) -> bool:
        return not any(self._missing.values())


def _png(data: bytes) -> Structure:
    at, kept, seen, dropped = _PNG_START, [data[:_PNG_START]], set(), False
    while True:
        if at + 12 > len(data):
            raise InputError("damaged PNG: the file ends inside the image")
        length, name = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data):
            raise InputError("damaged PNG: the file ends inside the image")
        if at == _PNG_START and (name != b"IHDR" or length != 13):
            raise InputError("damaged PNG: it does not begin with its header")
        if name[0] & 0x20:  # ancillary: what it says changes no pixel
            dropped, at = True, end
            continue
        if name not in _PNG_CRITICAL:
            raise InputError("damaged PNG: an unknown part")
        if zlib.crc32(memoryview(data)[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end]):
            raise InputError(f"damaged PNG: the checksum of {name.decode()} does not hold")
        seen.add(name)
        kept.append(data[at:end])
        at = end
        if name == b"IEND":
            break
    header = data[_PNG_START + 8 : _PNG_START + 21]
    if b"IDAT" not in seen or (header[9] == _PALETTE and b"PLTE" not in seen):
        raise InputError("damaged PNG: its pixels or its palette are missing")
    width, height = struct.unpack_from(">II", header)
    return Structure("PNG", width, height, b"".join(kept) if dropped else data)


def _webp(data: bytes) -> Structure:
    end = int.from_bytes(data[4:8], "little") + 8
    at, size = 12, (0, 0)
    if end > len(data):
        raise InputError("damaged WebP: the file ends inside the image")
    while at + 8 <= end:
        name, length = struct.unpack_from("<4sI", data, at)
        body = data[at + 8 : at + 18]
        if at + 8 + length > end:
            raise InputError("damaged WebP: the file ends inside the image")
        if name == b"VP8X" and len(body) == 10:
            if body[0] & _ANIMATED:
                raise InputError("an animated WebP, which is not read: save one frame of it")
        elif name == b"VP8 " and length >= 10:
            size = (int.from_bytes(body[6:8], "little") & 0x3FFF,
                    int.from_bytes(body[8:10], "little") & 0x3FFF)  # fmt: skip
            break
        elif name == b"VP8L" and length >= 5:
            bits = int.from_bytes(body[1:5], "little")
            size = ((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
            break
        at += 8 + length + length % 2
    if size == (0, 0):
        raise InputError("damaged WebP: it holds no image")
    return Structure("WebP", *size, data)


def _bmp(data: bytes) -> Structure:
    bitmap = read_bmp(data)
    return Structure("BMP", bitmap.width, bitmap.height, data, bitmap)


def _ppm(data: bytes) -> Structure:
    bitmap = read_ppm(data)
    return Structure("PPM", bitmap.width, bitmap.height, data, bitmap)


_READERS = {"JPEG": _jpeg, "PNG": _png, "WebP": _webp, "BMP": _bmp, "PPM": _ppm}
