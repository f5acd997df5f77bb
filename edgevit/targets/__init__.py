"""Targets: each lowers a quantized program into an artifact folder.

A target is a package here, found by its name, whose `TARGET` is a `base.Target`. To add one, write
its package and the C++ back-end of the same name; nothing else lists targets. It MUST import its
toolkit only when it compiles. Its tests inherit tests/target_contract.py.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from edgevit.errors import InputError
from edgevit.options import option_fields

if TYPE_CHECKING:
    import numpy as np

    from edgevit.program import Program
    from edgevit.targets.base import Target

T = TypeVar("T")
OptionKind = Literal["Options", "RunOptions"]

_SHARED = ("npu", "qdq")
"""Packages here that are no target but what several share; nor is a plain module one."""


class Runner(Protocol):
    """An artifact that can be run here, by its own runtime or by a reference."""

    engine: str
    """What runs it, for people: name, version, arithmetic."""
    probabilities: bool
    """Whether the scores are probabilities already, not logits."""

    def scores(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (N, H, W, 3), cropped to the input's size, to float32 (N, classes)."""
        ...

    def outputs(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        """Every output by its name in the manifest, dequantized: float32 (N, ...)."""
        ...

    def tensors(self, pixels: np.ndarray, program: Program) -> Iterator[tuple[str, np.ndarray]]:
        """Canonical name and values of the program's tensors, in the program's shapes.

        int8 where the artifact holds the tensor quantized, float32 where it holds real values;
        tensors that it does not hold are left out.
        """
        ...


def target_names() -> list[str]:
    """Every target, by the name of its package, sorted."""
    found = [module.name for module in pkgutil.iter_modules(__path__) if module.ispkg]
    return sorted(set(found) - set(_SHARED))


def load_target(name: str) -> Target[Any, Any]:
    """The target of this name. InputError, listing what there is, for an unknown one."""
    if name not in target_names():
        raise InputError(f"target {name!r} is not one of {', '.join(target_names())}")
    return importlib.import_module(f"{__name__}.{name}").TARGET


def option_classes(kind: OptionKind = "Options") -> dict[str, type]:
    """Every target's option class of a kind, by the target's name."""
    return {name: getattr(load_target(name), kind) for name in target_names()}


def make_options(
    target: str, cls: type[T], given: Mapping[str, Any], kind: OptionKind = "Options"
) -> T:
    """The target's option class, made of keywords.

    Raises InputError for a value that the class refuses, and for an option that the target does not
    have, naming the targets that do.
    """
    known = {each.name for each in option_fields(cls)}
    for name in given:
        if name not in known:
            raise unknown_option(name, [target], kind)
    return cls(**given)


def unknown_option(name: str, asked: list[str], kind: OptionKind = "Options") -> InputError:
    """The error for an option that none of the targets `asked` has."""
    users = {
        target: {each.name: each.flag for each in option_fields(cls)}
        for target, cls in option_classes(kind).items()
    }
    owners = [target for target, names in users.items() if name in names]
    flag = users[owners[0]][name] if owners else f"--{name.replace('_', '-')}"
    hint = f"it is one of {', '.join(owners)}" if owners else "no target has it"
    return InputError(f"{flag} is not an option of {', '.join(asked)}; {hint}")
