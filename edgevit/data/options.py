"""Options of the preprocessing, for the commands and the Python API."""

from __future__ import annotations

from dataclasses import dataclass

from edgevit.choices import Interpolation
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
