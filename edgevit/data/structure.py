"""Whether an encoded image is whole, told from its structure, without decoding it.

The rules are those of targets/harness/structure.cpp, so that both languages refuse the same files.
"""

from __future__ import annotations

import itertools
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
_ALPHA_BYTES = {0: (2, 2), 2: (6, 6), 3: (1, 256)}
"""Of a tRNS chunk, at least and at most, by the colour type; the others have no such chunk."""
_PALETTE = 3
_CHUNK_BYTES = 2**20
_ADAM7 = ((0, 8, 0, 8), (4, 8, 0, 8), (0, 4, 4, 8), (2, 4, 0, 4), (0, 2, 2, 4), (1, 2, 0, 2),
          (0, 1, 1, 2))  # fmt: skip
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
    data      the bytes to decode: the file's, of a PNG or WebP without what no pixel needs
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
    """Without what no pixel needs, such as text: a damaged one stops no decoder."""
    parts: list[tuple[bytes, int, int]] = []  # name, start, end of each critical chunk
    at, last = _PNG_START, b""
    while last != b"IEND":
        if at + 12 > len(data):
            raise InputError("damaged PNG: the file ends inside the image")
        length, last = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data):
            raise InputError("damaged PNG: the file ends inside the image")
        if at == _PNG_START and (last != b"IHDR" or length != 13):
            raise InputError("damaged PNG: it does not begin with its header")
        # Ancillary ones change no pixel, but for transparency.
        if not last[0] & 0x20 or (last == b"tRNS" and data[25] in _ALPHA_BYTES):
            if last not in _PNG_CRITICAL and last != b"tRNS":
                raise InputError("damaged PNG: an unknown part")
            if zlib.crc32(memoryview(data)[at + 4 : end - 4]) != _big(data[end - 4 : end]):
                raise InputError(f"damaged PNG: the checksum of {last.decode()} does not hold")
            parts.append((last, at, end))
        at = end
    header = data[_PNG_START + 8 : _PNG_START + 21]
    _check_png_parts(parts, header[9])
    width, height = struct.unpack_from(">II", header)
    if 0 < width * height <= MAX_IMAGE_PIXELS:
        _check_png_pixels(data, parts, header)
    is_all = sum(end - start for _, start, end in parts) + _PNG_START == at
    kept = data if is_all else data[:_PNG_START] + b"".join(data[s:e] for _, s, e in parts)
    return Structure("PNG", width, height, kept)


def _check_png_parts(parts: list[tuple[bytes, int, int]], colour: int) -> None:
    names = [name for name, _, _ in parts]
    pixels = [i for i, name in enumerate(names) if name == b"IDAT"]
    if not pixels or (colour == _PALETTE and b"PLTE" not in names[: pixels[0]]):
        raise InputError("damaged PNG: its pixels or its palette are missing")
    places = [parts[i] for i in pixels]
    are_apart = any(a[2] != b[1] for a, b in itertools.pairwise(places))
    if are_apart or any(names.count(name) > 1 for name in (b"IHDR", b"PLTE", b"tRNS")):
        raise InputError("damaged PNG: its parts are out of order")
    for i, (name, start, end) in enumerate(parts):
        length = end - start - 12
        if name == b"PLTE" and (i > pixels[0] or length % 3 or not 3 <= length <= 768):
            raise InputError("damaged PNG: its palette is out of order")
        least, most = _ALPHA_BYTES.get(colour, (0, 0))
        if name == b"tRNS" and (
            i > pixels[0]
            or not least <= length <= most
            or (colour == _PALETTE and b"PLTE" not in names[:i])
        ):
            raise InputError("damaged PNG: its transparency is out of order")


def _check_png_pixels(data: bytes, parts: list[tuple[bytes, int, int]], header: bytes) -> None:
    """All rows are there, and the end of their stream: a shorter one Pillow fills in silence."""
    missing = _png_bytes(header)
    stream = zlib.decompressobj()
    try:
        for name, start, end in parts:
            waiting = data[start + 8 : end - 4] if name == b"IDAT" else b""
            while waiting and missing >= 0:
                missing -= len(stream.decompress(waiting, _CHUNK_BYTES))
                waiting = stream.unconsumed_tail
    except zlib.error as error:
        raise InputError("damaged PNG: its pixels cannot be unpacked") from error
    if missing > 0 or (missing == 0 and not stream.eof):
        raise InputError("damaged PNG: not enough image data")


def _png_bytes(header: bytes) -> int:
    """Of all rows before they are packed, each with its filter byte."""
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(colour, 1)
    passes = _ADAM7 if interlaced else ((0, 1, 0, 1),)
    total = 0
    for left, dx, top, dy in passes:
        columns, rows = -(-(width - left) // dx), -(-(height - top) // dy)
        if columns > 0 and rows > 0:
            total += rows * (1 + -(-columns * bits // 8))
    return total


def _big(raw: bytes) -> int:
    return int.from_bytes(raw, "big")


def _webp(data: bytes) -> Structure:
    """The picture alone: alpha, colour profile and the like change no pixel that is used."""
    end = int.from_bytes(data[4:8], "little") + 8
    at = 12
    if end > len(data):
        raise InputError("damaged WebP: the file ends inside the image")
    while at + 8 <= end:
        name, length = struct.unpack_from("<4sI", data, at)
        if at + 8 + length > end:
            raise InputError("damaged WebP: the file ends inside the image")
        body = data[at + 8 : at + 8 + length]
        if name == b"VP8X" and length >= 10 and body[0] & _ANIMATED:
            raise InputError("an animated WebP, which is not read: save one frame of it")
        if name == b"VP8 " and length >= 10:
            return _simple_webp(name, body, _sides(body))
        if name == b"VP8L" and length >= 5:
            bits = int.from_bytes(body[1:5], "little")
            return _simple_webp(name, body, ((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1))
        at += 8 + length + length % 2
    raise InputError("damaged WebP: it holds no image")


def _sides(body: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from("<HH", body, 6)
    return width & 0x3FFF, height & 0x3FFF


def _simple_webp(name: bytes, body: bytes, size: tuple[int, int]) -> Structure:
    chunk = name + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)
    data = b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk
    return Structure("WebP", *size, data)


def _bmp(data: bytes) -> Structure:
    bitmap = read_bmp(data)
    return Structure("BMP", bitmap.width, bitmap.height, data, bitmap)


def _ppm(data: bytes) -> Structure:
    bitmap = read_ppm(data)
    return Structure("PPM", bitmap.width, bitmap.height, data, bitmap)


_READERS = {"JPEG": _jpeg, "PNG": _png, "WebP": _webp, "BMP": _bmp, "PPM": _ppm}
