"""Image sets, and RepViT preprocessing.

Pixels are resized by Pillow; the C++ harness repeats the same arithmetic, so every definition here
(resize rule, crop rule) is part of the contract between the two.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from edgevit.choices import INTERPOLATIONS
from edgevit.data.decode import RGB_MODES, decode_rgb
from edgevit.data.image_set import DamagedImages, ImageSet, check_labels
from edgevit.data.kinds import READ_SUFFIXES
from edgevit.data.options import PreprocessingOptions
from edgevit.errors import InputError
from edgevit.limits import (
    MAX_IMAGE_SIZE,
    MAX_RESIZE_SIZE,
    MAX_RESIZED_PIXELS,
)
from edgevit.schema import Rule

if TYPE_CHECKING:
    import torch

__all__ = [
    "READ_SUFFIXES",
    "RGB_MODES",
    "DamagedImages",
    "ImageSet",
    "Preprocessing",
    "check_labels",
    "decode_rgb",
]  # fmt: skip


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the network's input.

    The shorter side is resized to `resize_size` pixels (skipped when None or already equal), the
    centre `image_size` x `image_size` pixels are cropped, and each channel becomes
    (pixel / 255 - mean) / std in float32. Raises InputError when a field is out of range.
    """

    image_size: Annotated[int, Rule(minimum=1, maximum=MAX_IMAGE_SIZE)]
    resize_size: Annotated[int, Rule(minimum=1, maximum=MAX_RESIZE_SIZE)] | None = None
    interpolation: Annotated[str, Rule(choices=INTERPOLATIONS)] = PreprocessingOptions.interpolation
    mean: tuple[float, float, float] = PreprocessingOptions.mean
    std: tuple[float, float, float] = PreprocessingOptions.std

    def __post_init__(self) -> None:
        if not 1 <= self.image_size <= MAX_IMAGE_SIZE:
            raise InputError(
                f"image_size is {self.image_size}, it must be 1 to {MAX_IMAGE_SIZE} pixels"
            )
        if self.resize_size is not None and self.resize_size < self.image_size:
            raise InputError(
                f"resize_size {self.resize_size} is below image_size {self.image_size}: "
                "the crop would not fit"
            )
        if self.resize_size is not None and self.resize_size > MAX_RESIZE_SIZE:
            raise InputError(
                f"resize_size is {self.resize_size}, it must be {MAX_RESIZE_SIZE} pixels or less"
            )
        if self.interpolation not in INTERPOLATIONS:
            raise InputError(f"interpolation {self.interpolation!r} is not one of {INTERPOLATIONS}")
        for name in ("mean", "std"):
            values = tuple(float(v) for v in getattr(self, name))
            if len(values) != 3 or not all(np.isfinite(values)):
                raise InputError(f"{name} must be three finite numbers, not {values}")
            object.__setattr__(self, name, values)
        if min(self.std) <= 0:
            raise InputError(f"std must be positive, not {self.std}")

    @classmethod
    def from_options(cls, options: PreprocessingOptions) -> Preprocessing:
        """What the options ask for: without `resize` the shorter side becomes `image_size`."""
        size = options.image_size
        resize_size = size if options.resize is None else options.resize
        return cls(size, resize_size, options.interpolation, options.mean, options.std)

    def to_json(self) -> dict[str, Any]:
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Preprocessing:
        """The inverse of `to_json`. Raises InputError for unknown or missing keys."""
        known = {f.name for f in fields(cls)}
        if set(value) != known:
            raise InputError(
                f"preprocessing has the keys {sorted(value)}, expected {sorted(known)}"
            )
        given: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in value.items()
        }
        return cls(**given)

    def crop(self, image: Any) -> np.ndarray:
        """Resize and crop a PIL RGB image: uint8, (image_size, image_size, 3).

        Raises InputError when the image is smaller than the crop and no resize was asked for,
        and when it is so thin that the resize would make over MAX_RESIZED_PIXELS of it.
        """
        from PIL import Image

        width, height = image.size
        short = min(width, height)
        if self.resize_size is not None and short != self.resize_size:
            filters = {
                "bicubic": Image.Resampling.BICUBIC,
                "bilinear": Image.Resampling.BILINEAR,
            }
            longer = max(width, height)
            if self.resize_size * longer / short * self.resize_size > MAX_RESIZED_PIXELS:
                raise InputError(f"the image is too thin to resize: its sides are {longer}x{short}")
            width = self.resize_size if width == short else int(self.resize_size * width / short)
            height = (
                self.resize_size
                if image.size[1] == short
                else int(self.resize_size * image.size[1] / short)
            )
            image = image.resize((width, height), filters[self.interpolation])
        if width < self.image_size or height < self.image_size:
            raise InputError(
                f"the image has {width}x{height} pixels, the network needs {self.image_size}: "
                "set resize_size so that smaller images are enlarged"
            )
        left = round((width - self.image_size) / 2)
        top = round((height - self.image_size) / 2)
        box = (left, top, left + self.image_size, top + self.image_size)
        return np.asarray(image.crop(box), dtype=np.uint8)

    def normalise(self, pixels: np.ndarray) -> torch.Tensor:
        """uint8 (N, H, W, 3) to float32 (N, 3, H, W), by `table`, so that every caller agrees."""
        import torch

        table = self.table()
        planes = [table[c][pixels[..., c]] for c in range(3)]
        return torch.from_numpy(np.stack(planes, axis=1))

    def table(self) -> np.ndarray:
        """float32 (3, 256): the network's input for each channel and pixel value."""
        pixel = np.arange(256, dtype=np.float32)[None] / np.float32(255)
        mean = np.asarray(self.mean, np.float32)[:, None]
        std = np.asarray(self.std, np.float32)[:, None]
        return (pixel - mean) / std
