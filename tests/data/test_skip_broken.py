"""--skip-broken in validate: the harness runs what can be decoded, and the rest is named."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from edgevit.data.image_set import DamagedImages
from edgevit.measure import validate
from edgevit.measure.request import GateLimits, HarnessRequest, ValidateOptions
from edgevit.measure.validate import measured
from tests.test_harness import LABELS, artifact, images  # noqa: F401  # fixtures


@pytest.fixture(autouse=True)
def limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The null target has none of its own."""
    monkeypatch.setattr(validate, "limits_of_target", lambda *_: GateLimits(1, 90))


@pytest.fixture
def damaged(images: Path) -> Path:  # noqa: F811
    cut = images / LABELS[0] / "a.jpg"
    cut.write_bytes(cut.read_bytes()[:-9])
    (images / LABELS[1] / "b.png").write_bytes(b"<html>404</html>")
    (images / LABELS[2] / "c.tif").write_bytes(b"II*\0")
    return images


def test_damaged_images_end_a_validation_before_it_starts(artifact, damaged, tmp_path) -> None:  # noqa: F811
    listed = tmp_path / "broken.txt"
    options = ValidateOptions(gate=False, broken_list=listed)
    with pytest.raises(
        DamagedImages, match=r"2 of 6 images .*\n  crop/a.jpg: .*\n  forest/b.png: a"
    ):
        measured(HarnessRequest(artifact, damaged), options)
    assert [line.split("\t")[0] for line in listed.read_text().splitlines()[1:]] == [
        "crop/a.jpg",
        "forest/b.png",
    ]


def test_the_harness_runs_the_others(artifact, damaged, caplog) -> None:  # noqa: F811
    with caplog.at_level(logging.INFO, "edgevit"):
        found = measured(
            HarnessRequest(artifact, damaged), ValidateOptions(gate=False, skip_broken=True)
        )
    assert found.result["accuracy"]["count"] == found.result["dataset"]["count"] == 4
    assert "left out 2 damaged images" in caplog.text
    assert "1 file of " in caplog.text and "1 .tif" in caplog.text
    for name in (("crop", "a.jpg"), ("forest", "b.png")):
        (damaged / name[0] / name[1]).unlink()
    again = measured(HarnessRequest(artifact, damaged), ValidateOptions(gate=False))
    assert again.result["dataset"]["sha256"] == found.result["dataset"]["sha256"]
