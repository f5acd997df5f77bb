"""Which files of a folder or a tar are images, and what is said of the others."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from edgevit.data import found, listing
from edgevit.data.class_order import timm_order, torchvision_order
from edgevit.data.image_set import DamagedImages, ImageSet
from edgevit.data.soundness import sound, write_list
from edgevit.data.source import ImageFolder
from edgevit.errors import InputError
from tests.data.test_images import encoded, write_folder, write_tar
from tests.odd_sets import encoded as noise


def names(images: ImageSet) -> list[str]:
    return [name for name, _ in images.entries]


def test_linked_folders_are_followed_and_loops_end(tmp_path: Path) -> None:
    full = write_folder(tmp_path / "full", ["ants/1.png", "ants/deep/2.png"])
    subset = write_folder(tmp_path / "subset", ["bees/1.png"])
    (subset / "ants").symlink_to(full / "ants")
    (full / "ants" / "round").symlink_to(".")
    (full / "ants" / "deep" / "up").symlink_to("../..")
    (subset / "wasps").symlink_to("bees")
    images = ImageSet.open(subset)
    assert names(images)[:2] == ["ants/1.png", "ants/deep/2.png"]
    assert names(images)[-2:] == ["bees/1.png", "wasps/1.png"]
    assert len(names(images)) == 4 + sum("up" in name for name in names(images))
    assert "link to a folder around it" in images.notices[0]


def test_a_bomb_of_links_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_folder(tmp_path / "set", ["a/1.png"])
    for i in range(12):
        (root / f"d{i}").mkdir()
        for name in ("x", "y"):
            (root / f"d{i}" / name).symlink_to(f"../d{i + 1}")
    (root / "d12").mkdir()
    monkeypatch.setattr(found, "MAX_SET_FILES", 5000)
    with pytest.raises(InputError, match="links may lead in circles"):
        ImageSet.open(root)


def test_what_is_left_out_is_counted_and_named(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "set", ["a/1.png", "b/2.JFIF"])
    for name in ("a/1.tif", "a/2.TIFF", "b/3.tif", "b/4.gif"):
        (root / name).write_bytes(b"x")
    (root / "a" / "README.txt").write_text("no picture")
    (root / "b" / "photo").write_bytes(noise(1, "JPEG"))
    (root / "b" / "gone.jpg").symlink_to("nowhere")
    os.mkfifo(root / "b" / "fifo.jpg")
    images = ImageSet.open(root)
    assert names(images) == ["a/1.png", "b/2.JFIF"]
    assert images.notices == [
        f"7 files of {root} were left out: 2 .tif, 1 .gif, 1 .tiff, 1 dangling link, 1 file "
        "without a suffix, 1 special file (first: a/1.tif); convert pictures to JPEG, PNG or WebP, "
        "with that suffix, to have them read"
    ]
    for path in root.rglob("*"):
        if path.suffix in (".png", ".JFIF"):
            path.unlink()
    with pytest.raises(InputError, match=r"no JPEG or PNG image found.*7 files of .* left out"):
        ImageSet.open(root)


def test_hidden_files_are_no_images_and_no_classes(tmp_path: Path) -> None:
    root = write_folder(
        tmp_path / "set",
        ["a/1.png", "b/2.png", "a/._1.png", ".ipynb_checkpoints/1.png", "__MACOSX/a/._1.png",
         "a/.hidden/1.png", "b/.jpg"],
    )  # fmt: skip
    for name in ("Thumbs.db", "desktop.ini", ".DS_Store"):
        (root / "a" / name).write_bytes(noise(1, "JPEG"))
    images = ImageSet.open(root)
    assert names(images) == ["a/1.png", "b/2.png"]
    assert images.classes == ["a", "b"] and images.notices == []


def test_names_reach_no_terminal_as_they_are(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for raw in (b"a/\x1b[31mred.png", b"a/caf\xe9.png", b"a/line\nbreak.png", b"a/\xc2\x9b.png"):
        path = os.fsencode(root) + b"/" + raw
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(encoded())
    images = ImageSet.open(root)
    assert names(images) == [
        "a/\\x1b[31mred.png", "a/\\xc2\\x9b.png", "a/caf\\xe9.png", "a/line\\x0abreak.png"
    ]  # fmt: skip
    assert all(images.load_rgb(i).size == (8, 8) for i in range(4))
    os.mkdir(os.fsencode(root) + b"/cl\xe9")
    with open(os.fsencode(root) + b"/cl\xe9/1.png", "wb") as file:
        file.write(encoded())
    with pytest.raises(InputError, match=r"class folder 'cl\\\\xe9' has bytes"):
        ImageSet.open(root)


def test_a_label_that_only_looks_the_same_is_said(tmp_path: Path) -> None:
    root = write_folder(tmp_path, ["cafe\u0301/1.png", "Dog/1.png"])
    with pytest.raises(InputError, match="composed of other characters"):
        ImageSet.open(root, ["caf\u00e9", "Dog"])
    with pytest.raises(InputError, match="upper and lower case only"):
        ImageSet.open(root, ["cafe\u0301", "dog"])


def test_a_folder_that_cannot_be_listed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_folder(tmp_path / "set", ["a/1.png", "b/2.png"])
    scan = os.scandir

    def guarded(path: bytes):
        if os.path.basename(path) == b"b":
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(listing.os, "scandir", guarded)
    with pytest.raises(InputError, match=r"the folder .*/b cannot be listed: Permission denied"):
        ImageSet.open(root)


def test_splits_are_no_classes(tmp_path: Path) -> None:
    root = write_folder(
        tmp_path / "root", [f"{s}/{c}/1.png" for s in ("train", "Val") for c in "ab"]
    )
    for labels in (None, ["a", "b"]):
        with pytest.raises(InputError, match=r"holds Val and train.*such as .*/root/train"):
            ImageSet.open(root, labels)
    assert len(ImageSet.open(root, ["train", "Val"])) == 4
    assert ImageSet.open(root / "train").classes == ["a", "b"]


def test_labels_tell_a_class_folder_from_a_folder_around(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "set", ["cat/tabby/1.png", "cat/black/2.png"])
    assert ImageSet.open(root).classes == ["black", "tabby"]
    assert ImageSet.open(root, ["cat", "dog"]).entries == [
        ("cat/black/2.png", 0), ("cat/tabby/1.png", 0)
    ]  # fmt: skip
    assert names(ImageSet.open(root, ["cat", "black", "tabby"])) == ["black/2.png", "tabby/1.png"]


def test_a_folder_without_images_counts_as_no_class_and_is_named(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "set", ["a/1.png", "c/1.png"])
    (root / "b").mkdir()
    images = ImageSet.open(root)
    assert images.classes == ["a", "c"] and images.empty == ["b"]
    assert images.notices == [f"1 folder of {root} is no class, for it has no image: b"]
    assert ImageSet.open(root, ["a", "b", "c"]).notices == []


@pytest.mark.parametrize(
    ("start", "command"),
    [(b"\x1f\x8b\x08", "tar -xzf"), (b"BZh9", "tar -xjf"), (b"\xfd7zXZ\0", "tar -xJf"),
     (b"7z\xbc\xaf\x27\x1c", "7z x"), (b"Rar!\x1a", "unrar x")],
)  # fmt: skip
def test_packed_sets_say_how_to_unpack_them(tmp_path: Path, start: bytes, command: str) -> None:
    (tmp_path / "set").write_bytes(start + bytes(600))
    with pytest.raises(InputError, match=command):
        ImageSet.open(tmp_path / "set")


@pytest.mark.parametrize(
    "top", ["BMW", "GIF8", "PK\x03\x04", "P5 x", "<html", "{a}", "Rar!", "%PDF"]
)
def test_a_tar_may_begin_with_any_name(tmp_path: Path, top: str) -> None:
    files = {f"{top}/{name}/1.png": encoded() for name in "ab"}
    path = write_tar(tmp_path / "set.tar", files)
    assert ImageSet.open(path).classes == ["a", "b"]


def test_other_files_given_as_a_set(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr("a/1.png", encoded())
    (tmp_path / "one.jpg").write_bytes(noise(1, "JPEG"))
    os.mkfifo(tmp_path / "fifo")
    for name, message in (
        ("set.zip", "a zip archive.*unzip"), ("one.jpg", "it is a JPEG"),
        ("fifo", "neither a folder nor a file"), ("x" * 300, "File name too long"),
        ("a\0b", "no such image folder"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            ImageSet.open(tmp_path / name)
    with pytest.raises(InputError, match="neither a folder nor a file"):
        ImageSet.open("/dev/zero")


def test_a_tar_is_what_it_unpacks_to(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "set.tar", "w") as archive:
        for name, seed in (("a/1.png", 1), ("a/1.png", 2), ("/b/2.png", 3), ("./b//3.png", 4)):
            data = noise(seed)
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        for name, kind, target in (
            ("b/hard.png", tarfile.LNKTYPE, "a/1.png"),
            ("b/soft.png", tarfile.SYMTYPE, "../a/1.png"),
            ("c", tarfile.SYMTYPE, "a"), ("b/out.png", tarfile.SYMTYPE, "../../etc/1.png"),
            ("b/abs.png", tarfile.SYMTYPE, "/a/1.png"), ("b/fifo.png", tarfile.FIFOTYPE, ""),
            ("b/self.png", tarfile.SYMTYPE, "self.png"),
        ):  # fmt: skip
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            archive.addfile(member)
    images = ImageSet.open(tmp_path / "set.tar")
    assert names(images) == [
        "a/1.png", "b/2.png", "b/3.png", "b/hard.png", "b/soft.png", "c/1.png"
    ]  # fmt: skip
    assert {images.read_bytes(i) for i in (0, 3, 4, 5)} == {noise(2)}  # the later of two counts
    assert [why for _, why in images.left_out].count("dangling link") == 3


@pytest.mark.parametrize(
    ("found", "default", "natural"),
    [
        (["class10", "class2", "class1"], ["class1", "class10", "class2"],
         ["class1", "class2", "class10"]),
        (["cat", "Dog", "ant"], ["Dog", "ant", "cat"], ["ant", "cat", "Dog"]),
        (["1", "02", "10"], ["02", "1", "10"], ["1", "02", "10"]),
        (["x\u00b2", "x1"], ["x1", "x\u00b2"], None),
    ],
)  # fmt: skip
def test_the_orders_of_the_libraries(found, default, natural) -> None:
    assert torchvision_order(found) == default
    assert natural is None or timm_order(found) == natural
    assert sorted(timm_order(found)) == sorted(found)


def test_a_set_in_timms_order(tmp_path: Path) -> None:
    root = write_folder(tmp_path, [f"class{i}/1.png" for i in (1, 2, 10)])
    assert ImageSet.open(root, order="natural").classes == ["class1", "class2", "class10"]
    folder = ImageFolder(root, 8, class_order="natural")
    assert folder.labels.tolist() == [0, 2, 1]  # the images stay in the order of their names
    with pytest.raises(InputError, match="class order 'timm' is not one of"):
        ImageSet.open(root, order="timm")


def test_damaged_images_are_left_out_of_a_source(tmp_path: Path) -> None:
    good = encoded()
    path = write_tar(
        tmp_path / "s.tar", {"a/1.png": good, "a/2.png": good[:50], "b/3.png": b"<html>"}
    )
    with pytest.raises(
        DamagedImages, match=r"2 of 3 images of .*\n  a/2.png: .*\n  b/3.png: a web"
    ):
        sound(ImageSet.open(path), False)
    assert ImageFolder(path, 8, skip_broken=True).names == ["a/1.png"]
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match=r"mine\.txt"):
        write_list([("a", "b")], tmp_path / "mine.txt")
    assert (tmp_path / "mine.txt").read_text() == "mine"
    write_list([("a", "b")], tmp_path / "list.txt")
    write_list([("c", "d")], tmp_path / "list.txt")
    assert (tmp_path / "list.txt").read_text().splitlines()[1:] == ["c\td"]


def test_a_jpeg_of_another_suffix_is_read(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    Image.new("RGB", (8, 8), (9, 9, 9)).save(tmp_path / "a" / "1.webp", "JPEG")
    assert ImageSet.open(tmp_path).load_rgb(0).size == (8, 8)


def test_two_orders_of_the_classes_are_refused(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from edgevit.commands.quantize import quantize_command

    (tmp_path / "labels.txt").write_text("a\nb\n")
    words = ["net.pth", "--data", str(tmp_path), "-o", str(tmp_path / "m.evq")]
    words += ["--labels", str(tmp_path / "labels.txt"), "--class-order", "natural"]
    done = CliRunner().invoke(quantize_command, words)
    assert isinstance(done.exception, InputError)
    assert "leave out --class-order" in str(done.exception)
