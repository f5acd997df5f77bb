"""An ONNX artifact under ONNX Runtime's CPU provider, as `edgevit run` and `parity` want it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from edgevit.data.preprocessing import looked_up
from edgevit.errors import InputError, ToolMissing
from edgevit.ops import INT8_MIN
from edgevit.program import Program
from edgevit.targets.artifact import Artifact, Held, check_held
from edgevit.targets.base import Reading, require_bytes
from edgevit.targets.manifest import InputTensor, OutputTensor
from edgevit.targets.qdq.toolkit import onnx

Settings = Mapping[str, str]
"""Session configuration entries of ONNX Runtime."""


class OnnxRunner:
    """Raises InputError for a file ONNX Runtime refuses, ToolMissing without it.

    read      the target's reader
    how       the arithmetic, for `engine`
    settings  what every session is opened with
    """

    def __init__(
        self,
        artifact: Artifact,
        read: Callable[[bytes], Reading],
        how: str,
        settings: Settings | None = None,
    ) -> None:
        self._artifact, self._data = artifact, require_bytes(artifact.data, "ONNX")
        self._read, self._settings = read, settings or {}
        self.probabilities = artifact.manifest.answers_probabilities
        self._table = artifact.manifest.table()
        self._dtype = np.dtype(artifact.manifest.input.dtype)
        self._session = self._open(self._data)
        manifest = artifact.manifest
        edges = [*self._session.get_inputs(), *self._session.get_outputs()]
        source, *outputs = map(_held, edges, (manifest.input, *manifest.outputs))
        check_held(artifact, source, outputs)
        self.engine = f"ONNX Runtime {_runtime().__version__} on the CPU, {how}"

    def scores(self, pixels: np.ndarray) -> np.ndarray:
        """Logits: uint8 (N, H, W, C) to float32 (N, classes)."""
        return next(iter(self.outputs(pixels).values()))

    def outputs(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        """Every output by its name, float32 (N, ...)."""
        found = {}
        described = self._artifact.manifest.outputs
        for output, values in zip(described, self._rows(self._session, pixels), strict=True):
            found[output.name] = real = values.astype(np.float32)
            if output.scale is not None and output.zero_point is not None:
                real -= np.float32(output.zero_point)
                real *= np.float32(output.scale)
        return found

    def tensors(self, pixels: np.ndarray, program: Program) -> Iterator[tuple[str, np.ndarray]]:
        """Every tensor that the file quantizes, int8; all of them as float32 in a float file."""
        reading = self._read(self._data)
        owners = program.graph().owners()
        held = {
            n: reading.tensors[n] for n in owners if n in (reading.quantizers or reading.tensors)
        }
        given = {source.name for source in self._session.get_inputs()}
        inside = {name: own for name, own in held.items() if own not in given}
        rows = self._rows(self._open(with_outputs(self._data, list(inside.values()))), pixels)
        values = dict(zip(inside, rows, strict=True))
        for name in held:
            found = values[name] if name in values else self._input(pixels)
            if found.dtype == np.uint8:
                found = (found.astype(np.int16) + INT8_MIN).astype(np.int8)
            yield name, found if found.dtype == np.int8 else found.astype(np.float32)

    def _open(self, data: bytes) -> Any:
        return open_session(data, str(self._artifact.path), self._settings)

    def _rows(self, session: Any, pixels: np.ndarray) -> list[np.ndarray]:
        """Each output of a session over the images, (N, ...)."""
        (source,) = session.get_inputs()
        rows = [session.run(None, {source.name: image[None]}) for image in self._input(pixels)]
        return [np.concatenate(values) for values in zip(*rows, strict=True)]

    def _input(self, pixels: np.ndarray) -> np.ndarray:
        """The model's input for uint8 (N, H, W, C): (N, C, H, W)."""
        return looked_up(self._table, pixels).astype(self._dtype)


def _runtime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise ToolMissing(
            f"running an ONNX here needs onnxruntime ({error}): pip install onnxruntime==1.32.0"
        ) from error
    return onnxruntime


def _held(edge: Any, said: InputTensor | OutputTensor) -> Held:
    """An edge of the file, at the scale that the manifest says: ONNX has none there."""
    element = str(edge.type).removeprefix("tensor(").removesuffix(")")
    dtype = {"float": "float32"}.get(element, element)
    return Held(tuple(edge.shape), dtype, said.scale, said.zero_point)


def open_session(data: bytes, what: str, settings: Settings | None = None) -> Any:
    """A session of a model, on one thread. InputError, naming `what`, for one it refuses."""
    runtime = _runtime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors
    for key, value in (settings or {}).items():
        options.add_session_config_entry(key, value)
    try:
        return runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # a type of its own for each status code
        raise InputError(f"{what}: ONNX Runtime refuses it: {error}") from error


def with_outputs(data: bytes, names: list[str]) -> bytes:
    """The model with these tensors as its outputs."""
    package = onnx()
    model = package.load_model_from_string(data)
    inferred = package.shape_inference.infer_shapes(model)
    types = {value.name: value.type for value in inferred.graph.value_info}
    types |= {value.name: value.type for value in inferred.graph.output}
    del model.graph.output[:]
    for name in names:
        value = model.graph.output.add(name=name)
        value.type.CopyFrom(types[name])
    return model.SerializeToString(deterministic=True)
