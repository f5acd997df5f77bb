"""From the ATen calls of a program.pt2 to the checked graph.

What is not recognised is refused, by name, so that nothing else can be in a program.

    Given   conv2d(dq(x), dequantize_per_channel(w), b) -> relu -> quantize -> dequantize
    Result  Conv2d named after the relu, its activation a Relu, with its quantizer and int8 weights
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgevit.errors import InputError
from edgevit.graph import INPUT, Graph
from edgevit.graph.quantized import bias_on_grid, bias_value
from edgevit.ops import (
    BY_KIND,
    INT8_MAX,
    INT8_MIN,
    WEIGHT_MAX,
    Int8Weights,
    Node,
    Quantizer,
    Ref,
    Relu,
    SameAs,
    Weighted,
)
from edgevit.program.v1.aten import (
    DEQUANTIZE,
    DEQUANTIZE_WEIGHT,
    FUNCTIONAL_OPS,
    OP_TARGETS,
    QUANTIZE,
    RELU,
    Call,
    call_arguments,
)


def graph_from_calls(
    calls: Sequence[Call],
    tensors: Mapping[str, np.ndarray],
    input_name: str,
    input_shape: tuple[int, ...],
    output: str,
) -> Graph:
    """The checked quantized Graph of a list of calls.

    tensors     weights, biases and weight scales by the name a `Ref` uses
    Every tensor must pass exactly one quantize/dequantize pair, and every weight be int8.
    Raises InputError naming the call or tensor that does not fit.
    """
    reader = _Reader(calls, tensors, input_name, input_shape)
    for call in calls:
        reader.read(call)
    return reader.finish(output)


@dataclass(frozen=True)
class _Pending:
    """A tensor on its way: made (node), maybe quantized (quantizer), not yet readable."""

    node: Node | None  # None for the graph's input
    quantizer: Quantizer | None = None


class _Reader:
    """State while walking the calls; every value is pending, readable, or a weight."""

    def __init__(
        self,
        calls: Sequence[Call],
        tensors: Mapping[str, np.ndarray],
        input_name: str,
        input_shape: tuple[int, ...],
    ) -> None:
        self.tensors, self.input_shape = tensors, input_shape
        self.nodes: dict[str, Node] = {}
        self.shapes = {INPUT: input_shape}
        self.quantizers: dict[str, Quantizer] = {}
        self.scales: dict[str, float] = {}
        self.weights: dict[str, tuple[np.ndarray, np.ndarray]] = {}  # int8 values, scales
        self.pending: dict[str, _Pending] = {input_name: _Pending(None)}
        self.readable: dict[str, str] = {}  # name in the calls -> canonical tensor name
        self.uses = Counter(a.name for c in calls for a in c.args.values() if isinstance(a, Ref))
        self.taken = set(tensors) | {input_name}

    def read(self, call: Call) -> None:
        args = call_arguments(call)
        if call.output in self.taken:
            raise InputError(f"{call.output}: two values of the program have this name")
        self.taken.add(call.output)
        if call.target == QUANTIZE:
            self._quantize(call, args)
        elif call.target == DEQUANTIZE:
            self._dequantize(call, args)
        elif call.target == DEQUANTIZE_WEIGHT:
            self._dequantize_weight(call, args)
        elif call.target == RELU and (raw := self._raw_weighted(args["self"])) is not None:
            self._take(call, args["self"])
            fused = replace(raw, name=call.module, activation=Relu)
            self.pending[call.output] = _Pending(fused)
        else:
            self._operation(call, args)

    def finish(self, output: str) -> Graph:
        for pending in self.pending.values():
            name = pending.node.name if pending.node else INPUT
            raise InputError(f"{name}: this tensor has no quantizer, or nothing reads it")
        if output not in self.readable:
            raise InputError(f"{output}: the program's output is not a tensor of its graph")
        outputs = (self.readable[output],)
        return Graph(self.input_shape, tuple(self.nodes.values()), outputs, self.quantizers)

    # -- quantize / dequantize ------------------------------------------------------------------

    def _quantize(self, call: Call, args: dict[str, Any]) -> None:
        pending = self._take(call, args["input"])
        if pending.quantizer is not None:
            raise InputError(f"{call.output}: a tensor is quantized twice")
        self.pending[call.output] = replace(pending, quantizer=_quantizer(call, args))

    def _dequantize(self, call: Call, args: dict[str, Any]) -> None:
        pending = self._take(call, args["input"])
        quantizer = pending.quantizer
        if quantizer is None or not quantizer.same_values(_quantizer(call, args)):
            raise InputError(f"{call.output}: dequantize does not match its quantize")
        name = pending.node.name if pending.node else INPUT
        if pending.node is not None:
            self._append(pending.node, call.output)
        self.quantizers[name], self.scales[name] = quantizer, quantizer.scale
        self.readable[call.output] = name

    def _dequantize_weight(self, call: Call, args: dict[str, Any]) -> None:
        values, scale, zero_points = (
            self._tensor(call, args[key]) for key in ("input", "scales", "zero_points")
        )
        fits = (
            (args["axis"], args["quant_min"], args["quant_max"]) == (0, -WEIGHT_MAX, WEIGHT_MAX)
            and (args["dtype"], args["out_dtype"]) == ("int8", None)
            and (values.dtype, scale.dtype) == (np.int8, np.float32)
            and values.ndim in (2, 4)
            and zero_points.shape == scale.shape == values.shape[:1]
            and not zero_points.any()
            and bool((scale > 0).all())
        )
        if not fits:
            raise InputError(f"{call.output}: weights must be int8, symmetric, per output channel")
        self.weights[call.output] = (values, scale)

    # -- operations -----------------------------------------------------------------------------

    def _operation(self, call: Call, args: dict[str, Any]) -> None:
        op = next(op for op, target in OP_TARGETS.items() if target == call.target)
        kind = BY_KIND[op]
        name = f"{call.module}.{op}".lstrip(".") if op in FUNCTIONAL_OPS else call.module
        keys = ("input",) if issubclass(kind, Weighted) else ("self", "other")
        inputs = tuple(self._read_tensor(call, args[key]) for key in keys if key in args)
        _check_arguments(call, op, args)
        fields: dict[str, Any] = {}
        if issubclass(kind, Weighted):
            fields = {"module": call.module, "weights": self._weights(call, args, inputs[0])}
        if op == "conv2d":
            fields["stride"], fields["padding"] = _pair(args["stride"]), _pair(args["padding"])
            fields["groups"] = args["groups"]
        node = kind(name=name, inputs=inputs, **fields)
        if isinstance(node.rule, SameAs):
            self._append(node, call.output)
            self.scales[name] = self.scales[inputs[0]]
        else:
            self.pending[call.output] = _Pending(node)

    def _weights(self, call: Call, args: dict[str, Any], source: str) -> Int8Weights:
        if args["weight"].name not in self.weights:
            raise InputError(f"{call.module}: its weight is not an int8 tensor of its own")
        values, scale = self.weights[args["weight"].name]
        bias = np.zeros(values.shape[:1], np.float32)
        if args["bias"] is not None:
            bias = self._tensor(call, args["bias"])
        if bias.shape != values.shape[:1] or bias.dtype != np.float32:
            raise InputError(f"{call.module}: weight {values.shape} and bias {bias.shape} differ")
        step = self.scales[source]
        units = bias_on_grid(call.module, bias, step, scale)
        if not np.array_equal(bias, bias_value(units, step, scale)):
            raise InputError(f"{call.module}: a bias is not a multiple of its int32 step")
        return Int8Weights(values, scale, units, bias)

    def _raw_weighted(self, ref: Any) -> Weighted | None:
        """The convolution or linear that a ReLU reads before any quantizer, if it does."""
        found = self.pending.get(ref.name) if isinstance(ref, Ref) else None
        if found is None or found.quantizer is not None:
            return None
        node = found.node
        return node if isinstance(node, Weighted) and node.activation is None else None

    # -- bookkeeping ----------------------------------------------------------------------------

    def _append(self, node: Node, output: str) -> None:
        if node.name in self.shapes:
            raise InputError(f"{node.name}: two tensors have this name; give each its own module")
        self.nodes[node.name] = node
        self.shapes[node.name] = node.output_shape([self.shapes[name] for name in node.inputs])
        self.readable[output] = node.name

    def _take(self, call: Call, ref: Any) -> _Pending:
        """The value a quantize, dequantize or fused ReLU consumes; it must be its only reader."""
        found = self.pending.pop(ref.name, None) if isinstance(ref, Ref) else None
        if found is None or self.uses[ref.name] != 1:
            raise InputError(
                f"{call.output}: every tensor needs exactly one quantizer, between the operation "
                "that makes it and everything that reads it"
            )
        return found

    def _read_tensor(self, call: Call, ref: Any) -> str:
        if not isinstance(ref, Ref):
            raise InputError(f"{call.module}: {call.target} with a constant is not supported")
        if ref.name not in self.readable:
            raise InputError(f"{call.module}: reads {ref.name}, a tensor without a quantizer")
        return self.readable[ref.name]

    def _tensor(self, call: Call, ref: Any) -> np.ndarray:
        if not isinstance(ref, Ref) or ref.name not in self.tensors:
            raise InputError(f"{call.output}: {ref!r} is not a stored tensor")
        return self.tensors[ref.name]


def _check_arguments(call: Call, op: str, args: dict[str, Any]) -> None:
    """Refuses argument values that no version 1 program has."""
    unsupported = {
        "gelu": lambda: args["approximate"] != "none",
        "mean": lambda: (
            args["dim"] not in ((2, 3), (-2, -1))
            or args["keepdim"] is not True
            or args["dtype"] is not None
        ),
        "add": lambda: args["alpha"] != 1,
        "flatten": lambda: (args["start_dim"], args["end_dim"]) not in ((1, -1), (1, 3)),
        "conv2d": lambda: set(args["dilation"]) != {1},
    }
    if op in unsupported and unsupported[op]():
        plain = ", ".join(f"{k}={v}" for k, v in args.items() if not isinstance(v, Ref))
        raise InputError(f"{call.module}: {call.target} with {plain} is not supported")


def _quantizer(call: Call, args: dict[str, Any]) -> Quantizer:
    if args["dtype"] != "int8" or args.get("out_dtype") is not None:
        raise InputError(f"{call.output}: activations must be int8")
    if (args["quant_min"], args["quant_max"]) != (INT8_MIN, INT8_MAX):
        raise InputError(f"{call.output}: activations use {INT8_MIN}..{INT8_MAX}")
    return Quantizer(args["scale"], args["zero_point"])


def _pair(value: Sequence[int]) -> tuple[int, int]:
    """ATen lets one number stand for both axes."""
    if len(value) not in (1, 2):
        raise InputError(f"{tuple(value)} is not a pair of sizes")
    return value[0], value[-1]
