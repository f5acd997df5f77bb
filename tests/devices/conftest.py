"""A real sshd of the tests' own, and what is sent to it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgevit.measure.devices import link
from edgevit.measure.devices.packing import pack_images
from tests.sshd import Sshd, start_sshd
from tests.test_harness import LABELS, picture, write_artifact


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    started = start_sshd(tmp_path_factory.mktemp("sshd"))
    yield started
    started.close()


@pytest.fixture
def sshd(server: Sshd, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sshd]:
    """The server with an empty cache, found by way of PATH; retries come fast."""
    shutil.rmtree(server.far, ignore_errors=True)
    monkeypatch.setenv("PATH", f"{server.folder / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setattr(link, "BACKOFF_S", (0.1, 0.1, 0.1, 0.1))
    server.use_key("user")
    server.proxy.refusing, server.proxy.cut_after, server.proxy.half_open = False, None, False
    server.proxy.sent_bytes = server.proxy.connections = 0
    yield server
    server.proxy.drop()


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    for i, label in enumerate(LABELS):
        (folder / label).mkdir(parents=True)
        picture(i).save(folder / label / "a.jpg")
        picture(i + 10).save(folder / label / "b.png")
    return folder


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    return write_artifact(tmp_path / "artifact")


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """About 12 MB of images that do not compress, as a tar."""
    folder = tmp_path / "large"
    rng = np.random.default_rng(0)
    for label in LABELS:
        (folder / label).mkdir(parents=True)
        pixels = rng.integers(0, 256, (1200, 1100, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / label / "noise.png", compress_level=0)
    tar = tmp_path / "large.tar"
    pack_images(folder, tar)
    return tar
