"""The mediatek target: a Dimensity's NPU, compiled ahead of time by MediaTek's own compiler.

Its libraries (NeuroPilot) are MediaTek's to give: no package carries them, and `--sdk` names them.
Nothing of it has been compiled by the real libraries, nor has it run on a device.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from edgevit.options import NoOptions, option
from edgevit.targets.npu.options import NpuOptions
from edgevit.targets.npu.target import NpuTarget
from edgevit.targets.npu.vendor import Vendor

Soc = Literal[
    "MT6853", "MT6877", "MT6878", "MT6879", "MT6886", "MT6893", "MT6895", "MT6897", "MT6983",
    "MT6985", "MT6989", "MT6991", "MT6993", "MT8171", "MT8188", "MT8189"
]  # fmt: skip


@dataclass(frozen=True)
class MediatekOptions(NpuOptions):
    """See `NpuOptions`."""

    soc: tuple[Soc, ...] = option(
        ("MT6991",), "SoC to compile for; repeat it for several.", metavar="SOC"
    )
    SOCS: ClassVar[tuple[str, ...]] = get_args(Soc)


class Mediatek(NpuTarget[MediatekOptions, NoOptions]):
    """MediaTek's APU; see the module."""

    name = "mediatek"
    summary = "MediaTek NPU: TFLite compiled ahead of time, with MediaTek's libraries (--sdk)"
    Options, RunOptions = MediatekOptions, NoOptions
    vendor = Vendor(
        title="MediaTek",
        manufacturer="MediaTek",
        folder="mediatek",
        socs=MediatekOptions.SOCS,
        library="libneuron_adapter.so",
        package="ai_edge_litert_sdk_mediatek",
        how_to_get="get the NeuroPilot SDK (https://neuropilot.mediatek.com) and name its folder "
        "with --sdk DIR",
        soc_argument=str.lower,
    )


TARGET = Mediatek()
