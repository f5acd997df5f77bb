"""Builds the C++ harness when it is needed, and runs it on an artifact folder.

The harness is a program of its own (targets/): Python hands it a request (one JSON file) and reads
one JSON back, which must fit schemas/result.schema.json.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from edgevit.errors import EdgevitError, InputError, ToolMissing
from edgevit.files import read_file
from edgevit.limits import MAX_MANIFEST_BYTES, MAX_RESULT_BYTES
from edgevit.measure.request import HarnessRequest
from edgevit.progress import Progress
from edgevit.project import COMPILED_HARNESS, IS_CHECKOUT, SOURCES
from edgevit.schema import check_json, parse_json
from edgevit.targets.manifest import MANIFEST_FILE

PROGRAM = "edgevit-harness"
ERROR_PREFIX = f"{PROGRAM}: error: "
_PROGRESS_LINE = re.compile(r"(\d+)/(\d+) (images|s of the long run)(?:,|$)")
_LOG_LINES_KEPT = 20
_NOT_RUN = 126  # what a shell exits with
_KNOWS_NO_REQUEST = "--artifact is required"


def build_harness(build_dir: Path | None = None) -> Path:
    """The harness program: the wheel's, or configured and compiled with CMake.

    It is compiled when it is missing or older than a source; `build_dir` defaults to build/harness
    in a checkout, elsewhere to a folder of the user's cache. Two processes may call this at once:
    the second waits for the first. Raises ToolMissing, with the command that helps, when there are
    no sources, no CMake, no compiler, or a library is missing; EdgevitError when compiling fails.
    """
    if build_dir is None and COMPILED_HARNESS.is_file():
        return COMPILED_HARNESS
    if not (SOURCES / "targets" / "harness").is_dir():
        raise ToolMissing(
            f"the harness's C++ sources are not where they were installed ({SOURCES}): "
            "install edgevit again"
        )
    build_dir = build_dir or _default_build_dir()
    program = build_dir / "targets" / "harness" / PROGRAM
    if _is_current(program):
        return program
    with _locked(build_dir):
        if not _is_current(program):
            _configure_and_build(build_dir)
            if not program.is_file():
                raise EdgevitError(f"CMake finished, but there is no {program}")
            os.utime(program)  # a source that was touched, not changed, leaves the old program
    return program


def run_harness(
    request: HarnessRequest, harness: Path | None = None, *, quiet: bool = False
) -> dict[str, Any]:
    """Run the harness and return its result, which fits schemas/result.schema.json.

    harness   the program; default: built here when needed
    quiet     show no progress of this run: it is one of many, whose progress the caller shows

    Raises InputError, ToolMissing or EdgevitError with the harness's own message, by its exit code.
    """
    program = build_harness() if harness is None else harness
    with tempfile.TemporaryDirectory(prefix="edgevit-") as folder:
        out = request.out or Path(folder) / "result.json"
        document = Path(folder) / "request.json"
        replace(request, out=out, runtime=_runtime_of(request)).write(document)
        code, log = _run_with_progress([str(program), "--request", str(document)], quiet)
        log.raise_for(code)
        if not out.is_file():
            raise InputError(f"{program} ended without a result: it is not an edgevit-harness")
        result = parse_json(read_file(out, MAX_RESULT_BYTES, "a result"), str(out))
    check_result(result)
    return result


def _runtime_of(request: HarnessRequest) -> Path | None:
    runtime = request.runtime or find_runtime(request.backend or manifest_target(request.artifact))
    if runtime is not None and os.path.lexists(runtime):
        if not (runtime.is_file() or runtime.is_dir()):
            raise InputError(f"--runtime {runtime} is a device, a FIFO or a broken link")
        return runtime.absolute()  # to the harness a name without '/' is no file
    return runtime


def check_result(result: Any) -> None:
    """Raises EdgevitError, naming the place, when a result does not fit the schema."""
    check_json(
        result, "the harness's result does not fit its schema", _result_schema(), EdgevitError
    )


def find_runtime(target: str) -> Path | None:
    """The runtime library of the target's wheel, looked up without importing the wheel.

    targets/TARGET/target.toml names both, the library by a pattern; of several files that fit it
    the last by name is taken. None when the target needs no library, its wheel is
    not installed, or the user has set the target's environment variable, which the harness reads.
    """
    runtime = description_of(target).get("runtime", {})
    if "python_package" not in runtime or os.environ.get(runtime.get("environment_variable", "")):
        return None
    spec = find_spec(runtime["python_package"])
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if found := sorted(p for p in Path(folder).glob(runtime["library"]) if p.is_file()):
            return found[-1]
    return None


def description_of(target: str) -> dict[str, Any]:
    """What targets/TARGET/target.toml says; nothing where there is none."""
    path = SOURCES / "targets" / target / "target.toml"
    return tomllib.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def manifest_target(artifact_dir: Path) -> str:
    """The manifest's target, or "" where the harness will say what is wrong with the manifest."""
    path = artifact_dir / MANIFEST_FILE
    try:
        manifest = parse_json(read_file(path, MAX_MANIFEST_BYTES), str(path))
    except InputError:
        return ""
    target = manifest.get("target") if isinstance(manifest, dict) else None
    return target if isinstance(target, str) and re.fullmatch(r"\w+", target) else ""


@cache
def _result_schema() -> dict[str, Any]:
    text = resources.files("edgevit").joinpath("schemas/result.schema.json").read_text("utf-8")
    return json.loads(text)


def _default_build_dir() -> Path:
    if IS_CHECKOUT and os.access(SOURCES, os.W_OK):
        return SOURCES / "build" / "harness"
    cache_home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache_home) / "edgevit" / "harness"


def _is_current(program: Path) -> bool:
    """True when the program is there and no source is newer."""
    if not program.is_file():
        return False
    built = program.stat().st_mtime
    sources = [SOURCES / "CMakeLists.txt", *(SOURCES / "targets").rglob("*")]
    kinds = {".cpp", ".h", ".in", ".mm", ".txt", ".cmake"}
    return all(s.stat().st_mtime <= built for s in sources if s.suffix in kinds)


@contextmanager
def _locked(build_dir: Path) -> Iterator[None]:
    build_dir.mkdir(parents=True, exist_ok=True)
    with open(build_dir / ".edgevit-lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _configure_and_build(build_dir: Path) -> None:
    cmake = shutil.which("cmake")
    if cmake is None:
        raise ToolMissing("the harness is built with CMake: apt-get install -y cmake g++ make")
    configure = [cmake, "-S", str(SOURCES), "-B", str(build_dir), "-DBUILD_TESTING=OFF"]
    _checked(configure, "configuring the harness")
    _checked(
        [cmake, "--build", str(build_dir), "--target", PROGRAM, "--parallel", str(os.cpu_count())],
        "compiling the harness",
    )


def _checked(command: list[str], what: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 0:
        return
    output = done.stdout + done.stderr
    if missing := re.search(r"missing packages: (?s:.*?)(apt-get install .*)", output):
        raise ToolMissing(f"{what} needs system packages: {missing[1]}")
    if "CMAKE_CXX_COMPILER" in output or "CMAKE_MAKE_PROGRAM" in output:
        raise ToolMissing(f"{what} needs a C++17 compiler and make: apt-get install -y g++ make")
    tail = "\n".join(output.splitlines()[-_LOG_LINES_KEPT:])
    raise EdgevitError(f"{what} failed (`{' '.join(command)}`):\n{tail}")


class HarnessLog:
    """What a harness writes to stderr: progress is shown, the last other lines are kept."""

    def __init__(self, quiet: bool = False) -> None:
        self.lines: list[str] = []
        self._quiet = quiet
        self._progress: Progress | None = None

    def __enter__(self) -> HarnessLog:
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.__exit__(None, None, None)

    def feed(self, line: str) -> None:
        """One line, without its end."""
        match = _PROGRESS_LINE.match(line)
        if match is None:
            self.lines = [*self.lines, line.rstrip()][-_LOG_LINES_KEPT:]
            return
        if self._quiet:
            return
        title, unit = ("validate", "images") if match[3] == "images" else ("long run", "s")
        if self._progress is None or self._progress.title != title:
            self.__exit__()
            self._progress = Progress(title, int(match[2]), unit).__enter__()
        self._progress.update(int(match[1]))

    def raise_for(self, code: int) -> None:
        """Raises what the exit code and the lines say: InputError, ToolMissing, EdgevitError."""
        if code == 0:
            return
        prefix = ERROR_PREFIX
        messages = [line[len(prefix) :] for line in self.lines if line.startswith(prefix)]
        if messages and messages[-1].startswith(_KNOWS_NO_REQUEST):
            raise ToolMissing(
                "the harness is of an older edgevit and reads no request: build it again"
            )
        if messages:
            errors = {2: InputError, 4: ToolMissing}
            raise errors.get(code, EdgevitError)(messages[-1])
        if code == _NOT_RUN or any("error while loading shared" in line for line in self.lines):
            why = "cannot run there: another architecture, or a library is missing"
            raise ToolMissing("\n".join([f"the harness {why}", *self.lines]))
        how = f"was killed by {_signal_name(-code)}" if code < 0 else f"exited with {code}"
        raise EdgevitError("\n".join([f"the harness {how} without a message", *self.lines]))


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # another system's
        return f"signal {number}"


def _run_with_progress(command: list[str], quiet: bool) -> tuple[int, HarnessLog]:
    """Run the harness, showing its progress unless `quiet`; returns its exit code and the log."""
    try:
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace"
        )
    except (OSError, ValueError) as error:
        raise InputError(f"the harness {command[0]} cannot be run: {error}") from error
    with process, HarnessLog(quiet) as log:
        try:
            for line in process.stderr or ():
                log.feed(line)
        except BaseException:
            process.terminate()  # it removes its half-written files itself
            raise
    return process.returncode, log
