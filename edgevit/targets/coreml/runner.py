"""A Core ML artifact under the reference interpreter, as `edgevit run` and `parity` want it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from edgevit.data.preprocessing import looked_up
from edgevit.errors import InputError
from edgevit.ops import INT8_MIN
from edgevit.program import Program
from edgevit.targets.artifact import Artifact, Held, check_held
from edgevit.targets.base import Target, float_form, require_folder
from edgevit.targets.coreml.options import CoremlOptions, CoremlRunOptions
from edgevit.targets.coreml.package import MilProgram, read_package

CHUNK_IMAGES = 32


class CoremlRunner:
    """Raises InputError for a package of other software, and for a newer one."""

    def __init__(
        self,
        artifact: Artifact,
        options: CoremlRunOptions,
        target: Target[CoremlOptions, CoremlRunOptions],
    ) -> None:
        """target  audits the package before its tensors are told apart"""
        from edgevit.targets.coreml.interpreter import Interpreter

        compiled = artifact.manifest.options
        arithmetic = options.arithmetic or compiled.get("compute_precision", "float16")
        try:
            self._data = require_folder(artifact.data, "Core ML")
            self.package: MilProgram = read_package(self._data)
            self._interpreter = Interpreter(self.package, arithmetic, options.rounding)
        except InputError as error:
            raise InputError(f"{artifact.path}: {error}") from error
        self.engine = f"reference interpreter, {arithmetic}, {options.rounding}"
        self.probabilities = compiled.get("output_type") == "classifier"
        self._table = artifact.manifest.table()
        self._outputs = [output.name for output in artifact.manifest.outputs]
        check_held(artifact, _input_of(self.package), self._outputs_of(artifact))
        self._target = target
        self._held: tuple[Program, dict[str, str]] | None = None

    def _outputs_of(self, artifact: Artifact) -> list[Held]:
        """Their shapes; those of a classifier's dictionary stand in the manifest alone."""
        said = artifact.manifest.outputs
        if self.probabilities:
            return [Held(output.shape, "float32") for output in said]
        return [
            Held(feature.shape, feature.kind.removeprefix("multiArray "))
            for feature in self.package.outputs
        ]

    def scores(self, pixels: np.ndarray) -> np.ndarray:
        """Logits, or a classifier's probabilities: uint8 (N, H, W, C) to float32 (N, classes)."""
        return next(iter(self.outputs(pixels).values()))

    def outputs(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        """Every output by its name in the manifest, float32 (N, ...)."""
        chunks = [
            self._interpreter(self._input(pixels[start : start + CHUNK_IMAGES]))
            for start in range(0, len(pixels), CHUNK_IMAGES)
        ]
        # A classifier's first result is `classify` itself, which stands for its probabilities.
        results = dict(zip(self._outputs, self.package.results, strict=False))
        return {
            name: np.concatenate([chunk[result].numpy() for chunk in chunks])
            for name, result in results.items()
        }

    def tensors(self, pixels: np.ndarray, program: Program) -> Iterator[tuple[str, np.ndarray]]:
        """Every tensor of the program that the package holds, by canonical name.

        int8 where the package quantizes it, float32 in a float package. Raises EdgevitError when
        the package is not one of this program.
        """
        names: dict[str, list[str]] = {}
        for name, variable in self._variables(program).items():
            names.setdefault(variable, []).append(name)
        dtypes = {op.name: op.dtype for op in self.package.operations}
        inputs = self._input(pixels)
        for name in names.pop(self.package.input.name, ()):
            yield name, inputs.numpy()
        for variable, value in self._interpreter.values(inputs):
            for name in names.get(variable, ()):
                yield name, _as_int8(value.numpy(), dtypes[variable])

    def _variables(self, program: Program) -> dict[str, str]:
        """Canonical name of a tensor with a quantizer of its own -> the variable that holds it."""
        if self._held is None or self._held[0] is not program:
            reading, _ = self._target.audit(self._data, program)
            owners, graph = program.graph().owners(), program.graph()
            graph = graph if reading.quantizers else float_form(graph)
            spelled = self._target.spelling(graph)
            places = {name: spelled(name) for name in graph.tensors() if name in owners}
            self._held = program, {name: reading.tensors[own] for name, own in places.items()}
        return self._held[1]

    def _input(self, pixels: np.ndarray):
        import torch

        return torch.from_numpy(looked_up(self._table, pixels).astype(np.float32))


def _input_of(package: MilProgram) -> Held:
    """A picture is pixels in NHWC; an array is what it says."""
    feature = package.input
    if feature.kind.startswith("image "):
        planes = 1 if feature.kind == "image GRAYSCALE" else 3
        return Held((1, *feature.shape, planes), "uint8")
    return Held(package.input_shape, feature.kind.removeprefix("multiArray "))


def _as_int8(values: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "int8":
        return values.astype(np.int8)
    return (values + INT8_MIN).astype(np.int8) if dtype == "uint8" else values
