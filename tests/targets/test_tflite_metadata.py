"""What Android's tools read out of a .tflite file: metadata, labels."""

from __future__ import annotations

import struct
import zipfile
from dataclasses import replace
from io import BytesIO

import flatbuffers
import pytest

from edgevit.errors import EdgevitError
from edgevit.targets.tflite import TARGET
from edgevit.targets.tflite.options import IO_TYPES, IoType
from tests.programs import make_program
from tests.targets.tflite_files import read_model, tflite_bytes


class Table:
    """A flatbuffer table read by field number alone, without any schema's classes."""

    def __init__(self, data: bytes, at: int) -> None:
        self.table = flatbuffers.table.Table(data, at)

    @classmethod
    def root(cls, data: bytes) -> Table:
        return cls(data, struct.unpack_from("<I", data, 0)[0])

    def _at(self, slot: int) -> int:
        offset = self.table.Offset(4 + 2 * slot)
        assert offset, f"field {slot} is not set"
        return offset

    def text(self, slot: int) -> str:
        return self.table.String(self.table.Pos + self._at(slot)).decode()

    def child(self, slot: int) -> Table:
        return Table(self.table.Bytes, self.table.Indirect(self.table.Pos + self._at(slot)))

    def children(self, slot: int) -> list[Table]:
        offset = self._at(slot)
        start = self.table.Vector(offset)
        count = self.table.VectorLen(offset)
        return [Table(self.table.Bytes, self.table.Indirect(start + 4 * i)) for i in range(count)]

    def floats(self, slot: int) -> list[float]:
        offset = self._at(slot)
        start, count = self.table.Vector(offset), self.table.VectorLen(offset)
        return list(struct.unpack_from(f"<{count}f", self.table.Bytes, start))

    def byte(self, slot: int) -> int:
        return self.table.Bytes[self.table.Pos + self._at(slot)]

    def uint(self, slot: int) -> int:
        return struct.unpack_from("<I", self.table.Bytes, self.table.Pos + self._at(slot))[0]


def metadata_of(data: bytes) -> Table:
    model = read_model(data)
    entries = {e.name.decode(): bytes(model.buffers[e.buffer].data) for e in model.metadata}
    assert entries["min_runtime_version"] == b"2.9.0".ljust(16, b"\0")
    assert entries["TFLITE_METADATA"][4:8] == b"M001"
    return Table.root(entries["TFLITE_METADATA"])


@pytest.mark.parametrize("io", IO_TYPES)
def test_androids_tools_find_labels_and_normalisation(io: IoType) -> None:
    """Field numbers of metadata_schema.fbs 1.1.0 (tensorflow/tflite-support)."""
    program = make_program()
    data = tflite_bytes(program, io)
    model = metadata_of(data)
    assert model.text(0) == "repvit_m0_9 (portable)" and "INT8 inside" in model.text(1)
    assert model.text(5) == "not stated" and model.text(7) == "1.0.0"
    (subgraph,) = model.children(3)
    (image,), (scores,) = subgraph.children(2), subgraph.children(3)
    content = image.child(3)
    assert content.byte(0) == 2  # ImageProperties
    assert content.child(1).byte(0) == 1  # RGB
    size = content.child(1).child(1)
    assert (size.uint(0), size.uint(1)) == (64, 64)
    (unit,) = image.children(4)
    assert unit.byte(0) == 1  # NormalizationOptions
    mean, std = unit.child(1).floats(0), unit.child(1).floats(1)
    if io == "uint8":
        assert (mean, std) == ([0.0], [1.0])
    else:
        assert mean == pytest.approx([123.675, 116.28, 103.53])
        assert std == pytest.approx([58.395, 57.12, 57.375])
    (labels,) = scores.children(6)
    assert labels.text(0) == "labels.txt" and labels.byte(2) == 2  # TENSOR_AXIS_LABELS


def test_the_labels_are_packed_behind_the_model() -> None:
    program = make_program()
    data = tflite_bytes(program)
    with zipfile.ZipFile(BytesIO(data)) as archive:
        assert archive.namelist() == ["labels.txt"]
        assert archive.read("labels.txt").decode().splitlines() == list(program.info.labels)


def test_author_and_licence_come_from_the_provenance() -> None:
    program = make_program()
    provenance = {"author": "A. Person", "license": "MIT"}
    program = program.with_info(replace(program.info, provenance=provenance))
    model = metadata_of(tflite_bytes(program))
    assert (model.text(4), model.text(5)) == ("A. Person", "MIT")


def test_other_labels_are_found_by_the_audit() -> None:
    program = make_program()
    data = tflite_bytes(program)
    changed = data.replace(b"class 3\n", b"class 7\n")
    with pytest.raises(EdgevitError, match="labels"):
        TARGET.audit(changed, program)
