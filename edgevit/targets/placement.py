"""Where a vendor's compiler puts an artifact's operators, for the manifest: the NPU or the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from edgevit.schema import Rule

COMPILED, PLACED = "compiled, not run on a device", "placed, not compiled"
_Text = Annotated[str, Rule(min_size=1)]
_Count = Annotated[int, Rule(minimum=0)]


@dataclass(frozen=True)
class CpuOperator:
    """An operator that the compiler left to the CPU.

    name    of the tensor that it makes
    reason  the compiler's own words; "" where it gave none
    """

    name: _Text
    operator: _Text
    reason: str


@dataclass(frozen=True)
class Placement:
    """What a vendor's compiler said of one SoC.

    status        "placed": the compiler divided the model, and the device compiles its part itself
    file          the compiled model in the artifact's folder; null where it was not compiled
    operators     of the model, all together; `npu_operators` of them go to the NPU
    partitions    parts that the NPU runs, each from memory to memory
    compiler      what compiled: name -> version, and the architecture that it compiled for
    """

    manufacturer: _Text
    soc: _Text
    status: Literal["compiled, not run on a device", "placed, not compiled"]
    file: _Text | None
    operators: _Count
    npu_operators: _Count
    partitions: _Count
    cpu: tuple[CpuOperator, ...]
    compiler: Mapping[str, str]
    compile_s: Annotated[float, Rule(minimum=0)]
    size_bytes: _Count

    @property
    def name(self) -> str:
        """The SoC for people: "Qualcomm SM8750"."""
        return f"{self.manufacturer} {self.soc}"

    def __str__(self) -> str:
        """A line for people: what goes to the NPU, in how many parts, and what it took."""
        parts = "part" if self.partitions == 1 else "parts"
        text = (
            f"{self.npu_operators} of {self.operators} operators on the NPU, {self.partitions} "
            f"{parts}; {self.status}"
        )
        if self.file is None:
            return text
        return f"{text}; {self.compile_s:.1f} s, {self.size_bytes / 1e6:.2f} MB"
