"""Scenes by seed: things pasted on a background, their boxes and a mask; nothing is downloaded.

The things are shapes that are drawn here, or images of a class-folder set (`Tiles`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

import edgevit

SMALLEST, LARGEST = 0.2, 0.625
"""Side of a thing, of the scene's."""
MOST = 4
"""Things in a scene; one at least."""


class Things(Protocol):
    """What is pasted.

    names   of the kinds
    """

    names: tuple[str, ...]

    def draw(
        self, generator: np.random.Generator, kind: int, height: int, width: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Pixels uint8 (height, width, 3), and where the thing is, bool (height, width)."""
        ...


@dataclass(frozen=True)
class Scenes:
    """N scenes.

    images  uint8 (N, S, S, 3)
    boxes   of each scene float32 (M, 4): left, top, right, bottom in pixels
    kinds   of each scene int64 (M,)
    masks   uint8 (N, S, S): 0 is background, 1 + kind a thing
    """

    images: np.ndarray
    boxes: list[np.ndarray]
    kinds: list[np.ndarray]
    masks: np.ndarray


def make_scenes(things: Things, count: int, seed: tuple[int, ...], size: int) -> Scenes:
    """Scenes of `size` pixels a side; the same seed gives the same ones, another one others."""
    made = [_scene(things, np.random.default_rng([*seed, i]), size) for i in range(count)]
    images, boxes, kinds, masks = zip(*made, strict=True)
    return Scenes(np.stack(images), list(boxes), list(kinds), np.stack(masks))


def _scene(things: Things, generator: np.random.Generator, size: int) -> tuple[np.ndarray, ...]:
    image = _background(generator, size)
    mask = np.zeros((size, size), np.uint8)
    boxes, kinds = [], []
    for _ in range(generator.integers(1, MOST + 1)):
        box = _free_place(generator, mask, size)
        if box is None:
            continue
        left, top, right, bottom = box
        kind = int(generator.integers(len(things.names)))
        pixels, inside = things.draw(generator, kind, bottom - top, right - left)
        image[top:bottom, left:right][inside] = pixels[inside]
        mask[top:bottom, left:right][inside] = 1 + kind
        boxes.append(box)
        kinds.append(kind)
    return image, np.array(boxes, np.float32), np.array(kinds, np.int64), mask


def _free_place(
    generator: np.random.Generator, mask: np.ndarray, size: int
) -> tuple[int, int, int, int] | None:
    """A box that nothing lies in; None where a few trials find none (never in an empty scene)."""
    for _ in range(20):
        side = size * np.exp(generator.uniform(np.log(SMALLEST), np.log(LARGEST)))
        stretch = np.exp(generator.uniform(-0.2, 0.2))
        width, height = int(side * stretch), int(side / stretch)
        left = int(generator.integers(size - width + 1))
        top = int(generator.integers(size - height + 1))
        if not mask[top : top + height, left : left + width].any():
            return left, top, left + width, top + height
    return None


def _background(generator: np.random.Generator, size: int) -> np.ndarray:
    """Colours that change slowly, and noise: uint8 (size, size, 3)."""
    coarse = generator.integers(40, 216, (4, 4, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC))
    return _noisy(generator, smooth.astype(np.float32))


def _noisy(generator: np.random.Generator, pixels: np.ndarray) -> np.ndarray:
    noise = generator.normal(0, 8, pixels.shape).astype(np.float32)
    return np.clip(pixels + noise, 0, 255).astype(np.uint8)


class Shapes:
    """Discs, diamonds, triangles, rings and crosses, each of one colour."""

    names = ("disc", "diamond", "triangle", "ring", "cross")

    def draw(
        self, generator: np.random.Generator, kind: int, height: int, width: int
    ) -> tuple[np.ndarray, np.ndarray]:
        y = (np.arange(height)[:, None] + 0.5) / height * 2 - 1
        x = (np.arange(width)[None, :] + 0.5) / width * 2 - 1
        radius = np.hypot(x, y)
        inside = {
            "disc": radius <= 1,
            "diamond": abs(x) + abs(y) <= 1,
            "triangle": abs(x) <= (1 + y) / 2,
            "ring": (radius <= 1) & (radius >= 0.55),
            "cross": (abs(x) <= 0.33) | (abs(y) <= 0.33),
        }[self.names[kind]]
        # Dark or light: seen on any background.
        colour = generator.integers(0, 60, 3) + generator.choice([0, 195])
        return _noisy(generator, np.full((height, width, 3), colour, np.float32)), inside


class Tiles:
    """Images of a class-folder set, such as EuroSAT's; whole images, scaled.

    part    "train" or "val": every fifth image is for validation, or "all"
    Raises edgevit.InputError for what is no set of images.
    """

    def __init__(self, path: Path, part: str = "all") -> None:
        source = edgevit.ImageFolder(path, size=64)
        fifth = np.arange(len(source)) % 5 == 0
        chosen = {"all": np.full_like(fifth, True), "val": fifth, "train": ~fifth}[part]
        indices = np.flatnonzero(chosen)
        self.names = tuple(source.classes)
        self._pixels = source.pixels(indices.tolist())
        labels = source.labels[indices]
        self._of_kind = [np.flatnonzero(labels == kind) for kind in range(len(self.names))]

    def draw(
        self, generator: np.random.Generator, kind: int, height: int, width: int
    ) -> tuple[np.ndarray, np.ndarray]:
        tile = Image.fromarray(self._pixels[generator.choice(self._of_kind[kind])])
        scaled = tile.resize((width, height), Image.Resampling.BICUBIC)
        return np.asarray(scaled), np.full((height, width), True)


def training_and_validation(data: Path | None, eval_data: Path | None) -> tuple[Things, Things]:
    """What scenes are made of: shapes without a set, else images that the other has none of."""
    if data is None:
        return Shapes(), Shapes()
    if eval_data is not None:
        return Tiles(data), Tiles(eval_data)
    return Tiles(data, "train"), Tiles(data, "val")
