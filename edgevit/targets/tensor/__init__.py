"""The tensor target: a Google Tensor's TPU (Pixel), compiled ahead of time by Google's compiler.

The compiler is Google's to give: no package carries it, and `--sdk` names it. Nothing of it has
been compiled by the real compiler, nor has it run on a device.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from edgevit.options import NoOptions, option
from edgevit.targets.npu.options import NpuOptions
from edgevit.targets.npu.target import NpuTarget
from edgevit.targets.npu.vendor import Vendor

Soc = Literal["Tensor_G3", "Tensor_G4", "Tensor_G5", "Tensor_G6"]


@dataclass(frozen=True)
class TensorOptions(NpuOptions):
    """See `NpuOptions`."""

    soc: tuple[Soc, ...] = option(
        ("Tensor_G5",), "SoC to compile for; repeat it for several.", metavar="SOC"
    )
    SOCS: ClassVar[tuple[str, ...]] = get_args(Soc)


class Tensor(NpuTarget[TensorOptions, NoOptions]):
    """Google's TPU; see the module."""

    name = "tensor"
    summary = "Google Tensor NPU: TFLite compiled ahead of time, with Google's compiler (--sdk)"
    Options, RunOptions = TensorOptions, NoOptions
    vendor = Vendor(
        title="Google Tensor",
        manufacturer="Google",
        folder="google_tensor",
        socs=TensorOptions.SOCS,
        library="liblitert_plugin_compiler.so",
        package="ai_edge_litert_sdk_google_tensor",
        how_to_get="get the Google Tensor SDK "
        "(https://developers.google.com/edge/litert/next/tensor-sdk) and name its folder with "
        "--sdk DIR",
    )


TARGET = Tensor()
