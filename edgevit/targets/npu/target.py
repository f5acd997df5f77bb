"""The contract of a target over TFLite and a vendor's compiler; a vendor's own says which."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar, TypeVar

from edgevit.errors import GateFailed, InputError
from edgevit.graph import Graph
from edgevit.program import Program
from edgevit.progress import Progress
from edgevit.targets import Runner
from edgevit.targets.artifact import Artifact, ArtifactData
from edgevit.targets.base import Reading, RunOptions, Target, require_folder
from edgevit.targets.manifest import InputTensor, OutputTensor
from edgevit.targets.npu.compiler import CompiledModel, compile_model
from edgevit.targets.npu.options import NpuOptions
from edgevit.targets.npu.read import read, read_placement
from edgevit.targets.npu.vendor import Vendor
from edgevit.targets.npu.write import PORTABLE, file_name, portable_bytes, with_labels
from edgevit.targets.placement import COMPILED, PLACED, CpuOperator, Placement
from edgevit.targets.tflite import TARGET as TFLITE
from edgevit.targets.tflite.file import open_file
from edgevit.targets.tflite.options import TfliteOptions
from edgevit.targets.tflite.runner import TfliteRunner

Chosen = TypeVar("Chosen", bound=NpuOptions)
_MOST_NAMED = 8


class NpuTarget(Target[Chosen, RunOptions]):
    """A folder: the TFLite file, and for each SoC what the vendor's compiler made of it.

    Nothing of it has run on a device: the placement in the manifest says what the compiler said.
    """

    vendor: ClassVar[Vendor]
    divide_only: ClassVar[bool] = False
    """Whether the device compiles the NPU's part itself: the compiler here only divides."""
    file = "model.litert"
    maps_last = TFLITE.maps_last
    packages = ("ai-edge-litert", "flatbuffers", "numpy")
    tolerance_steps = TFLITE.tolerance_steps

    def write(self, program: Program, options: Chosen) -> dict[str, bytes]:
        return {PORTABLE: portable_bytes(program, options)}

    def read(self, data: ArtifactData) -> Reading:
        return read(data)

    def edges(
        self, program: Program, options: Chosen
    ) -> tuple[InputTensor, tuple[OutputTensor, ...]]:
        return TFLITE.edges(program, TfliteOptions(io=options.io))

    def spelling(self, graph: Graph) -> Callable[[str], str]:
        return TFLITE.spelling(graph)

    def is_float(self, options: Chosen) -> bool:
        return options.precision == "float16"

    def float_profile(self, options: Chosen) -> str:
        return "float16"

    def compiled_ahead(
        self, data: ArtifactData, program: Program, options: Chosen
    ) -> tuple[dict[str, bytes], tuple[Placement, ...]]:
        folder = dict(require_folder(data, self.name))
        source = folder[PORTABLE]
        placements = []
        with Progress(f"{self.vendor.title}'s compiler", len(options.soc), "SoCs") as progress:
            for soc in options.soc:
                made = compile_model(
                    source, self.vendor, soc, options.sdk, divide_only=self.divide_only
                )
                name = None if self.divide_only else file_name(self.vendor.manufacturer, soc)
                if name is not None:
                    folder[name] = with_labels(made.data, program)
                size_bytes = 0 if name is None else len(folder[name])
                placements.append(self._placement(source, made, soc, name, size_bytes))
                progress.update(progress.done + 1, soc)
        check_placement(placements, options.allow_cpu)
        return folder, tuple(placements)

    def _placement(
        self, source: bytes, made: CompiledModel, soc: str, name: str | None, size_bytes: int
    ) -> Placement:
        _, cpu = read_placement(open_file(made.data, first_only=True), open_file(source))
        return Placement(
            manufacturer=self.vendor.manufacturer,
            soc=soc,
            status=PLACED if name is None else COMPILED,
            file=name,
            operators=made.operators,
            npu_operators=made.npu_operators,
            partitions=made.partitions,
            cpu=tuple(
                CpuOperator(tensor, operator, made.reasons.get(tensor, ""))
                for tensor, operator in cpu.items()
            ),
            compiler=made.versions,
            compile_s=made.compile_s,
            size_bytes=size_bytes,
        )

    def open(self, artifact: Artifact, options: RunOptions) -> Runner:
        """The portable file under LiteRT on this machine's CPU."""
        return open_portable(artifact)


def open_portable(artifact: Artifact) -> TfliteRunner:
    """The TFLite file of an artifact, which is no NPU's arithmetic."""
    folder = require_folder(artifact.data, artifact.manifest.target)
    if PORTABLE not in folder:
        raise InputError(f"{artifact.path} has no {PORTABLE}: compile it again")
    return TfliteRunner(replace(artifact, data=folder[PORTABLE]))


def check_placement(placements: list[Placement], allow_cpu: int) -> None:
    """Raises GateFailed, naming the operators, where a SoC leaves more to the CPU than allowed."""
    failed = [found for found in placements if found.operators - found.npu_operators > allow_cpu]
    if not failed:
        return
    lines = []
    for found in failed:
        left = found.operators - found.npu_operators
        lines.append(
            f"{found.name}: {left} of {found.operators} operators stay on the CPU, in "
            f"{found.partitions} parts"
        )
        for each in found.cpu[:_MOST_NAMED]:
            lines.append(f"  {each.operator} {each.name}: {each.reason or 'no reason given'}")
        if len(found.cpu) > _MOST_NAMED:
            lines.append(f"  and {len(found.cpu) - _MOST_NAMED} more")
    most = max(found.operators - found.npu_operators for found in failed)
    raise GateFailed(
        "\n".join(lines) + f"\nNothing was written. --allow-cpu {most} accepts it: each part costs "
        "the way to the NPU and back; --target tflite compiles for the CPU alone"
    )
