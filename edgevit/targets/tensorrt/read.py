"""The TensorRT target's ONNX as the graph that it holds; nothing of `write` is used.

`qdq.read` reads it. Here is what this target's files have besides: casts between float types, which
change nothing of whose values a tensor has.
"""

from __future__ import annotations

from typing import Any

from edgevit.graph.diff import differs
from edgevit.targets.base import Reading
from edgevit.targets.qdq.read import Reader, Value


def read_onnx(data: bytes) -> Reading:
    """What the bytes of an ONNX file hold.

    Raises EdgevitError naming the node or tensor that is no part of a quantized graph.
    """
    return _Reader.read(data)


class _Reader(Reader):
    def record(self, record: Any, output: str) -> None:
        if record.op_type != "Cast":
            super().record(record, output)
            return
        name = self.real(record.input[0], record.name)
        self._check_cast(record, output, name)
        self.values[output] = Value(name, raw=self.values[record.input[0]].raw)

    def _check_cast(self, record: Any, output: str, name: str) -> None:
        """A cast is to a float type, and to the one that an output says it has."""
        declared = {v.name: v.type.tensor_type.elem_type for v in self.model.graph.output}
        kinds = self.package.TensorProto
        found = self.attributes(record)
        allowed = (declared[output],) if output in declared else (kinds.FLOAT, kinds.FLOAT16)
        if set(found) != {"to"} or found["to"] not in allowed:
            raise differs(name, f"Cast has the attributes {found}")
