"""A TensorRT artifact under ONNX Runtime, as `edgevit run` and `parity` want it.

The same QDQ graph that a Jetson builds its engine from, on any host; its kernels are ONNX
Runtime's, so this says nothing of TensorRT's fusions, arithmetic or latency.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from edgevit.errors import InputError, ToolMissing
from edgevit.program import Program
from edgevit.targets.artifact import Artifact
from edgevit.targets.tensorrt.lower import onnx


class OnnxRunner:
    """Raises InputError for a file ONNX Runtime refuses, ToolMissing without it."""

    probabilities = False

    def __init__(self, artifact: Artifact) -> None:
        if not isinstance(artifact.data, bytes):
            raise InputError(f"{artifact.path} is a folder; a TensorRT artifact is an ONNX file")
        self._artifact, self._data = artifact, artifact.data
        self._table = artifact.manifest.table()
        self._dtype = np.dtype(artifact.manifest.input.dtype)
        self._session = _session(self._data, str(artifact.path))
        precision = artifact.manifest.options.get("compute_precision", "")
        self.engine = f"ONNX Runtime {_runtime().__version__} on the CPU, {precision}"

    def scores(self, pixels: np.ndarray) -> np.ndarray:
        """Logits: uint8 (N, H, W, 3) to float32 (N, classes)."""
        return np.concatenate([self._run(self._session, image)[0] for image in pixels]).astype(
            np.float32
        )

    def tensors(self, pixels: np.ndarray, program: Program) -> Iterator[tuple[str, np.ndarray]]:
        """Every tensor that the file quantizes, int8. Raises EdgevitError for another program's."""
        from edgevit.targets.tensorrt.audit import audit

        names = audit(self._data, program).tensors
        session = _session(_with_outputs(self._data, names.values()), str(self._artifact.path))
        rows = [self._run(session, image) for image in pixels]
        for index, name in enumerate(names):
            yield name, np.concatenate([row[index] for row in rows])

    def _run(self, session: Any, image: np.ndarray) -> list[np.ndarray]:
        planes = [self._table[channel][image[..., channel]] for channel in range(3)]
        (source,) = session.get_inputs()
        return session.run(None, {source.name: np.stack(planes)[None].astype(self._dtype)})


def _runtime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise ToolMissing(
            f"running an ONNX here needs onnxruntime ({error}): pip install onnxruntime==1.32.0"
        ) from error
    return onnxruntime


def _session(data: bytes, what: str) -> Any:
    runtime = _runtime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors
    try:
        return runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # a type of its own for each status code
        raise InputError(f"{what}: ONNX Runtime refuses it: {error}") from error


def _with_outputs(data: bytes, names: Any) -> bytes:
    """The model with these int8 tensors as its outputs."""
    package = onnx()
    model = package.load_model_from_string(data)
    del model.graph.output[:]
    kind = package.TensorProto.INT8
    model.graph.output.extend(
        package.helper.make_tensor_value_info(name, kind, None) for name in names
    )
    return model.SerializeToString(deterministic=True)
