"""The intel target: an Intel laptop's NPU, by OpenVINO's plugin of LiteRT.

The plugin divides the model here and names what stays on the CPU; its compiler needs a library
that the `openvino` package lacks, so that LiteRT compiles the NPU's part on the laptop itself. The
artifact is therefore the TFLite file alone. Nothing of it has run on an Intel NPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from edgevit.options import NoOptions, option
from edgevit.targets.npu.options import NpuOptions
from edgevit.targets.npu.target import NpuTarget
from edgevit.targets.npu.vendor import Vendor

Soc = Literal["LNL", "PTL"]
"""Lunar Lake (NPU 4000) and Panther Lake (NPU 5010)."""


@dataclass(frozen=True)
class IntelOptions(NpuOptions):
    """See `NpuOptions`."""

    soc: tuple[Soc, ...] = option(
        ("LNL",), "SoC to compile for; repeat it for several.", metavar="SOC"
    )
    SOCS: ClassVar[tuple[str, ...]] = get_args(Soc)


class Intel(NpuTarget[IntelOptions, NoOptions]):
    """Intel's NPU; see the module."""

    name = "intel"
    summary = "Intel NPU: TFLite, and which of its operators OpenVINO's plugin takes"
    Options, RunOptions = IntelOptions, NoOptions
    divide_only = True
    vendor = Vendor(
        title="Intel",
        manufacturer="IntelOpenVINO",
        folder="intel_openvino",
        socs=IntelOptions.SOCS,
        library="libopenvino.so.2631",
        package="openvino",
        how_to_get="pip install 'edgevit[openvino]' (openvino 2026.3.1, which this plugin is built "
        "for)",
    )


TARGET = Intel()
