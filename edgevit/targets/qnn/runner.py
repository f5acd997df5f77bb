"""A program by the HTP's arithmetic: its ONNX beside the artifact, run by QNN's x86 emulator."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import numpy as np

from edgevit.data.preprocessing import looked_up
from edgevit.errors import InputError
from edgevit.files import read_file, sha256_bytes
from edgevit.graph import INPUT
from edgevit.limits import MAX_TREE_BYTES
from edgevit.program import Program
from edgevit.targets.artifact import Artifact
from edgevit.targets.onnx.read import read_onnx
from edgevit.targets.pixels import quantized_pixels
from edgevit.targets.qdq.runner import with_outputs
from edgevit.targets.qdq.toolkit import PROBABILITIES
from edgevit.targets.qnn.emulator import ARCHS, HtpArch, HtpEmulator, HtpSettings
from edgevit.targets.qnn.options import QnnRunOptions

HTP_FILE = "htp-emulator.onnx"


class HtpRunner:
    """Raises InputError for an artifact without its ONNX, or of a float program; ToolMissing
    without onnxruntime-qnn."""

    def __init__(self, artifact: Artifact, options: QnnRunOptions) -> None:
        self._artifact, self._data = artifact, _model(artifact)
        arch = options.htp_arch or _arch(artifact)
        self._settings = HtpSettings(arch=arch)
        self._emulator = self._open(self._data)
        self.engine = self._emulator.engine
        self.probabilities = self._emulator.outputs[0] == PROBABILITIES
        reading = read_onnx(self._data)
        self._quantizers, self._tensors = reading.quantizers, reading.tensors
        self._ends = dict(zip(reading.outputs, reading.graph.outputs, strict=True))
        rules = artifact.manifest.preprocessing
        self._table = quantized_pixels(rules, reading.quantizers[INPUT]).astype(np.float32)

    def scores(self, pixels: np.ndarray) -> np.ndarray:
        """Logits: uint8 (N, H, W, C) to float32 (N, classes)."""
        return next(iter(self.outputs(pixels).values()))

    def outputs(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        """Every output by its name, dequantized: float32 (N, ...), maps NHWC as in the artifact."""
        names = [output.name for output in self._artifact.manifest.outputs]
        rows = self._rows(self._emulator, self._input(pixels))
        found: dict[str, np.ndarray] = {}
        for name, own in zip(names, self._emulator.outputs, strict=True):
            quantizer = self._quantizers[self._ends[own]]
            real = rows[own].astype(np.float32) - np.float32(quantizer.zero_point)
            real *= np.float32(quantizer.scale)
            found[name] = real.transpose(0, 2, 3, 1) if real.ndim == 4 else real
        return found

    def tensors(self, pixels: np.ndarray, program: Program) -> Iterator[tuple[str, np.ndarray]]:
        """Every tensor that the ONNX quantizes, int8.

        Giving a tensor out keeps the HTP's compiler from fusing across it.
        """
        images = self._input(pixels)
        held = {
            name: self._tensors[name]
            for name in program.graph().owners()
            if name in self._quantizers
        }
        given = set(self._emulator.inputs)
        inside = [own for own in held.values() if own not in given]
        rows = self._rows(self._open(with_outputs(self._data, inside)), images)
        for name, own in held.items():
            yield name, images if own in given else rows[own]

    def _open(self, data: bytes) -> HtpEmulator:
        return HtpEmulator(data, f"{self._artifact.folder / HTP_FILE}", self._settings)

    def _input(self, pixels: np.ndarray) -> np.ndarray:
        return looked_up(self._table, pixels).astype(np.int8)

    def _rows(self, emulator: HtpEmulator, images: np.ndarray) -> dict[str, np.ndarray]:
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
