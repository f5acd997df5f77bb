"""Encoded images to pixels; targets/harness/decode.cpp gives the same ones."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from edgevit.data.structure import structure_of
from edgevit.errors import InputError

# 16-bit greys are left out: Pillow would clip them to white.
RGB_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"})
_FORMATS = {"JPEG": "JPEG", "PNG": "PNG", "WebP": "WEBP"}


class _OtherPixels(InputError):
    """A whole image of a kind of pixels that has no agreed 8-bit form."""


def decode_rgb(data: bytes, what: str) -> Any:
    """`decode` to an RGB image."""
    return decode(data, what)


def decode(data: bytes, what: str, mode: str = "RGB") -> Any:
    """A JPEG, PNG, WebP, BMP or PPM as a PIL image of mode RGB or RGBA.

    EXIF orientation is not applied. The content decides, not the name. Raises
    InputError, beginning with `what`, when it is not a readable one.
    """
    from PIL import Image

    try:
        found = structure_of(data)
        if found.bitmap is not None:
            return Image.fromarray(found.bitmap.pixels(data)).convert(mode)
        # Of a WebP the structure holds the picture alone, without its alpha.
        whole = data if found.kind == "WebP" and mode == "RGBA" else found.data
        return _decoded(found.kind, whole, what, mode)
    except _OtherPixels:
        raise
    except InputError as error:
        raise InputError(f"{what} cannot be decoded: {error}") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = "damaged" if "BytesIO" in str(error) else str(error)
        raise InputError(f"{what} cannot be decoded: {reason}") from error


def _decoded(kind: str, data: bytes, what: str, mode: str) -> Any:
    from PIL import Image

    image = Image.open(io.BytesIO(data), formats=(_FORMATS[kind],))
    if image.mode not in RGB_MODES:
        raise _OtherPixels(f"{what} has pixels of mode {image.mode}; save it with 8 bits a channel")
    if image.mode == "P" and image.palette is not None:
        colours, most = len(image.palette.palette) // 3, int(np.asarray(image).max())
        if most >= colours:
            raise InputError(f"damaged PNG: colour {most} is not in its palette of {colours}")
    if mode == "RGB":  # which has no place for it, and Pillow would warn
        image.info.pop("transparency", None)
    return image.convert(mode)
