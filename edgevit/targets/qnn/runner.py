"""A program by the HTP's arithmetic: its ONNX beside the artifact, run by one of two.

`emulator` is QNN's own, and needs onnxruntime-qnn; `reference` are the rules that were found of it,
which need nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Protocol, cast

import numpy as np

from edgevit.data.preprocessing import looked_up
from edgevit.errors import InputError
from edgevit.files import read_file, sha256_bytes
from edgevit.graph import INPUT
from edgevit.limits import MAX_TREE_BYTES
from edgevit.program import Program
from edgevit.targets.artifact import Artifact
from edgevit.targets.base import Reading
from edgevit.targets.onnx.read import read_onnx
from edgevit.targets.pixels import quantized_pixels
from edgevit.targets.qdq.runner import with_outputs
from edgevit.targets.qnn.emulator import ARCHS, HtpArch, HtpEmulator, HtpSettings
from edgevit.targets.qnn.options import QnnRunOptions
from edgevit.targets.qnn.reference import HtpReference

HTP_FILE = "htp-emulator.onnx"


class Htp(Protocol):
    """The ONNX, ready to run: int8 (N, C, H, W) to int8 tensors by the program's names."""

    engine: str

    def outputs(self, images: np.ndarray) -> Mapping[str, np.ndarray]: ...

    def tensors(self, images: np.ndarray) -> Iterator[tuple[str, np.ndarray]]: ...


class HtpRunner:
    """Raises InputError for an artifact without its ONNX or of a float program, for an operation
    that runs in float or that the reference has no rule of; ToolMissing for the emulator without
    onnxruntime-qnn."""

    def __init__(self, artifact: Artifact, options: QnnRunOptions) -> None:
        self._artifact, data = artifact, _model(artifact)
        reading = read_onnx(data)
        if real := reading.graph.islands():
            raise InputError(
                f"{artifact.folder}: {', '.join(real[:3])} run in float, by rules of the HTP that "
                "are not known here; --runner litert runs the artifact on the CPU"
            )
        arch = options.htp_arch or _arch(artifact)
        self._htp: Htp = (
            _Reference(reading, arch)
            if options.runner == "htp-reference"
            else _Emulator(data, str(artifact.folder / HTP_FILE), reading, arch)
        )
        self.engine = self._htp.engine
        self.probabilities = artifact.manifest.answers_probabilities
        self._ends = reading.graph.outputs
        self._quantizers = reading.quantizers
        rules = artifact.manifest.preprocessing
        self._table = quantized_pixels(rules, reading.quantizers[INPUT]).astype(np.float32)

    def scores(self, pixels: np.ndarray) -> np.ndarray:
        """Logits: uint8 (N, H, W, C) to float32 (N, classes)."""
        return next(iter(self.outputs(pixels).values()))

    def outputs(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        """Every output by its name, dequantized: float32 (N, ...), maps NHWC as in the artifact."""
        rows = self._htp.outputs(self._input(pixels))
        found: dict[str, np.ndarray] = {}
        for output, end in zip(self._artifact.manifest.outputs, self._ends, strict=True):
            quantizer = self._quantizers[end]
            real = rows[end].astype(np.float32) - np.float32(quantizer.zero_point)
            real *= np.float32(quantizer.scale)
            found[output.name] = real.transpose(0, 2, 3, 1) if real.ndim == 4 else real
        return found

    def tensors(self, pixels: np.ndarray, program: Program) -> Iterator[tuple[str, np.ndarray]]:
        """Every tensor that has a quantizer of its own, int8."""
        own = program.graph().owners()
        for name, values in self._htp.tensors(self._input(pixels)):
            if name in own:
                yield name, values

    def _input(self, pixels: np.ndarray) -> np.ndarray:
        return looked_up(self._table, pixels).astype(np.int8)


class _Emulator:
    def __init__(self, data: bytes, what: str, reading: Reading, arch: HtpArch) -> None:
        self._data, self._what, self._reading = data, what, reading
        self._settings = HtpSettings(arch=arch)
        self._whole = self._open(data)
        self.engine = self._whole.engine

    def outputs(self, images: np.ndarray) -> dict[str, np.ndarray]:
        rows = _rows(self._whole, images)
        pairs = zip(self._reading.graph.outputs, self._reading.outputs, strict=True)
        return {end: rows[own] for end, own in pairs}

    def tensors(self, images: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        """Giving a tensor out keeps the HTP's compiler from fusing across it."""
        held = {
            name: own
            for name, own in self._reading.tensors.items()
            if name in self._reading.quantizers
        }
        given = set(self._whole.inputs)
        inside = list(dict.fromkeys(own for own in held.values() if own not in given))
        rows = _rows(self._open(with_outputs(self._data, inside)), images)
        for name, own in held.items():
            yield name, images if own in given else rows[own]

    def _open(self, data: bytes) -> HtpEmulator:
        return HtpEmulator(data, self._what, self._settings)


class _Reference:
    def __init__(self, reading: Reading, arch: HtpArch) -> None:
        owners = reading.graph.owners()
        own = {name: each for name, each in reading.quantizers.items() if name in owners}
        self._reference = HtpReference(replace(reading.graph, quantizers=own), arch)
        self.engine = f"the rules found of the emulated HTP v{arch}, in exact integers"

    def outputs(self, images: np.ndarray) -> dict[str, np.ndarray]:
        return self._reference(images)

    def tensors(self, images: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        yield from self._reference.tensors(images)


def _rows(emulator: HtpEmulator, images: np.ndarray) -> dict[str, np.ndarray]:
    (source,) = emulator.inputs
    rows = [emulator({source: image[None]}) for image in images]
    return {name: np.concatenate([row[name] for row in rows]) for name in emulator.outputs}


def _model(artifact: Artifact) -> bytes:
    manifest, path = artifact.manifest, artifact.folder / HTP_FILE
    wanted = manifest.files.get(HTP_FILE)
    if wanted is None:
        raise InputError(
            f"{artifact.folder} has no {HTP_FILE}, which the emulator runs: the artifact is a "
            f"{manifest.profile} one; --runner litert runs it on the CPU"
        )
    data = read_file(path, MAX_TREE_BYTES, "an ONNX")
    if sha256_bytes(data) != wanted:
        raise InputError(f"{path} is not what the manifest describes; compile it again")
    return data


def _arch(artifact: Artifact) -> HtpArch:
    """Of the first SoC that the artifact was compiled for."""
    for found in artifact.manifest.placement:
        arch = found.compiler.get("htp", "").removeprefix("v")
        if arch in ARCHS:
            return cast(HtpArch, arch)
    return HtpSettings().arch
