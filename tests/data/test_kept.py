"""What is kept of a large set: used while nothing changed, and never instead of what is there."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from edgevit.data import kept, listing, soundness
from edgevit.data.image_set import ImageSet
from edgevit.data.soundness import damaged_images
from tests.data.test_shards import png, write_tar

OLD_NS = time.time_ns() - 3600 * 10**9


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(kept, "MIN_IMAGES", 10)
    return tmp_path / "cache" / "edgevit" / "sets"


@pytest.fixture
def indexed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The tars whose headers were read."""
    seen: list[Path] = []
    read = listing.read_tar
    monkeypatch.setattr(listing, "read_tar", lambda path: seen.append(path) or read(path))
    return seen


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The images whose files were looked at."""
    seen: list[int] = []
    damage = soundness._damage
    monkeypatch.setattr(
        soundness, "_damage", lambda images, i, full: seen.append(i) or damage(images, i, full)
    )
    return seen


def old(path: Path, age_ns: int = 0) -> Path:
    """The file as if it had last changed an hour ago."""
    os.utime(path, ns=(OLD_NS - age_ns, OLD_NS - age_ns))
    return path


def images(count: int = 12) -> dict[str, bytes]:
    return {f"c{i % 2}/{i:02}.png": png(i) for i in range(count)} | {"c0/draw.gif": b"GIF89a"}


def write_folder(root: Path) -> Path:
    for name, data in images().items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
        old(root / name)
    return root


def same(one: ImageSet, other: ImageSet) -> bool:
    return (
        one.entries == other.entries
        and one.sha256 == other.sha256
        and one.notices == other.notices
        and all(one.read_bytes(i) == other.read_bytes(i) for i in range(len(one)))
    )


def test_a_tar_is_indexed_once(tmp_path: Path, indexed: list[Path], cache: Path) -> None:
    tar = old(write_tar(tmp_path / "set.tar", images()))
    first = ImageSet.open(tar)
    again = ImageSet.open(tar)
    assert indexed == [tar] and same(first, again) and len(list(cache.iterdir())) == 1
    assert "1 .gif" in again.notices[0]


@pytest.mark.parametrize("change", ["grown", "rewritten", "replaced"])
def test_a_changed_tar_is_indexed_again(change: str, tmp_path: Path, indexed: list[Path]) -> None:
    tar = old(write_tar(tmp_path / "set.tar", images()))
    ImageSet.open(tar)
    before = tar.stat()
    if change == "grown":
        old(write_tar(tar, images(14)), 1)
    elif change == "rewritten":  # of the same size
        old(write_tar(tar, dict(reversed(images().items()))), 1)
        assert tar.stat().st_size == before.st_size
    else:  # of the same size and time
        other = old(write_tar(tmp_path / "other.tar", dict(reversed(images().items()))))
        other.replace(tar)
        assert (tar.stat().st_size, tar.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    found = ImageSet.open(tar)
    assert indexed == [tar, tar]
    names = images(14) if change == "grown" else images()
    assert [found.read_bytes(i) for i in range(len(found))] == [
        data for name, data in sorted(names.items()) if name.endswith("png")
    ]


def test_one_changed_shard_is_seen(tmp_path: Path, indexed: list[Path]) -> None:
    tars = [old(write_tar(tmp_path / f"t-{k}.tar", {f"c{k}/{i}.png": png(i) for i in range(9)}))
            for k in range(2)]  # fmt: skip
    first = ImageSet.open(tmp_path / "t-*.tar")
    assert same(first, ImageSet.open(tmp_path / "t-*.tar")) and indexed == tars
    old(write_tar(tars[1], {f"c1/{i}.png": png(i + 1) for i in range(9)}), 7)
    found = ImageSet.open(tmp_path / "t-*.tar")
    assert indexed == tars + tars and found.read_bytes(9) == png(1)


def test_what_changed_just_now_is_not_kept(tmp_path: Path, indexed: list[Path]) -> None:
    tar = write_tar(tmp_path / "set.tar", images())
    ImageSet.open(tar)
    ImageSet.open(tar)
    assert indexed == [tar, tar]


def test_small_sets_leave_nothing(tmp_path: Path, cache: Path) -> None:
    tar = old(write_tar(tmp_path / "set.tar", images(9)))
    damaged_images(ImageSet.open(tar))
    assert not cache.exists()


@pytest.mark.parametrize("damage", ["cut", "text", "outside", "foreign"])
def test_a_damaged_file_is_passed_over(
    damage: str, tmp_path: Path, indexed: list[Path], cache: Path
) -> None:
    tar = old(write_tar(tmp_path / "set.tar", images()))
    first = ImageSet.open(tar)
    path = next(cache.iterdir())
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-200])
    elif damage == "text":
        path.write_text("no index")
    else:
        with np.load(path) as found:
            columns = dict(found)
        if damage == "outside":
            columns["places"] = columns["places"] + 2**40
        else:
            columns["about"] = columns["about"][:-9]
        with path.open("wb") as file:
            np.savez(file, **columns)
    assert same(first, ImageSet.open(tar)) and indexed == [tar, tar]


def test_no_place_to_keep_it_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    tar = old(write_tar(tmp_path / "set.tar", images()))
    assert same(ImageSet.open(tar), ImageSet.open(tar))


@pytest.mark.parametrize("full", [False, True])
def test_whole_images_are_looked_at_once(full: bool, tmp_path: Path, looked: list[int]) -> None:
    root = write_folder(tmp_path / "set")
    assert damaged_images(ImageSet.open(root), full=full) == []
    assert sorted(looked) == list(range(12))
    looked.clear()
    assert damaged_images(ImageSet.open(root), full=full) == [] and not looked
    # A changed one is seen, and a damaged one stays damaged.
    bad = root / "c0" / "04.png"
    bad.write_bytes(png(4)[:-20])
    for _ in range(2):
        assert [name for name, _ in damaged_images(ImageSet.open(root), full=full)] == ["c0/04.png"]
        assert looked == [2]
        looked.clear()
    # To have seen the structure is not to have decoded.
    damaged_images(ImageSet.open(root), full=not full)
    assert sorted(looked) == list(range(12))


def test_a_changed_tar_is_looked_at_again(tmp_path: Path, looked: list[int]) -> None:
    tar = old(write_tar(tmp_path / "set.tar", images()))
    damaged_images(ImageSet.open(tar))
    looked.clear()
    assert damaged_images(ImageSet.open(tar)) == [] and not looked
    data = bytearray(tar.read_bytes())
    at = ImageSet.open(tar).place_of(3)
    assert at.offset is not None
    data[at.offset + at.size - 20 : at.offset + at.size] = bytes(20)
    tar.write_bytes(data)
    old(tar, 1)
    assert [name for name, _ in damaged_images(ImageSet.open(tar))] == ["c0/06.png"]
