"""A Core ML artifact under the reference interpreter, as `edgevit run` and `parity` want it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from edgevit.errors import InputError
from edgevit.ops import INT8_MIN
from edgevit.program import Program
from edgevit.targets.artifact import Artifact
from edgevit.targets.coreml.lower import INPUT_NAME
from edgevit.targets.coreml.options import CoremlRunOptions
from edgevit.targets.coreml.package import MilProgram, read_package

CHUNK_IMAGES = 32


class CoremlRunner:
    """Raises InputError for a package of other software, a newer one, and unknown options."""

    def __init__(
        self,
        artifact: Artifact,
        arithmetic: str | None = CoremlRunOptions.arithmetic,
        rounding: str = CoremlRunOptions.rounding,
    ) -> None:
        """arithmetic  None: what the package was compiled to compute in"""
        from edgevit.targets.coreml.interpreter import Interpreter

        if not isinstance(artifact.data, Mapping):
            raise InputError(f"{artifact.path} is a file; a Core ML package is a folder")
        options = artifact.manifest.options
        try:
            self.package: MilProgram = read_package(artifact.data)
            arithmetic = arithmetic or options.get("compute_precision", "float16")
            self._interpreter = Interpreter(self.package, arithmetic, rounding)
        except InputError as error:
            raise InputError(f"{artifact.path}: {error}") from error
        self.engine = f"reference interpreter, {arithmetic}, {rounding}"
        self.probabilities = options.get("output_type") == "classifier"
        self._table = artifact.manifest.table()

    def scores(self, pixels: np.ndarray) -> np.ndarray:
        """Logits, or a classifier's probabilities: uint8 (N, H, W, 3) to float32 (N, classes)."""
        result = self.package.results[0]
        chunks = [
            self._interpreter(self._input(pixels[start : start + CHUNK_IMAGES]))[result].numpy()
            for start in range(0, len(pixels), CHUNK_IMAGES)
        ]
        return np.concatenate(chunks)

    def tensors(self, pixels: np.ndarray, program: Program) -> Iterator[tuple[str, np.ndarray]]:
        """Every tensor of the program that the package holds, by canonical name.

        int8 where the package quantizes it, float32 in a float package. Raises EdgevitError when
        the package is not one of this program.
        """
        from edgevit.targets.coreml.audit import audit

        names: dict[str, list[str]] = {}
        for name, variable in audit(self.package, program).tensors.items():
            names.setdefault(variable, []).append(name)
        dtypes = {op.name: op.dtype for op in self.package.operations}
        inputs = self._input(pixels)
        for name in names.pop(INPUT_NAME, ()):
            yield name, inputs.numpy()
        for variable, value in self._interpreter.values(inputs):
            for name in names.get(variable, ()):
                yield name, _as_int8(value.numpy(), dtypes[variable])

    def _input(self, pixels: np.ndarray):
        import torch

        planes = [self._table[channel][pixels[..., channel]] for channel in range(3)]
        return torch.from_numpy(np.stack(planes, axis=1).astype(np.float32))


def _as_int8(values: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "int8":
        return values.astype(np.int8)
    return (values + INT8_MIN).astype(np.int8) if dtype == "uint8" else values
