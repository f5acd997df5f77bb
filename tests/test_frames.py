"""Camera frames through libedgevit's C API: the pixels must be those of a reference in numpy.

YUV in every layout, standard and range, odd sizes, padded rows, a part of the frame, each rotation
and mirrored; opening from memory and from a part of an open file; structures of older headers.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.test_harness import LABELS, write_artifact
from tests.test_outputs import BAD_CALL, BAD_INPUT, OK, CError, library  # noqa: F401

FORMATS = ("rgb", "rgba", "bgra", "nv12", "nv21", "i420", "yuv420")
COLOURS = ("bt601_limited", "bt601_full", "bt709_limited", "bt709_full")
SIDE = 16


class CPlane(ctypes.Structure):
    """`edgevit_plane` of edgevit.h."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("stride_bytes", ctypes.c_size_t),
        ("pixel_stride_bytes", ctypes.c_size_t),
    )


class CImage(ctypes.Structure):
    """`edgevit_image` of edgevit.h."""

    _fields_ = (
        ("struct_size_bytes", ctypes.c_size_t),
        ("width", ctypes.c_size_t),
        ("height", ctypes.c_size_t),
        ("format", ctypes.c_int32),
        ("colour", ctypes.c_int32),
        ("rotation_degrees", ctypes.c_int32),
        ("is_mirrored", ctypes.c_int32),
        ("planes", CPlane * 3),
        ("crop_left", ctypes.c_size_t),
        ("crop_top", ctypes.c_size_t),
        ("crop_width", ctypes.c_size_t),
        ("crop_height", ctypes.c_size_t),
        ("reserved", ctypes.c_uint64 * 4),
    )


def to_rgb(y: np.ndarray, u: np.ndarray, v: np.ndarray, colour: str) -> np.ndarray:
    """uint8 (H, W, 3) of Y (H, W) and of U and V, half the sides: the formula of core/frame.h.

    The factors are worked out here: 2^16 times those of the standards, rounded.
    """
    kr, kb = (0.299, 0.114) if colour.startswith("bt601") else (0.2126, 0.0722)
    limited = colour.endswith("limited")
    scale = 255 / 224 if limited else 1.0
    offset = 16 if limited else 0
    luma = round(65536 * (255 / 219 if limited else 1.0))
    red, blue = 2 * (1 - kr) * scale, 2 * (1 - kb) * scale
    green_u, green_v = blue * kb / (1 - kr - kb), red * kr / (1 - kr - kb)
    rows, columns = np.arange(y.shape[0]) // 2, np.arange(y.shape[1]) // 2
    u, v = (plane[rows][:, columns].astype(np.int64) - 128 for plane in (u, v))
    base = luma * (y.astype(np.int64) - offset) + 32768
    channels = (
        base + round(65536 * red) * v,
        base - round(65536 * green_u) * u - round(65536 * green_v) * v,
        base + round(65536 * blue) * u,
    )
    return np.stack([np.clip(channel >> 16, 0, 255) for channel in channels], -1).astype(np.uint8)


def upright(
    rgb: np.ndarray, crop: tuple[int, int, int, int], turns: int, mirror: int
) -> np.ndarray:
    """The crop (left, top, width, height), turned clockwise by quarters, then mirrored."""
    left, top, width, height = crop
    turned = np.rot90(rgb[top : top + height, left : left + width], -turns)
    return turned[:, ::-1] if mirror else turned


class Frame:
    """Planes of noise in memory, each padded and ending with its last value."""

    def __init__(self, kind: str, width: int, height: int, colour: str, padding: int) -> None:
        rng = np.random.default_rng(width * 1000 + height + len(kind))
        self.image = CImage(struct_size_bytes=ctypes.sizeof(CImage), width=width, height=height)
        self.image.format, self.image.colour = FORMATS.index(kind), COLOURS.index(colour)
        self.memory: list[np.ndarray] = []
        self.padding = padding
        if kind in ("rgb", "rgba", "bgra"):
            self.rgb = rng.integers(0, 256, (height, width, 3), np.uint8)
            packed = self.rgb if kind == "rgb" else np.dstack([self.rgb, self.rgb[..., :1] ^ 0xFF])
            self._plane(packed[..., [2, 1, 0, 3]] if kind == "bgra" else packed, 0)
            return
        half = ((height + 1) // 2, (width + 1) // 2)
        y = rng.integers(0, 256, (height, width), np.uint8)
        u, v = rng.integers(0, 256, (2, *half), np.uint8)
        self.rgb = to_rgb(y, u, v, colour)
        self._plane(y[..., None], 0)
        if kind in ("nv12", "nv21"):
            self._plane(np.dstack([u, v] if kind == "nv12" else [v, u]), 1)
        else:
            step = 2 if kind == "yuv420" else 1
            for i, plane in enumerate((u, v)):
                spread = np.full((*half, step), 0x55, np.uint8)
                spread[..., 0] = plane
                self._plane(spread, i + 1, step)

    def _plane(self, values: np.ndarray, index: int, step: int = 0) -> None:
        height, width, count = values.shape
        rows = np.full((height, width * count + self.padding), 0xA5, np.uint8)
        rows[:, : width * count] = values.reshape(height, -1)
        data = rows.reshape(-1)[: rows.size - self.padding].copy()
        self.memory.append(data)
        self.image.planes[index] = CPlane(data.ctypes.data, rows.shape[1], step)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact whose input is the pixels; a picture of its size is neither resized nor cut."""
    return write_artifact(tmp_path_factory.mktemp("frames") / "a", image_size=SIDE)


@pytest.fixture(scope="module")
def session(library: ctypes.CDLL, folder: Path) -> Iterator[ctypes.c_void_p]:  # noqa: F811
    handle, error = ctypes.c_void_p(), CError()
    arguments = os.fsencode(folder), None, ctypes.byref(handle), ctypes.byref(error)
    assert library.edgevit_open(*arguments) == OK, error.message
    yield handle
    assert library.edgevit_close(handle, None) == OK


def prepared(library: ctypes.CDLL, session: ctypes.c_void_p, image: CImage) -> np.ndarray:  # noqa: F811
    error, out = CError(), np.zeros((SIDE, SIDE, 3), np.uint8)
    status = library.edgevit_preprocess(session, ctypes.byref(image), ctypes.byref(error))
    assert status == OK, error.message.decode()
    place, size = ctypes.c_void_p(out.ctypes.data), ctypes.c_size_t(out.nbytes)
    assert library.edgevit_read_input(session, place, size, None) == OK
    return out


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_turned_mirrored_and_cut_is_the_references(
    kind: str,
    library: ctypes.CDLL,  # noqa: F811
    session: ctypes.c_void_p,
) -> None:
    cases = 0
    for colour in COLOURS if FORMATS.index(kind) > 2 else COLOURS[:1]:
        for width, height, crop in (
            (SIDE, SIDE, None), (SIDE + 5, SIDE + 3, (5, 3, SIDE, SIDE)),
            (SIDE + 4, SIDE + 7, (1, 6, SIDE, SIDE)),
        ):  # fmt: skip
            for turns in range(4):
                for mirror in (0, 1):
                    frame = Frame(kind, width, height, colour, padding=7 * (cases % 2))
                    image = frame.image
                    image.rotation_degrees, image.is_mirrored = 90 * turns, mirror
                    if crop:
                        image.crop_left, image.crop_top = crop[:2]
                        image.crop_width, image.crop_height = crop[2:]
                    wanted = upright(frame.rgb, crop or (0, 0, SIDE, SIDE), turns, mirror)
                    found = prepared(library, session, image)
                    np.testing.assert_array_equal(found, wanted, f"{colour} {turns} {mirror}")
                    cases += 1
    assert cases == (96 if FORMATS.index(kind) > 2 else 24)


def test_a_part_that_is_no_square_is_resized_as_the_upright_picture_is(
    library: ctypes.CDLL,  # noqa: F811
    session: ctypes.c_void_p,
) -> None:
    for kind in FORMATS:
        for turns in range(4):
            for mirror in (0, 1):
                frame = Frame(kind, 41, 33, COLOURS[turns], padding=3)
                image, crop = frame.image, (3, 1, 30, 19)
                image.crop_left, image.crop_top, image.crop_width, image.crop_height = crop
                image.rotation_degrees, image.is_mirrored = 90 * turns, mirror
                rgb = np.ascontiguousarray(upright(frame.rgb, crop, turns, mirror))
                plain = CImage(
                    struct_size_bytes=ctypes.sizeof(CImage), width=rgb.shape[1], height=rgb.shape[0]
                )
                plain.planes[0] = CPlane(rgb.ctypes.data, rgb.strides[0], 0)
                np.testing.assert_array_equal(
                    prepared(library, session, image), prepared(library, session, plain)
                )


@pytest.mark.parametrize(
    ("changes", "status", "reason"),
    [
        ({"rotation_degrees": 45}, BAD_CALL, "rotation is 45 degrees"),
        ({"rotation_degrees": -90}, BAD_CALL, "rotation is -90"),
        ({"rotation_degrees": 360}, BAD_CALL, "rotation is 360"),
        ({"colour": 4}, BAD_CALL, "colour is 4"),
        ({"format": 7}, BAD_CALL, "format is 7"),
        ({"width": 0}, BAD_INPUT, "0x18"),
        ({"width": 2**63}, BAD_INPUT, "64 million"),
        ({"crop_width": 5}, BAD_CALL, "crop of 5x0"),
        ({"crop_left": 20, "crop_width": 2, "crop_height": 2}, BAD_CALL, "does not lie in"),
        ({"crop_left": 2**64 - 1, "crop_width": 2, "crop_height": 2}, BAD_CALL, "does not lie"),
        ({"crop_width": 2**64 - 1, "crop_height": 2}, BAD_CALL, "does not lie in"),
        ({"struct_size_bytes": 0}, BAD_CALL, "struct_size_bytes is 0"),
        ({"struct_size_bytes": 1000}, BAD_CALL, "struct_size_bytes is 1000"),
    ],
)
def test_a_frame_that_cannot_be_used_is_refused(
    changes: dict[str, int],
    status: int,
    reason: str,
    library: ctypes.CDLL,  # noqa: F811
    session: ctypes.c_void_p,
) -> None:
    frame, error = Frame("i420", 21, 18, "bt601_full", 0), CError()
    for name, value in changes.items():
        setattr(frame.image, name, value)
    found = library.edgevit_preprocess(session, ctypes.byref(frame.image), ctypes.byref(error))
    assert found == status
    assert reason in error.message.decode()


@pytest.mark.parametrize("plane", range(3))
def test_a_plane_that_cannot_be_used_is_refused(
    plane: int,
    library: ctypes.CDLL,  # noqa: F811
    session: ctypes.c_void_p,
) -> None:
    for field, value in (
        ("data", None), ("stride_bytes", 9), ("stride_bytes", 2**30 + 1),
        ("stride_bytes", 2**64 - 1),
        ("pixel_stride_bytes", 17), ("pixel_stride_bytes", 2**64 - 1),
    ):  # fmt: skip
        frame = Frame("yuv420", 21, 18, "bt601_full", 0)
        setattr(frame.image.planes[plane], field, value)
        error = CError()
        found = library.edgevit_preprocess(session, ctypes.byref(frame.image), ctypes.byref(error))
        assert found == BAD_CALL and f"plane {'YUV'[plane]}" in error.message.decode()


def test_the_image_of_an_older_header_is_taken(
    library: ctypes.CDLL,  # noqa: F811
    session: ctypes.c_void_p,
) -> None:
    frame = Frame("nv21", SIDE, SIDE, "bt709_full", 0)
    frame.image.struct_size_bytes = CImage.reserved.offset
    frame.image.reserved[0] = 2**64 - 1  # memory that is not the caller's
    np.testing.assert_array_equal(prepared(library, session, frame.image), frame.rgb)


def opened_bytes(
    library: ctypes.CDLL,  # noqa: F811
    manifest: bytes,
    artifact: bytes | tuple[int, int, int],
) -> tuple[int, ctypes.c_void_p, str]:
    handle, error = ctypes.c_void_p(), CError()
    ends = None, ctypes.byref(handle), ctypes.byref(error)
    text = manifest, ctypes.c_size_t(len(manifest))
    if isinstance(artifact, bytes):
        status = library.edgevit_open_memory(*text, artifact, ctypes.c_size_t(len(artifact)), *ends)
    else:
        descriptor, offset, length = artifact
        place = ctypes.c_int(descriptor), ctypes.c_uint64(offset), ctypes.c_uint64(length)
        status = library.edgevit_open_descriptor(*text, *place, *ends)
    return status, handle, error.message.decode()


def test_memory_and_a_part_of_a_file_open_like_the_folder(
    library: ctypes.CDLL,  # noqa: F811
    folder: Path,
    tmp_path: Path,
) -> None:
    manifest, model = (folder / "manifest.json").read_bytes(), (folder / "model.bin").read_bytes()
    apk = tmp_path / "app.apk"
    apk.write_bytes(b"x" * 5001 + model + b"y" * 77)
    with apk.open("rb") as file:
        part = (file.fileno(), 5001, len(model))
        for artifact in (model, part):
            status, handle, message = opened_bytes(library, manifest, artifact)
            assert status == OK, message
            library.edgevit_label.restype = ctypes.c_char_p
            assert library.edgevit_label(handle, ctypes.c_size_t(1)) == LABELS[1].encode()
            assert library.edgevit_close(handle, None) == OK
        number = file.fileno()
        for wrong, reason in (
            ((number, 5002, len(model)), "sha256"), ((number, 5001, 0), "must be one or more"),
            ((number, 5001, 2**63), "cannot be read"), ((number, 2**64 - 1, 2), "cannot be read"),
            ((-1, 0, 1), "cannot be used"), (model[:-1], "sha256"), (b"", "sha256"),
        ):  # fmt: skip
            status, handle, message = opened_bytes(library, manifest, wrong)
            assert status == BAD_INPUT and reason in message and not handle
    for text in (b"", b"[]", b"\0" * 9):
        assert opened_bytes(library, text, model)[0] == BAD_INPUT


def test_a_back_end_that_opens_folders_alone_says_so(
    library: ctypes.CDLL,  # noqa: F811
    folder: Path,
) -> None:
    document = json.loads((folder / "manifest.json").read_text()) | {"target": "onnxruntime"}
    document["artifact"]["sha256"] = hashlib.sha256(b"x").hexdigest()
    status, _, message = opened_bytes(library, json.dumps(document).encode(), b"x")
    assert status == BAD_INPUT and "opens a folder" in message
