"""Image sets and preprocessing."""

from __future__ import annotations

import io
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgevit.data.images import ImageSet, Preprocessing
from edgevit.errors import InputError


def encoded(size: tuple[int, int] = (8, 8), kind: str = "PNG", mode: str = "RGB") -> bytes:
    pixels = np.arange(size[0] * size[1] * 3, dtype=np.uint8).reshape(size[1], size[0], 3)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, kind)
    return buffer.getvalue()


def write_folder(root: Path, names: list[str]) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded())
    return root


def write_tar(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def test_a_folder_and_a_tar_of_it_are_the_same_set(tmp_path: Path) -> None:
    names = ["b/2.png", "a/z.png", "a/A.png", "b/deep/1.png"]
    folder = ImageSet.open(write_folder(tmp_path / "set", names))
    tar = ImageSet.open(write_tar(tmp_path / "set.tar", {f"top/{n}": encoded() for n in names}))
    assert [name for name, _ in folder.entries] == ["a/A.png", "a/z.png", "b/2.png", "b/deep/1.png"]
    assert folder.entries == tar.entries and folder.classes == ["a", "b"]
    assert folder.sha256 == tar.sha256
    crop = Preprocessing(8)
    assert (folder.pixels(range(4), crop) == tar.pixels(range(4), crop)).all()


def test_labels_decide_the_class_indices(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, ["a/1.png", "b/2.png"])
    images = ImageSet.open(folder, ["b", "c", "a"])
    assert images.labels.tolist() == [2, 0]
    with pytest.raises(InputError, match="'b' is not one of"):
        ImageSet.open(folder, ["a"])


def test_unusable_sets_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such image folder"):
        ImageSet.open(tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no JPEG or PNG image found"):
        ImageSet.open(tmp_path / "empty")
    with pytest.raises(InputError, match="no class folder"):
        ImageSet.open(write_folder(tmp_path / "flat", ["1.png", "a/2.png"]))
    (tmp_path / "text.tar").write_text("this is no archive " * 100)
    with pytest.raises(InputError, match="not a readable, uncompressed tar"):
        ImageSet.open(tmp_path / "text.tar")


def test_a_truncated_tar_names_the_image(tmp_path: Path, embedded_val: Path) -> None:
    whole = ImageSet.open(embedded_val)
    cut = tmp_path / "cut.tar"
    shutil.copy(embedded_val, cut)
    with open(cut, "r+b") as file:
        file.truncate(whole.place_of(10).offset + 100)
    with pytest.raises(InputError, match=r"tar|cut"):
        images = ImageSet.open(cut)
        images.pixels(range(len(images)), Preprocessing(64))


def test_a_damaged_header_does_not_shorten_the_set(tmp_path: Path, embedded_val: Path) -> None:
    damaged = tmp_path / "damaged.tar"
    shutil.copy(embedded_val, damaged)
    with open(damaged, "r+b") as file:
        file.seek(
            ImageSet.open(embedded_val).place_of(500).offset - 512 + 148
        )  # its header's checksum
        file.write(b"9999999")
    with pytest.raises(InputError, match="damaged or cut short at byte"):
        ImageSet.open(damaged)


def test_16_bit_pixels_are_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8), 40000, np.uint16)).save(buffer, "PNG")
    images = ImageSet.open(write_tar(tmp_path / "s.tar", {"a/1.png": buffer.getvalue()}))
    with pytest.raises(InputError, match="a/1.png has pixels of mode I;16"):
        images.load_rgb(0)


def test_a_broken_image_is_named(tmp_path: Path) -> None:
    good = encoded()
    path = write_tar(tmp_path / "s.tar", {"a/good.png": good, "a/bad.png": good[: len(good) // 2]})
    images = ImageSet.open(path)
    with pytest.raises(InputError, match=r"a/bad.png cannot be decoded"):
        images.load_rgb(0)
    assert images.load_rgb(1).size == (8, 8)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA"])
def test_other_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    images = ImageSet.open(write_tar(tmp_path / "s.tar", {"a/1.png": encoded(mode=mode)}))
    assert images.pixels([0], Preprocessing(8)).shape == (1, 8, 8, 3)


def test_the_shorter_side_is_resized_and_the_centre_cropped() -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 101, 3), np.uint8))
    crop = Preprocessing(32, resize_size=40).crop(picture)
    expected = picture.resize((80, 40), Image.Resampling.BICUBIC).crop((24, 4, 56, 36))
    assert (crop == np.asarray(expected)).all()
    with pytest.raises(InputError, match="set resize_size"):
        Preprocessing(64).crop(picture)


def test_normalising_is_float32_arithmetic_on_each_pixel() -> None:
    preprocessing = Preprocessing(16)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)
    wanted = (pixels.astype(np.float32) / 255 - np.float32(preprocessing.mean)) / np.float32(
        preprocessing.std
    )
    found = preprocessing.normalise(pixels)
    assert found.shape == (2, 3, 16, 16)
    assert (found.numpy() == wanted.transpose(0, 3, 1, 2)).all()


@pytest.mark.parametrize(
    ("field", "value"),
    [("image_size", 0), ("resize_size", 10), ("interpolation", "cubic"), ("std", (0, 1, 1)),
     ("mean", (0, 1)), ("mean", (0, 1, float("nan")))],
)  # fmt: skip
def test_bad_preprocessing_is_refused(field: str, value: object) -> None:
    with pytest.raises(InputError, match=field):
        Preprocessing(**{"image_size": 64, field: value})


def test_preprocessing_survives_json() -> None:
    preprocessing = Preprocessing(64, 72, "bilinear", (0.5, 0.5, 0.5), (0.1, 0.2, 0.3))
    assert Preprocessing.from_json(preprocessing.to_json()) == preprocessing
    with pytest.raises(InputError, match="keys"):
        Preprocessing.from_json({**preprocessing.to_json(), "extra": 1})


def test_the_embedded_sample_is_what_its_manifest_says(embedded_val: Path) -> None:
    import hashlib
    import json

    folder = embedded_val.parent
    manifest = json.loads((folder / "manifest.json").read_text())
    for part in ("train", "val"):
        images = ImageSet.open(folder / manifest[part]["file"])
        found = {
            name: hashlib.sha256(images.read_bytes(i)).hexdigest()
            for i, (name, _) in enumerate(images.entries)
        }
        assert found == manifest[part]["images"]
    assert not set(manifest["train"]["images"]) & set(manifest["val"]["images"])
    checkpoint = folder / manifest["checkpoint"]["file"]
    assert hashlib.sha256(checkpoint.read_bytes()).hexdigest() == manifest["checkpoint"]["sha256"]
