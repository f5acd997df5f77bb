"""Several tars as one set."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgevit.data.export import image_files
from edgevit.data.image_set import DamagedImages, ImageSet
from edgevit.data.preprocessing import Preprocessing
from edgevit.data.soundness import damaged_images, sound
from edgevit.data.source import ImageFolder
from edgevit.errors import InputError


def png(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (shade, 0, 255 - shade)).save(buffer, "PNG")
    return buffer.getvalue()


def write_tar(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Three tars of two classes in a folder, whose images come in no order."""
    folder = tmp_path / "shards"
    folder.mkdir()
    for shard in range(3):
        files = {f"c{i % 2}/{(7 * i + shard) % 20:02}-{shard}.png": png(i) for i in range(10)}
        write_tar(folder / f"train-{shard:03}.tar", files)
    return folder


@pytest.fixture
def whole(shards: Path, tmp_path: Path) -> ImageSet:
    files = {}
    for path in sorted(shards.glob("*.tar")):
        with tarfile.open(path) as archive:
            files |= {m.name: archive.extractfile(m).read() for m in archive}  # type: ignore[union-attr]
    return ImageSet.open(write_tar(tmp_path / "whole.tar", files))


@pytest.mark.parametrize("form", ["pattern", "folder", "list"])
def test_they_are_the_set_of_one_tar(form: str, shards: Path, whole: ImageSet) -> None:
    paths = sorted(shards.glob("*.tar"))
    found = ImageSet.open(
        {"pattern": shards / "train-*.tar", "folder": shards, "list": paths[::-1]}[form]  # type: ignore[index]
    )
    assert found.entries == whole.entries and found.sha256 == whole.sha256 and len(found) == 30
    assert found.classes == whole.classes and not found.notices
    rules, order = Preprocessing(8), [29, 3, 17, 4]
    assert (found.pixels(order, rules) == whole.pixels(order, rules)).all()
    assert sorted(set(map(str, found.tars))) == sorted(map(str, paths))


def test_a_source_of_them_is_one_set(shards: Path, whole: ImageSet, tmp_path: Path) -> None:
    source = ImageFolder(shards / "train-*.tar", 8)
    assert source.title == "train-*.tar" and source.sha256 == whole.sha256
    # Programs that read one tar are given one.
    written = image_files(source, tmp_path)
    assert ImageSet.open(written).entries == whole.entries
    assert ImageSet.open(written).sha256 == whole.sha256
    alone = ImageFolder(shards / "train-000*.tar", 8)
    assert image_files(alone, tmp_path) == shards / "train-000.tar"


def test_a_shard_that_is_listed_twice_is_named(shards: Path) -> None:
    first = shards / "train-000.tar"
    with pytest.raises(InputError, match=r"train-000.tar is listed twice"):
        ImageSet.open([first, shards / "train-001.tar", first])
    os.link(first, shards / "train-009.tar")
    with pytest.raises(InputError, match=r"train-009.tar is listed twice \(it is .*train-000.tar"):
        ImageSet.open(shards / "train-*.tar")
    (shards / "train-009.tar").unlink()
    (shards / "train-009.tar").write_bytes(first.read_bytes())
    with pytest.raises(
        InputError, match=r"the image c0/00-0.png is in .*000.tar and again in .*009.tar"
    ):
        ImageSet.open(shards)


def test_an_empty_shard_is_said(shards: Path) -> None:
    write_tar(shards / "train-005.tar", {})
    write_tar(shards / "train-006.tar", {"c0/read.txt": b"me"})
    found = ImageSet.open(shards / "train-*.tar")
    assert len(found) == 30
    assert "2 files of" in found.notices[0] and "2 tar without an image" in found.notices[0]
    assert "(first: train-005.tar)" in found.notices[0]


def test_a_shard_that_is_no_tar_is_named(shards: Path) -> None:
    (shards / "train-004.tar").touch()
    with pytest.raises(InputError, match=r"train-004.tar: not a readable, uncompressed tar"):
        ImageSet.open(shards / "train-*.tar")
    with pytest.raises(InputError, match=r"missing.tar: no such image folder or tar"):
        ImageSet.open([shards / "train-000.tar", shards / "missing.tar"])
    with pytest.raises(InputError, match=r"val-\*.tar: no such image folder or tar"):
        ImageSet.open(shards / "val-*.tar")
    with pytest.raises(InputError, match="an empty list"):
        ImageSet.open([])


def test_a_damaged_image_of_a_shard_is_left_out(shards: Path) -> None:
    path = write_tar(shards / "train-007.tar", {"c1/bad.png": png(9)[:-20], "c1/good.png": png(8)})
    found = ImageSet.open(shards / "train-*.tar")
    assert [name for name, _ in damaged_images(found)] == ["c1/bad.png"]
    with pytest.raises(DamagedImages, match=r"1 of 32 images of .*train-\*.tar"):
        sound(found, False)
    kept = sound(found, True)
    assert len(kept) == 31 and kept.file is None and path in kept.tars


def test_more_shards_than_may_be_open(
    shards: Path, whole: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgevit.data.reading._most_open", lambda: 1)
    found, rules, order = ImageSet.open(shards), Preprocessing(8), list(range(30))
    before = len(os.listdir("/proc/self/fd"))
    assert (found.pixels(order, rules) == whole.pixels(order, rules)).all()
    assert len(os.listdir("/proc/self/fd")) <= before + 2  # of it and of `whole`


def test_class_folders_come_before_tars(shards: Path) -> None:
    (shards / "c0").mkdir()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(shards / "c0" / "1.png")
    assert [name for name, _ in ImageSet.open(shards).entries] == ["c0/1.png"]
