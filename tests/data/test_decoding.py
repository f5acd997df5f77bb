"""Encoded images: Python decodes and refuses what C++ does (tests/cpp/test_decode.cpp)."""

from __future__ import annotations

import io
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from edgevit.data.decode import decode_rgb
from edgevit.data.images import Preprocessing
from edgevit.data.structure import structure_of
from edgevit.errors import InputError
from tests.cpp.make_goldens import chunk, png

GOLDENS = load_file(Path(__file__).parent.parent / "cpp" / "data" / "goldens.safetensors")
DECODED = sorted(name.split("/")[1] for name in GOLDENS if name.endswith("/file"))
REFUSED = sorted(name.split("/")[1] for name in GOLDENS if name.startswith("refuse/"))


@pytest.mark.parametrize("name", DECODED)
def test_the_pixels_are_pillows(name: str) -> None:
    data = GOLDENS[f"decode/{name}/file"].tobytes()
    assert np.array_equal(np.asarray(decode_rgb(data, "x")), GOLDENS[f"decode/{name}/rgb"])


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_says_why(name: str) -> None:
    with pytest.raises(InputError, match=r"^set/a\.jpg (cannot be decoded: |has pixels)") as caught:
        decode_rgb(GOLDENS[f"refuse/{name}"].tobytes(), "set/a.jpg")
    assert "0x" not in str(caught.value) and "BytesIO" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"<!DOCTYPE html><html>404", r"a web page \(HTML\), and neither a JPEG"),
        (b"\xef\xbb\xbf \n<HTML>", r"a web page \(HTML\)"),
        (b"PK\x03\x04", "a zip archive"),
        (b"", "the file is empty"),
        (b"\0\x05\x16\x07" + bytes(30), "an AppleDouble file of macOS"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        (b"\0\0\0\x20ftypavif" + bytes(30), "an AVIF"),
        (b"\0\0\0\x20ftypheic" + bytes(30), "a HEIC"),
    ],
)
def test_a_file_of_another_kind_is_named(data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        decode_rgb(data, "x")


def test_a_cut_file_is_refused_wherever_it_is_cut() -> None:
    for name in ("jpeg-420", "jpeg-progressive-420", "png-rgb", "webp-lossy", "bmp-rgb", "ppm"):
        data = GOLDENS[f"decode/{name}/file"].tobytes()
        for size in range(0, len(data) - (3 if name.startswith("bmp") else 0), 7):
            with pytest.raises(InputError):
                structure_of(data[:size])


def test_a_wide_picture_takes_little_memory_until_it_is_refused() -> None:
    rows = b"\0" * (65_500 * 3 + 1)
    wide = png(65_500, 1, 8, 2, rows, chunk(b"tEXt", b"a\0b"))
    assert len(wide) < 1000
    tracemalloc.start()
    with pytest.raises(InputError, match="too thin to resize"):
        Preprocessing(224, 224).crop(decode_rgb(wide, "x"))
    assert tracemalloc.get_traced_memory()[1] < 64 * 2**20
    tracemalloc.stop()
    bomb = png(30_000, 30_000, 8, 0, b"")
    with pytest.raises(InputError, match="30000x30000 pixels; 1 to 64 million"):
        decode_rgb(bomb, "x")


def test_the_content_decides_not_the_name() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (1, 2, 3)).save(buffer, "WEBP", lossless=True)
    assert np.asarray(decode_rgb(buffer.getvalue(), "x.jpg")).reshape(-1, 3).tolist() == 16 * [
        [1, 2, 3]
    ]
