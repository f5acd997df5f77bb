"""An NPU artifact's folder as the graph that it holds; nothing of `write` is used.

The file that was compiled is read whole. What became of it for a SoC is a context binary, which
nobody but the vendor reads; what can be read is held to the first file: the stamp with the SoC, the
inputs and outputs with their scales, the operators that are left, the labels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from edgevit.errors import EdgevitError
from edgevit.graph.diff import differs
from edgevit.targets.artifact import ArtifactData
from edgevit.targets.base import Reading, require_folder
from edgevit.targets.tflite.file import File, Tensor, open_file
from edgevit.targets.tflite.read import read as read_tflite

_PORTABLE = "portable.tflite"
_NAME = re.compile(r"([A-Za-z]+)_([A-Za-z0-9_]+)\.tflite")
_DISPATCH = "DISPATCH_OP"
_STAMP = "LiteRtStamp"  # two texts of one length, padded with zeros


@dataclass(frozen=True)
class CompiledFile:
    """What can be read of a compiled file.

    parts   how many the NPU runs
    cpu     tensor -> operator, of those that are left
    """

    manufacturer: str
    soc: str
    parts: int
    cpu: Mapping[str, str]


def read(data: ArtifactData) -> Reading:
    """What an artifact's folder holds.

    Raises EdgevitError naming the file or tensor: a file for a SoC that is another's, or whose
    inputs, outputs or operators are not the portable file's.
    """
    folder = require_folder(data, "NPU")
    portable = folder.get(_PORTABLE)
    if portable is None:
        raise differs(_PORTABLE, "it is missing")
    reading, source = read_tflite(portable), open_file(portable)
    for name in sorted(set(folder) - {_PORTABLE}):
        match = _NAME.fullmatch(name)
        if match is None:
            raise differs(name, "it is no file of an NPU artifact")
        try:
            found = read_compiled(folder[name], source)
        except EdgevitError as error:
            raise EdgevitError(f"{name}: {error}") from error
        if (found.manufacturer, found.soc.lower()) != (match[1], match[2].lower()):
            raise differs(name, f"it was compiled for {found.manufacturer} {found.soc}")
    return reading


def read_compiled(data: bytes, source: File) -> CompiledFile:
    """What can be read of a compiled file, held to the file that was compiled."""
    file = open_file(data)
    stamp = file.entries.get(_STAMP)
    if stamp is None or len(stamp) % 2:
        raise differs(_STAMP, "no compiler of LiteRT has stamped it")
    half = len(stamp) // 2
    manufacturer, soc = (
        part.split(b"\0")[0].decode("ascii", "replace") for part in (stamp[:half], stamp[half:])
    )
    if file.labels != source.labels:
        raise differs("labels", "they are not the portable file's")
    if file.output_names != source.output_names:
        raise differs("outputs", f"they are {file.output_names}")
    edges = zip((*file.inputs, *file.outputs), (*source.inputs, *source.outputs), strict=True)
    for found, wanted in edges:
        if _edge(found) != _edge(wanted):
            raise differs(wanted.name, f"is {_edge(found)[1:]}, not {_edge(wanted)[1:]}")
    return CompiledFile(manufacturer, soc, *read_placement(file, source))


def read_placement(file: File, source: File) -> tuple[int, dict[str, str]]:
    """How many parts the NPU runs, and tensor -> operator of those that are left."""
    made = {tensor.name: each.name for each in source.operators for tensor in each.outputs}
    cpu: dict[str, str] = {}
    parts = 0
    for operator in file.operators:
        if operator.name == _DISPATCH:
            parts += 1
        elif made.get(operator.output.name) != operator.name:
            raise differs(operator.output.name, f"a {operator.name} makes it")
        else:
            cpu[operator.output.name] = operator.name
    return parts, cpu


def _edge(tensor: Tensor) -> tuple[str, tuple[int, ...], str, list[float], list[int]]:
    ends = tensor.scale.tolist(), tensor.zero_point.tolist()
    return tensor.name, tensor.shape, tensor.dtype, *ends
