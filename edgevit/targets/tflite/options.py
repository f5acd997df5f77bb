"""Options of the TFLite target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from edgevit.errors import InputError
from edgevit.options import check, option
from edgevit.targets.weights_only import Switch, check_weights_only, weights_only_option

IoType = Literal["int8", "uint8", "float32"]
IO_TYPES: tuple[IoType, ...] = get_args(IoType)

REFUSED = {
    "16x8": "int16 activations run at 0.04 times the speed of float32 under LiteRT on a CPU, which "
    "has no fast kernel for them (benchmarks/modes.py; docs/modes.md)",
    "int4": "int4 weights run at 0.3 to 0.9 times the speed of float32 under LiteRT on a CPU, and "
    "int8 ones at 1.7 times (benchmarks/modes.py; docs/modes.md)",
}
"""Precisions that LiteRT would run -> what they were measured to be worth."""


@dataclass(frozen=True)
class TfliteOptions:
    """How a program is compiled. Raises InputError for a value that is not a choice, and for
    values that do not go together.

    io         "int8": quantized pixels and logits; "uint8": raw pixels, logits 128 higher;
               "float32": normalised pixels, dequantized logits
    weights_only  "on": int8 weights, float activations, which LiteRT quantizes as it runs; `io` as
               of "float32"
    activations  "table": GELU and hard-swish as DEQUANTIZE, the float operator and QUANTIZE, which
               XNNPACK folds into a table of 256 values; "operator": as one int8 operator, which
               NPUs take and which is faster on a CPU without XNNPACK or with an old one
    precision  "float32": no quantizer and float weights, to compare with; its `io` is float32,
               whether that was asked for or left at its default
    """

    io: IoType = option("int8", "Element type of the artifact's input and output.")
    precision: Literal["int8", "float32"] = option(
        "int8", "float32 compiles a float artifact, to compare with.", refused=REFUSED
    )
    weights_only: Switch = weights_only_option()
    activations: Literal["table", "operator"] = option(
        "table",
        "How an int8 file holds GELU and hard-swish: float operators that LiteRT's CPU path makes "
        "a table of (fast, the same values), or one int8 operator each (for NPUs).",
    )

    def __post_init__(self) -> None:
        check(self)
        check_weights_only(self)
        if self.precision == "int8" and self.weights_only == "off":
            return
        if self.io == "uint8":
            needed = "--precision int8" if self.weights_only == "off" else "a quantized input"
            raise InputError(
                f"--io uint8 needs {needed}: a float artifact takes normalised float32 pixels"
            )
        object.__setattr__(self, "io", "float32")
