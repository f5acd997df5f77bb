"""Image sources: class folders, and images that the caller holds in any form."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from edgevit.data import source as source_module
from edgevit.data.batches import batch_of
from edgevit.data.export import image_files
from edgevit.data.images import ImageSet, Preprocessing
from edgevit.data.sequence import as_source, from_sequence
from edgevit.data.source import ImageFolder, ImageSource
from edgevit.errors import InputError
from tests.image_sets import subset

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory, embedded_val: Path) -> ImageFolder:
    return ImageFolder(subset(embedded_val, tmp_path_factory.mktemp("few") / "few.tar", 50), 64)


def pictures(few: ImageFolder) -> list[tuple[Image.Image, int]]:
    return [(few.images.load_rgb(i), int(few.labels[i])) for i in range(len(few))]


def tensors(few: ImageFolder) -> list[tuple[torch.Tensor, int]]:
    """As torchvision's ToTensor and Normalize make them."""
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    pixels = torch.from_numpy(few.pixels(range(len(few)))).permute(0, 3, 1, 2)
    return list(zip(pixels.float().div(255).sub(mean).div(std), few.labels.tolist()))


def test_a_folder_is_its_set_cropped(embedded_val: Path) -> None:
    folder = ImageFolder(embedded_val, size=32, resize=40)
    images, rules = ImageSet.open(embedded_val), Preprocessing(32, 40)
    assert folder.preprocessing == rules and folder.title == "val.tar"
    assert (folder.pixels([3, 1]) == images.pixels([3, 1], rules)).all()
    assert folder.labels.dtype == np.int64 and len(folder.names) == len(folder) == 1000
    assert folder.sha256 == images.sha256


def test_the_default_resize_is_the_size(embedded_val: Path) -> None:
    assert ImageFolder(embedded_val, 32).preprocessing.resize_size == 32


def test_like_brings_preprocessing_and_classes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "train" / name).mkdir(parents=True)
        Image.new("RGB", (9, 9)).save(tmp_path / "train" / name / "1.png")
    (tmp_path / "val" / "b").mkdir(parents=True)
    Image.new("RGB", (9, 9)).save(tmp_path / "val" / "b" / "1.png")
    train = ImageFolder(tmp_path / "train", 8, mean=(0, 0, 0), std=(1, 1, 1))
    val = ImageFolder(tmp_path / "val", like=train)
    assert val.preprocessing == train.preprocessing
    assert val.classes == ["a", "b"] and val.labels.tolist() == [1]
    with pytest.raises(InputError, match=r"leave out size, std"):
        ImageFolder(tmp_path / "val", 8, std=(1, 1, 1), like=train)
    with pytest.raises(InputError, match="size=224"):
        ImageFolder(tmp_path / "val")
    with pytest.raises(InputError, match="mean must be three numbers"):
        ImageFolder(tmp_path / "val", 8, mean=[0.5])


def test_images_are_read_once_while_they_fit(
    few: ImageFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[int] = []
    load = ImageSet.load
    monkeypatch.setattr(ImageSet, "load", lambda s, i, m: reads.append(i) or load(s, i, m))
    kept = ImageFolder(few.path, 64)
    assert (kept.pixels([2, 0, 2]) == kept.pixels([2, 0, 2])).all()
    assert reads == [2, 0]
    monkeypatch.setattr(source_module, "CACHE_BYTES", 1)
    again = ImageFolder(few.path, 64)
    assert (again.pixels([2, 0]) == kept.pixels([2, 0])).all()
    again.pixels([2, 0])
    assert reads[2:] == [2, 0, 2, 0]


def test_every_form_of_an_image_gives_the_folders_pixels(few: ImageFolder) -> None:
    wanted = few.pixels(range(len(few)))
    forms: list[ImageSource] = [
        from_sequence(pictures(few), 64),
        from_sequence([(np.asarray(p), c) for p, c in pictures(few)]),
        from_sequence(
            [(torch.from_numpy(np.asarray(p).copy()).permute(2, 0, 1), c) for p, c in pictures(few)]
        ),
        from_sequence(tensors(few)),
    ]
    for found in forms:
        assert (found.pixels(range(len(few))) == wanted).all()
        assert found.labels.tolist() == few.labels.tolist()
        assert found.sha256 == forms[0].sha256
        # To the network, bit for bit, what torchvision's transforms give.
        expected = torch.stack([image for image, _ in tensors(few)])
        assert torch.equal(batch_of(found, range(len(few))), expected)


def test_paths_are_read_when_they_are_needed(few: ImageFolder, tmp_path: Path) -> None:
    items = []
    for i, name in enumerate(few.names[:4]):
        path = tmp_path / f"{i}{Path(name).suffix}"
        path.write_bytes(few.images.read_bytes(i))
        items.append((str(path), few.classes[few.labels[i]]))
    found = from_sequence(items, like=few)
    assert (found.pixels(range(4)) == few.pixels(range(4))).all()
    assert found.classes == few.classes and found.labels.tolist() == few.labels[:4].tolist()
    with pytest.raises(InputError, match=r"gone.png cannot be read: No such file"):
        from_sequence([(tmp_path / "gone.png", 0)], 64)
    with pytest.raises(InputError, match=r"notes.txt is not named as a JPEG or PNG"):
        from_sequence([("notes.txt", 0)], 64)


def test_classes_by_index_and_by_name(few: ImageFolder) -> None:
    picture = few.images.load_rgb(0)
    by_name = from_sequence([(picture, "dog"), (picture, "cat")], 64)
    assert by_name.classes == ["cat", "dog"] and by_name.labels.tolist() == [1, 0]
    mixed = [(picture, np.int64(2)), (picture, torch.tensor(0)), (picture, 1)]
    by_index = from_sequence(mixed, 64)
    assert by_index.classes == ["0", "1", "2"] and by_index.labels.tolist() == [2, 0, 1]
    assert by_index.names[0] == "2/0000000.png"
    named = from_sequence(mixed, 64, classes=["a", "b", "c", "d"])
    assert named.classes == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (7, r"item 0 is int, expected \(image, class\)"),
        ((np.zeros((64, 64, 3), np.float32), 0), r"an array of float32 \(64, 64, 3\)"),
        ((np.zeros((64, 64), np.uint8), 0), r"an array of uint8 \(64, 64\)"),
        ((torch.zeros(1, 64, 64), 0), r"a tensor of float32 \(1, 64, 64\)"),
        ((torch.zeros(3, 32, 32), 0), r"expected float32 \(3, 64, 64\)"),
        ((torch.zeros(3, 64, 64, dtype=torch.float16), 0), r"a tensor of float16"),
        ((torch.full((3, 64, 64), 0.123), 0), r"not \(pixel / 255 - mean\) / std"),
        ((torch.full((3, 64, 64), float("nan")), 0), r"not \(pixel / 255 - mean\) / std"),
        ((torch.full((3, 64, 64), 1e6), 0), r"not \(pixel / 255 - mean\) / std"),
        ((object(), 0), "object is no image"),
        ((Image.new("I;16", (64, 64)), 0), "mode I;16"),
        ((Image.new("RGB", (64, 64)), -1), "-1 is no class"),
        ((Image.new("RGB", (64, 64)), True), "True is no class"),
        ((Image.new("RGB", (64, 64)), 0.0), "0.0 is no class"),
    ],
)
def test_what_cannot_be_understood_is_named(item: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_sequence([item], 64)


def test_a_class_outside_the_list_is_named() -> None:
    picture = Image.new("RGB", (64, 64))
    with pytest.raises(InputError, match=r"class 2 is not one of the 2 classes"):
        from_sequence([(picture, 2)], 64, classes=["a", "b"])
    with pytest.raises(InputError, match=r"class 'c' is not one of"):
        from_sequence([(picture, "c")], 64, classes=["a", "b"])


def test_what_is_no_set_is_refused() -> None:
    with pytest.raises(InputError, match="int is no set of images"):
        as_source(3)
    with pytest.raises(InputError, match="no images"):
        from_sequence([], 64)
    with pytest.raises(InputError, match=r"size=224"):
        from_sequence([(Image.new("RGB", (64, 64)), 0)])


def test_tensors_normalised_otherwise_are_refused_until_it_is_said_how(few: ImageFolder) -> None:
    halves = [(image * 0.5, label) for image, label in tensors(few)]
    plain = [(torch.from_numpy(few.pixels([i])[0] / np.float32(255)).permute(2, 0, 1), 0)
             for i in range(4)]  # fmt: skip
    for images in (halves, plain):
        with pytest.raises(InputError, match=r"image 0: a tensor with values from .* mean="):
            from_sequence(images)
    found = from_sequence(plain, mean=(0, 0, 0), std=(1, 1, 1))
    assert (found.pixels(range(4)) == few.pixels(range(4))).all()


class Flipping:
    """A data set with a random transform."""

    def __init__(self, few: ImageFolder) -> None:
        self.few, self.calls = few, 0

    def __len__(self) -> int:
        return len(self.few)

    def __getitem__(self, i: int) -> tuple[np.ndarray, int]:
        self.calls += 1
        pixels = self.few.pixels([i])[0]
        return (pixels[:, ::-1].copy() if self.calls % 3 == 0 else pixels), 0


def test_random_transforms_are_found(few: ImageFolder) -> None:
    with pytest.raises(InputError, match=r"is another one when it is read again"):
        from_sequence(Flipping(few))


class Rows(torch.utils.data.Dataset):
    """A map-style data set as users write it."""

    def __init__(self, rows: list, classes: list[str]) -> None:
        self.rows, self.classes = rows, classes

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> tuple:
        return self.rows[i]


class Stream(torch.utils.data.IterableDataset):
    def __init__(self, rows: list) -> None:
        self.rows = rows

    def __iter__(self):
        return iter(self.rows)


def test_a_loader_gives_its_data_set_in_order(few: ImageFolder) -> None:
    rows = Rows(tensors(few), few.classes)
    found = as_source(torch.utils.data.DataLoader(rows, batch_size=3, shuffle=True, drop_last=True))
    assert (found.pixels(range(len(few))) == few.pixels(range(len(few)))).all()
    assert found.classes == few.classes and found.title == "a Rows"
    assert found.preprocessing == few.preprocessing


def test_a_loader_with_rules_of_its_own_is_read_through(few: ImageFolder) -> None:
    rows = Rows(tensors(few), few.classes)
    wanted = few.pixels(range(len(few)))
    data = torch.utils.data
    part = as_source(data.DataLoader(rows, 2, sampler=data.SubsetRandomSampler([5, 1, 7])))
    assert sorted(map(bytes, part.pixels(range(3)))) == sorted(map(bytes, wanted[[5, 1, 7]]))
    flipped = data.DataLoader(
        rows, 4, collate_fn=lambda rows: (torch.stack([x.flip(2) for x, _ in rows]), [0] * 4)
    )
    assert (as_source(flipped).pixels([0])[0] == wanted[0][:, ::-1]).all()
    for size in (4, None):
        stream = as_source(data.DataLoader(Stream(tensors(few)), size))
        assert (stream.pixels(range(len(few))) == wanted).all()
        assert stream.labels.tolist() == few.labels.tolist()


def test_loaders_that_cannot_be_read_are_refused(
    few: ImageFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = torch.utils.data
    rows = Rows(tensors(few), few.classes)
    divided = data.DistributedSampler(rows, num_replicas=2, rank=0)
    with pytest.raises(InputError, match="DistributedSampler"):
        as_source(data.DataLoader(rows, sampler=divided))
    with pytest.raises(InputError, match="yields Tensor"):
        as_source(data.DataLoader(Stream([torch.zeros(3, 64, 64)])))
    with pytest.raises(InputError, match="yields no images"):
        as_source(data.DataLoader(Stream([])))
    monkeypatch.setattr("edgevit.data.loader.MAX_HELD_BYTES", 3 * 64 * 64 * 4)
    with pytest.raises(InputError, match="read from its beginning only"):
        as_source(data.DataLoader(Stream(tensors(few))))


def test_a_source_as_files_is_the_same_source(few: ImageFolder, tmp_path: Path) -> None:
    assert image_files(few, tmp_path) == few.path
    for found in (
        from_sequence(pictures(few), 64, classes=few.classes),
        from_sequence(tensors(few), classes=few.classes),
    ):
        written = ImageFolder(image_files(found, tmp_path), like=found)
        assert sorted(found.names) == written.names
        order = [found.names.index(name) for name in written.names]
        assert (written.pixels(range(len(few))) == found.pixels(order)).all()
        assert (written.labels == found.labels[order]).all()


def test_what_cannot_be_files_is_refused(few: ImageFolder, tmp_path: Path) -> None:
    cropped = from_sequence(tensors(few), 64, resize=72, classes=few.classes)
    with pytest.raises(InputError, match=r"cropped to 64 px before.*resizes to 72"):
        image_files(cropped, tmp_path)
    named = from_sequence(pictures(few)[:1], 64, classes=["a/b"])
    with pytest.raises(InputError, match="'a/b' cannot be the name of a folder"):
        image_files(named, tmp_path)


class Own:
    """A source of the user's own."""

    title, classes, names, sha256 = "own", ["a"], ["a/1.png"], "0" * 64
    labels = np.zeros(1, np.int64)
    preprocessing = Preprocessing(8)

    def __len__(self) -> int:
        return 1

    def pixels(self, indices: list[int]) -> np.ndarray:
        return np.zeros((len(indices), 8, 8, 3), np.uint8)


def test_a_source_of_the_users_own_is_taken(tmp_path: Path) -> None:
    own = Own()
    assert as_source(own) is own
    assert image_files(own, tmp_path).name == "images.tar"
    own.labels = np.zeros(1, np.int32)
    with pytest.raises(InputError, match="own: labels must be int64"):
        as_source(own)

    class Half:
        pixels = preprocessing = None

    with pytest.raises(InputError, match="Half is no image source: it has no title, classes"):
        as_source(Half())


def test_sources_import_no_torch() -> None:
    code = "import sys, edgevit.data.sequence, edgevit.tasks.classification; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "torch" not in done.stdout.split()
