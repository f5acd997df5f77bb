"""BMP and PPM files to pixels, by the rules of targets/harness/decode_bitmap.cpp.

BMP   uncompressed, with 1, 4 or 8 bits and a palette, 16 (5-5-5, 5-6-5), 24 or 32; no alpha
PPM   P6 (RGB) and P5 (grey), binary, of 8 bits with 255 as the largest value
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

import numpy as np

from edgevit.errors import InputError

_RGB, _BITFIELDS = 0, 3
_HEADERS = (40, 52, 56, 64, 108, 124)
_MASKS_555 = (0x7C00, 0x3E0, 0x1F)
_MASKS_565 = (0xF800, 0x7E0, 0x1F)
_MASKS_888 = (0xFF0000, 0xFF00, 0xFF)
_BLANK = rb"(?:[ \t\n\r\v\f]|#[^\n\r]*[\n\r])+"
_PPM_HEADER = re.compile(rb"P([56])" + (_BLANK + rb"([0-9]{1,9})") * 3 + rb"[ \t\n\r\v\f]")


@dataclass(frozen=True)
class Bitmap:
    """The parsed header of a file whose bytes are all there.

    offset        of the first row
    stride        bytes from row to row
    bits          of a pixel; 8 without a palette is grey, 24 as `order` says
    palette       uint8 (N, 3), RGB
    masks         of red, green and blue in a pixel of 16 bits
    """

    width: int
    height: int
    offset: int
    stride: int
    bits: int
    bottom_up: bool = False
    palette: np.ndarray | None = None
    masks: tuple[int, int, int] | None = None
    order: str = "BGR"

    def pixels(self, data: bytes) -> np.ndarray:
        """uint8 (height, width, 3), RGB. Raises InputError for a colour beyond the palette."""
        used = -(-self.width * self.bits // 8)
        rows = np.zeros((self.height, self.stride), np.uint8)
        flat = np.frombuffer(data, np.uint8, offset=self.offset)[: rows.size]
        rows.reshape(-1)[: len(flat)] = flat  # the last row may lack its padding
        rows = rows[::-1, :used] if self.bottom_up else rows[:, :used]
        if self.palette is not None:
            return self._coloured(rows)
        if self.bits == 8:
            return np.repeat(rows[..., None], 3, axis=2)
        if self.masks is not None:
            return self._unmasked(np.ascontiguousarray(rows).view("<u2"))
        pixels = rows.reshape(self.height, self.width, self.bits // 8)[..., :3]
        return np.ascontiguousarray(pixels if self.order == "RGB" else pixels[..., ::-1])

    def _coloured(self, rows: np.ndarray) -> np.ndarray:
        assert self.palette is not None
        indices = rows
        if self.bits < 8:
            shifts = np.arange(8 - self.bits, -1, -self.bits, dtype=np.uint8)
            split = (rows[..., None] >> shifts) & (2**self.bits - 1)
            indices = split.reshape(self.height, -1)[:, : self.width]
        if indices.max() >= len(self.palette):
            raise InputError(
                f"damaged BMP: colour {indices.max()} is not in its palette of {len(self.palette)}"
            )
        return self.palette[indices]

    def _unmasked(self, values: np.ndarray) -> np.ndarray:
        assert self.masks is not None
        channels = []
        for mask in self.masks:
            shift = (mask & -mask).bit_length() - 1
            most = mask >> shift
            channels.append(((values.astype(np.uint32) & mask) >> shift) * 255 // most)
        return np.stack(channels, axis=-1).astype(np.uint8)


def read_bmp(data: bytes) -> Bitmap:
    """The header of a BMP. Raises InputError where it is damaged, cut short or of another kind."""
    if len(data) < 54:
        raise InputError("damaged BMP: the file ends inside its header")
    offset, header = struct.unpack_from("<II", data, 10)
    if header not in _HEADERS:
        raise InputError(f"a BMP with a header of {header} bytes, which is not read: save it anew")
    width, height, planes, bits, compression = struct.unpack_from("<iiHHI", data, 18)
    if width <= 0 or height == 0 or height == -(2**31) or planes != 1:
        raise InputError(f"damaged BMP: it has {width}x{height} pixels in {planes} planes")
    masks = _masks(data, header, bits, compression)
    palette = _palette(data, header, bits, offset) if bits <= 8 else None
    stride = (width * bits + 31) // 32 * 4
    used = -(-width * bits // 8)
    if offset < 14 + header or offset + stride * (abs(height) - 1) + used > len(data):
        raise InputError("damaged BMP: the file ends inside the image")
    return Bitmap(width, abs(height), offset, stride, bits, height > 0, palette, masks)


def _masks(data: bytes, header: int, bits: int, compression: int) -> tuple[int, int, int] | None:
    """Of a pixel of 16 bits; None for other pixels that are read."""
    if compression == _RGB and bits in (1, 4, 8, 24, 32):
        return None
    if compression == _RGB and bits == 16:
        return _MASKS_555
    if compression == _BITFIELDS and bits in (16, 32) and len(data) >= 70:
        red, green, blue, alpha = struct.unpack_from("<IIII", data, 54)
        masks = (red, green, blue)
        if bits == 32 and masks == _MASKS_888 and (header < 56 or alpha in (0, 0xFF000000)):
            return None
        if bits == 16 and masks in (_MASKS_555, _MASKS_565):
            return masks
    raise InputError(
        f"a BMP of {bits} bits with compression {compression}, which is not read: save it as PNG"
    )


def _palette(data: bytes, header: int, bits: int, offset: int) -> np.ndarray:
    count = struct.unpack_from("<I", data, 46)[0] or 2**bits
    if not 0 < count <= 256 or 14 + header + 4 * count > min(len(data), offset):
        raise InputError(f"damaged BMP: a palette of {count} colours has no room")
    raw = np.frombuffer(data, np.uint8, 4 * count, 14 + header).reshape(count, 4)
    return np.ascontiguousarray(raw[:, 2::-1])


def read_ppm(data: bytes) -> Bitmap:
    """The header of a P5 or P6. Raises InputError where it is damaged or cut short."""
    found = _PPM_HEADER.match(data)
    if found is None:
        raise InputError("damaged PPM: no header of width, height and largest value")
    width, height, most = (int(found[i]) for i in (2, 3, 4))
    if most != 255:
        raise InputError(f"a PPM with {most} as its largest value, 255 is read: save it as PNG")
    channels = 3 if found[1] == b"6" else 1
    if width == 0 or height == 0 or found.end() + width * height * channels > len(data):
        raise InputError("damaged PPM: the file ends inside the image")
    return Bitmap(width, height, found.end(), width * channels, 8 * channels, order="RGB")
