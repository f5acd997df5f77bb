"""The ATen calls a version 1 program may hold: the allow-list, with every argument's type.

Whatever is not here cannot be in such a file. The list is closed: later operations exist in
version 2 only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgevit.errors import InputError
from edgevit.ops import Ref

QUANTIZE = "quantized_decomposed.quantize_per_tensor.default"
DEQUANTIZE = "quantized_decomposed.dequantize_per_tensor.default"
DEQUANTIZE_WEIGHT = "quantized_decomposed.dequantize_per_channel.default"
CONV2D = "aten.conv2d.default"
LINEAR = "aten.linear.default"
RELU = "aten.relu.default"
FLATTEN = "aten.flatten.using_ints"
OP_TARGETS = {
    "conv2d": CONV2D,
    "linear": LINEAR,
    "add": "aten.add.Tensor",
    "mul": "aten.mul.Tensor",
    "gelu": "aten.gelu.default",
    "hard_swish": "aten.hardswish.default",
    "relu": RELU,
    "sigmoid": "aten.sigmoid.default",
    "mean": "aten.mean.dim",
    "flatten": FLATTEN,
}
"""Graph op -> ATen overload, as torch.export writes it in the training dialect."""

FUNCTIONAL_OPS = ("add", "mul", "mean", "flatten")
"""Ops called in a module's forward; the others are leaf modules and their tensor is the module."""


@dataclass(frozen=True)
class Call:
    """One ATen call: overload name, arguments by schema name, result name, module path it is in.

    dtype arguments are the strings "int8" and "float32".
    """

    target: str
    args: Mapping[str, Any]
    output: str
    module: str


_REQUIRED = object()
_Argument = tuple[type | tuple[type, ...], Any]
"""The type, or types, that an argument may have, and its default."""
_QPARAMS: dict[str, _Argument] = {
    "scale": (float, _REQUIRED), "zero_point": (int, _REQUIRED),
    "quant_min": (int, _REQUIRED), "quant_max": (int, _REQUIRED), "dtype": (str, _REQUIRED),
}  # fmt: skip


def _signatures() -> dict[str, dict[str, _Argument]]:
    """Overload -> argument -> (type, default). Its keys are the allow-list of operations."""
    ref: _Argument = (Ref, _REQUIRED)
    optional_ref: _Argument = ((Ref, type(None)), None)
    unary: dict[str, _Argument] = {"self": ref}
    binary: dict[str, _Argument] = {**unary, "other": ref}
    return {
        CONV2D: {
            "input": ref, "weight": ref, "bias": optional_ref, "stride": (tuple, (1, 1)),
            "padding": (tuple, (0, 0)), "dilation": (tuple, (1, 1)), "groups": (int, 1),
        },
        LINEAR: {"input": ref, "weight": ref, "bias": optional_ref},
        "aten.add.Tensor": {**binary, "alpha": (int, 1)},
        "aten.mul.Tensor": binary,
        "aten.gelu.default": {**unary, "approximate": (str, "none")},
        "aten.hardswish.default": unary,
        RELU: unary,
        "aten.sigmoid.default": unary,
        "aten.mean.dim": {
            **unary, "dim": (tuple, _REQUIRED), "keepdim": (bool, False),
            "dtype": ((str, type(None)), None),
        },
        FLATTEN: {**unary, "start_dim": (int, 0), "end_dim": (int, -1)},
        QUANTIZE: {"input": ref, **_QPARAMS},
        DEQUANTIZE: {"input": ref, **_QPARAMS, "out_dtype": ((str, type(None)), None)},
        DEQUANTIZE_WEIGHT: {
            "input": ref, "scales": ref, "zero_points": ref, "axis": (int, _REQUIRED),
            "quant_min": (int, _REQUIRED), "quant_max": (int, _REQUIRED),
            "dtype": (str, _REQUIRED), "out_dtype": ((str, type(None)), None),
        },
    }  # fmt: skip


SIGNATURES = _signatures()


def call_arguments(call: Call) -> dict[str, Any]:
    """The call's arguments, defaults filled in; InputError for an operation or argument that a
    program may not hold."""
    signature = SIGNATURES.get(call.target)
    if signature is None:
        raise InputError(
            f"{call.module or call.output}: operation {call.target} is not one a program may hold "
            f"({', '.join(OP_TARGETS)})"
        )
    where = f"{call.module or call.output}: {call.target}"
    for name in call.args:
        if name not in signature:
            raise InputError(f"{where} with the argument {name!r} is not supported")
    arguments: dict[str, Any] = {}
    for name, (kind, default) in signature.items():
        value = call.args.get(name, default)
        if value is _REQUIRED:
            raise InputError(f"{where} lacks the argument {name!r}")
        # bool is a subclass of int, and a flag is never a size.
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise InputError(f"{where}: {name} cannot be {value!r}")
        if isinstance(value, tuple) and not all(type(item) is int for item in value):
            raise InputError(f"{where}: {name} cannot be {value!r}")
        arguments[name] = value
    return arguments
