"""Runs whose connection, device or client goes away."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from edgevit.errors import EdgevitError
from edgevit.measure.devices import open_device, run_on_device
from edgevit.measure.devices.base import DeviceGone
from edgevit.measure.devices.link import Link
from edgevit.measure.devices.packing import pack_artifact, pack_images
from edgevit.measure.devices.remote import RemoteRun, there
from edgevit.measure.devices.store import Blob, push
from edgevit.measure.harness import HarnessLog
from tests.devices.support import Here, asked, broken_connections, program


@broken_connections
@pytest.mark.parametrize("how", ["the network drops", "the sshd of the session is killed"])
def test_a_run_goes_on_without_the_connection_and_is_found_again(
    sshd, artifact, images, tmp_path, caplog, monkeypatch, how
):
    """The run waits for the break, and the break for the run's first line to come through."""
    starts, go_on = tmp_path / "starts", tmp_path / "go on"
    slow = program(
        tmp_path / "slow",
        f"echo started >> {shlex.quote(str(starts))}; echo waiting >&2; i=0\n"
        f"until [ -e {shlex.quote(str(go_on))} ] || [ $i = 600 ]; do sleep 0.1; i=$((i + 1)); done",
    )
    is_followed = threading.Event()

    class Log(HarnessLog):
        def feed(self, line: str) -> None:
            is_followed.set()
            super().feed(line)

    monkeypatch.setattr("edgevit.measure.devices.HarnessLog", Log)

    def interfere() -> None:
        is_followed.wait(60)
        sshd.proxy.drop() if how == "the network drops" else sshd.kill_sessions()
        go_on.touch()

    breaker = threading.Thread(target=interfere)
    breaker.start()
    there = run_on_device(
        open_device(sshd.address), asked(artifact, images, tmp_path / "l"), harness=slow
    )
    breaker.join()
    assert "trying again" in caplog.text
    assert there["accuracy"]["count"] == 6
    assert starts.read_text() == "started\n"
    assert sshd.runs() == []


@broken_connections
def test_a_device_that_stays_away_is_a_clear_error(sshd, artifact, images, tmp_path, caplog):
    slow = program(tmp_path / "slow", f"touch {shlex.quote(str(tmp_path / 'on'))}; sleep 3")

    def interfere() -> None:
        while not (tmp_path / "on").exists():
            time.sleep(0.05)
        sshd.proxy.refusing = True
        sshd.proxy.drop()

    threading.Thread(target=interfere, daemon=True).start()
    with pytest.raises(DeviceGone, match="was lost and did not come back, after 5 attempts"):
        run_on_device(
            open_device(sshd.address), asked(artifact, images, tmp_path / "l"), harness=slow
        )
    assert "left there: " in caplog.text
    assert len(sshd.runs()) == 1
    sshd.proxy.refusing = False
    while not (sshd.runs()[0] / "rc").exists():  # it ends by itself
        time.sleep(0.1)
    old_s = time.time() - 3 * 86400
    os.utime(sshd.runs()[0], (old_s, old_s))
    run_on_device(open_device(sshd.address), asked(artifact, images, tmp_path / "l"))
    assert sshd.runs() == []


@broken_connections
def test_an_interrupt_ends_the_run_over_there(sshd, artifact, images, tmp_path):
    pid = tmp_path / "pid"
    slow = program(tmp_path / "slow", f"echo $$ > {shlex.quote(str(pid))}.new; mv {pid}.new {pid}; "
                   "sleep 300")  # fmt: skip
    code = (
        "import sys; from pathlib import Path; from edgevit.measure.devices import *\n"
        "import signal; signal.signal(signal.SIGTERM, signal.default_int_handler)\n"
        "a, d, l, h = map(Path, sys.argv[2:])\n"
        "from edgevit.measure.request import HarnessRequest\n"
        "run_on_device(open_device(sys.argv[1]), HarnessRequest(a, d, logits=l), harness=h)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, sshd.address, artifact, images, tmp_path / "l", slow],
        stderr=subprocess.PIPE,
    )
    while not pid.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert b"KeyboardInterrupt" in process.communicate(timeout=60)[1]
    assert not Path(f"/proc/{pid.read_text().strip()}").exists()
    assert sshd.runs() == []


@broken_connections
def test_a_start_that_is_repeated_starts_once(artifact, images, tmp_path):
    """The answer to a start may be lost after the run has begun."""
    starts = tmp_path / "starts"
    counting = program(tmp_path / "counting", f"echo started >> {shlex.quote(str(starts))}")
    pack_artifact(artifact, tmp_path / "artifact.tar")
    pack_images(images, tmp_path / "images.tar")
    images_there = Blob.of("images", tmp_path / "images.tar")
    request = asked(Path("artifact"), there(images_there), Path("logits"), out=Path("result.json"))
    request.write(tmp_path / "request.json")
    blobs = [
        *(Blob.of(p.name, p) for p in (counting, tmp_path / "artifact.tar")),
        Blob.of("request", tmp_path / "request.json"),
        images_there,
    ]
    device = Link(Here(tmp_path / "far"))
    push(device, blobs)
    with RemoteRun(device) as run:
        run.prepare(blobs[1])
        for _ in range(3):
            run.start(blobs[0], blobs[2])
        assert run.follow(lambda line: None) == 0
        run.start(blobs[0], blobs[2])
        run.fetch("result.json", tmp_path / "r.json", 2**20)
        with pytest.raises(EdgevitError, match="1 to 10 are expected"):
            run.fetch("logits", tmp_path / "l", 10)
    assert starts.read_text() == "started\n"
    assert list((tmp_path / "far" / "runs").iterdir()) == []


@broken_connections
def test_a_run_that_vanishes_is_an_error(artifact, images, tmp_path):
    """As after a restart of the device: the processes are gone, the folder is there."""
    there = Link(Here(tmp_path / "far"))
    with RemoteRun(there) as run:
        folder = tmp_path / "far" / "runs" / run.name
        folder.mkdir(parents=True)
        (folder / "log").write_text("1/6 images, 1 images/s\n")
        (folder / "pid").write_text("999999999")
        with pytest.raises(EdgevitError, match="was the device restarted"):
            run.follow(lambda line: None)
    assert not folder.exists()


@broken_connections
def test_a_silent_client_is_given_up(tmp_path):
    class Silent(Here):
        def command(self, script: str) -> list[str]:
            return ["sleep", "60"]

    start_s = time.monotonic()
    with pytest.raises(DeviceGone, match="no sign of life for 1 s"):
        there = Link(Silent(tmp_path), backoff_s=(0.1,))
        there.insist(lambda: there.once("true", silence_s=1))
    assert time.monotonic() - start_s < 20
