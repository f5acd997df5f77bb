"""ONNX's real operators in front of a QuantizeLinear as a layer norm; see `graph.norm_form`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from edgevit.graph.norm_form import Call, NormForm, check_reads, norm_form

if TYPE_CHECKING:
    from edgevit.targets.qdq.read import Reader

_KINDS = {"Sub": "sub", "Mul": "mul", "Add": "add", "Div": "div", "Sqrt": "sqrt"}


def norms(reader: Reader) -> dict[str, NormForm]:
    """The layer norms of a model, by the tensor that each makes.

    Raises EdgevitError where something else reads a part of one.
    """
    makers = {record.output[0]: record for record in reader.model.graph.node if record.output}
    found: dict[str, NormForm] = {}
    for name, record in makers.items():
        if record.op_type != "Add":
            continue
        form = norm_form(name, lambda each: _call(reader, makers, each))
        if form is not None:
            check_reads(form.inside, reader.reads)
            found[name] = form
    return found


def _call(reader: Reader, makers: Mapping[str, Any], name: str) -> Call | None:
    """What makes a tensor, as a part of a norm. Constants are float32 ones of a shape (1, C, 1, 1),
    and the epsilon.
    """
    record = makers.get(name)
    if record is None or record.domain:
        return None
    if record.op_type == "ReduceMean":
        axes = reader.constants.get(record.input[1]) if len(record.input) == 2 else None
        over_channels = axes is not None and axes.tolist() == [1]
        if not over_channels or reader.attributes(record) != {"keepdims": 1}:
            return None
        return Call("mean", (record.input[0],))
    if record.op_type not in _KINDS or record.attribute:
        return None
    operands = tuple(reader.constants.get(each, each) for each in record.input)
    return Call(_KINDS[record.op_type], operands) if _are_float32(operands) else None


def _are_float32(operands: tuple[str | np.ndarray, ...]) -> bool:
    constants = [value for value in operands if isinstance(value, np.ndarray)]
    return all(v.dtype == np.float32 and v.shape in ((), (1, v.size, 1, 1)) for v in constants)
