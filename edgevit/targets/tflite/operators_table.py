"""A float activation between a DEQUANTIZE and a QUANTIZE as the program's: a table of 256 values.

Only the activations that are written so; another float operator of an int8 file is none of ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgevit.graph.diff import differs
from edgevit.ops import Gelu, HardSwish, Node
from edgevit.targets.tflite.file import Operator

_KINDS: Mapping[str, type[Node]] = {"GELU": Gelu, "HARD_SWISH": HardSwish}


@dataclass(frozen=True)
class Table:
    """The activation of the file: which, the int8 tensor that it reads, the operators in it."""

    kind: type[Node]
    source: str
    operators: tuple[str, ...]

    def node(self, name: str) -> Node:
        """The operation that makes `name`."""
        return self.kind(name=name, inputs=(self.source,))


def table_behind(
    last: Operator, makers: Mapping[str, Operator], reads: Mapping[str, int]
) -> Table | None:
    """The activation that an int8 file's QUANTIZE ends; None where it ends none.

    makers  the operators by the name of what they make
    reads   how often each tensor is read
    Raises EdgevitError where something else reads a part of it, or a part is not as it must be.
    """
    middle = makers.get(last.inputs[0].name) if last.name == "QUANTIZE" else None
    if middle is None or middle.name not in _KINDS or middle.output.dtype != "FLOAT32":
        return None
    first = makers.get(middle.inputs[0].name)
    if first is None or first.name != "DEQUANTIZE":
        return None
    if getattr(middle.options, "approximate", False):
        raise differs(middle.output.name, "GELU is the approximate one")
    inside = (first.output, middle.output)
    for tensor in inside:
        if reads[tensor.name] != 1:
            raise differs(tensor.name, f"{reads[tensor.name]} operators read a part of a table")
        if tensor.dtype != "FLOAT32" or tensor.scale.size or tensor.shape != last.output.shape:
            raise differs(tensor.name, f"a part of a table is {tensor.dtype} {tensor.shape}")
    return Table(_KINDS[middle.name], first.inputs[0].name, tuple(t.name for t in inside))
