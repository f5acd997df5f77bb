"""Packing, and the scripts without a connection."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from pathlib import Path

import pytest

from edgevit.data.images import ImageSet
from edgevit.errors import InputError
from edgevit.measure.devices import run_on_device
from edgevit.measure.devices.link import Link
from edgevit.measure.devices.packing import pack_artifact, pack_images
from edgevit.measure.devices.remote import RemoteRun
from edgevit.measure.devices.store import Blob, push
from edgevit.measure.harness import run_harness
from edgevit.measure.request import HarnessRequest
from tests.devices.support import AndroidsTools, Here, asked, program
from tests.test_harness import edit_manifest, picture


def test_packing_gives_the_same_bytes_and_the_same_images(artifact, images, tmp_path):
    pack_images(images, tmp_path / "a.tar")
    os.utime(images / "crop" / "a.jpg", (1, 1))
    pack_images(images, tmp_path / "b.tar")
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    assert ImageSet.open(tmp_path / "a.tar").sha256 == ImageSet.open(images).sha256
    # One class folder with a folder in it would lose its name without the folder around.
    (tmp_path / "one" / "crop" / "deep").mkdir(parents=True)
    picture(0).save(tmp_path / "one" / "crop" / "deep" / "a.png")
    picture(0).save(tmp_path / "one" / "crop" / "b.png")
    pack_images(tmp_path / "one", tmp_path / "one.tar")
    found = ImageSet.open(tmp_path / "one.tar")
    assert found.entries == ImageSet.open(tmp_path / "one").entries
    (artifact / "report.html").write_text("not a part")
    pack_artifact(artifact, tmp_path / "artifact.tar")
    with tarfile.open(tmp_path / "artifact.tar") as archive:
        assert archive.getnames() == ["manifest.json", "model.bin"]


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "..", "", 7, "a/b", "link"])
def test_a_manifest_cannot_send_other_files(artifact, tmp_path, name):
    (artifact / "link").symlink_to("/etc/passwd")
    manifest = json.loads((artifact / "manifest.json").read_text())
    edit_manifest(artifact, artifact=manifest["artifact"] | {"file": name})
    with pytest.raises(InputError, match="manifest"):
        pack_artifact(artifact, tmp_path / "artifact.tar")


def test_a_chattering_login_shell_does_no_harm(artifact, images, tmp_path):
    there = run_on_device(Here(tmp_path / "far side"), asked(artifact, images, tmp_path / "l"))
    assert there["accuracy"]["count"] == 6


@pytest.mark.skipif(
    not (shutil.which("mksh") and shutil.which("toybox")), reason="apt-get install -y mksh toybox"
)
def test_the_scripts_run_in_androids_shell_with_its_tools(artifact, images, large, tmp_path):
    device = AndroidsTools(tmp_path / "far", tmp_path / "tools")
    there = run_on_device(device, asked(artifact, images, tmp_path / "l"))
    assert there["accuracy"] == run_harness(HarnessRequest(artifact, images))["accuracy"]
    assert list((tmp_path / "far" / "runs").iterdir()) == []
    blobs = tmp_path / "far" / "blobs"
    assert len(list(blobs.iterdir())) == 4
    blob = Blob.of("images", large)
    (blobs / f"{blob.sha256}.part").write_bytes(large.read_bytes()[:1000])
    link_there = Link(device)
    push(link_there, [blob])
    assert link_there.sent_bytes == blob.size_bytes - 1000
    slow = Blob.of("harness", program(tmp_path / "slow", "exec /bin/sleep 300"))
    pack_artifact(artifact, tmp_path / "artifact.tar")
    packed = Blob.of("artifact", tmp_path / "artifact.tar")
    asked(artifact, images, tmp_path / "l").write(tmp_path / "request.json")
    request = Blob.of("request", tmp_path / "request.json")
    push(link_there, [slow, packed, request])
    with RemoteRun(link_there) as run:
        run.prepare(packed)
        run.start(slow, request)
        pid = int((tmp_path / "far" / "runs" / run.name / "harness.pid").read_text())
        assert Path(f"/proc/{pid}").exists()
    assert not Path(f"/proc/{pid}").exists()
