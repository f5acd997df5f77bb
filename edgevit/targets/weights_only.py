"""The option of int8 weights alone, which the targets that have the form share."""

from __future__ import annotations

from typing import Any, Literal, Protocol

from edgevit.errors import InputError
from edgevit.options import option

Switch = Literal["off", "on"]


class HasWeightsOnly(Protocol):
    """Options with this one, and the precision that it excludes."""

    @property
    def precision(self) -> str: ...
    @property
    def weights_only(self) -> str: ...


def weights_only_option() -> Any:
    """The option, for the option class of a target."""
    return option(
        "off",
        "Keep int8 weights and float activations: for a checkpoint without images, or an .evq.",
    )


def check_weights_only(options: HasWeightsOnly) -> None:
    """Raises InputError where a float artifact is asked for as well."""
    if options.weights_only == "on" and options.precision != "int8":
        raise InputError(
            f"--weights-only keeps int8 weights, --precision {options.precision} does not: leave "
            "one of them out"
        )
