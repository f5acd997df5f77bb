"""Scenes: by seed, boxes and masks of the same things, training and validation apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from examples.scenes import LARGEST, SMALLEST, Scenes, Shapes, Tiles, make_scenes


def same(first: Scenes, second: Scenes) -> bool:
    boxes = zip(first.boxes, second.boxes, strict=True)
    return np.array_equal(first.images, second.images) and all(map(np.array_equal, *zip(*boxes)))


def test_a_seed_gives_the_same_scenes_and_another_seed_others() -> None:
    first = make_scenes(Shapes(), 6, (0, 1), 64)
    assert same(first, make_scenes(Shapes(), 6, (0, 1), 64))
    others = make_scenes(Shapes(), 6, (0, 2), 64)
    pairs = [np.array_equal(a, b) for a in first.images for b in others.images]
    assert not any(pairs)
    assert first.images.shape == (6, 64, 64, 3) and first.images.dtype == np.uint8


@pytest.mark.parametrize("kind", range(5))
def test_a_box_is_the_hull_of_its_thing(kind: int) -> None:
    """Within a pixel: no shape is cut off, none leaves its box empty at a side."""

    class One(Shapes):
        names = (Shapes.names[kind],)

        def draw(self, generator, _, height, width):  # type: ignore[no-untyped-def]
            shapes = Shapes()
            return shapes.draw(generator, kind, height, width)

    scenes = make_scenes(One(), 20, (0, kind), 128)
    for box_list, mask in zip(scenes.boxes, scenes.masks, strict=True):
        for left, top, right, bottom in box_list.astype(int):
            inside = mask[top:bottom, left:right] > 0
            rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
            gaps = rows[0], columns[0], bottom - top - 1 - rows[-1], right - left - 1 - columns[-1]
            assert max(gaps) <= 1
            sides = np.array([right - left, bottom - top])
            assert (sides >= SMALLEST * 128 / 1.25 - 1).all() and (sides <= LARGEST * 160).all()


def test_images_are_pasted_whole_and_their_kinds_are_the_sets(embedded_val: Path) -> None:
    tiles = Tiles(embedded_val)
    assert len(tiles.names) == 10 and tiles.names[0] == "AnnualCrop"
    scenes = make_scenes(tiles, 5, (0, 0), 128)
    for boxes, kinds, mask in zip(scenes.boxes, scenes.kinds, scenes.masks, strict=True):
        area = 0
        for (left, top, right, bottom), kind in zip(boxes.astype(int), kinds, strict=True):
            assert (mask[top:bottom, left:right] == 1 + kind).all()
            area += (right - left) * (bottom - top)
        assert area == (mask > 0).sum()


def test_training_and_validation_share_no_image(embedded_val: Path) -> None:
    parts = [Tiles(embedded_val, part)._pixels for part in ("train", "val", "all")]
    train, val, every = ({tile.tobytes() for tile in part} for part in parts)
    assert train and val and not train & val and train | val == every
    assert len(parts[0]) + len(parts[1]) == len(parts[2]) == 1000
