"""The file that an NPU's compiler gets, which is the TFLite target's, and what it gives back."""

from __future__ import annotations

from typing import Protocol

from edgevit.program import Program
from edgevit.targets.tflite.metadata import append_labels
from edgevit.targets.tflite.options import IoType, TfliteOptions
from edgevit.targets.tflite.write import tflite_bytes

PORTABLE = "portable.tflite"
"""The file that was compiled, which any CPU runs too."""


class Written(Protocol):
    """What of a target's options says what the file holds."""

    @property
    def io(self) -> IoType: ...
    @property
    def precision(self) -> str: ...


def portable_bytes(program: Program, options: Written) -> bytes:
    """The TFLite file of a program; a float one where the precision is no int8.

    An activation is one int8 operator, as an NPU has it.
    """
    if options.precision == "int8":
        return tflite_bytes(program, TfliteOptions(io=options.io, activations="operator"))
    return tflite_bytes(program, TfliteOptions(precision="float32"))


def with_labels(compiled: bytes, program: Program) -> bytes:
    """A compiled file with the labels behind it, which a compiler does not keep."""
    return append_labels(compiled, program.info.labels)


def file_name(manufacturer: str, soc: str) -> str:
    """Of the compiled file in the artifact's folder."""
    return f"{manufacturer}_{soc}.tflite"
