"""Options of the qnn target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from edgevit.options import check, option
from edgevit.targets.npu.options import NpuOptions
from edgevit.targets.qnn.emulator import HtpArch

Soc = Literal[
    "SM8350", "SM8450", "SM8475", "SM8550", "SM8650", "SM8750", "SM8845", "SM8850", "SA8255",
    "SA8295"
]  # fmt: skip
SOCS: tuple[Soc, ...] = get_args(Soc)
"""Those that LiteRT's plugin compiles for."""


@dataclass(frozen=True)
class QnnOptions(NpuOptions):
    """See `NpuOptions`."""

    soc: tuple[Soc, ...] = option(
        ("SM8750",), "SoC to compile for; repeat it for several.", metavar="SOC"
    )
    SOCS: ClassVar[tuple[str, ...]] = SOCS


@dataclass(frozen=True)
class QnnRunOptions:
    """What runs an artifact on this machine. Raises InputError for a value that is not a choice.

    runner    "htp-emulator": QNN's x86 emulator of the NPU runs the program's ONNX;
              "htp-reference": the rules that were found of it do; "litert": the TFLite file on the
              CPU, which is not the NPU's arithmetic
    htp_arch  of the emulator
    """

    runner: Literal["htp-emulator", "htp-reference", "litert"] = option(
        "htp-emulator",
        "htp-emulator: the NPU's arithmetic, by QNN's emulator; htp-reference: the same by the "
        "rules found of it, faster and without onnxruntime-qnn; litert: the TFLite file on the "
        "CPU.",
    )
    htp_arch: HtpArch | None = option(
        None,
        "Version of the emulated HTP.",
        default_text="that of the first SoC compiled for",
    )

    def __post_init__(self) -> None:
        check(self)
