"""TFLite metadata: what Android's Task Library, ML Kit and MediaPipe read out of a model file.

A second flatbuffer (identifier "M001") in the model's metadata buffer TFLITE_METADATA, and the
labels as a zip behind the model, so that one file is a model and an archive at once. Field ids
are those of the public schema, metadata_schema.fbs of tensorflow/tflite-support, version 1.1.0.

mean and std are in pixel units (0 to 255) and the float model's, for an int8 input too: the
schema's comment and the metadata guide have quantized models share them and quantize afterwards.
The Task Library applies them to a float32 input and copies pixels into a uint8 input as they are,
which is why that input takes raw pixels here (`pixels`) and says mean 0, std 1; it takes no int8.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from typing import Any

from edgevit import __version__
from edgevit.graph import Graph
from edgevit.ops import Softmax
from edgevit.program import ProgramInfo
from edgevit.program.container import FIXED_TIME

METADATA_NAME, RUNTIME_NAME = "TFLITE_METADATA", "min_runtime_version"
LABELS_FILE = "labels.txt"
RUNTIME_FIELD_BYTES = 16
"""TFLite's converter writes min_runtime_version into a buffer of this size, padded with zeros."""

_MIN_PARSER_VERSION = "1.0.0"
_NORMALIZATION, _IMAGE, _FEATURE = 1, 2, 1
_COLOR_SPACES, _UNKNOWN = {"RGB": 1, "L": 2}, 0
_TENSOR_AXIS_LABELS = 2
# Field ids in the tables of metadata_schema.fbs, in order of declaration.
_MODEL = {"name": 0, "description": 1, "version": 2, "subgraphs": 3, "author": 4, "license": 5,
          "min_parser_version": 7}  # fmt: skip
_SUBGRAPH = {"name": 0, "inputs": 2, "outputs": 3}
_TENSOR = {"name": 0, "description": 1, "content": 3, "process_units": 4, "stats": 5, "files": 6}
_CONTENT = {"type": 0, "properties": 1}
_IMAGE_PROPERTIES = {"color_space": 0, "default_size": 1}
_IMAGE_SIZE = {"width": 0, "height": 1}
_UNIT = {"type": 0, "options": 1}
_NORMALIZE = {"mean": 0, "std": 1}
_STATS = {"max": 0, "min": 1}
_FILE = {"name": 0, "description": 1, "type": 2}


def runtime_version(version: str) -> bytes:
    """The value of the metadata entry min_runtime_version."""
    return version.encode().ljust(RUNTIME_FIELD_BYTES, b"\0")


def metadata(info: ProgramInfo, graph: Graph, io_type: str, inside: str = "INT8") -> bytes:
    """The metadata flatbuffer of a model with `io_type` input and output.

    graph   the program's own, with its quantizers for a float artifact too
    inside  what the model computes in
    """
    return _Builder().write(info, graph, io_type, inside)


def append_labels(model: bytes, labels: tuple[str, ...]) -> bytes:
    """The model with labels.txt, one label a line, as a zip behind it."""
    buffer = io.BytesIO(model)
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_STORED) as archive:
        text = "".join(f"{label}\n" for label in labels)
        archive.writestr(zipfile.ZipInfo(LABELS_FILE, FIXED_TIME), text)
    return buffer.getvalue()


class _Builder:
    """Tables of the metadata schema, innermost first, as flatbuffers need them."""

    def __init__(self) -> None:
        import flatbuffers

        self.fb = flatbuffers.Builder(4096)

    def write(self, info: ProgramInfo, graph: Graph, io_type: str, inside: str) -> bytes:
        subgraph = self._table(
            _SUBGRAPH,
            name=self._text("main"),
            inputs=self._offsets([self._input(info, graph, io_type)]),
            outputs=self._offsets(self._outputs(info, graph)),
        )
        model = self._table(
            _MODEL,
            name=self._text(f"{info.model.variant} ({info.profile})"),
            description=self._text(_description(info, io_type, inside)),
            version=self._text("1"),
            subgraphs=self._offsets([subgraph]),
            author=self._text(str(info.provenance.get("author", f"edgevit {__version__}"))),
            license=self._text(str(info.provenance.get("license", "not stated"))),
            min_parser_version=self._text(_MIN_PARSER_VERSION),
        )
        self.fb.Finish(model, b"M001")
        return bytes(self.fb.Output())

    def _input(self, info: ProgramInfo, graph: Graph, io_type: str) -> int:
        rules = info.preprocessing
        size = self._table(
            _IMAGE_SIZE, width=self._uint(rules.width), height=self._uint(rules.height)
        )
        image = self._table(
            _IMAGE_PROPERTIES,
            color_space=self._byte(_COLOR_SPACES.get(rules.channels, _UNKNOWN)),
            default_size=size,
        )
        mean = [255.0 * value for value in rules.mean]
        std = [255.0 * value for value in rules.std]
        if io_type == "uint8":
            mean, std = [0.0], [1.0]
        normalize = self._table(_NORMALIZE, mean=self._floats(mean), std=self._floats(std))
        unit = self._table(_UNIT, type=self._byte(_NORMALIZATION), options=normalize)
        stats = [0.0, 255.0] if io_type == "uint8" else _range(graph, graph.input_name)
        if stats is None:
            table = rules.table()
            stats = [float(table.min()), float(table.max())]
        return self._table(
            _TENSOR,
            name=self._text("image"),
            description=self._text(
                f"{rules.channels}, {rules.width} x {rules.height} pixels, 0 to 255"
                + ("" if io_type == "uint8" else ", normalised by mean and std")
                + (", then quantized" if io_type == "int8" else "")
            ),
            content=self._content(_IMAGE, image),
            process_units=self._offsets([unit]),
            stats=self._stats(stats),
        )

    def _outputs(self, info: ProgramInfo, graph: Graph) -> list[int]:
        pairs = list(zip(graph.outputs, graph.public_names, strict=True))
        scores = [self._scores(graph, info, pairs.pop(0)[0])] if info.labels else []
        return [*scores, *(self._map(graph, *pair) for pair in pairs)]

    def _map(self, graph: Graph, name: str, called: str) -> int:
        return self._table(
            _TENSOR,
            name=self._text(called),
            description=self._text("features"),
            content=self._content(_FEATURE, self._table({})),
            **self._stats_of(graph, name),
        )

    def _scores(self, graph: Graph, info: ProgramInfo, output: str) -> int:
        labels = self._table(
            _FILE,
            name=self._text(LABELS_FILE),
            description=self._text("one label a line, in the order of the output"),
            type=self._byte(_TENSOR_AXIS_LABELS),
        )
        softmax = isinstance(graph.node(output), Softmax)
        what = "probabilities of {} classes" if softmax else "scores of {} classes before softmax"
        return self._table(
            _TENSOR,
            name=self._text("probabilities" if softmax else "logits"),
            description=self._text(what.format(info.model.classes)),
            content=self._content(_FEATURE, self._table({})),
            **self._stats_of(graph, output),
            files=self._offsets([labels]),
        )

    def _content(self, kind: int, properties: int) -> int:
        return self._table(_CONTENT, type=self._byte(kind), properties=properties)

    def _stats_of(self, graph: Graph, name: str) -> dict[str, int]:
        """An output's range; nobody knows that of real numbers."""
        found = _range(graph, name)
        return {} if found is None else {"stats": self._stats(found)}

    def _stats(self, limits: list[float]) -> int:
        low, high = limits
        return self._table(_STATS, max=self._floats([high]), min=self._floats([low]))

    # -- flatbuffers ----------------------------------------------------------------------------

    def _text(self, value: str) -> int:
        return self.fb.CreateString(value)

    def _floats(self, values: list[float]) -> int:
        self.fb.StartVector(4, len(values), 4)
        for value in reversed(values):
            self.fb.PrependFloat32(value)
        return self.fb.EndVector()

    def _offsets(self, values: list[int]) -> int:
        self.fb.StartVector(4, len(values), 4)
        for value in reversed(values):
            self.fb.PrependUOffsetTRelative(value)
        return self.fb.EndVector()

    def _byte(self, value: int) -> Callable[[int], None]:
        return lambda slot: self.fb.PrependInt8Slot(slot, value, 0)

    def _uint(self, value: int) -> Callable[[int], None]:
        return lambda slot: self.fb.PrependUint32Slot(slot, value, 0)

    def _table(self, slots: dict[str, int], **values: Any) -> int:
        """A table: each value an offset made before, or a function that writes a number."""
        self.fb.StartObject(max(slots.values(), default=-1) + 1)
        for name, value in values.items():
            if callable(value):
                value(slots[name])
            else:
                self.fb.PrependUOffsetTRelativeSlot(slots[name], value, 0)
        return self.fb.EndObject()


def _range(graph: Graph, name: str) -> list[float] | None:
    """The least and the largest value that a tensor's quantizer holds; None for real numbers."""
    if not graph.quantized or name in graph.real_outputs:
        return None
    quantizer = graph.quantizer(name)
    return [quantizer.low, quantizer.high]


def _description(info: ProgramInfo, io_type: str, inside: str) -> str:
    how = {
        "int8": "input int8, see its scale and zero-point",
        "uint8": "input raw pixels, normalised inside",
        "float32": "input normalised pixels",
    }[io_type]
    return (
        f"RepViT image classifier, {inside} inside ({info.profile} profile); {how}. "
        f"Compiled by edgevit {__version__}."
    )
