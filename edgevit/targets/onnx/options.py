"""Options of the ONNX target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgevit.errors import InputError
from edgevit.options import check, option


@dataclass(frozen=True)
class OnnxOptions:
    """How a program is compiled. Raises InputError for a value that is not a choice, and for
    values that do not go together.

    io         "float32": normalised pixels, dequantized logits; "int8": quantized pixels and
               logits; "uint8": raw pixels, logits 128 higher
    activation_type  "uint8": every activation 128 higher than in the program, for runtimes that
               are faster so; weights are int8 either way
    opset      of the file
    precision  "float32": no quantizer and float weights, to compare with
    """

    io: Literal["int8", "uint8", "float32"] = option(
        "float32", "Element type of the artifact's input and output."
    )
    activation_type: Literal["int8", "uint8"] = option(
        "int8", "Element type of the quantized activations inside the file."
    )
    opset: Literal["20", "21", "22"] = option("20", "Version of ONNX's operators.")
    precision: Literal["int8", "float32"] = option(
        "int8", "float32 compiles a float artifact, to compare with."
    )

    def __post_init__(self) -> None:
        check(self)
        if self.precision == "float32" and self.io != "float32":
            raise InputError(
                f"--io {self.io} needs --precision int8: a float artifact takes normalised float32 "
                "pixels"
            )
