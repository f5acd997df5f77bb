"""How an image becomes the network's input, as one declarative record.

Every definition here (size, crop and padding rules) is part of the contract with the C++ harness
and the libraries on devices: core/preprocess.cpp computes the same to the last bit.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np

from edgevit.choices import CHANNELS, INTERPOLATIONS, PAD_POSITIONS, RESIZE_MODES
from edgevit.data import resample
from edgevit.data.scales import IMAGENET_MEAN, IMAGENET_STD, unit_scale
from edgevit.errors import InputError
from edgevit.limits import MAX_IMAGE_SIZE, MAX_RESIZE_SIZE, MAX_RESIZED_PIXELS
from edgevit.options import Size, size_text
from edgevit.schema import OMIT_DEFAULT, Rule, read_json, to_json

if TYPE_CHECKING:
    import torch

    from edgevit.data.options import PreprocessingOptions

log = logging.getLogger(__name__)

Side = Annotated[int, Rule(minimum=1, maximum=MAX_IMAGE_SIZE)]
ResizeSide = Annotated[int, Rule(minimum=1, maximum=MAX_RESIZE_SIZE)]
Share = Annotated[float, Rule(minimum=0, maximum=1)]

VERSION_2 = ("image_size", "resize_size", "interpolation", "mean", "std")
"""The keys of a manifest of schema_version 2."""


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the network's input.

    image_size     the input's side in pixels, or (height, width)
    resize_size    what the picture is resized to before the centre image_size pixels are cropped:
                   of "shorter" the shorter side, or (height, width) to be filled, None for no
                   resize; of "exact" and "fit" a side or (height, width), None for image_size
    interpolation  see `edgevit.data.resample`
    resize         "shorter" keeps the shape and fills the size, "exact" stretches the picture to
                   it, "fit" keeps the shape, fits the picture into it and pads up to image_size
    antialias      False: bicubic and bilinear as OpenCV and torch's tensors have them
    channels       the input's planes in their order; "L" is grey as ITU-R 601 weighs it, "RGBA" is
                   straight alpha, 255 where a picture has none
    mean, std      of each channel: the input is (pixel / 255 - mean) / std in float32. On a scale
                   of 0 to 255 they are divided by it, and the log says so; () for ImageNet's
    pad_color      pixel values of the padding, 0 to 255, one a channel or one for all
    pad_position   where a padded picture lies: "centre" (of an odd rest the smaller part comes
                   first) or "top-left"
    Raises InputError when a field is out of range.
    """

    image_size: tuple[Side, Side] | Side
    resize_size: tuple[ResizeSide, ResizeSide] | ResizeSide | None = None
    interpolation: Annotated[str, Rule(choices=INTERPOLATIONS)] = "bicubic"
    mean: Annotated[tuple[Share, ...], Rule(min_size=1, max_size=4)] = ()
    std: Annotated[tuple[Share, ...], Rule(min_size=1, max_size=4)] = ()
    resize: Annotated[str, Rule(choices=RESIZE_MODES)] = field(
        default="shorter", metadata=OMIT_DEFAULT
    )
    antialias: bool = field(default=True, metadata=OMIT_DEFAULT)
    channels: Annotated[str, Rule(choices=CHANNELS)] = field(default="RGB", metadata=OMIT_DEFAULT)
    pad_color: Annotated[
        tuple[Annotated[int, Rule(minimum=0, maximum=255)], ...], Rule(max_size=4)
    ] = field(default=(), metadata=OMIT_DEFAULT)
    pad_position: Annotated[str, Rule(choices=PAD_POSITIONS)] = field(
        default="centre", metadata=OMIT_DEFAULT
    )

    def __post_init__(self) -> None:
        self._check_choices()
        self._check_sizes()
        mean = self._per_channel("mean", self.mean)
        std = self._per_channel("std", self.std)
        scaled = unit_scale(mean, std)
        if scaled.note:
            log.warning(scaled.note)
        object.__setattr__(self, "mean", scaled.mean)
        object.__setattr__(self, "std", scaled.std)
        self._check_padding()

    def _check_choices(self) -> None:
        for name, choices in (
            ("interpolation", INTERPOLATIONS), ("resize", RESIZE_MODES), ("channels", CHANNELS),
            ("pad_position", PAD_POSITIONS),
        ):  # fmt: skip
            if getattr(self, name) not in choices:
                raise InputError(f"{name} {getattr(self, name)!r} is not one of {choices}")
        if self.interpolation == "nearest":
            object.__setattr__(self, "antialias", True)  # it has one form only
        elif not self.antialias and self.interpolation in ("box", "area"):
            raise InputError(f"{self.interpolation} averages pixels: it has no form without it")

    def _check_sizes(self) -> None:
        sides = _sides("image_size", self.image_size, MAX_IMAGE_SIZE)
        object.__setattr__(self, "image_size", _plain(sides))
        if self.resize_size is None:
            if self.resize != "shorter":
                object.__setattr__(self, "resize_size", self.image_size)
            return
        target = _sides("resize_size", self.resize_size, MAX_RESIZE_SIZE)
        object.__setattr__(self, "resize_size", _plain(target))
        enough = all(side >= least for side, least in zip(target, sides, strict=True))
        if self.resize == "shorter" and isinstance(self.resize_size, int):
            enough = self.resize_size >= min(sides)  # the longer side grows with it
        if self.resize != "fit" and not enough:
            raise InputError(
                f"resize_size {size_text(self.resize_size)} is below image_size "
                f"{size_text(self.image_size)}: the crop would not fit"
            )

    def _check_padding(self) -> None:
        color = self.pad_color
        if self.resize != "fit":
            if tuple(color) or self.pad_position != "centre":
                raise InputError(f"resize {self.resize!r} pads nothing: pad_color and pad_position "
                                 "belong to 'fit'")  # fmt: skip
            object.__setattr__(self, "pad_color", ())
            return
        color = tuple(color) or (0,)
        color = color * self.channel_count if len(color) == 1 else color
        if len(color) != self.channel_count or not all(
            isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 255
            for value in color
        ):
            raise InputError(
                f"pad_color must be {self.channel_count} integers from 0 to 255, not {color}"
            )
        object.__setattr__(self, "pad_color", color)

    def _per_channel(self, name: str, values: Sequence[float]) -> tuple[float, ...]:
        try:
            found = tuple(float(value) for value in values)
        except (TypeError, ValueError, OverflowError) as error:
            raise InputError(f"{name} must be finite numbers, not {str(values)[:80]}") from error
        found = found or self._imagenet(name)
        count = {1: "one finite number", 3: "three finite numbers", 4: "four finite numbers"}
        if len(found) == 1:
            found *= self.channel_count
        if len(found) != self.channel_count or not all(map(math.isfinite, found)):
            raise InputError(f"{name} must be {count[self.channel_count]}, not {found}")
        return found

    def _imagenet(self, name: str) -> tuple[float, ...]:
        """ImageNet's constants in the order of the channels; of grey their mean, as timm has it."""
        values = IMAGENET_MEAN if name == "mean" else IMAGENET_STD
        if self.channels == "RGB":
            return values
        if self.channels == "BGR":
            return values[::-1]
        if self.channels == "L":
            return (round(sum(values) / 3, 6),)
        raise InputError(f"{name} must be four finite numbers for RGBA: ImageNet has no alpha")

    # -- facts ------------------------------------------------------------------------------------

    @property
    def height(self) -> int:
        """Of the input, pixels."""
        return _pair(self.image_size)[0]

    @property
    def width(self) -> int:
        """Of the input, pixels."""
        return _pair(self.image_size)[1]

    @property
    def channel_count(self) -> int:
        """Of the input: 1, 3 or 4."""
        return 3 if self.channels in ("RGB", "BGR") else len(self.channels)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the network's input."""
        return self.channel_count, self.height, self.width

    @property
    def pixel_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of what `crop` makes."""
        return self.height, self.width, self.channel_count

    @property
    def size_text(self) -> str:
        """The input's size for messages: "64 px", "96x64 px" (height x width)."""
        return f"{size_text(self.image_size)} px"

    @property
    def source_mode(self) -> str:
        """Pillow's mode of the pictures that `crop` takes: "RGBA" or "RGB"."""
        return "RGBA" if self.channels == "RGBA" else "RGB"

    @property
    def schema_version(self) -> Literal[2, 3]:
        """The oldest manifest version that can say this."""
        return 2 if set(self.to_json()) == set(VERSION_2) and self._is_version_2() else 3

    def _is_version_2(self) -> bool:
        return (
            isinstance(self.image_size, int)
            and not isinstance(self.resize_size, tuple)
            and self.interpolation in ("bicubic", "bilinear")
        )

    @property
    def keeps_crops(self) -> bool:
        """Whether a picture of image_size goes through unchanged."""
        return self.resize_size in (None, self.image_size)

    # -- forms ------------------------------------------------------------------------------------

    @classmethod
    def from_options(cls, options: PreprocessingOptions) -> Preprocessing:
        """What the options ask for; see `PreprocessingOptions`."""
        return cls(**options.record())

    def to_json(self) -> dict[str, Any]:
        """The fields; those that have their default are left out, but for version 2's."""
        return to_json(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Preprocessing:
        """The inverse of `to_json`. Raises InputError for unknown or missing keys."""
        known = {f.name for f in fields(cls)}
        if not set(VERSION_2) <= set(value) <= known:
            raise InputError(
                f"preprocessing has the keys {sorted(value)}, expected {sorted(VERSION_2)}, and "
                f"of {sorted(known - set(VERSION_2))} what differs from the default"
            )
        given = {k: list(v) if isinstance(v, tuple) else v for k, v in value.items()}
        return read_json(cls, given, "preprocessing")

    # -- pixels -----------------------------------------------------------------------------------

    def crop(self, image: Any) -> np.ndarray:
        """Resize, crop and pad a PIL image of mode RGB (or RGBA): uint8 (height, width, channels),
        the channels in the input's order.

        Raises InputError when the image is smaller than the crop and no resize was asked for,
        and when it is so thin that the resize would make over MAX_RESIZED_PIXELS of it.
        """
        image = image.convert({"BGR": "RGB"}.get(self.channels, self.channels))
        width, height = self.resized_size(*image.size)
        top, high, above = self._part("height", height)
        left, wide, before = self._part("width", width)
        if (high < self.height or wide < self.width) and self.resize != "fit":
            raise InputError(
                f"the image has {width}x{height} pixels, the network needs "
                f"{size_text(self.image_size)}: set resize_size so that smaller images are enlarged"
            )
        window = (left, top, wide, high)
        if image.size == (width, height):
            part = np.asarray(image.crop((left, top, left + wide, top + high)), dtype=np.uint8)
            part = part if part.ndim == 3 else part[..., None]
        else:
            part = resample.resized(
                image, width, height, window, self.interpolation, self.antialias
            )
        if self.channels == "BGR":
            part = part[..., ::-1]
        if (high, wide) == (self.height, self.width):
            return np.ascontiguousarray(part)
        out = np.empty((self.height, self.width, self.channel_count), np.uint8)
        out[:] = self.pad_color
        out[above : above + high, before : before + wide] = part
        return out

    def resized_size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of a picture after the resize. Raises InputError for one too thin."""
        if self.resize_size is None:
            return width, height
        longer, short = max(width, height), min(width, height)
        wide, high = self._resized(width, height)
        # After the resize, or between its passes. Pillow holds sides as float32.
        if wide * max(high, height) > MAX_RESIZED_PIXELS or longer > 2**24:
            raise InputError(f"the image is too thin to resize: its sides are {longer}x{short}")
        return wide, high

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        if self.resize == "exact" and self.resize_size is not None:
            high, wide = _pair(self.resize_size)
            return wide, high
        if isinstance(self.resize_size, int) and self.resize == "shorter":
            short = min(width, height)
            wide = self.resize_size if width == short else int(self.resize_size * width / short)
            high = self.resize_size if height == short else int(self.resize_size * height / short)
            return wide, high
        assert self.resize_size is not None
        high, wide = _pair(self.resize_size)
        # The width decides where the picture is wider than the box to fit in, or narrower than
        # the one to fill.
        by_width = (width * high >= height * wide) == (self.resize == "fit")
        if width * high == height * wide:
            return wide, high
        if by_width:
            return wide, max(1, (2 * height * wide + width) // (2 * width))
        return max(1, (2 * width * high + height) // (2 * height)), high

    def _part(self, axis: str, side: int) -> tuple[int, int, int]:
        """Of a resized side: where the crop starts, its length, and the padding before it."""
        wanted = getattr(self, axis)
        first = self.pad_position == "top-left"
        if side >= wanted:
            return 0 if first else round((side - wanted) / 2), wanted, 0
        return 0, side, 0 if first else (wanted - side) // 2

    def picture_of(self, pixels: np.ndarray) -> np.ndarray:
        """What `crop` made as a picture again: RGB or RGBA (H, W, 3 or 4), or grey (H, W)."""
        if self.channels == "L":
            return pixels[..., 0]
        return np.ascontiguousarray(pixels[..., ::-1]) if self.channels == "BGR" else pixels

    def normalise(self, pixels: np.ndarray) -> torch.Tensor:
        """uint8 (N, H, W, C) to float32 (N, C, H, W), by `table`, so that every caller agrees."""
        import torch

        return torch.from_numpy(looked_up(self.table(), pixels))

    def table(self) -> np.ndarray:
        """float32 (C, 256): the network's input for each channel and pixel value."""
        pixel = np.arange(256, dtype=np.float32)[None] / np.float32(255)
        mean = np.asarray(self.mean, np.float32)[:, None]
        std = np.asarray(self.std, np.float32)[:, None]
        return (pixel - mean) / std


def looked_up(table: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """The input (N, C, H, W) that a table (C, 256) makes of pixels: uint8 (N, H, W, C)."""
    planes = [row[pixels[..., channel]] for channel, row in enumerate(table)]
    return np.stack(planes, axis=1)


def _sides(name: str, size: Any, largest: int) -> tuple[int, int]:
    """(height, width). Raises InputError for anything else, and out of 1 to `largest`."""
    both = tuple(size) if isinstance(size, list | tuple) else (size, size)
    if len(both) != 2 or any(not isinstance(s, int) or isinstance(s, bool) for s in both):
        raise InputError(f"{name} is {size!r:.80}, it must be a side in pixels, or (height, width)")
    if not all(1 <= side <= largest for side in both):
        found = size_text(_plain((both[0], both[1])))
        raise InputError(f"{name} is {found}, it must be 1 to {largest} pixels")
    return both[0], both[1]


def _pair(size: Any) -> tuple[int, int]:
    return size if isinstance(size, tuple) else (size, size)


def _plain(sides: tuple[int, int]) -> Size:
    return sides[0] if sides[0] == sides[1] else sides
