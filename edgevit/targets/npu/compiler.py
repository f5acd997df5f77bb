"""LiteRT's program that applies a vendor's compiler plugin to a TFLite file, and what it says.

The program says everything in its log and by its exit code. A plugin is a vendor's library in the
same process, so it may crash; nothing of a failed run is kept but the last lines of its log, which
the error holds.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from edgevit.errors import EdgevitError, InputError, ToolMissing
from edgevit.files import read_file
from edgevit.targets.npu.vendor import Vendor, applier, plugin

TIMEOUT_S = 1800
_MAX_BYTES = 2**30
_LOG_BYTES = 2**26
_LINES = 12
_PARTS = re.compile(
    r"Partitioned subgraph<\d+>, selected (\d+) ops, from a total of (\d+) ops\. "
    r"resulted in (\d+) partitions"
)
_SDK = re.compile(r"Applying plugin with SDK version: (\S+)")
_BAD = re.compile(r"error|fail|unsupported|not found|cannot|could not|missing", re.IGNORECASE)


@dataclass(frozen=True)
class CompiledModel:
    """What the compiler made for one SoC.

    data            the compiled model
    operators, npu_operators, partitions
                    as its log counts them
    reasons         name of a tensor -> why its operator stays on the CPU
    versions        of what compiled
    """

    data: bytes
    operators: int
    npu_operators: int
    partitions: int
    reasons: dict[str, str]
    versions: dict[str, str]
    compile_s: float


def compile_model(
    model: bytes, vendor: Vendor, soc: str, sdk: Path | None = None, *, divide_only: bool = False
) -> CompiledModel:
    """A TFLite file compiled for a SoC.

    divide_only   the model is divided between NPU and CPU, and no part of it compiled
    Raises ToolMissing without the program, the plugin or the vendor's libraries, and where the
    plugin fails or crashes, with its last words.
    """
    if soc not in vendor.socs:
        raise InputError(f"{vendor.title} has no SoC {soc!r} here: {', '.join(vendor.socs)}")
    program, folder = applier(), plugin(vendor.folder)
    if folder is None:
        raise ToolMissing(f"ai-edge-litert has no plugin for {vendor.title}: upgrade it")
    libraries = vendor.libraries(sdk)
    with tempfile.TemporaryDirectory(prefix="edgevit-npu-") as name:
        work = Path(name)
        (work / "model.tflite").write_bytes(model)
        for linked, other in vendor.stand_ins.items():
            if not (libraries / linked).exists():
                (work / linked).symlink_to(libraries / other)
        command = [
            str(program),
            f"--cmd={'partition' if divide_only else 'apply'}",
            "--model=model.tflite",
            "--o=out.tflite",
            f"--soc_manufacturer={vendor.manufacturer}",
            f"--soc_model={vendor.soc_argument(soc)}",
            f"--libs={folder}",
        ]
        paths = [str(libraries), str(work), os.environ.get("LD_LIBRARY_PATH", "")]
        started_s = time.monotonic()
        code, log = _run(command, work, ":".join(filter(None, paths)))
        took_s = time.monotonic() - started_s
        out = work / "out.tflite"
        if code or not out.is_file() or not out.stat().st_size:
            raise _failed(vendor, soc, code, log)
        data = read_file(out, _MAX_BYTES, "a compiled model")
    return _counted(data, vendor, soc, log, took_s)


def _counted(data: bytes, vendor: Vendor, soc: str, log: str, took_s: float) -> CompiledModel:
    counts = [tuple(map(int, found)) for found in _PARTS.findall(log)]
    if len(counts) != 1:
        raise _failed(vendor, soc, 0, log)
    selected, total, partitions = counts[0]
    found = {"ai-edge-litert": version("ai-edge-litert"), **vendor.versions(log)}
    if sdk := _SDK.search(log):
        found["sdk"] = sdk[1]
    return CompiledModel(
        data=data,
        operators=total,
        npu_operators=selected,
        partitions=partitions,
        reasons=vendor.reasons(log),
        versions=found,
        compile_s=round(took_s, 3),
    )


def _run(command: list[str], work: Path, libraries: str) -> tuple[int, str]:
    """Exit code (negative: the signal) and log of the program; its children end with it."""
    log = work / "log.txt"
    environment = os.environ | {"LD_LIBRARY_PATH": libraries}
    with log.open("wb") as file:
        process = subprocess.Popen(
            command,
            cwd=work,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            raise EdgevitError(f"{command[0]} took over {TIMEOUT_S} s and was stopped") from error
        finally:
            _kill(process)
    with log.open("rb") as file:
        return code, file.read(_LOG_BYTES).decode("utf-8", "replace")


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _failed(vendor: Vendor, soc: str, code: int, log: str) -> ToolMissing:
    lines = [line.strip()[:300] for line in log.splitlines() if line.strip()]
    telling = [line for line in lines if _BAD.search(line)] or lines
    ended = f"ended with exit code {code}"
    if code < 0:
        ended = f"crashed ({signal.Signals(-code).name})"
    elif code == 0:
        ended = "gave no compiled model"
    said = "\n  ".join(telling[-_LINES:])
    return ToolMissing(f"{vendor.title}'s compiler {ended} for {soc}; nothing was kept:\n  {said}")
