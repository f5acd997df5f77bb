"""The Swift package of the coreml target, as far as Linux goes.

The C++ of a packaged tree is compiled by the host's compiler and compared with Pillow bit for bit.
Of the Swift only the syntax is checked: there is no Apple SDK here, and nothing of it is run.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tree_sitter
import tree_sitter_swift
from PIL import Image

from edgevit.apps import write_package
from edgevit.data.images import ImageSet, Preprocessing
from edgevit.errors import InputError
from tests.test_frames import COLOURS, Frame, upright
from tests.test_package import write_standin_artifact

OK, BAD_ARGUMENT, IMAGE_REFUSED, NOT_FINITE = 0, 1, 2, 5
RGBA, BGRA, NV12 = 0, 1, 2
INTERPOLATIONS = {"bicubic": 0, "bilinear": 1, "nearest": 2, "box": 3, "area": 4}
NONE, SHORTER, FILL, EXACT, FIT = range(5)
CHANNELS = {"RGB": 0, "BGR": 1, "L": 2}


class CImage(ctypes.Structure):
    """`edgevit_pixels` of edgevit_image.h."""

    _fields_ = (
        ("pixels", ctypes.c_void_p),
        ("width", ctypes.c_size_t),
        ("height", ctypes.c_size_t),
        ("stride_bytes", ctypes.c_size_t),
        ("order", ctypes.c_int32),
        ("colour", ctypes.c_int32),
        ("chroma", ctypes.c_void_p),
        ("chroma_stride_bytes", ctypes.c_size_t),
        ("rotation_degrees", ctypes.c_int32),
        ("is_mirrored", ctypes.c_int32),
    )


class CPreprocessing(ctypes.Structure):
    """`edgevit_preprocessing` of edgevit_image.h."""

    _fields_ = (
        ("height", ctypes.c_int32),
        ("width", ctypes.c_int32),
        ("resize", ctypes.c_int32),
        ("resize_height", ctypes.c_int32),
        ("resize_width", ctypes.c_int32),
        ("interpolation", ctypes.c_int32),
        ("antialias", ctypes.c_int32),
        ("channels", ctypes.c_int32),
        ("pads_after", ctypes.c_int32),
        ("pad_color", ctypes.c_uint8 * 4),
    )


def settings_of(wanted: Preprocessing) -> CPreprocessing:
    """What PixelPreparation.swift makes of a manifest's preprocessing."""
    target = wanted.resize_size or wanted.image_size
    height, width = target if isinstance(target, tuple) else (target, target)
    resize = {"shorter": SHORTER, "exact": EXACT, "fit": FIT}[wanted.resize]
    if wanted.resize_size is None:
        resize = NONE
    elif resize == SHORTER and height != width:
        resize = FILL
    color = (ctypes.c_uint8 * 4)(*wanted.pad_color)
    return CPreprocessing(
        wanted.height, wanted.width, resize, height, width, INTERPOLATIONS[wanted.interpolation],
        int(wanted.antialias), CHANNELS[wanted.channels],
        int(wanted.pad_position == "top-left"), color,
    )  # fmt: skip


@pytest.fixture(scope="module")
def packaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package of a stand-in model."""
    folder = tmp_path_factory.mktemp("swift")
    write_standin_artifact(folder / "build")
    write_package("coreml", folder / "build", folder / "package")
    return folder / "package"


@pytest.fixture(scope="module")
def library(packaged: Path, tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The EdgevitImage target: the sources and settings that Package.swift names."""
    compiler = shutil.which("g++") or shutil.which("c++")
    assert compiler, "apt-get install -y g++"
    folder = packaged / "Sources/EdgevitImage"
    out = tmp_path_factory.mktemp("library") / "edgevit_image.so"
    # core_exact.cpp says FP_CONTRACT OFF to clang, which is Apple's; g++ takes it as a flag.
    flags = "-std=c++17 -O2 -fPIC -shared -ffp-contract=off -Wall -Wextra -Wconversion -Werror"
    flags += " -Wl,--no-undefined"  # core_exact.cpp includes all that is called
    sources = sorted(str(path) for path in folder.glob("*.cpp"))
    command = [compiler, *flags.split(), f"-I{folder}", f"-I{folder}/include", *sources]
    subprocess.run([*command, "-o", str(out)], check=True)
    loaded = ctypes.CDLL(str(out))
    loaded.edgevit_prepare.argtypes = [
        ctypes.POINTER(CImage), ctypes.POINTER(CPreprocessing), ctypes.c_void_p,
        ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t,
    ]  # fmt: skip
    loaded.edgevit_prepare.restype = ctypes.c_int32
    loaded.edgevit_best.argtypes = [
        ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int32, ctypes.c_size_t, ctypes.c_void_p,
        ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t,
    ]  # fmt: skip
    loaded.edgevit_best.restype = ctypes.c_int32
    return loaded


def prepare(
    library: ctypes.CDLL, rgb: np.ndarray, wanted: Preprocessing, order: int, padding: int
) -> tuple[int, np.ndarray, str]:
    """Status, pixels (height, width, channels) and message for uint8 (H, W, 3) pixels."""
    height, width = rgb.shape[:2]
    stride = width * 4 + padding
    rows = np.full((height, stride), 0xA5, np.uint8)
    pixels = rows[:, : width * 4].reshape(height, width, 4)
    pixels[..., :3] = rgb if order == RGBA else rgb[..., ::-1]
    rows[:, : width * 4] = pixels.reshape(height, -1)
    image = CImage(rows.ctypes.data, width, height, stride, order)
    settings = settings_of(wanted)
    out = np.zeros(wanted.pixel_shape, np.uint8)
    message = ctypes.create_string_buffer(256)
    status = library.edgevit_prepare(
        image, settings, out.ctypes.data, out.nbytes, message, len(message)
    )
    return status, out, message.value.decode()


@pytest.fixture(scope="module")
def mosaics(embedded_val: Path) -> list[Image.Image]:
    """Satellite images side by side: 320x192 pixels, from three classes."""
    images = ImageSet.open(embedded_val)
    made = []
    for start in (0, 300, 900):
        tiles = [np.asarray(images.load_rgb(start + i)) for i in range(15)]
        rows = [np.concatenate(tiles[i : i + 5], axis=1) for i in (0, 5, 10)]
        made.append(Image.fromarray(np.concatenate(rows, axis=0)))
    return made


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize(
    ("size", "image_size", "resize_size"),
    [
        ((320, 192), 64, 72),
        ((317, 191), 64, 64),
        ((191, 317), 64, 73),
        ((64, 64), 224, 256),
        ((65, 71), 224, 224),
        ((320, 72), 64, 72),
        ((101, 100), 33, None),
        ((320, 3), 7, 9),
        ((1, 1), 5, 8),
    ],
)
def test_pixels_are_those_that_the_accuracy_was_measured_on(
    library: ctypes.CDLL,
    mosaics: list[Image.Image],
    size: tuple[int, int],
    image_size: int,
    resize_size: int | None,
    interpolation: str,
) -> None:
    wanted = Preprocessing(image_size, resize_size, interpolation)
    for i, mosaic in enumerate(mosaics):
        image = mosaic.crop((0, 0, *size))
        order, padding = ((RGBA, 0), (BGRA, 0), (RGBA, 13))[i]
        status, found, message = prepare(library, np.asarray(image), wanted, order, padding)
        assert (status, message) == (OK, "")
        np.testing.assert_array_equal(found, wanted.crop(image))


@pytest.mark.parametrize("colour", COLOURS)
def test_a_frame_of_two_planes_is_converted_and_turned(library: ctypes.CDLL, colour: str) -> None:
    for turns in range(4):
        for mirror in (0, 1):
            frame = Frame("nv12", 47, 39, colour, padding=5)
            luma, chroma = frame.image.planes[:2]
            image = CImage(
                luma.data, 47, 39, luma.stride_bytes, NV12, COLOURS.index(colour), chroma.data,
                chroma.stride_bytes, 90 * turns, mirror,
            )  # fmt: skip
            rgb = upright(frame.rgb, (0, 0, 47, 39), turns, mirror)
            wanted = Preprocessing(16, 20)
            _, expected, _ = prepare(library, rgb, wanted, RGBA, 0)
            out, message = np.zeros((16, 16, 3), np.uint8), ctypes.create_string_buffer(256)
            status = library.edgevit_prepare(
                image, settings_of(wanted), out.ctypes.data, out.nbytes, message, len(message)
            )
            assert status == OK, message.value
            np.testing.assert_array_equal(out, expected)


def random_rules(rng: np.random.Generator) -> Preprocessing:
    """A valid record: any mode, filter, size and channels that the library takes."""

    def one_of(values: Any) -> Any:
        return values[int(rng.integers(len(values)))]

    def side(least: int, most: int) -> int:
        return int(rng.integers(least, most + 1))

    height, width = side(1, 90), side(1, 90)
    if rng.random() < 0.4:
        width = height
    mode, interpolation = one_of(("shorter", "exact", "fit")), one_of(tuple(INTERPOLATIONS))
    both = (height + side(0, 20), width + side(0, 20))
    resize = one_of((None, max(height, width) + side(0, 30), both))
    channels = one_of(tuple(CHANNELS))
    count = 1 if channels == "L" else 3
    return Preprocessing(
        (height, width), resize, interpolation, (0.5,), (0.25,), resize=mode, channels=channels,
        antialias=interpolation in ("box", "area") or rng.random() < 0.5,
        pad_color=tuple(side(0, 255) for _ in range(count)) if mode == "fit" else (),
        pad_position=one_of(("centre", "top-left")) if mode == "fit" else "centre",
    )  # fmt: skip


def test_random_images_of_any_mode_filter_and_size_are_bit_equal(library: ctypes.CDLL) -> None:
    rng = np.random.default_rng(11)
    seen: set[tuple[Any, ...]] = set()
    equal = refused = 0
    for _ in range(1500):
        rules = random_rules(rng)
        height, width = (int(2 ** rng.uniform(0, 9)) for _ in range(2))
        rgb = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        if rng.random() < 0.3:
            rgb = np.where(rgb > 127, np.uint8(255), np.uint8(0))  # edges overshoot the most
        status, found, message = prepare(library, rgb, rules, RGBA, int(rng.integers(9)))
        try:
            expected = rules.crop(Image.fromarray(rgb))
        except InputError as error:
            assert (status, message) == (IMAGE_REFUSED, str(error)), rules
            refused += 1
            continue
        expected = expected[..., ::-1] if rules.channels == "BGR" else expected
        assert (status, message) == (OK, ""), rules
        np.testing.assert_array_equal(found, expected, str((rules, width, height)))
        equal += 1
        seen.add((rules.resize, rules.interpolation, rules.antialias, rules.channels))
    assert equal > 1200 and refused > 50, (equal, refused)
    assert len(seen) >= 60, "every mode and filter with every kind of channels"


def test_a_wrong_order_of_the_bytes_would_be_seen(
    library: ctypes.CDLL, mosaics: list[Image.Image]
) -> None:
    rgb = np.asarray(mosaics[0])
    wanted = Preprocessing(64, 72)
    _, right, _ = prepare(library, rgb, wanted, BGRA, 4)
    _, swapped, _ = prepare(library, rgb[..., ::-1], wanted, BGRA, 4)
    assert (right != swapped).any()
    np.testing.assert_array_equal(swapped, right[..., ::-1])


def test_an_image_below_the_crop_gets_the_message_of_edgevit(library: ctypes.CDLL) -> None:
    rgb, wanted = np.zeros((40, 50, 3), np.uint8), Preprocessing(64)
    status, _, message = prepare(library, rgb, wanted, RGBA, 0)
    assert status == IMAGE_REFUSED
    with pytest.raises(InputError) as error:
        wanted.crop(Image.fromarray(rgb))
    assert message == str(error.value)


HUGE = 2**64 - 1


@pytest.mark.parametrize(
    ("changes", "status", "reason"),
    [
        ({"pixels": None}, BAD_ARGUMENT, "pixels are null"),
        ({"width": 0}, BAD_ARGUMENT, "no pixels"),
        ({"height": 0}, BAD_ARGUMENT, "no pixels"),
        ({"width": HUGE}, IMAGE_REFUSED, "1 to 64 million can be used"),
        ({"height": HUGE}, IMAGE_REFUSED, "1 to 64 million can be used"),
        ({"width": 2**32, "height": 2**32}, IMAGE_REFUSED, "1 to 64 million can be used"),
        ({"width": 8001, "height": 8000}, IMAGE_REFUSED, "1 to 64 million can be used"),
        ({"stride_bytes": 31}, BAD_ARGUMENT, "stride is 31 bytes, a row"),
        ({"stride_bytes": 0}, BAD_ARGUMENT, "stride is 0 bytes, a row"),
        ({"stride_bytes": HUGE}, BAD_ARGUMENT, "up to 1 GiB"),
        ({"order": 3}, BAD_ARGUMENT, "order"),
        ({"order": 2}, BAD_ARGUMENT, "plane UV is null"),
        ({"rotation_degrees": 1}, BAD_ARGUMENT, "rotation is 1 degrees"),
        ({"colour": 4}, BAD_ARGUMENT, "colour is 4"),
        ({"order": -1}, BAD_ARGUMENT, "order"),
        ({"height": 0}, BAD_ARGUMENT, "height or width"),
        ({"width": -5}, BAD_ARGUMENT, "height or width"),
        ({"height": 4097}, BAD_ARGUMENT, "height or width"),
        ({"resize": 5}, BAD_ARGUMENT, "resize is no"),
        ({"resize": -1}, BAD_ARGUMENT, "resize is no"),
        ({"resize_height": 0}, BAD_ARGUMENT, "resize_height or resize_width is not 1"),
        ({"resize_width": 2**31 - 1}, BAD_ARGUMENT, "resize_height or resize_width is not 1"),
        ({"resize_width": 7}, BAD_ARGUMENT, "shorter side's"),
        ({"resize_height": 3, "resize_width": 3}, IMAGE_REFUSED, "3x3 pixels"),
        ({"interpolation": 5}, BAD_ARGUMENT, "interpolation"),
        ({"channels": 3}, BAD_ARGUMENT, "channels"),
        ({"channels": 2}, BAD_ARGUMENT, "size_bytes"),
        ({"size_bytes": 47}, BAD_ARGUMENT, "size_bytes"),
        ({"size_bytes": HUGE}, BAD_ARGUMENT, "size_bytes"),
        ({"out": None}, BAD_ARGUMENT, "null"),
    ],
)
def test_absurd_arguments_get_a_code_and_a_reason(
    library: ctypes.CDLL, changes: dict[str, Any], status: int, reason: str
) -> None:
    pixels, out = np.zeros((8, 8, 4), np.uint8), np.full(48, 7, np.uint8)
    values: dict[str, Any] = {
        "pixels": pixels.ctypes.data, "width": 8, "height": 8, "stride_bytes": 32, "order": RGBA,
        "colour": 0, "chroma": None, "chroma_stride_bytes": 0, "rotation_degrees": 0,
        "is_mirrored": 0, "out": out.ctypes.data, "size_bytes": out.nbytes,
    }  # fmt: skip
    settings = settings_of(Preprocessing(4, 6))
    good = _call(library, values, settings)
    assert good[0] == OK and not out.any()
    of_the_image = {name: value for name, value in changes.items() if name in values}
    if reason.startswith("height or"):
        of_the_image = {}
    for name in set(changes) - set(of_the_image):
        setattr(settings, name, changes[name])
    found = _call(library, values | of_the_image, settings)
    assert found[0] == status and reason in found[1]


def _call(
    library: ctypes.CDLL, values: dict[str, Any], settings: CPreprocessing
) -> tuple[int, str]:
    message = ctypes.create_string_buffer(256)
    image = CImage(*(values[name] for name, _ in CImage._fields_))
    status = library.edgevit_prepare(
        image, settings, values["out"], values["size_bytes"], message, len(message)
    )
    return status, message.value.decode()


def test_an_image_too_thin_to_resize_is_refused(library: ctypes.CDLL) -> None:
    rgb = np.zeros((1, 500_000, 3), np.uint8)
    status, _, message = prepare(library, rgb, Preprocessing(64, 64), RGBA, 0)
    assert status == IMAGE_REFUSED and "too thin" in message


def test_null_structures_and_a_short_message_are_survived(library: ctypes.CDLL) -> None:
    assert library.edgevit_prepare(None, None, None, 0, None, 0) == BAD_ARGUMENT
    for size in range(8):
        message = ctypes.create_string_buffer(b"#" * 15)
        assert library.edgevit_prepare(None, None, None, 0, message, size) == BAD_ARGUMENT
        text = b"image, preprocessing"[: max(size - 1, 0)] + (b"\0" if size else b"")
        assert message.raw == text + b"#" * (15 - size) + b"\0"


def best(
    library: ctypes.CDLL, scores: np.ndarray, count: int, are_logits: bool = True
) -> tuple[int, np.ndarray, np.ndarray, str]:
    """Status, int32 (count) classes, float64 (count) probabilities and message."""
    indices, probabilities = np.full(count, -1, np.int32), np.full(count, -1.0)
    message = ctypes.create_string_buffer(256)
    status = library.edgevit_best(
        scores.ctypes.data, len(scores), int(are_logits), count, indices.ctypes.data,
        probabilities.ctypes.data, message, len(message),
    )  # fmt: skip
    return status, indices, probabilities, message.value.decode()


def test_the_best_classes_are_those_of_numpy(library: ctypes.CDLL) -> None:
    rng = np.random.default_rng(5)
    for classes, count in ((1, 1), (2, 2), (10, 3), (1000, 5), (1000, 1000), (7, 0)):
        # Quantized logits: many of them are equal.
        scores = (rng.integers(-20, 20, classes) * 0.25).astype(np.float32)
        status, indices, probabilities, message = best(library, scores, count)
        assert (status, message) == (OK, "")
        np.testing.assert_array_equal(indices, np.argsort(-scores, kind="stable")[:count])
        weights = np.exp(scores.astype(np.float64) - scores.max())
        np.testing.assert_allclose(probabilities, (weights / weights.sum())[indices], rtol=1e-12)
        _, _, as_they_are, _ = best(library, scores, count, are_logits=False)
        np.testing.assert_array_equal(as_they_are, scores[indices])
    large = np.array([1e38, -1e38, 3e38], np.float32)
    np.testing.assert_array_equal(best(library, large, 3)[2], [1, 0, 0])


def test_an_answer_that_is_not_finite_or_absurd_is_refused(library: ctypes.CDLL) -> None:
    for wrong in (np.nan, np.inf, -np.inf):
        status, indices, _, message = best(library, np.array([1, wrong, 2], np.float32), 2)
        assert status == NOT_FINITE and "not finite" in message
        assert (indices == -1).all()
    scores, out = np.zeros(3, np.float32), np.zeros(3)
    for place, value, reason in (
        (0, None, "null"), (4, None, "null"), (5, None, "null"), (1, 0, "classes is not"),
        (1, HUGE, "classes is not"), (3, 4, "count is over"), (3, HUGE, "count is over"),
    ):  # fmt: skip
        message = ctypes.create_string_buffer(256)
        arguments = [scores.ctypes.data, 3, 1, 2, out.ctypes.data, out.ctypes.data, message, 256]
        arguments[place] = value
        assert library.edgevit_best(*arguments) == BAD_ARGUMENT
        assert reason in message.value.decode()


def test_the_header_is_plain_c(packaged: Path) -> None:
    include = packaged / "Sources/EdgevitImage/include"
    subprocess.run(
        ["cc", "-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only", "-xc",
         str(include / "edgevit_image.h")],
        check=True,
    )  # fmt: skip
    assert 'header "edgevit_image.h"' in (include / "module.modulemap").read_text()


def syntax_errors(source: bytes) -> list[str]:
    """Where tree-sitter's Swift grammar does not follow."""
    parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_swift.language()))

    def walk(node: tree_sitter.Node) -> Iterator[str]:
        if node.is_error or node.is_missing:
            yield f"line {node.start_point[0] + 1}: {node.text!r}"
        for child in node.children:
            yield from walk(child)

    return list(walk(parser.parse(source).root_node))


def test_the_swift_parses_and_damaged_swift_does_not(packaged: Path) -> None:
    files = sorted(packaged.rglob("*.swift"))
    assert {"Package.swift", "RepViTClassifier.swift"} < {path.name for path in files}
    for path in files:
        source = path.read_bytes()
        assert syntax_errors(source) == [], path
        last = max(source.rfind(b"}"), source.rfind(b")"))
        assert syntax_errors(source[:last] + source[last + 1 :]), path


def test_the_swift_package_names_what_is_there(packaged: Path) -> None:
    text = (packaged / "Package.swift").read_text()
    assert text.startswith("// swift-tools-version: 5.9\n")
    for target in ("EdgevitImage", "RepViTClassifier"):
        assert f'name: "{target}"' in text and (packaged / "Sources" / target).is_dir()
    assert '.copy("Model")' in text
    model = packaged / "Sources/RepViTClassifier/Model"
    assert sorted(path.name for path in model.iterdir()) == ["manifest.json", "model.mlpackage"]
    # Else each source would be compiled twice, once without the pragma of core_exact.cpp.
    assert 'exclude: ["core"]' in text
    exact = (packaged / "Sources/EdgevitImage/core_exact.cpp").read_text()
    core = {path.name for path in (packaged / "Sources/EdgevitImage/core").glob("*.cpp")}
    included = [line.split("/")[1][:-1] for line in exact.splitlines() if "#include" in line]
    assert set(included) < core and len(included) == len(set(included))
    assert exact.index("FP_CONTRACT OFF") < exact.index("#include")
