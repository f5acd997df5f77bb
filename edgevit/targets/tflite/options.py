"""Options of the TFLite target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from edgevit.errors import InputError
from edgevit.options import check, option

IoType = Literal["int8", "uint8", "float32"]
IO_TYPES: tuple[IoType, ...] = get_args(IoType)


@dataclass(frozen=True)
class TfliteOptions:
    """How a program is compiled. Raises InputError for a value that is not a choice, and for
    values that do not go together.

    io         "int8": quantized pixels and logits; "uint8": raw pixels, logits 128 higher;
               "float32": normalised pixels, dequantized logits
    precision  "float32": no quantizer and float weights, to compare with; its `io` is float32,
               whether that was asked for or left at its default
    """

    io: IoType = option("int8", "Element type of the artifact's input and output.")
    precision: Literal["int8", "float32"] = option(
        "int8", "float32 compiles a float artifact, to compare with."
    )

    def __post_init__(self) -> None:
        check(self)
        if self.precision == "float32":
            if self.io == "uint8":
                raise InputError(
                    "--io uint8 needs --precision int8: a float artifact takes normalised float32 "
                    "pixels"
                )
            object.__setattr__(self, "io", "float32")
