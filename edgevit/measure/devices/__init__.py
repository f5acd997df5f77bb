"""Devices that the harness runs on when it does not run here: ssh://user@host[:port], adb:SERIAL.

    base       what a transport is; ssh, adb: the two there are
    exchange   one client process; link: scripts over it, tried again when the connection breaks
    packing    the files that a run needs; store: sending them, once, by sha256
    remote     one run on the device

No path, label or other text of the user's reaches the device's shell: files are named by their
sha256 over there, and the options that go along are numbers and checked words.
"""

from __future__ import annotations

import json
import os
import platform
import re
import tempfile
from pathlib import Path
from typing import Any

from edgevit.errors import EdgevitError, InputError, ToolMissing
from edgevit.limits import MAX_LOGITS_BYTES, MAX_RESULT_BYTES
from edgevit.measure.devices.adb import Adb
from edgevit.measure.devices.base import Transport
from edgevit.measure.devices.link import Link
from edgevit.measure.devices.packing import check_machine, pack_artifact, pack_images
from edgevit.measure.devices.remote import RemoteRun
from edgevit.measure.devices.ssh import Ssh
from edgevit.measure.devices.store import Blob, discard, push
from edgevit.measure.harness import (
    SOURCES,
    HarnessLog,
    build_harness,
    check_result,
    find_runtime,
    manifest_target,
)  # fmt: skip

__all__ = ["open_device", "run_on_device"]

LOCAL = "local"


def open_device(text: str) -> Transport | None:
    """The way to the device that --device names; None for "local". Nothing is contacted yet.

    Raises InputError for anything but local, ssh://[user@]host[:port] or adb:SERIAL.
    """
    if text == LOCAL:
        return None
    if text.startswith("adb:"):
        return Adb.parse(text)
    if text.startswith("ssh:"):
        return Ssh.parse(text)
    raise InputError(f"--device {text!r} is none of local, ssh://user@host[:port], adb:SERIAL")


def run_on_device(
    transport: Transport,
    artifact_dir: Path,
    data: Path,
    words: list[str],
    *,
    logits: Path,
    reference: Path | None = None,
    backend: str | None = None,
    runtime: Path | None = None,
    harness: Path | None = None,
    keep: bool = True,
) -> dict[str, Any]:
    """`run_harness` on a device: the same result, with the logits written to `logits`.

    words     harness options that name no file (`harness.measuring_options`)
    runtime   library built for the device; default: the installed wheel's, where it fits
    harness   harness program built for the device; default: the one built here, where it fits
    keep      leave what was sent on the device, for the next run

    Raises InputError, ToolMissing (DeviceGone when the device cannot be reached) or EdgevitError
    with the harness's own message, by its exit code.
    """
    if backend is not None and not re.fullmatch("[a-z0-9_]{1,32}", backend):
        raise InputError(f"--backend {backend!r} is not the name of a back-end")
    words = [*words, *(["--backend", backend] if backend else [])]
    link = Link(transport)
    system, machine = _system_of(link)
    program = harness or _local_harness(transport, system, machine)
    check_machine(program, machine, "the harness")
    runtime = runtime or _default_runtime(backend or manifest_target(artifact_dir))
    if runtime is not None:
        check_machine(runtime, machine, "the runtime library")
    with tempfile.TemporaryDirectory(prefix="edgevit-") as folder:
        artifact_tar, images = Path(folder) / "artifact.tar", data
        pack_artifact(artifact_dir, artifact_tar)
        if data.is_dir():
            images = Path(folder) / "images.tar"
            pack_images(data, images)
        packed, binary = Blob.of("artifact", artifact_tar), Blob.of("harness", program)
        files = {"--data": Blob.of("images", images)}
        if runtime is not None:
            files["--runtime"] = Blob.of("runtime library", runtime)
        if reference is not None:
            files["--reference"] = Blob.of("reference logits", reference)
        everything = [packed, binary, *files.values()]
        push(link, everything)
        result_path = Path(folder) / "result.json"
        with RemoteRun(link) as run:
            run.prepare(packed)
            run.start(binary, words, files)
            with HarnessLog() as log:
                code = run.follow(log.feed)
            log.raise_for(-(code - 128) if code > 128 else code)
            run.fetch("result.json", result_path, MAX_RESULT_BYTES)
            run.fetch("logits", logits, MAX_LOGITS_BYTES)
        if not keep:
            discard(link, everything)
        try:
            result = json.loads(result_path.read_bytes())
        except ValueError as error:
            raise EdgevitError(f"{transport.name}: the result is not JSON: {error}") from error
    check_result(result)
    # Over there files are named by their sha256.
    result["dataset"]["name"] = data.resolve().name
    if runtime is not None:
        result["runtime"]["library"] = runtime.name
    return result


def _system_of(link: Link) -> tuple[str, str]:
    """What `uname` says on the device, such as ("Linux", "aarch64")."""
    answer = link.ask("uname -s && uname -m")
    found = answer.output.split()
    if answer.code != 0 or len(found) != 2 or not all(re.fullmatch(r"\w{1,32}", f) for f in found):
        raise EdgevitError(
            f"{link.transport.name}: no POSIX shell with a folder to write in: "
            f"{answer.errors.strip() or answer.output[:200]!r}"
        )
    return found[0], found[1]


def _local_harness(transport: Transport, system: str, machine: str) -> Path:
    here = (platform.system(), platform.machine())
    if transport.kind != "adb" and here == (system, machine):
        return build_harness()
    kind = "Android" if transport.kind == "adb" else system
    toolchain = (
        "-DCMAKE_TOOLCHAIN_FILE=$ANDROID_NDK/build/cmake/android.toolchain.cmake "
        "-DANDROID_ABI=arm64-v8a -DANDROID_PLATFORM=android-29"
        if transport.kind == "adb"
        else f"-DCMAKE_SYSTEM_NAME={system} -DCMAKE_SYSTEM_PROCESSOR={machine} "
        f"-DCMAKE_CXX_COMPILER={machine}-linux-gnu-g++"
    )
    raise ToolMissing(
        f"the harness that is built here runs on {' '.join(here)}, {transport.name} is {kind} "
        f"{machine}. Build it on the device, or cross-compile it here, with the device's libjpeg "
        f"and libpng (cmake -S {SOURCES} -B build/device -DBUILD_TESTING=OFF {toolchain}), and "
        "name it with --harness"
    )


def _default_runtime(target: str) -> Path | None:
    """The library that a local run would load: the wheel's, or that of the target's variable."""
    import tomllib

    if found := find_runtime(target):
        return found
    description = SOURCES / "targets" / target / "target.toml"
    if not description.is_file():
        return None
    table = tomllib.loads(description.read_text("utf-8")).get("runtime", {})
    named = os.environ.get(table.get("environment_variable", ""))
    return Path(named) if named else None
