"""Options of the TFLite target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from edgevit.options import check, option

IoType = Literal["int8", "uint8", "float32"]
IO_TYPES: tuple[IoType, ...] = get_args(IoType)


@dataclass(frozen=True)
class TfliteOptions:
    """How a program is compiled. Raises InputError for a value that is not a choice.

    io  "int8": quantized pixels and logits; "uint8": raw pixels, logits 128 higher; "float32":
        normalised pixels, dequantized logits
    """

    io: IoType = option("int8", "Element type of the artifact's input and output.")

    def __post_init__(self) -> None:
        check(self)
