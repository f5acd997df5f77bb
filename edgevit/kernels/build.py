"""Compiling a C++ file of this package, once a machine, to a library that ctypes calls.

The file includes nothing of torch's, so that it compiles in two seconds. Its OpenMP calls find the
runtime that torch has loaded: a second one beside it would fight for the cores.
"""

from __future__ import annotations

import ctypes
import functools
import logging
import os
import subprocess
from pathlib import Path

from edgevit.kernels.cache import build_folder, library_path

log = logging.getLogger(__name__)

NO_KERNEL = "EDGEVIT_NO_KERNEL"
"""1 in this variable of the environment keeps every compiled kernel out."""
FLAGS = (
    "-std=c++20",
    "-O3",
    "-fPIC",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-trapping-math",
)
THREADS = ("-fopenmp",)
_LEVELS = {"AVX2": "x86-64-v3", "AVX512": "x86-64-v4"}
"""What torch says of the CPU -> what the compiler calls it."""
_COMPILE_SECONDS = 300


@functools.cache
def library(source: Path) -> ctypes.CDLL | None:
    """The compiled library of a C++ file; None, with a line that says why, where that fails."""
    import torch  # its OpenMP runtime must be there before the library is

    if os.environ.get(NO_KERNEL) == "1":
        return None
    level = _LEVELS.get(torch.backends.cpu.get_cpu_capability())
    flags = (*FLAGS, f"-march={level}") if level else FLAGS
    # Apple's compiler has no OpenMP. What has been built goes first.
    choices = sorted(((*flags, *THREADS), flags), key=lambda each: not _path(source, each).exists())
    why = ""
    for tried in choices:
        try:
            path = _path(source, tried)
            if not path.exists():
                _compile(source, tried, path)
            return ctypes.CDLL(str(path))
        except (OSError, subprocess.SubprocessError) as error:
            detail = getattr(error, "stderr", None) or str(error)
            why = (detail.strip().splitlines() or ["no reason given"])[0]
    log.warning(
        "the integer kernels could not be built, programs run several times slower with torch "
        "operations; a C++20 compiler is needed (apt-get install g++): %s",
        why,
    )
    return None


def _path(source: Path, flags: tuple[str, ...]) -> Path:
    return library_path(source.stem, source.read_text(), *flags)


def _compile(source: Path, flags: tuple[str, ...], target: Path) -> None:
    log.info("building the integer kernels (once, some seconds) ...")
    compiler = os.environ.get("CXX") or "g++"
    with build_folder(target) as folder:
        made, built = folder / "made.o", folder / "built.so"
        _run(compiler, *flags, "-c", str(source), "-o", str(made))
        # Without -fopenmp: the linker would add an OpenMP runtime of its own.
        _run(compiler, "-shared", str(made), "-o", str(built))
        os.replace(built, target)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=_COMPILE_SECONDS)
