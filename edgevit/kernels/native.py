"""C++ extensions of torch: built once a machine and user, then loaded from the cache."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from edgevit.kernels.cache import build_folder, library_path

log = logging.getLogger(__name__)


def load_library(name: str, source: Path, flags: Sequence[str]) -> None:
    """Load the operators of a C++ source, built where this machine's cache has no build of it.

    Raises OSError or RuntimeError when that fails.
    """
    import torch

    library = _library_path(name, source, flags)
    if library.exists():
        torch.ops.load_library(str(library))
    else:
        _build_and_load(name, source, flags, library)


def _build_and_load(name: str, source: Path, flags: Sequence[str], library: Path) -> None:
    from torch.utils import cpp_extension

    log.info("building the %s kernel (once, half a minute) ...", name.replace("_", "-"))
    # The loader calls `ninja`, which pip put beside this interpreter.
    path = os.environ.get("PATH", "")
    os.environ["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), path))
    try:
        # Not in torch's own folder: its build lock would outlive a killed run.
        with build_folder(library) as folder:
            cpp_extension.load(
                f"edgevit_{name}",
                [str(source)],
                extra_cflags=list(flags),
                build_directory=str(folder),
                is_python_module=False,
            )
            os.replace(folder / f"edgevit_{name}.so", library)
    finally:
        os.environ["PATH"] = path


def _library_path(name: str, source: Path, flags: Sequence[str]) -> Path:
    import torch

    # -march=native: a home folder shared between machines must not share the binary.
    return library_path(name, _cpu_flags(), torch.__version__, source.read_text(), *flags)


def _cpu_flags() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")
