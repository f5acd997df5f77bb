"""A layer norm as an artifact's real operators spell it out, found backwards from the last of them.

For the readers of targets: each says what its format's operators are (`Call`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from edgevit.graph.diff import differs
from edgevit.ops import FloatWeights, LayerNorm


@dataclass(frozen=True)
class Call:
    """One operator on real numbers.

    kind      "mean" (over the channels), "sub", "mul", "add", "div" or "sqrt"
    operands  names of tensors, or constants
    """

    kind: str
    operands: tuple[str | np.ndarray, ...]


@dataclass(frozen=True)
class NormForm:
    """A layer norm that was found.

    source  the tensor that it reads
    inside  the tensors between that one and the result, and how often each is read
    """

    source: str
    eps: float
    weights: FloatWeights
    inside: Mapping[str, int]

    def node(self, name: str, source: str) -> LayerNorm:
        """The operation, under the names of the graph."""
        return LayerNorm(name=name, inputs=(source,), eps=self.eps, weights=self.weights)


def check_reads(inside: Mapping[str, int], reads: Mapping[str, int]) -> None:
    """Raises EdgevitError, naming the tensor, where something else reads a part of a norm."""
    for name, count in inside.items():
        if reads[name] != count:
            raise differs(name, f"{reads[name]} operators read a part of a norm, not {count}")


def norm_form(last: str, call_of: Callable[[str], Call | None]) -> NormForm | None:
    """The layer norm whose result a tensor is, exactly as targets write it; None for any other.

    call_of  what makes a tensor; None for anything that is no part of a norm
    """
    inside: Counter[str] = Counter()

    def parts(value: str | np.ndarray | None, kind: str) -> tuple[str | np.ndarray, ...]:
        """The operands of a call of a kind; none of any other tensor."""
        if not isinstance(value, str):
            return ()
        inside[value] += 1
        call = call_of(value)
        return call.operands if call is not None and call.kind == kind else ()

    try:
        scaled, bias = parts(last, "add")
        normal, weight = parts(scaled, "mul")
        centred, deviation = parts(normal, "div")
        (shifted,) = parts(deviation, "sqrt")
        variance, eps = parts(shifted, "add")
        (squares,) = parts(variance, "mean")
        first, second = parts(squares, "mul")
        source, mean = parts(centred, "sub")
        (averaged,) = parts(mean, "mean")
    except ValueError:  # another kind of call, or of other operands
        return None
    if not isinstance(centred, str) or not isinstance(source, str) or averaged != source:
        return None
    if (first, second) != (centred, centred):
        return None
    constants = [v for v in (weight, bias, eps) if isinstance(v, np.ndarray)]
    if len(constants) != 3 or constants[2].size != 1:
        return None
    inside[centred] += 2
    del inside[last]
    values = [v.astype(np.float32).reshape(-1) for v in constants]
    return NormForm(source, float(values[2][0]), FloatWeights(values[0], values[1]), inside)
