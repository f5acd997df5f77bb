"""A TensorRT artifact under ONNX Runtime, as `edgevit run` and `parity` want it.

The same QDQ graph that a Jetson builds its engine from, on any host; its kernels are ONNX
Runtime's, so this says nothing of TensorRT's fusions, arithmetic or latency.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from edgevit.data.preprocessing import looked_up
from edgevit.errors import InputError, ToolMissing
from edgevit.program import Program
from edgevit.targets.artifact import Artifact, Held, check_held
from edgevit.targets.base import require_bytes
from edgevit.targets.tensorrt.read import read_onnx
from edgevit.targets.tensorrt.toolkit import onnx


class OnnxRunner:
    """Raises InputError for a file ONNX Runtime refuses, ToolMissing without it."""

    probabilities = False

    def __init__(self, artifact: Artifact) -> None:
        self._artifact, self._data = artifact, require_bytes(artifact.data, "TensorRT")
        self._table = artifact.manifest.table()
        self._dtype = np.dtype(artifact.manifest.input.dtype)
        self._session = _session(self._data, str(artifact.path))
        (source, *_), outputs = (
            [_held(each) for each in edges]
            for edges in (self._session.get_inputs(), self._session.get_outputs())
        )
        check_held(artifact, source, outputs)
        precision = artifact.manifest.options.get("compute_precision", "")
        self.engine = f"ONNX Runtime {_runtime().__version__} on the CPU, {precision}"

    def scores(self, pixels: np.ndarray) -> np.ndarray:
        """Logits: uint8 (N, H, W, C) to float32 (N, classes)."""
        return next(iter(self.outputs(pixels).values()))

    def outputs(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        """Every output by its name, float32 (N, ...)."""
        rows = self._rows(self._session, pixels)
        names = [output.name for output in self._session.get_outputs()]
        return {name: values.astype(np.float32) for name, values in zip(names, rows, strict=True)}

    def tensors(self, pixels: np.ndarray, program: Program) -> Iterator[tuple[str, np.ndarray]]:
        """Every tensor that the file quantizes, int8; all of them as float32 in a float file."""
        reading = read_onnx(self._data)
        owners = program.graph().owners()
        names = [n for n in owners if n in (reading.quantizers or reading.tensors)]
        held = {name: reading.tensors[name] for name in names}
        inside = {name: own for name, own in held.items() if name != program.graph().input_name}
        if reading.quantizers:
            inside = held
        model = with_outputs(self._data, list(inside.values()))
        rows = self._rows(_session(model, str(self._artifact.path)), pixels)
        values = dict(zip(inside, rows, strict=True))
        for name in held:
            found = values[name] if name in values else self._input(pixels)
            yield name, found if found.dtype == np.int8 else found.astype(np.float32)

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


def _held(edge: Any) -> Held:
    names = {"tensor(float)": "float32", "tensor(float16)": "float16"}
    return Held(tuple(edge.shape), names.get(edge.type, str(edge.type)))


def _session(data: bytes, what: str) -> Any:
    runtime = _runtime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors
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
