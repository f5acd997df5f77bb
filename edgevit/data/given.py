"""The forms in which a caller may hold an image, and how each becomes 8-bit pixels.

A tensor that was normalised already is taken back to its pixels with `mean` and `std`. That is
exact, and a tensor that does not lie on the grid of 8-bit pixels is refused: other constants
normalised it, or it was resized or mixed as a tensor. So every program carries real preprocessing,
and its artifacts can be validated. Importing this module imports no torch.
"""

from __future__ import annotations

import os
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from edgevit.data.decode import RGB_MODES, decode
from edgevit.data.images import Preprocessing
from edgevit.data.kinds import READ_SUFFIXES, name_text, suffix_of
from edgevit.errors import InputError
from edgevit.limits import MAX_IMAGE_BYTES

GRID_TOLERANCE = 0.02
"""Of a pixel step; float32 rounding moves a normalised pixel by 1e-4 at most."""


@dataclass(frozen=True)
class GivenImage:
    """One image as the caller holds it; exactly one field is set.

    path        an encoded file: JPEG, PNG, WebP, BMP or PPM
    picture     uint8 (H, W, 3), or (H, W, 4) with alpha, of any size
    cropped     uint8 (H, W, C), resized and cropped before it was given, channels as the input's
    """

    path: Path | None = None
    picture: np.ndarray | None = None
    cropped: np.ndarray | None = None

    def crop(self, rules: Preprocessing) -> np.ndarray:
        """uint8 (H, W, C). Raises InputError for what cannot be read."""
        from PIL import Image

        if self.cropped is not None:
            return self.cropped
        if self.path is not None:
            return rules.crop(decode(self.file_bytes(), str(self.path), rules.source_mode))
        assert self.picture is not None
        return rules.crop(Image.fromarray(self.picture))

    def file_bytes(self) -> bytes:
        """The encoded file of a path. Raises InputError when it cannot be read."""
        assert self.path is not None
        self.file_size()
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise InputError(f"{self.path} cannot be read: {error.strerror}") from error

    def file_size(self) -> int:
        """Bytes. Raises InputError when it is missing, no regular file or over 64 MiB."""
        assert self.path is not None
        try:
            found = self.path.stat()
        except OSError as error:
            raise InputError(f"{self.path} cannot be read: {error.strerror}") from error
        if not stat.S_ISREG(found.st_mode):
            raise InputError(f"{self.path} is no regular file")
        if found.st_size > MAX_IMAGE_BYTES:
            raise InputError(f"{self.path} has {found.st_size} bytes, over 64 MiB")
        return found.st_size


def understood(image: Any, rules: Preprocessing) -> GivenImage:
    """The image in one of the three forms. Raises InputError for anything else."""
    if isinstance(image, GivenImage):
        return image
    if isinstance(image, str | os.PathLike):
        path = Path(image)
        if suffix_of(os.fsencode(path.name)) not in READ_SUFFIXES:
            names = ", ".join(sorted(suffix.decode() for suffix in READ_SUFFIXES))
            raise InputError(
                f"{name_text(os.fsencode(path))} is not named as a JPEG or PNG, or another image "
                f"that is read ({names})"
            )
        return GivenImage(path=path)
    if hasattr(image, "convert") and hasattr(image, "mode"):  # a PIL image
        if image.mode not in RGB_MODES:
            raise InputError(f"pixels of mode {image.mode}; use 8 bits a channel")
        return GivenImage(picture=np.asarray(image.convert(rules.source_mode)))
    if is_tensor(image):
        return _understood_tensor(image, rules)
    if isinstance(image, np.ndarray):
        return GivenImage(picture=_picture(image, rules))
    raise InputError(
        f"{type(image).__name__} is no image: use a PIL image, a uint8 (H, W, 3) array, a path, or "
        "a normalised float32 (3, H, W) tensor"
    )


def _picture(array: np.ndarray, rules: Preprocessing) -> np.ndarray:
    """A picture in an array: RGB, for an RGBA net with alpha too, for a grey net grey too."""
    shapes = {"RGBA": (3, 4), "L": (1, 3)}.get(rules.channels, (3,))
    planes = array[..., None] if array.ndim == 2 else array
    if array.dtype != np.uint8 or planes.ndim != 3 or planes.shape[2] not in shapes:
        wanted = " or ".join(f"(H, W, {count})" for count in shapes)
        raise InputError(f"an array of {array.dtype} {array.shape}; expected uint8 {wanted}, RGB")
    if not array.size:
        raise InputError(f"an array of {array.dtype} {array.shape}, which holds no pixel")
    return np.repeat(planes, 3, axis=2) if planes.shape[2] == 1 else planes


def _understood_tensor(image: Any, rules: Preprocessing) -> GivenImage:
    wanted, kind = rules.input_shape, str(image.dtype).removeprefix("torch.")
    shape = tuple(image.shape)
    if kind == "uint8" and len(shape) == 3 and shape[0] == 3 and image.numel():
        return GivenImage(picture=image.cpu().permute(1, 2, 0).contiguous().numpy())
    if kind not in ("float32", "float64") or shape != wanted:
        raise InputError(
            f"a tensor of {kind} {shape}; expected float32 {wanted}, normalised, or uint8 (3, H, W)"
        )
    return GivenImage(cropped=recovered_pixels(image.detach().cpu().numpy(), rules))


def recovered_pixels(values: np.ndarray, rules: Preprocessing) -> np.ndarray:
    """The 8-bit pixels of a normalised image: float32 (C, H, W) to uint8 (H, W, C), exactly.

    Raises InputError when it is not made of 8-bit pixels by (pixel / 255 - mean) / std.
    """
    mean, std = (np.asarray(v, np.float64)[:, None, None] for v in (rules.mean, rules.std))
    places = (values.astype(np.float64) * std + mean) * 255
    pixels = np.rint(places)
    off = np.abs(places - pixels).max()
    # `not <=`: a NaN is off as well.
    if not off <= GRID_TOLERANCE or pixels.min() < 0 or pixels.max() > 255:
        raise InputError(
            f"a tensor with values from {values.min():.3g} to {values.max():.3g}, which is not "
            f"(pixel / 255 - mean) / std of 8-bit pixels with mean {rules.mean} and std "
            f"{rules.std}: give the mean= and std= that normalised it, or the images before they "
            "become tensors"
        )
    return np.ascontiguousarray(pixels.astype(np.uint8).transpose(1, 2, 0))


def own_size(image: Any) -> int | None:
    """The input size that an image brings along: that of a tensor or a square array."""
    if isinstance(image, GivenImage):
        image = image.cropped
    if is_tensor(image) and image.ndim == 3:
        height, width = image.shape[1:]
    elif isinstance(image, np.ndarray) and image.ndim == 3:
        height, width = image.shape[:2]
    else:
        return None
    return int(height) if height == width else None


def is_tensor(value: Any) -> TypeGuard[Any]:
    """Whether it is a torch tensor; where nothing has imported torch, nothing is."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)
