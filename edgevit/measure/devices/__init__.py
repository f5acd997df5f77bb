"""Devices that the harness runs on when it does not run here: ssh://user@host[:port], adb:SERIAL.

    base       what a transport is; ssh, adb: the two there are
    exchange   one client process; link: scripts over it, tried again when the connection breaks
    packing    the files that a run needs; store: sending them, once, by sha256
    remote     one run on the device

No path, label or other text of the user's reaches the device's shell: files are named by their
sha256 over there, and the request of the run is one of them.
"""

from __future__ import annotations

import json
import os
import platform
import re
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgevit.errors import EdgevitError, InputError, ToolMissing
from edgevit.files import atomic_path
from edgevit.measure.devices.adb import Adb
from edgevit.measure.devices.base import Transport
from edgevit.measure.devices.link import Link
from edgevit.measure.devices.packing import check_machine, labels_of, pack_artifact, pack_images
from edgevit.measure.devices.remote import OUTPUT_LIMITS, RemoteRun, there
from edgevit.measure.devices.ssh import Ssh
from edgevit.measure.devices.store import Blob, discard, push
from edgevit.measure.harness import (
    HarnessLog,
    build_harness,
    check_result,
    description_of,
    find_runtime,
    manifest_target,
)  # fmt: skip
from edgevit.measure.request import HarnessRequest
from edgevit.project import SOURCES
from edgevit.schema import parse_json

__all__ = ["open_device", "run_on_device"]

LOCAL = "local"
# What a request may ask for beside the result: its name over there.
_OUTPUTS = {"logits": "logits", "dump_inputs": "inputs", "profile": "profile"}


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
    transport: Transport, request: HarnessRequest, *, harness: Path | None = None, keep: bool = True
) -> dict[str, Any]:
    """`run_harness` on a device: the same result, and the files that the request asks for here.

    harness   harness program built for the device; default: the one built here, where it fits
    keep      leave what was sent on the device, for the next run

    The request's runtime is a library built for the device; default: the installed wheel's, where
    it fits. Raises InputError, ToolMissing (DeviceGone when the device cannot be reached) or
    EdgevitError with the harness's own message, by its exit code.
    """
    if "plan_cache" in request.runtime_options:
        raise InputError(
            "--plan-cache names a folder of this machine, as does -O plan_cache=DIR; --device has "
            "no use for it"
        )
    link = Link(transport)
    system, machine = _system_of(link)
    program = harness or _local_harness(transport, system, machine)
    check_machine(program, machine, "the harness")
    target = request.backend or manifest_target(request.artifact)
    runtime = request.runtime or _default_runtime(target)
    if runtime is not None:
        check_machine(runtime, machine, "the runtime library")
    with tempfile.TemporaryDirectory(prefix="edgevit-") as name:
        sent = _pack(replace(request, runtime=runtime), program, Path(name))
        push(link, sent.blobs)
        text = _run(link, sent, request, Path(name) / "result.json")
    if not keep:
        discard(link, sent.blobs)
    try:
        result = parse_json(text, f"{transport.name}: the result")
    except InputError as error:  # the device's fault, not the caller's
        raise EdgevitError(str(error)) from error
    check_result(result)
    # Over there files are named by their sha256.
    result["dataset"]["name"] = request.data.resolve().name
    if runtime is not None:
        result["runtime"]["library"] = runtime.name
    if request.out is not None:
        with atomic_path(request.out, force=True) as temporary:
            temporary.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    return result


@dataclass(frozen=True)
class _Sent:
    """The files of one run: the program, and what it is asked for."""

    harness: Blob
    request: Blob
    artifact: Blob
    files: tuple[Blob, ...]  # images, and a library and reference logits where there are any

    @property
    def blobs(self) -> list[Blob]:
        return [self.artifact, self.harness, self.request, *self.files]


def _pack(request: HarnessRequest, program: Path, folder: Path) -> _Sent:
    """Everything as files, the request as the device must have it."""
    artifact, images = folder / "artifact.tar", request.data
    pack_artifact(request.artifact, artifact)
    if request.data.is_dir():
        images = folder / "images.tar"
        pack_images(request.data, images, labels_of(request.artifact))
    data = Blob.of("images", images)
    wanted = {
        "runtime library": request.runtime,
        "reference logits": request.reference,
        "names of images left out": request.leave_out,
    }
    files = {what: Blob.of(what, path) for what, path in wanted.items() if path is not None}
    paths = {what: there(blob) for what, blob in files.items()}
    document = folder / "request.json"
    replace(
        request,
        artifact=Path("artifact"),
        data=there(data),
        out=Path("result.json"),
        reference=paths.get("reference logits"),
        leave_out=paths.get("names of images left out"),
        runtime=paths.get("runtime library"),
        logits=request.logits and Path(_OUTPUTS["logits"]),
        dump_inputs=request.dump_inputs and Path(_OUTPUTS["dump_inputs"]),
        profile=request.profile and Path(_OUTPUTS["profile"]),
    ).write(document)
    return _Sent(
        Blob.of("harness", program),
        Blob.of("request", document),
        Blob.of("artifact", artifact),
        (data, *files.values()),
    )


def _run(link: Link, sent: _Sent, request: HarnessRequest, result: Path) -> bytes:
    """The result's text; fetches the request's other files to where it wants them."""
    with RemoteRun(link) as run:
        run.prepare(sent.artifact)
        run.start(sent.harness, sent.request)
        with HarnessLog() as log:
            code = run.follow(log.feed)
        log.raise_for(-(code - 128) if code > 128 else code)
        run.fetch("result.json", result, OUTPUT_LIMITS["result.json"])
        for key, name in _OUTPUTS.items():
            if (out := getattr(request, key)) is not None:
                with atomic_path(out, force=True) as temporary:
                    run.fetch(name, temporary, OUTPUT_LIMITS[name])
    return result.read_bytes()


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
    if found := find_runtime(target):
        return found
    table = description_of(target).get("runtime", {})
    named = os.environ.get(table.get("environment_variable", ""))
    return Path(named) if named else None
