"""Labelled image sets (a folder or a tar of class folders), read lazily, and RepViT preprocessing.

Pixels are decoded and resized by Pillow; the C++ harness repeats the same arithmetic, so every
definition here (order, resize rule, crop rule) is part of the contract between the two.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from edgevit.choices import INTERPOLATIONS
from edgevit.data.options import PreprocessingOptions
from edgevit.errors import InputError
from edgevit.limits import (
    MAX_CLASSES,
    MAX_IMAGE_BYTES,
    MAX_IMAGE_PIXELS,
    MAX_IMAGE_SIZE,
    MAX_LABEL_BYTES,
    MAX_RESIZE_SIZE,
    MAX_RESIZED_PIXELS,
)
from edgevit.schema import Rule

if TYPE_CHECKING:
    import torch

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})
# 16-bit greys are left out: Pillow would clip them to white.
RGB_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"})


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


class ImageSet:
    """Images in class folders, from a folder or an uncompressed tar; nothing is held but the index.

    `entries` lists (relative path, class index), sorted by the path's bytes. A single top-level
    folder around the class folders is dropped from the paths. Files that are neither JPEG nor
    PNG by name are ignored.
    """

    def __init__(
        self, path: Path, members: list[tuple[str, Any, int]], labels: Sequence[str] | None
    ):
        members = _strip_top(members)
        members.sort(key=lambda m: m[0].encode())
        found = sorted({PurePosixPath(name).parts[0] for name, _, _ in members})
        self.path = path
        self.classes = list(labels) if labels is not None else found
        check_labels(self.classes)
        unknown = [c for c in found if c not in set(self.classes)]
        if unknown:
            raise InputError(
                f"{path}: the class folder {unknown[0]!r} is not one of the model's "
                f"{len(self.classes)} labels ({', '.join(self.classes[:5])}, ...)"
            )
        index = {c: i for i, c in enumerate(self.classes)}
        self.entries = [(name, index[PurePosixPath(name).parts[0]]) for name, _, _ in members]
        self._where = [where for _, where, _ in members]
        self._sizes = [size for _, _, size in members]
        self._tar: tuple[int, int] | None = None

    @classmethod
    def open(cls, path: str | os.PathLike[str], labels: Sequence[str] | None = None) -> ImageSet:
        """Index an image folder or a tar.

        Raises InputError when it is missing, unreadable, holds no image, holds images outside
        class folders, or a class that is not in `labels`.
        """
        path = Path(path)
        if path.is_dir():
            members: list[tuple[str, Any, int]] = list(_walk_folder(path))
        elif path.is_file():
            members = list(_walk_tar(path))
        else:
            raise InputError(f"{path}: no such image folder or tar")
        if not members:
            raise InputError(
                f"{path}: no JPEG or PNG image found; expected CLASS/IMAGE.jpg below it"
            )
        return cls(path, members, labels)

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def labels(self) -> np.ndarray:
        """int64 (N,): the class index of every entry."""
        return np.array([label for _, label in self.entries], dtype=np.int64)

    @property
    def sha256(self) -> str:
        """Of one line "path<TAB>bytes" an entry, in order: names the set without reading it."""
        digest = hashlib.sha256()
        for (name, _), size in zip(self.entries, self._sizes, strict=True):
            digest.update(f"{name}\t{size}\n".encode())
        return digest.hexdigest()

    def read_bytes(self, index: int) -> bytes:
        """The encoded file. Raises InputError when it is larger than 64 MiB or cut short."""
        size = self._sizes[index]
        if size > MAX_IMAGE_BYTES:
            raise InputError(f"{self.path}: {self.entries[index][0]} has {size} bytes, over 64 MiB")
        where = self._where[index]
        if isinstance(where, Path):
            return where.read_bytes()
        data = os.pread(self._descriptor(), size, where)
        if len(data) != size:
            raise InputError(f"{self.path}: the tar ends inside {self.entries[index][0]}")
        return data

    def load_rgb(self, index: int) -> Any:
        """Decode to a PIL RGB image; EXIF orientation is not applied.

        Raises InputError naming the file when it is not a readable JPEG or PNG.
        """
        return decode_rgb(self.read_bytes(index), f"{self.path}: {self.entries[index][0]}")

    def pixels(self, indices: Sequence[int], preprocessing: Preprocessing) -> np.ndarray:
        """uint8 (len(indices), image_size, image_size, 3)."""
        crops = []
        for i in indices:
            try:
                crops.append(preprocessing.crop(self.load_rgb(i)))
            except InputError as error:
                name = self.entries[i][0]
                raise InputError(
                    str(error) if name in str(error) else f"{name}: {error}"
                ) from error
        return np.stack(crops)

    def batches(
        self, preprocessing: Preprocessing, batch_size: int, indices: Sequence[int] | None = None
    ) -> Iterator[tuple[torch.Tensor, np.ndarray]]:
        """Yield (float32 (B, 3, H, W), int64 labels (B,)) in order."""
        order = range(len(self)) if indices is None else indices
        labels = self.labels
        for start in range(0, len(order), batch_size):
            chunk = list(order[start : start + batch_size])
            yield preprocessing.normalise(self.pixels(chunk, preprocessing)), labels[chunk]

    def _descriptor(self) -> int:
        # Reopened in a forked or spawned data worker: a shared offset would not matter to pread,
        # but a descriptor that the parent closes would.
        if self._tar is None or self._tar[0] != os.getpid():
            self._tar = (os.getpid(), os.open(self.path, os.O_RDONLY))
        return self._tar[1]


def check_labels(labels: Sequence[str]) -> None:
    """Raises InputError for class names that an artifact could not hold: here, before a training.

    They are distinct UTF-8, one line each, without spaces around them. Zero bytes end a text in C.
    A label has MAX_LABEL_BYTES at most, a net MAX_CLASSES.
    """
    if len(set(labels)) != len(labels):
        raise InputError(
            f"{len(labels)} labels ({len(set(labels))} distinct): each class needs its own name"
        )
    if len(labels) > MAX_CLASSES:
        raise InputError(f"{len(labels)} classes are too many, at most {MAX_CLASSES} are allowed")
    for label in labels:
        if not label or label != label.strip() or "\n" in label:
            raise InputError(
                f"the label {label[:40]!r} is empty, or has spaces around it or a line break in it"
            )
        if label != label.encode("utf-8", "replace").decode():
            raise InputError(f"the label {label!r} is no UTF-8 text; rename its folder")
        if "\0" in label:
            raise InputError(f"the label {label[:40]!r} holds a zero byte, which ends a text in C")
        if len(label.encode()) > MAX_LABEL_BYTES:
            raise InputError(f"the label {label[:40]!r}... has over {MAX_LABEL_BYTES} bytes")


def decode_rgb(data: bytes, what: str) -> Any:
    """A JPEG or PNG file as a PIL RGB image; EXIF orientation is not applied.

    Raises InputError, beginning with `what`, when it is not a readable one.
    """
    from PIL import Image

    try:
        image = Image.open(io.BytesIO(data), formats=("JPEG", "PNG"))
        if image.width * image.height > MAX_IMAGE_PIXELS:
            raise InputError(f"{what} has {image.width}x{image.height} pixels, over 64 million")
        if image.mode not in RGB_MODES:
            raise InputError(
                f"{what} has pixels of mode {image.mode}; save it with 8 bits a channel"
            )
        return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{what} cannot be decoded: {error}") from error


def _walk_folder(path: Path) -> Iterator[tuple[str, Path, int]]:
    for folder, subfolders, files in os.walk(path):
        subfolders.sort()
        for name in files:
            if Path(name).suffix.lower() in IMAGE_SUFFIXES:
                full = Path(folder) / name
                yield full.relative_to(path).as_posix(), full, full.stat().st_size


def _walk_tar(path: Path) -> Iterator[tuple[str, int, int]]:
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                if member.isfile() and Path(member.name).suffix.lower() in IMAGE_SUFFIXES:
                    yield PurePosixPath(member.name).as_posix(), member.offset_data, member.size
            # tarfile takes a damaged header for the end: a shorter set would pass in silence.
            archive.fileobj.seek(archive.offset)
            if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise InputError(
                    f"{path}: damaged or cut short at byte {archive.offset}: neither a tar header "
                    "nor the end of the archive is there"
                )
    except (tarfile.TarError, OSError, EOFError) as error:
        raise InputError(f"{path}: not a readable, uncompressed tar: {error}") from error


def _strip_top(members: list[tuple[str, Any, int]]) -> list[tuple[str, Any, int]]:
    parts = [PurePosixPath(name).parts for name, _, _ in members]
    if len({p[0] for p in parts}) == 1 and min(len(p) for p in parts) > 2:
        members = [("/".join(p[1:]), where, size) for p, (_, where, size) in zip(parts, members)]
        parts = [p[1:] for p in parts]
    for p in parts:
        if len(p) < 2:
            raise InputError(f"the image {'/'.join(p)} is in no class folder; expected CLASS/IMAGE")
    return members
