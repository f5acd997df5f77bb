"""MIL's real operations as a layer norm; see `graph.norm_form`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from edgevit.graph.norm_form import Call, NormForm, check_reads, norm_form
from edgevit.targets.coreml.package import Operation, Ref

if TYPE_CHECKING:
    from edgevit.targets.coreml.read import Reader

_KINDS = {"sub": "sub", "mul": "mul", "add": "add", "real_div": "div"}


def norms(reader: Reader) -> dict[str, NormForm]:
    """The layer norms of a package, by the variable that each makes.

    Raises EdgevitError where something else reads a part of one.
    """
    makers = {op.name: op for op in reader.package.operations}
    found: dict[str, NormForm] = {}
    for name, op in makers.items():
        if op.kind != "add":
            continue
        form = norm_form(name, lambda each: _call(makers, each))
        if form is not None:
            check_reads(form.inside, reader.reads)
            found[name] = form
    return found


def _call(makers: Mapping[str, Operation], name: str) -> Call | None:
    """What makes a variable, as a part of a norm."""
    op = makers.get(name)
    if op is None:
        return None
    given = op.inputs
    if op.kind == "reduce_mean":
        over_channels = [int(axis) for axis in given["axes"]] == [1] and bool(given["keep_dims"])
        known = set(given) == {"x", "axes", "keep_dims"} and isinstance(given["x"], Ref)
        return Call("mean", (given["x"].name,)) if over_channels and known else None
    if op.kind == "sqrt":
        return Call("sqrt", (given["x"].name,)) if isinstance(given["x"], Ref) else None
    if op.kind not in _KINDS or set(given) != {"x", "y"}:
        return None
    operands = tuple(
        value.name if isinstance(value, Ref) else np.asarray(value)
        for value in (given["x"], given["y"])
    )
    shapes = [value.shape for value in operands if isinstance(value, np.ndarray)]
    fits = all(len(shape) == 0 or shape[1 - len(shape) :] == (1, 1) for shape in shapes)
    return Call(_KINDS[op.kind], operands) if fits else None
