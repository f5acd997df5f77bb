"""A folder, its tar, and C++: one set, whatever odd things lie in it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from edgevit.data.images import ImageSet, Preprocessing
from edgevit.errors import InputError
from edgevit.measure.harness import run_harness
from edgevit.measure.request import HarnessRequest
from tests.odd_sets import gnu_tar, odd_folder
from tests.test_harness import write_artifact

CLASSES = ("bird", "Cat", "dog")


def pixels_or_refusal(images: ImageSet) -> dict[str, np.ndarray | None]:
    found: dict[str, np.ndarray | None] = {}
    for i, (name, _) in enumerate(images.entries):
        try:
            found[name] = images.pixels([i], Preprocessing(8, 8))[0]
        except InputError:
            found[name] = None
    return found


@pytest.mark.parametrize("seed", range(60))
def test_a_folder_and_its_tar_are_one_set(seed: int, tmp_path: Path) -> None:
    folder = odd_folder(tmp_path / "set", seed, CLASSES)
    tar = gnu_tar(folder, tmp_path / "set.tar", ("gnu", "posix")[seed % 2], seed % 3 == 0)
    of_folder, of_tar = ImageSet.open(folder, CLASSES), ImageSet.open(tar, CLASSES)
    assert of_folder.entries == of_tar.entries and of_folder.sha256 == of_tar.sha256
    assert len(of_folder.left_out) == len(of_tar.left_out)
    pixels, of_the_tar = pixels_or_refusal(of_folder), pixels_or_refusal(of_tar)
    for name, crop in pixels.items():
        assert np.array_equal(crop, of_the_tar[name]), name


@pytest.mark.parametrize("seed", range(16))
def test_cpp_sees_the_same_set(seed: int, tmp_path: Path) -> None:
    folder = odd_folder(tmp_path / "set", seed, CLASSES)
    tar = gnu_tar(folder, tmp_path / "set.tar", ("gnu", "posix")[seed % 2], seed % 3 == 0)
    artifact = write_artifact(tmp_path / "artifact", CLASSES, image_size=8, resize_size=8)
    for data in (folder, tar):
        images = ImageSet.open(data, CLASSES)
        pixels = pixels_or_refusal(images)
        damaged = [name for name, crop in pixels.items() if crop is None]
        (tmp_path / "leave").write_text("\n".join(damaged))
        inputs = tmp_path / "inputs.safetensors"
        result = run_harness(
            HarnessRequest(artifact, data, dump_inputs=inputs, leave_out=tmp_path / "leave")
        )
        sound = images.without(damaged)
        written = load_file(inputs)
        assert bytes(written["paths"]).decode().split("\n") == [n for n, _ in sound.entries]
        assert result["dataset"]["sha256"] == sound.sha256
        for name, tensor in zip([n for n, _ in sound.entries], written["inputs"], strict=True):
            assert np.array_equal(tensor, pixels[name]), name
        inputs.unlink()
        for name in damaged:
            others = "\n".join(n for n, _ in images.entries if n != name)
            (tmp_path / "leave").write_text(others)
            with pytest.raises(InputError) as caught:
                run_harness(HarnessRequest(artifact, data, leave_out=tmp_path / "leave"))
            assert name in str(caught.value) and os.fsdecode(b"\x1b") not in str(caught.value)
