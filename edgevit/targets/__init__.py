"""Targets: each lowers a quantized program into an artifact folder.

A target is a module or package here. It is found by its name, and offers

    NAME, SUMMARY       the name on the command line, and one line of help
    OPTIONS             option name -> its choices as strings, the first one the default
    compile_program(program, out_dir, force, **options) -> Manifest
                        writes the artifact folder, whole or not at all
    audit_bytes(data, program)
                        the scale audit of the artifact's bytes, which compile_program calls
    check_artifact(folder, program)
                        the same of a written folder; EdgevitError naming what differs
    RUN_OPTIONS         options of open_runner, as OPTIONS
    open_runner(artifact, **options) -> Runner
                        the artifact ready to run here, for `run` and `parity`

It MUST NOT choose, re-round or drop a scale without listing it in the manifest's "drops", MUST
audit the written bytes, and MUST import its toolkit only when it compiles. Its tests inherit
tests/target_contract.py.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Protocol

from edgevit.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from edgevit.program import Program

_SHARED = ("artifact", "manifest", "pixels")
"""Modules of this package that are no target."""


class Runner(Protocol):
    """An artifact that can be run here, by its own runtime or by a reference."""

    engine: str
    """What runs it, for people: name, version, arithmetic."""
    probabilities: bool
    """Whether the scores are probabilities already, not logits."""

    def scores(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (N, H, W, 3), cropped to the input's size, to float32 (N, classes)."""

    def tensors(self, pixels: np.ndarray, program: Program) -> Iterator[tuple[str, np.ndarray]]:
        """Canonical name and values of the program's tensors, in the program's shapes.

        int8 where the artifact holds the tensor quantized, float32 where it holds real values;
        tensors that it does not hold are left out.
        """


def target_names() -> list[str]:
    """Every target, by the name of its module, sorted."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name not in _SHARED)


def load_target(name: str) -> ModuleType:
    """The target's module. Raises InputError, listing what there is, for an unknown name."""
    if name not in target_names():
        raise InputError(f"target {name!r} is not one of {', '.join(target_names())}")
    return importlib.import_module(f"{__name__}.{name}")
