"""Options that every NPU's target has; each adds its own SoCs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from edgevit.errors import InputError
from edgevit.options import check, option
from edgevit.targets.tflite.options import IoType


@dataclass(frozen=True)
class NpuOptions:
    """How a program is compiled. Raises InputError for a value that is not a choice, and for
    values that do not go together.

    io          as the TFLite target has it
    precision   "float16": a float artifact, which the NPU computes in fp16, to compare with
    sdk         folder in which the vendor's libraries are
    allow_cpu   operators of each SoC that may stay on the CPU
    """

    io: IoType = option("int8", "Element type of the artifact's input and output.")
    precision: Literal["int8", "float16"] = option(
        "int8", "float16 compiles a float artifact, to compare with."
    )
    sdk: Path | None = option(
        None,
        "Folder with the vendor's compiler libraries.",
        metavar="DIR",
        default_text="an installed package's",
    )
    allow_cpu: int = option(
        0, "Gate: operators that may stay on the CPU.", minimum=0, maximum=1000000, metavar="N"
    )
    soc: tuple[str, ...] = option((), "SoC to compile for; repeat it for several.", metavar="SOC")

    SOCS: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        check(self)
        if self.precision == "float16":
            if self.io == "uint8":
                raise InputError(
                    "--io uint8 needs --precision int8: a float artifact takes normalised float32 "
                    "pixels"
                )
            object.__setattr__(self, "io", "float32")
        if not self.soc:
            raise InputError(f"--soc is missing: {', '.join(self.SOCS)}")
        if len(set(self.soc)) != len(self.soc):
            raise InputError(f"--soc names one twice: {', '.join(self.soc)}")
