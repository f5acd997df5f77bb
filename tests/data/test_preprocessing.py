"""What becomes of a picture: modes, filters, channels, sizes, and the scale of mean and std."""

from __future__ import annotations

import itertools
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from edgevit.choices import CHANNELS, INTERPOLATIONS, RESIZE_MODES
from edgevit.data.export import write_tar
from edgevit.data.images import Preprocessing
from edgevit.data.options import PreprocessingOptions
from edgevit.data.sequence import from_sequence
from edgevit.data.source import ImageFolder
from edgevit.errors import InputError
from edgevit.limits import MAX_IMAGE_SIZE, MAX_RESIZE_SIZE
from edgevit.schema import parse_json
from tests.cpp.make_goldens import picture

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
IN_BYTES = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))


def image(width: int, height: int, mode: str = "RGB") -> Image.Image:
    rgb = Image.fromarray(picture(width, height, 5))
    if mode == "RGBA":
        rgb.putalpha(Image.fromarray(picture(width, height, 6)[..., 0]))
    return rgb.convert(mode)


# -- the scale of mean and std -------------------------------------------------------------------


def test_mean_and_std_of_0_to_255_are_recognised_and_said(caplog: Any) -> None:
    caplog.set_level(logging.INFO, "edgevit")
    found = Preprocessing(64, 64, mean=IN_BYTES[0], std=IN_BYTES[1])
    assert (found.mean, found.std) == IMAGENET and found == Preprocessing(64, 64)
    (line,) = [record.getMessage() for record in caplog.records]
    assert "on the scale of 0 to 255: taken as mean (0.485, 0.456, 0.406)" in line
    assert found.table()[0, 0] == pytest.approx(-0.485 / 0.229) and found.table()[0, 255] > 2


@pytest.mark.parametrize(
    ("mean", "std", "unit"),
    [
        ((127.5,) * 3, (127.5,) * 3, (0.5, 0.5)),
        ((103.939,) * 3, (1,) * 3, (103.939 / 255, 1 / 255)),  # Caffe's
        ((0,) * 3, (255,) * 3, (0.0, 1.0)),
        ((0,) * 3, (1,) * 3, (0.0, 1.0)),  # ToTensor alone
        ((0.5,), (0.25,), (0.5, 0.25)),
        ((1.0,) * 3, (1.0,) * 3, (1.0, 1.0)),
    ],
)
def test_scales_that_frameworks_have(
    mean: tuple[float, ...], std: tuple[float, ...], unit: tuple[float, float]
) -> None:
    found = Preprocessing(8, mean=mean, std=std)
    assert (found.mean[0], found.std[0]) == pytest.approx(unit, abs=1e-12)
    assert len(found.mean) == len(found.std) == 3


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        (IN_BYTES[0], IMAGENET[1], "mix the scales"),
        (IMAGENET[0], IN_BYTES[1], "mix the scales"),
        ((0.485, 116.28, 103.53), IN_BYTES[1], "mix the scales"),
        (IN_BYTES[0], (58.4, 0.224, 57.4), "mix the scales"),
        ((300, 300, 300), (58, 57, 57), "beyond 255"),
        (IN_BYTES[0], (400, 400, 400), "beyond 255"),
        ((-0.5,) * 3, (0.5,) * 3, "0 or more"),
        (IMAGENET[0], (0.2, 0.0, 0.2), "must be positive"),
        (IMAGENET[0], (0.2, -0.1, 0.2), "must be positive"),
        ((0.5, 0.5), (0.2, 0.2, 0.2), "three finite numbers"),
        ((0.5, float("nan"), 0.5), (0.2,) * 3, "three finite numbers"),
        ((0.5, 10**400, 0.5), (0.2,) * 3, "finite numbers"),
        (("a", "b", "c"), (0.2,) * 3, "finite numbers"),
    ],
)
def test_what_is_on_no_scale_is_refused(mean: Any, std: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Preprocessing(64, mean=mean, std=std)


def test_a_rescale_factor_says_the_scale() -> None:
    def rules(factor: float, mean: Any, std: Any) -> Preprocessing:
        given = PreprocessingOptions(64, mean=mean, std=std, rescale_factor=factor)
        return Preprocessing.from_options(given)

    assert rules(1 / 255, *IMAGENET) == rules(1.0, *IN_BYTES) == Preprocessing(64, 64)
    half = rules(1 / 127.5, (1.0,) * 3, (1.0,) * 3)  # x / 127.5 - 1
    assert half.table()[0, [0, 255]] == pytest.approx([-1, 1])
    with pytest.raises(InputError, match="do not fit pixels of 0 to 1, which rescale_factor"):
        rules(1 / 255, *IN_BYTES)
    with pytest.raises(InputError, match="needs both --mean and --std"):
        PreprocessingOptions(64, mean=(0.5,), rescale_factor=0.5)


# -- sizes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "height"), [(192, 64), (64, 192), (50, 50), (63, 65), (7, 200)])
def test_exact_is_the_resize_of_most_scripts(width: int, height: int) -> None:
    given = image(width, height)
    for name, chosen in (("bicubic", Image.Resampling.BICUBIC),
                         ("bilinear", Image.Resampling.BILINEAR)):  # fmt: skip
        found = Preprocessing(64, 64, name, resize="exact").crop(given)
        rows = given.resize((64, given.height), chosen)
        np.testing.assert_array_equal(found, np.asarray(rows.resize((64, 64), chosen)))
    assert Preprocessing(64, resize="exact") == Preprocessing(64, 64, resize="exact")


def test_exact_may_be_cropped_as_timms_squash() -> None:
    given = image(100, 60)
    whole = Preprocessing(73, resize="exact").crop(given)
    found = Preprocessing(64, 73, resize="exact").crop(given)
    np.testing.assert_array_equal(found, whole[4:68, 4:68])


@pytest.mark.parametrize(
    ("size", "inner", "before"),
    [((200, 100), (64, 32), (0, 16)), ((100, 200), (32, 64), (16, 0)),
     ((100, 99), (64, 63), (0, 0)), ((64, 64), (64, 64), (0, 0)),
     ((1, 1000), (1, 64), (31, 0)), ((10, 20), (32, 64), (16, 0))],
)  # fmt: skip
def test_fit_keeps_the_shape_and_pads(
    size: tuple[int, int], inner: tuple[int, int], before: tuple[int, int]
) -> None:
    given = image(*size)
    color = (1, 2, 3)
    found = Preprocessing(64, resize="fit", pad_color=color).crop(given)
    exact = Preprocessing(inner[::-1], resize="exact").crop(given)
    expected = np.empty((64, 64, 3), np.uint8)
    expected[:] = color
    left, top = before
    expected[top : top + inner[1], left : left + inner[0]] = exact
    np.testing.assert_array_equal(found, expected)
    first = Preprocessing(64, resize="fit", pad_color=color, pad_position="top-left").crop(given)
    np.testing.assert_array_equal(first[: inner[1], : inner[0]], exact)


def test_an_input_need_not_be_square() -> None:
    given = image(300, 200)
    rules = Preprocessing((96, 64), (96, 64))
    assert (rules.height, rules.width, rules.input_shape) == (96, 64, (3, 96, 64))
    assert rules.resized_size(300, 200) == (144, 96), "96 high, wide enough for 64"
    assert rules.crop(given).shape == (96, 64, 3)
    np.testing.assert_array_equal(
        rules.crop(given), Preprocessing((96, 144), resize="exact").crop(given)[:, 40:104]
    )
    assert Preprocessing((64, 64), (72, 72)) == Preprocessing(64, 72)
    assert Preprocessing((96, 64), 70).resized_size(300, 200) == (105, 70)
    with pytest.raises(InputError, match="the image has 105x70 pixels, the network needs 96x64"):
        Preprocessing((96, 64), 70).crop(given)


def test_crop_pct_is_timms() -> None:
    def resize(**options: Any) -> Any:
        return Preprocessing.from_options(PreprocessingOptions(**options)).resize_size

    assert resize(image_size=224, crop_pct=0.875) == 256
    assert resize(image_size=224, crop_pct=0.95) == 235
    assert resize(image_size=(224, 160), crop_pct=0.9) == (248, 177)
    assert resize(image_size=224, crop_pct=1.0, resize_mode="exact") == 224
    with pytest.raises(InputError, match="give one of them"):
        PreprocessingOptions(resize=256, crop_pct=0.9)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 0}, "image_size is 0, it must be 1 to 4096"),
        ({"image_size": (64, 0)}, "image_size is 64x0"),
        ({"image_size": (64, MAX_IMAGE_SIZE + 1)}, "1 to 4096"),
        ({"image_size": True}, "a side in pixels, or"),
        ({"image_size": 64.0}, "a side in pixels, or"),
        ({"image_size": (1, 2, 3)}, "a side in pixels, or"),
        ({"image_size": 10**400}, "1 to 4096"),
        ({"resize_size": 20000}, f"it must be 1 to {MAX_RESIZE_SIZE}"),
        ({"resize_size": 63}, "resize_size 63 is below image_size 64"),
        ({"resize_size": (64, 63)}, "64x63 is below image_size 64"),
        ({"resize_size": 63, "resize": "exact"}, "is below"),
        ({"resize": "squash"}, "is not one of"),
        ({"interpolation": "lanczos"}, "is not one of"),
        ({"channels": "BGRA"}, "is not one of"),
        ({"channels": "RGBA"}, "ImageNet has no alpha"),
        ({"interpolation": "area", "antialias": False}, "averages pixels"),
        ({"pad_color": (0,)}, "belong to 'fit'"),
        ({"pad_position": "top-left"}, "belong to 'fit'"),
        ({"resize": "fit", "pad_color": (0, 0)}, "must be 3 integers"),
        ({"resize": "fit", "pad_color": (256,)}, "from 0 to 255"),
        ({"resize": "fit", "pad_color": (0.5,)}, "integers from 0 to 255"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Preprocessing(**{"image_size": 64, **changes})


@pytest.mark.parametrize(
    ("rules", "size"),
    [
        (Preprocessing(16, 16), (4_000_000, 1)),
        (Preprocessing(224, resize="exact"), (1, 2_000_000)),
        (Preprocessing(4, resize="exact"), (20_000_000, 1)),
        (Preprocessing((8, 9), (8, 9)), (1, 60_000_000)),
    ],
)
def test_a_picture_too_thin_is_refused_before_memory_is_taken(
    rules: Preprocessing, size: tuple[int, int]
) -> None:
    with pytest.raises(InputError, match=f"too thin to resize: its sides are {max(size)}x1"):
        rules.resized_size(*size)


# -- channels ------------------------------------------------------------------------------------


def test_bgr_is_the_reverse_with_its_constants_in_its_order() -> None:
    given, rgb = image(80, 90), Preprocessing(64, 64)
    bgr = Preprocessing(64, 64, channels="BGR")
    np.testing.assert_array_equal(bgr.crop(given), rgb.crop(given)[..., ::-1])
    assert bgr.mean == IMAGENET[0][::-1] and bgr.std == IMAGENET[1][::-1]
    assert torch.equal(
        bgr.normalise(bgr.crop(given)[None]), rgb.normalise(rgb.crop(given)[None]).flip(1)
    )
    assert Preprocessing(64, channels="BGR", mean=IMAGENET[0]).mean == IMAGENET[0], "as given"


def test_grey_is_pillows_made_before_the_resize() -> None:
    given, grey = image(80, 90), Preprocessing(64, 64, channels="L")
    expected = Preprocessing(64, 64).crop(given.convert("L").convert("RGB"))[..., :1]
    np.testing.assert_array_equal(grey.crop(given), expected)
    assert (grey.mean, grey.std, grey.input_shape) == ((0.449,), (0.226,), (1, 64, 64))


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_alpha_is_straight_and_255_where_there_is_none(interpolation: str) -> None:
    given = image(80, 90, "RGBA")
    rules = Preprocessing(
        33, 40, interpolation, channels="RGBA", mean=(0.5,), std=(0.5,)
    )  # fmt: skip
    rgb = Preprocessing(33, 40, interpolation)
    found = rules.crop(given)
    np.testing.assert_array_equal(found[..., :3], rgb.crop(given.convert("RGB")))
    alpha = Image.merge("RGB", [given.getchannel("A")] * 3)
    np.testing.assert_array_equal(found[..., 3], rgb.crop(alpha)[..., 0])
    assert (rules.crop(given.convert("RGB"))[..., 3] == 255).all()


# -- filters -------------------------------------------------------------------------------------

SHAPES = ((31, 29), (64, 48), (7, 90), (200, 150), (3, 5))


def in_torch(given: Image.Image, size: tuple[int, int], mode: str) -> np.ndarray:
    pixels = torch.from_numpy(np.array(given)).permute(2, 0, 1)[None].double()
    corners = {} if mode in ("nearest-exact", "area") else {"align_corners": False}
    found = torch.nn.functional.interpolate(pixels, size, mode=mode, **corners)
    return found[0].permute(1, 2, 0).clamp(0, 255).numpy()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_without_antialias_it_is_torchs_interpolation_rounded(
    mode: str, shape: tuple[int, int]
) -> None:
    """Of a tensor, as of the doubles."""
    for size in ((24, 24), (50, 33)):
        rules = Preprocessing(size, interpolation=mode, antialias=False, resize="exact")
        found, exact = rules.crop(image(*shape)), in_torch(image(*shape), size, mode)
        assert np.abs(found - exact).max() <= 0.5 + 1e-3


@pytest.mark.parametrize("shape", SHAPES)
def test_nearest_takes_the_middle_and_area_the_mean(shape: tuple[int, int]) -> None:
    for size in ((24, 24), (50, 33)):
        found = Preprocessing(size, interpolation="nearest", resize="exact").crop(image(*shape))
        np.testing.assert_array_equal(found, in_torch(image(*shape), size, "nearest-exact"))
    halves = image(48, 96)
    exact = in_torch(halves, (24, 24), "area")
    for name in ("area", "box"):
        found = Preprocessing(24, interpolation=name, resize="exact").crop(halves)
        assert np.abs(found - exact).max() <= 1.01  # two roundings


def test_area_weighs_parts_of_pixels() -> None:
    given = Image.fromarray(np.array([[[0] * 3, [90] * 3, [200] * 3]], np.uint8))
    found = Preprocessing((1, 2), interpolation="area", resize="exact").crop(given)
    # 3 pixels to 2: the middle one is half in each.
    assert found[0, :, 0].tolist() == [30, 163]


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("antialias", [True, False])
def test_a_flat_picture_stays_flat(interpolation: str, antialias: bool) -> None:
    if not antialias and interpolation in ("box", "area"):
        return
    for value, (width, height) in itertools.product((0, 1, 127, 255), ((5, 7), (97, 300))):
        flat = Image.new("RGB", (width, height), (value,) * 3)
        rules = Preprocessing(32, 40, interpolation, resize="exact", antialias=antialias)
        assert (rules.crop(flat) == value).all()


# -- the record ----------------------------------------------------------------------------------


def test_every_record_is_read_back() -> None:
    import json

    for mode, name, channels, size in itertools.product(
        RESIZE_MODES, INTERPOLATIONS, CHANNELS, (64, (96, 64))
    ):
        rules = Preprocessing(
            size, interpolation=name, resize=mode, channels=channels, mean=(0.5,), std=(0.5,)
        )
        text = json.dumps(rules.to_json()).encode()
        assert Preprocessing.from_json(parse_json(text, "x")) == rules
    old = {"image_size": 64, "resize_size": 72, "interpolation": "bicubic",
           "mean": list(IMAGENET[0]), "std": list(IMAGENET[1])}  # fmt: skip
    assert Preprocessing(64, 72).to_json() == old, "what version 2 could say is said as before"
    assert Preprocessing.from_json(old) == Preprocessing(64, 72)


@pytest.mark.parametrize(
    "change",
    [
        {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]},
        {"image_size": "64"}, {"image_size": 10**30}, {"image_size": [64]}, {"resize_size": True},
        {"mean": 0.5}, {"mean": [0.5, "a", 0.5]}, {"mean": []}, {"antialias": 1},
        {"pad_color": [0.5]}, {"extra": 1},
    ],
)  # fmt: skip
def test_a_strangers_record_is_read_strictly(change: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        Preprocessing.from_json(Preprocessing(64, 72).to_json() | change)


# -- images that the caller holds ----------------------------------------------------------------


@pytest.mark.parametrize("channels", CHANNELS)
def test_held_images_of_any_channels_are_the_same_as_files(channels: str, tmp_path: Path) -> None:
    rules = Preprocessing((24, 32), resize="fit", channels=channels, mean=(0.5,), std=(0.25,))
    mode = {"L": "L", "RGBA": "RGBA"}.get(channels, "RGB")
    pictures = [image(40, 30, mode), image(20, 50, mode), image(32, 24, mode)]
    held = from_sequence([(each, 0) for each in pictures], like=rules)
    arrays = from_sequence([(np.asarray(each), 0) for each in pictures], like=rules)
    pixels = held.pixels(range(3))
    assert pixels.shape == (3, 24, 32, rules.channel_count)
    np.testing.assert_array_equal(pixels, arrays.pixels(range(3)))
    # Tensors that were normalised before are taken back to their pixels, and written as pictures.
    tensors = from_sequence([(each, 0) for each in rules.normalise(pixels)], like=rules)
    np.testing.assert_array_equal(pixels, tensors.pixels(range(3)))
    for name, source in (("held", held), ("tensors", tensors)):
        write_tar(source, tmp_path / f"{name}.tar")
        files = ImageFolder(tmp_path / f"{name}.tar", like=rules)
        np.testing.assert_array_equal(files.pixels(range(3)), pixels)
