"""Options of image sets and their preprocessing, for the commands and the Python API."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgevit.choices import ClassOrder, Interpolation
from edgevit.errors import InputError
from edgevit.limits import MAX_IMAGE_SIZE, MAX_RESIZE_SIZE
from edgevit.options import check, option

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class PreprocessingOptions:
    """How images become the network's input; `Preprocessing.from_options` applies it.

    The shorter side is resized to `resize` pixels (None: to `image_size`), the centre
    `image_size` × `image_size` pixels are cropped, and each channel becomes
    (pixel / 255 - mean) / std. Raises InputError when a value is out of range.
    """

    image_size: int = option(
        224,
        "Side of the network's square input; use that of the training.",
        minimum=1,
        maximum=MAX_IMAGE_SIZE,
        metavar="PX",
    )
    resize: int | None = option(
        None,
        "Length the shorter side is resized to before the centre crop.",
        minimum=1,
        maximum=MAX_RESIZE_SIZE,
        metavar="PX",
        default_text="the image size",
    )
    interpolation: Interpolation = option("bicubic", "Filter of the resizing.")
    mean: tuple[float, float, float] = option(
        IMAGENET_MEAN,
        "Mean of the red, green and blue values, on a scale from 0 to 1.",
        metavar="R G B",
    )
    std: tuple[float, float, float] = option(
        IMAGENET_STD, "Standard deviation of the same values.", above=0, metavar="R G B"
    )

    def __post_init__(self) -> None:
        check(self)
        if self.resize is not None and self.resize < self.image_size:
            raise InputError(
                f"--resize {self.resize} is below --image-size {self.image_size}: "
                "the crop would not fit"
            )


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
