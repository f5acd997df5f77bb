"""Options of image sets and their preprocessing, for the commands and the Python API."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgevit.choices import Channels, ClassOrder, Interpolation, PadPosition, ResizeMode
from edgevit.data.scales import unit_scale
from edgevit.errors import InputError
from edgevit.limits import MAX_IMAGE_SIZE, MAX_RESIZE_SIZE
from edgevit.options import Size, check, option

IMAGENETS = "ImageNet's"


@dataclass(frozen=True)
class PreprocessingOptions:
    """How images become the network's input; `Preprocessing.from_options` applies it.

    Of `resize_mode` "shorter" the shorter side is resized to `resize` pixels (None: to
    `image_size`, or to `image_size` / `crop_pct` rounded down) and the centre `image_size` pixels
    are cropped; "exact" and "fit" resize to `image_size`, unless `resize` or `crop_pct` says
    otherwise. Each channel becomes (pixel / 255 - mean) / std, or with `rescale_factor`
    (pixel * rescale_factor - mean) / std. Raises InputError when a value is out of range.
    """

    image_size: Size = option(
        224,
        "The network's input: the side of a square, or height x width such as 224x160; use that "
        "of the training.",
        minimum=1,
        maximum=MAX_IMAGE_SIZE,
        metavar="PX|HxW",
    )
    resize: Size | None = option(
        None,
        "Length the shorter side is resized to before the centre crop; with --resize-mode exact "
        "or fit what the picture is resized to.",
        minimum=1,
        maximum=MAX_RESIZE_SIZE,
        metavar="PX|HxW",
        default_text="the image size",
    )
    interpolation: Interpolation = option("bicubic", "Filter of the resizing.")
    mean: tuple[float, ...] = option(
        (),
        "Mean of each channel, on a scale from 0 to 1 or from 0 to 255.",
        metavar="R,G,B",
        default_text=IMAGENETS,
    )
    std: tuple[float, ...] = option(
        (),
        "Standard deviation of the same values.",
        above=0,
        metavar="R,G,B",
        default_text=IMAGENETS,
    )
    resize_mode: ResizeMode = option(
        "shorter",
        "shorter keeps the picture's shape and crops it; exact stretches it, as Resize((S, S)) and "
        "cv2.resize do; fit keeps the shape and pads (letterbox).",
    )
    crop_pct: float | None = option(
        None,
        "Share of the resized picture that is cropped, as timm has it: resize is the image size "
        "divided by it.",
        above=0,
        maximum=1,
        metavar="SHARE",
        default_text="none",
    )
    antialias: bool = option(
        True, "Widen the filter when shrinking, as Pillow does; OpenCV and torch's tensors do not."
    )
    channels: Channels = option(
        "RGB", "The network's input channels in their order; L is grey, RGBA has straight alpha."
    )
    rescale_factor: float | None = option(
        None,
        "What a pixel of 0 to 255 is multiplied with before mean and std.",
        above=0,
        maximum=1,
        metavar="FACTOR",
        default_text="told by mean and std",
    )
    pad_color: tuple[int, ...] = option(
        (),
        "Pixel values of fit's padding, one a channel or one for all.",
        minimum=0,
        maximum=255,
        metavar="R,G,B",
        default_text="black",
    )
    pad_position: PadPosition = option("centre", "Where fit puts the picture.")

    def __post_init__(self) -> None:
        check(self)
        if self.resize is not None and self.crop_pct is not None:
            raise InputError("--resize and --crop-pct both say what is cropped: give one of them")
        size, resize = self.image_size, self.resize
        crops = self.resize_mode != "fit"
        if crops and isinstance(resize, int) and isinstance(size, int) and resize < size:
            raise InputError(
                f"--resize {resize} is below --image-size {size}: the crop would not fit"
            )
        if self.rescale_factor is not None and bool(self.mean) != bool(self.std):
            raise InputError("--rescale-factor needs both --mean and --std, which are on its scale")

    def record(self) -> dict[str, Any]:
        """The fields of `Preprocessing`."""
        mean, std = self.mean, self.std
        if self.rescale_factor is not None and mean:
            scaled = unit_scale(mean, std, self.rescale_factor)
            mean, std = scaled.mean, scaled.std
        return {
            "image_size": self.image_size,
            "resize_size": self._resize_size(),
            "interpolation": self.interpolation,
            "mean": mean,
            "std": std,
            "resize": self.resize_mode,
            "antialias": self.antialias,
            "channels": self.channels,
            "pad_color": self.pad_color,
            "pad_position": self.pad_position,
        }

    def _resize_size(self) -> Size:
        if self.resize is not None:
            return self.resize
        if self.crop_pct is None:
            return self.image_size
        share = self.crop_pct
        if isinstance(self.image_size, int):
            return math.floor(self.image_size / share)
        height, width = self.image_size
        return math.floor(height / share), math.floor(width / share)


@dataclass(frozen=True)
class DamageOptions:
    """What is done with images that cannot be decoded. Raises InputError for another type."""

    skip_broken: bool = option(
        False, "Leave out damaged images, and name them; every image is decoded once at the start."
    )
    broken_list: Path | None = option(
        None, "Text file to write the name of every damaged image to.", metavar="FILE"
    )

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class ImageSetOptions(DamageOptions):
    """How labelled images are taken from their folders. Raises InputError for an unknown order."""

    class_order: ClassOrder = option(
        "default",
        "How the training numbered the class folders: default by code point, as torchvision; "
        "natural by number and ignoring case, as timm.",
    )
