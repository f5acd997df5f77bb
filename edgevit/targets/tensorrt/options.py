"""Options of the TensorRT target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgevit.options import check, option

FloatType = Literal["float16", "float32"]


@dataclass(frozen=True)
class TensorrtOptions:
    """How a program is compiled. Raises InputError for a value that is not a choice.

    precision  "float16": no quantizer and float weights, to compare with
    engine     "on": also an engine by torch-tensorrt, for the GPU of this machine
    """

    io: FloatType = option("float16", "Element type of the artifact's input and output.")
    precision: Literal["int8", "float16"] = option(
        "int8", "float16 compiles a float artifact, to compare with."
    )
    compute_precision: FloatType = option(
        "float16", "Element type of the values that are not quantized."
    )
    engine: Literal["off", "on"] = option(
        "off", "Also build an engine for this machine's GPU, by torch-tensorrt."
    )

    def __post_init__(self) -> None:
        check(self)
