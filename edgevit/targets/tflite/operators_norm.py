"""TFLite's real operators from a DEQUANTIZE to a QUANTIZE as a layer norm; see `graph.norm_form`.

A float file has them without the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgevit.graph.diff import differs
from edgevit.graph.norm_form import Call, NormForm, check_reads, norm_form
from edgevit.ops import Node
from edgevit.targets.tflite.file import Operator
from edgevit.targets.tflite.reader import numbers

_KINDS = {"SUB": "sub", "MUL": "mul", "ADD": "add", "DIV": "div"}


@dataclass(frozen=True)
class Norm:
    """A layer norm of the file: what it is, the tensor that it reads, the operators in it."""

    form: NormForm
    source: str
    operators: tuple[str, ...]

    def node(self, name: str) -> Node:
        """The operation that makes `name`."""
        return self.form.node(name, self.source)


def norm_behind(
    last: Operator, makers: Mapping[str, Operator], reads: Mapping[str, int], quantized: bool
) -> Norm | None:
    """The layer norm that an operator ends; None where it ends none.

    last    a QUANTIZE of a quantized file, an ADD of a float one
    makers  the operators by the name of what they make
    reads   how often each tensor is read
    Raises EdgevitError where something else reads a part of it.
    """
    if last.name != ("QUANTIZE" if quantized else "ADD"):
        return None
    result = last.inputs[0] if quantized else last.output
    form = norm_form(result.name, lambda name: _call(makers.get(name)))
    if form is None:
        return None
    inside = {**form.inside, result.name: 1} if quantized else dict(form.inside)
    first = makers.get(form.source)
    if quantized:
        if first is None or first.name != "DEQUANTIZE":
            return None
        inside[form.source] = 2
    check_reads(inside, reads)
    for name in inside:
        tensor = makers[name].output
        if tensor.dtype != "FLOAT32" or tensor.scale.size:
            raise differs(name, f"a part of a norm is {tensor.dtype}, or has a scale")
    source = first.inputs[0].name if quantized and first is not None else form.source
    return Norm(form, source, tuple(inside))


def _call(operator: Operator | None) -> Call | None:
    """An operator as a part of a norm."""
    if operator is None or operator.output.dtype != "FLOAT32":
        return None
    operands = tuple(t.name if t.values is None else t.values for t in operator.inputs)
    if operator.name == "MEAN":
        source, axes = operator.inputs
        over_channels = numbers(axes) == [3] and operator.options.keepDims
        return Call("mean", (source.name,)) if over_channels else None
    if operator.name == "SQRT":
        return Call("sqrt", operands)
    if operator.name not in _KINDS or operator.options.fusedActivationFunction:
        return None
    return Call(_KINDS[operator.name], operands)
