"""Damaged images: found at the start, met in the middle, left out, and never the end of a run."""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import edgevit
from edgevit.data.image_set import DamagedImages, ImageSet
from edgevit.errors import InputError
from edgevit.quantize.parts import _next_ones
from tests.quantize.test_pipeline import CLASSES, SIZE, Tiny, tiny

ASKED: dict[str, Any] = {
    "epochs": 1, "batch_size": 8, "max_drop": 100, "calibration_images": 8,
    "allow_poor_float": True,
}  # fmt: skip


def jpeg(seed: int, label: int) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 90, (SIZE, SIZE, 3), np.uint8)
    noise[..., label] += 120
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def write_set(root: Path, count: int, seed: int) -> Path:
    for i in range(count):
        path = root / f"c{i % CLASSES}" / f"{i:03}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(1000 * seed + i, i % CLASSES))
    return root


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def spoil(path: Path) -> None:
    """Both ends are as they were, and no decoder reads it: the tables are gone."""
    data = bytearray(path.read_bytes())
    at = data.index(b"\xff\xc4")  # the Huffman tables
    data[at + 2 : at + 4] = b"\x00\x04"
    path.write_bytes(bytes(data))


@pytest.fixture
def sets(tmp_path: Path) -> tuple[Path, Path]:
    return write_set(tmp_path / "train", 60, 1), write_set(tmp_path / "val", 12, 2)


@pytest.fixture(scope="module")
def model() -> Tiny:
    return tiny()


def opened(sets: tuple[Path, Path]) -> tuple[edgevit.ImageFolder, edgevit.ImageFolder]:
    train = edgevit.ImageFolder(sets[0], size=SIZE)
    return train, edgevit.ImageFolder(sets[1], like=train)


def test_all_damaged_images_are_named_before_anything_starts(model, sets, tmp_path) -> None:
    for i in range(0, 60, 4):
        cut(sets[0] / f"c{i % CLASSES}" / f"{i:03}.jpg")
    listed = tmp_path / "list.txt"
    with pytest.raises(
        DamagedImages, match=r"15 of 60 images.*--skip-broken.*(\n.*){10}\n  and 5 more"
    ):
        edgevit.quantize(
            model, *opened(sets), run_dir=tmp_path / "run", broken_list=listed, **ASKED
        )
    assert not (tmp_path / "run").exists()
    lines = listed.read_text().splitlines()
    assert len(lines) == 16
    assert lines[1] == "c0/000.jpg\tdamaged JPEG: the file ends inside the image"


def test_skipping_is_as_if_they_were_not_there(model, sets, tmp_path, caplog) -> None:
    bad = [sets[0] / "c1/001.jpg", sets[0] / "c2/005.jpg", sets[1] / "c0/003.jpg"]
    cut(bad[0])
    spoil(bad[1])
    cut(bad[2])
    with caplog.at_level(logging.INFO, "edgevit"):
        run = {"run_dir": tmp_path / "run", **ASKED}
        found = edgevit.quantize(model, *opened(sets), skip_broken=True, **run)
    said = "\n".join(caplog.messages)
    assert "left out 2 damaged images" in said and "c1/001.jpg (damaged JPEG" in said
    assert "left out 1 damaged image of" in said
    whole = bad[0].read_bytes()
    for path in bad:
        path.unlink()
    clean = edgevit.quantize(model, *opened(sets), **ASKED)
    assert clean.metrics == found.metrics
    # The run goes on when they were removed, and when one was mended.
    caplog.clear()
    with caplog.at_level(logging.INFO, "edgevit"):
        again = edgevit.quantize(model, *opened(sets), **run)
        bad[0].write_bytes(whole + b"\xff\xd9")
        mended = edgevit.quantize(model, *opened(sets), **run)
    assert "calibrating" not in "\n".join(caplog.messages)
    assert again.program.to_bytes() == mended.program.to_bytes() == found.program.to_bytes()


@pytest.mark.parametrize("then", ["removed", "mended", "skipped"])
def test_a_run_that_meets_one_goes_on(then, model, sets, tmp_path, caplog, monkeypatch) -> None:
    train, val = opened(sets)
    bad = sets[0] / "c1/019.jpg"
    whole = bad.read_bytes()
    spoil(bad)
    # Not among those that the proof of the net decodes, before the run has a folder.
    run = {"run_dir": tmp_path / "run", **ASKED}
    monkeypatch.setattr("edgevit.quantize.pipeline.PROOF_IMAGES", 1)
    with pytest.raises(DamagedImages, match=r"such as c1/019.jpg: .*goes on"):
        edgevit.quantize(model, train, val, **run)
    with pytest.raises(DamagedImages, match=r"1 of 60 images"):
        edgevit.quantize(model, *opened(sets), **run)
    if then == "removed":
        bad.unlink()
    elif then == "mended":
        bad.write_bytes(whole)
    caplog.clear()
    with caplog.at_level(logging.INFO, "edgevit"):
        found = edgevit.quantize(model, *opened(sets), skip_broken=then == "skipped", **run)
        again = edgevit.quantize(model, *opened(sets), skip_broken=then == "skipped", **run)
    assert found.program.to_bytes() == again.program.to_bytes()
    assert "reporting on 12" in "\n".join(caplog.messages)
    bad.write_bytes(b"")
    (sets[0] / "c1/022.jpg").unlink()  # no damaged one: other data
    with pytest.raises(InputError, match="--fresh"):
        edgevit.quantize(model, *opened(sets), skip_broken=True, **run)


def test_holes_keep_every_place() -> None:
    assert _next_ones([1, 3, 5, 8], frozenset({3, 8})) == [1, 5, 5, 1]
    assert _next_ones([1, 3], frozenset()) == [1, 3]
    assert _next_ones([1], frozenset({1})) == []


def test_a_hole_comes_back_to_its_place(sets) -> None:
    before = ImageSet.open(sets[0])
    gone = sets[0] / "c1/019.jpg"
    size = gone.stat().st_size
    gone.unlink()
    after = ImageSet.open(sets[0]).with_holes([("c1/019.jpg", size)])
    assert after.entries == before.entries
    assert after.sha256_with_holes == before.sha256
    assert after.sha256 == ImageSet.open(sets[0]).sha256
    (hole,) = after.holes
    assert after.entries[hole][0] == "c1/019.jpg" and not after.is_on_disk(hole)


def test_report_images_that_are_trained_on_are_found(model, sets, tmp_path, caplog) -> None:
    train, val = sets
    (val / "c0/copy.jpg").write_bytes((train / "c2/002.jpg").read_bytes())
    with caplog.at_level(logging.INFO, "edgevit"):
        edgevit.quantize(model, *opened(sets), **ASKED | {"epochs": 0})
    assert "1 of 13 report images are also training images (first: c0/copy.jpg" in caplog.text
    (train / "c0/000.jpg").unlink()
    (train / "c0/003.jpg").write_bytes(jpeg(5, 0))
    whole = write_set(tmp_path / "same", 60, 1)
    with pytest.raises(InputError, match="58 of 60 report images are also training images"):
        edgevit.quantize(model, *opened((train, whole)), **ASKED)


def test_sets_too_small_are_named(model, tmp_path) -> None:
    root = write_set(tmp_path / "set", 3, 1)
    for path in sorted(root.rglob("*.jpg"))[1:]:
        path.unlink()
    one = edgevit.ImageFolder(root, size=SIZE, classes=["c0", "c1", "c2"])
    with pytest.raises(InputError, match=r"set has 1 image, too few"):
        edgevit.quantize(model, one, **ASKED)


def test_a_worker_that_meets_one_says_the_same(model, sets, tmp_path, monkeypatch) -> None:
    train, val = opened(sets)
    spoil(sets[0] / "c1/019.jpg")
    monkeypatch.setattr("edgevit.quantize.pipeline.PROOF_IMAGES", 1)
    said = []
    for workers in (0, 1):
        run = {"run_dir": tmp_path / f"run{workers}", "workers": workers, **ASKED}
        fresh = edgevit.ImageFolder(sets[0], like=train)
        with pytest.raises(DamagedImages, match=r"such as c1/019.jpg: .*goes on") as error:
            edgevit.quantize(model, fresh, val, **run)
        said.append(str(error.value))
    assert said[0] == said[1]
    found = edgevit.quantize(model, train, val, skip_broken=True, **run)
    alone = {**run, "run_dir": tmp_path / "run0", "workers": 0}
    assert (
        edgevit.quantize(model, train, val, skip_broken=True, **alone).program.to_bytes()
        == found.program.to_bytes()
    )
