"""`--device`: over a real sshd on the loopback interface; adb is a stand-in, said where used."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from edgevit.data import ImageSet
from edgevit.devices import link, open_device, run_on_device
from edgevit.devices.adb import Adb
from edgevit.devices.base import DeviceGone
from edgevit.devices.link import Link
from edgevit.devices.packing import check_machine, pack_artifact, pack_images
from edgevit.devices.remote import RemoteRun
from edgevit.devices.ssh import Ssh
from edgevit.devices.store import Blob, push
from edgevit.errors import EdgevitError, InputError, ToolMissing
from edgevit.harness import build_harness, measuring_options, run_harness
from tests.sshd import Sshd, start_sshd
from tests.test_harness import LABELS, edit_manifest, picture, write_artifact

WORDS = measuring_options(warmup=0)


# Broken connections and time-outs take minutes, and their timing is at the mercy of a busy machine.
broken_connections = pytest.mark.full


@pytest.fixture(scope="module")
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


def program(path: Path, before: str) -> Path:
    """A harness that does `before` (shell) and is then the real one."""
    path.write_text(f'#!/bin/sh\n{before}\nexec {shlex.quote(str(build_harness()))} "$@"\n')
    path.chmod(0o755)
    return path


class Here:
    """A transport without a connection: the scripts alone, behind a login shell that chatters."""

    kind, name = "ssh", "here"

    def __init__(self, folder: Path) -> None:
        self.root = f'"{folder}"'

    def command(self, script: str) -> list[str]:
        return ["sh", "-c", "echo welcome; echo 'have a nice day' >&2\n" + script]

    def refusal(self, errors: str) -> str | None:
        return None


# --- addresses


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ssh://pi@board", Ssh("board", "pi")),
        ("ssh://board.local:2222", Ssh("board.local", None, 2222)),
        ("ssh://u@[fe80::1]:22", Ssh("fe80::1", "u", 22)),
        ("adb:emulator-5554", Adb("emulator-5554")),
        ("adb:192.168.1.5:5555", Adb("192.168.1.5:5555")),
        ("local", None),
    ],
)
def test_an_address_is_read_and_written(text, expected):
    assert open_device(text) == expected
    assert expected is None or expected.name == text


@pytest.mark.parametrize(
    "text",
    [
        "ssh://-oProxyCommand=id@h", "ssh://u@-oProxyCommand=id", "ssh://u@h;id", "ssh://u@$(id)",
        "ssh://u@h h", "ssh://u@h:0", "ssh://u@h:65536", "ssh://u@h:22:23", "ssh://u@h/x", "ssh://",
        "ssh://u@h\n", "ssh://`id`@h", "ssh:h", "adb:", "adb:-s", "adb:a b", "adb:a;id",
        "adb:$(id)", "adb:a\n", "usb", "", "LOCAL", "ssh://u@h%h", "ssh://é@h",
    ],
)  # fmt: skip
def test_another_address_is_refused(text):
    with pytest.raises(InputError, match="--device"):
        open_device(text)


def test_nothing_in_front_of_the_host_can_be_an_option(sshd):
    command = Ssh("board", "pi", 2222).command("true")
    assert command[command.index("--") + 1 :] == ["board", "exec sh -c true"]
    assert "BatchMode=yes" in command and command[command.index("-l") + 1] == "pi"


# --- whole runs over ssh


def test_a_run_over_ssh_is_the_local_run_and_sends_nothing_twice(sshd, artifact, images, tmp_path):
    local = run_harness(artifact, images, logits=tmp_path / "local", warmup=0)
    device = open_device(sshd.address)
    there = run_on_device(device, artifact, images, WORDS, logits=tmp_path / "there")
    assert there["accuracy"] == local["accuracy"]
    assert there["dataset"] == local["dataset"]
    ours, theirs = load_file(tmp_path / "local"), load_file(tmp_path / "there")
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
    assert sshd.runs() == []
    sent = sshd.blobs()
    assert len(sent) == 3 and all(len(name) == 64 for name in sent)
    size = build_harness().stat().st_size
    assert sshd.proxy.sent_bytes > size
    sshd.proxy.sent_bytes = 0
    (artifact / "validation.json").write_text("written by the first run")
    run_on_device(device, artifact, images, WORDS, logits=tmp_path / "again")
    assert sshd.proxy.sent_bytes < 100_000 < size
    assert sshd.blobs() == sent
    run_on_device(device, artifact, images, WORDS, logits=tmp_path / "again", keep=False)
    assert sshd.blobs() == set()


def test_no_name_reaches_a_shell(sshd, tmp_path):
    evil = "$(touch pwned)`touch pwned`;touch pwned;'\"\\ &|>x"
    images = tmp_path / evil.replace("/", "")
    for label in (evil, "-rf", "a\tb"):
        (images / label).mkdir(parents=True)
        picture(1).save(images / label / f"{evil}.png")
    artifact = write_artifact(tmp_path / f"artifact {evil}", (evil, "-rf", "a\tb"))
    os.rename(artifact / "model.bin", artifact / evil)
    manifest = json.loads((artifact / "manifest.json").read_text())
    edit_manifest(artifact, artifact=manifest["artifact"] | {"file": evil})
    harness = Path(shutil.copy(build_harness(), tmp_path / evil))
    there = run_on_device(
        open_device(sshd.address), artifact, images, WORDS, logits=tmp_path / "l", harness=harness
    )
    assert there["accuracy"]["count"] == 3
    assert there["dataset"]["name"] == images.name
    everything = [p.name for p in sshd.folder.rglob("*")] + os.listdir() + os.listdir(Path.home())
    assert "pwned" not in everything and "x" not in everything
    with pytest.raises(InputError, match="not the name of a back-end"):
        run_on_device(
            open_device(sshd.address), artifact, images, WORDS, logits=tmp_path / "l",
            backend="null;touch pwned",
        )  # fmt: skip


def test_the_harnesss_own_error_comes_back_and_nothing_is_left(sshd, artifact, images, tmp_path):
    (images / "crop" / "x.jpg").write_text("text")
    with pytest.raises(InputError, match=r"crop/x\.jpg.*neither a JPEG nor a PNG"):
        run_on_device(open_device(sshd.address), artifact, images, WORDS, logits=tmp_path / "l")
    assert sshd.runs() == []
    assert not (tmp_path / "l").exists()


@broken_connections
def test_a_crash_over_there_is_named_with_its_signal(sshd, artifact, images, tmp_path):
    crashing = program(tmp_path / "crash", "echo last words >&2; kill -SEGV $$")
    with pytest.raises(EdgevitError, match=r"(?s)killed by SIGSEGV.*last words"):
        run_on_device(
            open_device(sshd.address), artifact, images, WORDS, logits=tmp_path / "l",
            harness=crashing,
        )  # fmt: skip
    broken = tmp_path / "broken"
    broken.write_bytes(b"\x7fELF no program")
    with pytest.raises(ToolMissing, match="cannot run there"):
        run_on_device(
            open_device(sshd.address), artifact, images, WORDS, logits=tmp_path / "l",
            harness=broken,
        )  # fmt: skip
    assert sshd.runs() == []


# --- connections that break


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


@broken_connections
@pytest.mark.parametrize("half_open", [False, True])
def test_an_upload_goes_on_where_the_connection_broke(sshd, large, capfd, half_open):
    sshd.proxy.half_open = half_open
    blob = Blob.of("images", large)
    there = Link(open_device(sshd.address))
    sshd.proxy.cut_after = blob.size_bytes * 2 // 3
    push(there, [blob])
    assert sshd.proxy.cut_after is None, "the connection was never cut"
    assert "trying again" in capfd.readouterr().err
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


def test_damaged_files_over_there_are_sent_anew(sshd, large, capfd):
    blob = Blob.of("images", large)
    (sshd.far / "blobs").mkdir(parents=True)
    stored = sshd.far / "blobs" / blob.sha256
    there = Link(open_device(sshd.address))
    (stored.with_suffix(".part")).write_bytes(b"not how the file begins")
    push(there, [blob])
    assert stored.read_bytes() == large.read_bytes()
    assert "another sha256" in capfd.readouterr().err
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


@broken_connections
@pytest.mark.parametrize("how", ["the network drops", "the sshd of the session is killed"])
def test_a_run_goes_on_without_the_connection_and_is_found_again(
    sshd, artifact, images, tmp_path, capfd, how
):
    starts = tmp_path / "starts"
    slow = program(
        tmp_path / "slow",
        f"echo started >> {shlex.quote(str(starts))}\nfor i in 1 2 3 4; do sleep 1; done",
    )

    def interfere() -> None:
        while not starts.exists():
            time.sleep(0.05)
        time.sleep(1.2)  # by then the run is being followed
        sshd.proxy.drop() if how == "the network drops" else sshd.kill_sessions()

    breaker = threading.Thread(target=interfere)
    breaker.start()
    there = run_on_device(
        open_device(sshd.address), artifact, images, WORDS, logits=tmp_path / "l", harness=slow
    )
    breaker.join()
    assert "trying again" in capfd.readouterr().err
    assert there["accuracy"]["count"] == 6
    assert starts.read_text() == "started\n"
    assert sshd.runs() == []


@broken_connections
def test_a_device_that_stays_away_is_a_clear_error(sshd, artifact, images, tmp_path, capfd):
    slow = program(tmp_path / "slow", f"touch {shlex.quote(str(tmp_path / 'on'))}; sleep 3")

    def interfere() -> None:
        while not (tmp_path / "on").exists():
            time.sleep(0.05)
        sshd.proxy.refusing = True
        sshd.proxy.drop()

    threading.Thread(target=interfere).start()
    with pytest.raises(DeviceGone, match="was lost and did not come back, after 5 attempts"):
        run_on_device(
            open_device(sshd.address), artifact, images, WORDS, logits=tmp_path / "l", harness=slow
        )
    assert "left there: " in capfd.readouterr().err
    assert len(sshd.runs()) == 1
    sshd.proxy.refusing = False
    while not (sshd.runs()[0] / "rc").exists():  # it ends by itself
        time.sleep(0.1)
    old_s = time.time() - 3 * 86400
    os.utime(sshd.runs()[0], (old_s, old_s))
    run_on_device(open_device(sshd.address), artifact, images, WORDS, logits=tmp_path / "l")
    assert sshd.runs() == []


@broken_connections
def test_an_interrupt_ends_the_run_over_there(sshd, artifact, images, tmp_path):
    pid = tmp_path / "pid"
    slow = program(tmp_path / "slow", f"echo $$ > {shlex.quote(str(pid))}.new; mv {pid}.new {pid}; "
                   "sleep 300")  # fmt: skip
    code = (
        "import sys; from pathlib import Path; from edgevit.devices import *\n"
        "import signal; signal.signal(signal.SIGTERM, signal.default_int_handler)\n"
        "a, d, l, h = map(Path, sys.argv[2:])\n"
        "run_on_device(open_device(sys.argv[1]), a, d, [], logits=l, harness=h)\n"
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


# --- refusals


@broken_connections
def test_what_ssh_refuses_is_explained_at_once(sshd, artifact, images, tmp_path):
    def attempt() -> str:
        with pytest.raises(DeviceGone) as caught:
            run_on_device(open_device(sshd.address), artifact, images, WORDS, logits=tmp_path / "l")
        assert caught.value.exit_code == 4
        return str(caught.value)

    sshd.use_key("stranger")
    assert "accepts none of your keys" in attempt()
    assert sshd.proxy.connections == 1
    sshd.use_key("user")
    known = (sshd.folder / "known").read_text()
    (sshd.folder / "known").write_text("")
    try:
        assert "its host key is not known" in attempt()
    finally:
        (sshd.folder / "known").write_text(known)
    sshd.proxy.refusing = True
    assert "failed, after 2 attempts" in attempt()


def test_programs_for_another_machine_are_refused(sshd, artifact, images, tmp_path, monkeypatch):
    head = bytearray(build_harness().read_bytes()[:64])
    head[18:20] = (183).to_bytes(2, "little")
    other = tmp_path / "aarch64"
    other.write_bytes(head)
    check_machine(other, "aarch64", "the harness")
    device = open_device(sshd.address)
    with pytest.raises(ToolMissing, match="is for aarch64, the device is x86_64"):
        run_on_device(device, artifact, images, WORDS, logits=tmp_path / "l", harness=other)
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    with pytest.raises(ToolMissing, match=r"cross-compile it.*x86_64-linux-gnu-g\+\+"):
        run_on_device(device, artifact, images, WORDS, logits=tmp_path / "l")


def test_a_result_that_is_none_is_refused(sshd, artifact, images, tmp_path):
    for text, message in (("{", "not JSON"), ("{}", "does not fit its schema"), ("", "0 bytes")):
        fake = tmp_path / "fake"
        fake.write_text(f"#!/bin/sh\nprintf '%s' '{text}' > result.json; echo l > logits\n")
        with pytest.raises(EdgevitError, match=message):
            run_on_device(
                open_device(sshd.address), artifact, images, WORDS, logits=tmp_path / "l",
                harness=fake,
            )  # fmt: skip
    assert sshd.runs() == []


# --- packing and scripts, without a connection


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
    there = run_on_device(
        Here(tmp_path / "far side"), artifact, images, WORDS, logits=tmp_path / "l"
    )
    assert there["accuracy"]["count"] == 6


class AndroidsTools(Here):
    """The same in Android's shell with Android's tools alone, as Debian has them."""

    APPLETS = (
        "cat", "chmod", "cut", "find", "head", "kill", "mkdir", "mv", "readlink", "rm", "setsid",
        "sha256sum", "sleep", "tail", "tar", "uname", "wc",
    )  # fmt: skip

    def __init__(self, folder: Path, tools: Path) -> None:
        super().__init__(folder)
        tools.mkdir()
        for name in self.APPLETS:
            (tools / name).symlink_to(str(shutil.which("toybox")))
        (tools / "sh").symlink_to(str(shutil.which("mksh")))
        self.tools = tools

    def command(self, script: str) -> list[str]:
        return ["/usr/bin/env", f"PATH={self.tools}", str(shutil.which("mksh")), "-c", script]


@pytest.mark.skipif(
    not (shutil.which("mksh") and shutil.which("toybox")), reason="apt-get install -y mksh toybox"
)
def test_the_scripts_run_in_androids_shell_with_its_tools(artifact, images, large, tmp_path):
    device = AndroidsTools(tmp_path / "far", tmp_path / "tools")
    there = run_on_device(device, artifact, images, WORDS, logits=tmp_path / "l")
    assert there["accuracy"] == run_harness(artifact, images)["accuracy"]
    assert list((tmp_path / "far" / "runs").iterdir()) == []
    blobs = tmp_path / "far" / "blobs"
    assert len(list(blobs.iterdir())) == 3
    blob = Blob.of("images", large)
    (blobs / f"{blob.sha256}.part").write_bytes(large.read_bytes()[:1000])
    link_there = Link(device)
    push(link_there, [blob])
    assert link_there.sent_bytes == blob.size_bytes - 1000
    slow = Blob.of("harness", program(tmp_path / "slow", "exec /bin/sleep 300"))
    pack_artifact(artifact, tmp_path / "artifact.tar")
    packed = Blob.of("artifact", tmp_path / "artifact.tar")
    push(link_there, [slow, packed])
    with RemoteRun(link_there) as run:
        run.prepare(packed)
        run.start(slow, WORDS, {})
        pid = int((tmp_path / "far" / "runs" / run.name / "harness.pid").read_text())
        assert Path(f"/proc/{pid}").exists()
    assert not Path(f"/proc/{pid}").exists()


@broken_connections
def test_a_start_that_is_repeated_starts_once(artifact, images, tmp_path):
    """The answer to a start may be lost after the run has begun."""
    starts = tmp_path / "starts"
    counting = program(tmp_path / "counting", f"echo started >> {shlex.quote(str(starts))}")
    pack_artifact(artifact, tmp_path / "artifact.tar")
    pack_images(images, tmp_path / "images.tar")
    blobs = [
        Blob.of(p.name, p) for p in (counting, tmp_path / "artifact.tar", tmp_path / "images.tar")
    ]
    there = Link(Here(tmp_path / "far"))
    push(there, blobs)
    with RemoteRun(there) as run:
        run.prepare(blobs[1])
        for _ in range(3):
            run.start(blobs[0], WORDS, {"--data": blobs[2]})
        assert run.follow(lambda line: None) == 0
        run.start(blobs[0], WORDS, {"--data": blobs[2]})
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


# --- adb: the real client is not here, so its absence and a stand-in


def test_the_command_line_reaches_the_device(artifact, images, tmp_path):
    """`edgevit validate --device adb:X` without adb is exit code 4, not a run here."""
    edit_manifest(artifact, target="tflite")
    command = [sys.executable, "-m", "edgevit", "validate", artifact, "--data", images, "--no-gate"]
    done = subprocess.run(
        [*command, "--device", "adb:X", "--backend", "null"],
        capture_output=True, text=True, env=os.environ | {"PATH": str(tmp_path)},
    )  # fmt: skip
    assert (done.returncode, "apt-get install -y adb" in done.stderr) == (4, True), done.stderr
    assert not (artifact / "validation.json").exists()


def test_without_adb_the_message_says_how_to_get_it(artifact, images, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolMissing, match="apt-get install -y adb"):
        run_on_device(Adb("X"), artifact, images, WORDS, logits=tmp_path / "l")


@pytest.fixture
def adb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in of adb: `-s SERIAL shell -T SCRIPT` runs here, below a folder of the test.

    It knows nothing of adb's protocol: what is tested is our side of the argv, not adb.
    """
    far = tmp_path / "data"
    stand_in = tmp_path / "bin" / "adb"
    stand_in.parent.mkdir()
    stand_in.write_text(
        '#!/bin/sh\n[ "$1 $3 $4" = "-s shell -T" ] && [ $# = 5 ] || { echo usage >&2; exit 64; }\n'
        "case $2 in gone) echo \"adb: device 'gone' not found\" >&2; exit 1;;\n"
        'locked) echo "adb: device unauthorized." >&2; exit 1;; esac\n'
        f'exec sh -c "$(printf %s "$5" | sed "s|/data/local/tmp|{far}|g")"\n'
    )
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", f"{stand_in.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(link, "BACKOFF_S", (0.1, 0.1))
    return far


def test_a_run_over_the_stand_in_of_adb(adb, artifact, images, tmp_path):
    device = open_device("adb:SERIAL1")
    with pytest.raises(ToolMissing, match="is Android x86_64.*ANDROID_NDK.*--harness"):
        run_on_device(device, artifact, images, WORDS, logits=tmp_path / "l")
    there = run_on_device(
        device, artifact, images, WORDS, logits=tmp_path / "l", harness=build_harness()
    )
    assert there["accuracy"] == run_harness(artifact, images)["accuracy"]
    assert list((adb / "edgevit-device" / "runs").iterdir()) == []
    assert len(list((adb / "edgevit-device" / "blobs").iterdir())) == 3


def test_what_adb_says_is_passed_on(adb, artifact, images, tmp_path):
    with pytest.raises(DeviceGone, match="allow USB debugging"):
        run_on_device(Adb("locked"), artifact, images, WORDS, logits=tmp_path / "l")
    with pytest.raises(DeviceGone, match="failed, after 2 attempts.*'gone' not found"):
        run_on_device(Adb("gone"), artifact, images, WORDS, logits=tmp_path / "l")
