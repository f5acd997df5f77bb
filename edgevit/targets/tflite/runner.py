"""A TFLite artifact under LiteRT in Python, as `edgevit run` and `parity` want it.

Latency and accuracy are the C++ harness's to measure; this shows what the tensors hold.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import numpy as np

from edgevit.data.preprocessing import looked_up
from edgevit.errors import InputError, ToolMissing
from edgevit.program import Program
from edgevit.targets.artifact import Artifact, Held, check_held
from edgevit.targets.base import require_bytes
from edgevit.targets.tflite.schema import schema

_FILE_IDENTIFIER = b"TFL3"


class TfliteRunner:
    """Raises InputError for a file LiteRT refuses, ToolMissing without LiteRT."""

    def __init__(self, artifact: Artifact) -> None:
        self.engine = f"LiteRT {version('ai-edge-litert')}, XNNPACK"
        self._artifact, self._data = artifact, require_bytes(artifact.data, "TFLite")
        self.probabilities = artifact.manifest.answers_probabilities
        self._table = artifact.manifest.table()
        self._interpreter = _interpreter(self._data, str(artifact.path))
        (source, *_), outputs = (
            [_held(each) for each in details]
            for details in (
                self._interpreter.get_input_details(), self._interpreter.get_output_details()
            )
        )  # fmt: skip
        check_held(artifact, source, outputs)

    def scores(self, pixels: np.ndarray) -> np.ndarray:
        """Logits: uint8 (N, H, W, C) to float32 (N, classes)."""
        return self.outputs(pixels)[self._artifact.manifest.outputs[0].name]

    def outputs(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        """Every output by its name in the manifest, dequantized: float32 (N, ...), maps NHWC."""
        described = self._artifact.manifest.outputs
        indices = [output["index"] for output in self._interpreter.get_output_details()]
        found = {
            output.name: np.zeros((len(pixels), *output.shape[1:]), np.float32)
            for output in described
        }
        for row, image in enumerate(pixels):
            self._invoke(self._interpreter, image)
            for output, index in zip(described, indices, strict=True):
                found[output.name][row] = self._interpreter.get_tensor(index)[0]
        for output in described:
            if output.scale is not None and output.zero_point is not None:
                found[output.name] -= np.float32(output.zero_point)
                found[output.name] *= np.float32(output.scale)
        return found

    def tensors(self, pixels: np.ndarray, program: Program) -> Iterator[tuple[str, np.ndarray]]:
        """Every tensor of the program that the file holds: int8, or float32 in a float artifact."""
        graph = program.graph()
        names = list(graph.activations())
        interpreter = _interpreter(_with_outputs(self._data, names), str(self._artifact.path))
        found = {t["name"]: t["index"] for t in interpreter.get_tensor_details()}
        kept = [name for name in names if name in found]
        values: dict[str, list[np.ndarray]] = {name: [] for name in kept}
        for image in pixels:
            self._invoke(interpreter, image)
            for name in kept:
                values[name].append(interpreter.get_tensor(found[name])[0].copy())
        for name in kept:
            stacked = np.array(values.pop(name)).transpose(0, 3, 1, 2)
            yield name, stacked.reshape(len(pixels), *graph.shape(name)[1:])

    def _invoke(self, interpreter: Any, image: np.ndarray) -> None:
        (details,) = interpreter.get_input_details()
        planes = looked_up(self._table, image[None]).transpose(0, 2, 3, 1)
        interpreter.set_tensor(details["index"], planes.astype(details["dtype"]))
        interpreter.invoke()


def _held(details: dict[str, Any]) -> Held:
    scale, zero_point = details["quantization"]
    shape, dtype = tuple(int(side) for side in details["shape"]), np.dtype(details["dtype"]).name
    return Held(shape, dtype, float(scale), zero_point) if scale else Held(shape, dtype)


def _interpreter(data: bytes, what: str) -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise ToolMissing(f"LiteRT is missing ({error}): pip install ai-edge-litert") from error
    try:
        interpreter = Interpreter(model_content=data, num_threads=1)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise InputError(f"{what}: LiteRT refuses it: {error}") from error
    return interpreter


def _with_outputs(data: bytes, names: list[str]) -> bytes:
    """The model with these tensors as outputs too, so that a delegate has to write them."""
    import flatbuffers

    classes = schema()
    model = classes.ModelT.InitFromObj(classes.Model.GetRootAs(data, 0))
    graph = model.subgraphs[0]
    indices = {tensor.name.decode(): index for index, tensor in enumerate(graph.tensors)}
    graph.outputs = [
        indices[name] for name in names if indices.get(name, graph.inputs[0]) != graph.inputs[0]
    ]
    model.signatureDefs = []  # they list the outputs that were
    builder = flatbuffers.Builder(len(data))
    builder.Finish(model.Pack(builder), _FILE_IDENTIFIER)
    return bytes(builder.Output())
