"""Files on the device: resumed, checked, never written by two at once."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import time

import pytest

from edgevit.measure.devices import open_device
from edgevit.measure.devices.base import DeviceGone
from edgevit.measure.devices.link import Link
from edgevit.measure.devices.store import Blob, push
from tests.devices.support import broken_connections


@broken_connections
@pytest.mark.parametrize("half_open", [False, True])
def test_an_upload_goes_on_where_the_connection_broke(sshd, large, caplog, half_open):
    sshd.proxy.half_open = half_open
    blob = Blob.of("images", large)
    there = Link(open_device(sshd.address))
    sshd.proxy.cut_after = blob.size_bytes * 2 // 3
    push(there, [blob])
    assert sshd.proxy.cut_after is None, "the connection was never cut"
    assert "trying again" in caplog.text
    stored = sshd.far / "blobs" / blob.sha256
    assert hashlib.sha256(stored.read_bytes()).hexdigest() == blob.sha256
    assert [p.name for p in stored.parent.iterdir()] == [blob.sha256]
    # Anew it would be 5/3 of the file; what was under way in buffers may be sent again.
    assert sshd.proxy.sent_bytes < blob.size_bytes * 4 // 3


def test_an_upload_goes_on_after_the_program_was_killed(sshd, large):
    """The part of an earlier process is gone on from: offset and rest make the whole file."""
    blob = Blob.of("images", large)
    (sshd.far / "blobs").mkdir(parents=True)
    part = sshd.far / "blobs" / f"{blob.sha256}.part"
    part.write_bytes(large.read_bytes()[: blob.size_bytes // 2])
    there = Link(open_device(sshd.address))
    push(there, [blob])
    assert there.sent_bytes == blob.size_bytes - blob.size_bytes // 2


def test_damaged_files_over_there_are_sent_anew(sshd, large, caplog):
    blob = Blob.of("images", large)
    (sshd.far / "blobs").mkdir(parents=True)
    stored = sshd.far / "blobs" / blob.sha256
    there = Link(open_device(sshd.address))
    (stored.with_suffix(".part")).write_bytes(b"not how the file begins")
    push(there, [blob])
    assert stored.read_bytes() == large.read_bytes()
    assert "another sha256" in caplog.text
    stored.write_bytes(large.read_bytes()[:-1] + b"x")
    push(there, [blob])
    assert stored.read_bytes() == large.read_bytes()
    (stored.with_suffix(".part")).write_bytes(large.read_bytes() + b"longer")
    stored.unlink()
    push(there, [blob])
    assert stored.read_bytes() == large.read_bytes()


@broken_connections
def test_another_transfer_of_the_same_file_is_not_written_into(sshd, large):
    blob = Blob.of("images", large)
    lock = sshd.far / "blobs" / f"{blob.sha256}.lock"
    lock.mkdir(parents=True)
    (lock / "pid").write_text(str(os.getpid()))
    (lock / "owner").write_text("another.1")
    with pytest.raises(DeviceGone, match="another transfer"):
        push(Link(open_device(sshd.address)), [blob])
    (lock / "pid").write_text("999999999")  # its process is gone
    push(Link(open_device(sshd.address)), [blob])
    assert sshd.blobs() == {blob.sha256}


@broken_connections
def test_a_transfer_that_stands_still_is_taken_over(sshd, large):
    blob = Blob.of("images", large)
    (sshd.far / "blobs").mkdir(parents=True)
    lock, part = (sshd.far / "blobs" / f"{blob.sha256}.{kind}" for kind in ("lock", "part"))
    lock.mkdir()
    part.write_bytes(large.read_bytes()[:1000])
    old_s = time.time() - 300
    os.utime(part, (old_s, old_s))
    with open(part, "ab") as file:
        writer = subprocess.Popen(["sleep", "600"], stdout=file)
        other = subprocess.Popen(["sleep", "600"], stdout=subprocess.DEVNULL)
    os.utime(part, (old_s, old_s))
    (lock / "pid").write_text(str(writer.pid))
    (lock / "owner").write_text("another.1")
    push(Link(open_device(sshd.address)), [blob])
    assert writer.wait(timeout=5) == -signal.SIGKILL
    assert sshd.blobs() == {blob.sha256}
    # A number that is another process's by now: the lock is taken over, the process is not ended.
    (sshd.far / "blobs" / blob.sha256).unlink()
    lock.mkdir()
    part.write_bytes(large.read_bytes()[:1000])
    os.utime(part, (old_s, old_s))
    (lock / "pid").write_text(str(other.pid))
    push(Link(open_device(sshd.address)), [blob])
    assert other.poll() is None
    other.kill()
    other.wait()
    assert sshd.blobs() == {blob.sha256}
