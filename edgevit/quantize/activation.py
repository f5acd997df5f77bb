"""Another activation in place of GELU, which runtimes such as NNAPI do not have.

    Given   conv2d a -> GELU -> conv2d b
    Result  conv2d a * 1.702 -> activation -> conv2d b / 1.702

Quick-GELU (Hendrycks and Gimpel, arXiv 1606.08415) is x * sigmoid(1.702 x). An INT8 runtime has no
operation for that, but y * sigmoid(y) / 1.702 with y = 1.702 x is the same function, and both
factors disappear into the weights of the convolutions around it: what is left is LOGISTIC and MUL.
int8 weights stay what they are, only their scales change. Hard-swish gets the same factor: it then
differs from GELU by 0.07 at most, where hard-swish of x itself differs by 0.30.
"""

from __future__ import annotations

import copy

import torch
from torch import nn

from edgevit.choices import Activation
from edgevit.errors import InputError
from edgevit.models.layers import Silu
from edgevit.quantize.net import Step, trace

GAIN = 1.702
"""The paper's constant: x * sigmoid(GAIN * x) is within 0.021 of GELU everywhere."""

_LAYERS: dict[Activation, type[nn.Module]] = {"hard-swish": nn.Hardswish, "quick-gelu": Silu}


def with_activation(net: nn.Module, activation: Activation) -> nn.Module:
    """A copy of a fused net with `activation` for every GELU.

    Raises InputError, naming the GELU, where it does not stand between convolutions alone, so that
    the factor has nowhere to go.
    """
    result = copy.deepcopy(net)
    if activation == "gelu":
        return result
    steps = trace(result)
    for step in steps:
        if step.op == "gelu":
            _scale_around(step, steps)
            owner, _, name = step.name.rpartition(".")
            setattr(result.get_submodule(owner), name, _LAYERS[activation]())
    return result


@torch.no_grad()
def _scale_around(gelu: Step, steps: list[Step]) -> None:
    """The convolution before `gelu` times GAIN, those behind it divided by it."""
    (source,) = gelu.inputs
    makers = [step for step in steps if step.name == source]
    siblings = [step for step in steps if source in step.inputs]
    readers = [step for step in steps if gelu.name in step.inputs]
    layers = [step.layer for step in (*makers, *readers)]
    if len(siblings) != 1 or not makers or not readers or None in layers:
        raise InputError(
            f"{gelu.name}: this GELU does not stand between convolutions alone, so it cannot be "
            "swapped; quantize with --activation gelu"
        )
    before, *behind = layers
    before.weight *= GAIN
    before.bias *= GAIN
    for layer in behind:
        layer.weight /= GAIN
