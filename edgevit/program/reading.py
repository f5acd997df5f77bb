"""From a list of ATen calls to the checked graph.

Both readers end here: tracing a float net (`build`) and reading program.pt2 (`pt2_reader`) each
make a flat list of `Call`s, and `graph_from_calls` turns either into a checked `Graph`. What it
does not recognise it refuses, by name, so nothing else can be in a program.

    Given   conv2d(dq(x), dequantize_per_channel(w), b) -> relu -> quantize -> dequantize
    Result  Node("conv2d", name of the relu, relu=True, quantizer, int8 weight, int32 bias)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgevit.errors import InputError
from edgevit.graph.graph import INT8_MAX, INT8_MIN, WEIGHT_MAX, Graph, Node, Quantizer, output_shape
from edgevit.program.aten import (
    DEQUANTIZE,
    DEQUANTIZE_WEIGHT,
    FUNCTIONAL_OPS,
    OP_TARGETS,
    QUANTIZE,
    RELU,
    Call,
    Ref,
    call_arguments,
)


def graph_from_calls(
    calls: Sequence[Call],
    tensors: Mapping[str, np.ndarray],
    input_name: str,
    input_shape: tuple[int, ...],
    output: str,
    quantized: bool,
) -> Graph:
    """The checked Graph of a list of calls.

    tensors     weights, biases and weight scales by the name a `Ref` uses
    quantized   True: every tensor must pass exactly one quantize/dequantize pair and every weight
                be int8. False: a float net, no such pair anywhere.
    Raises InputError naming the call or tensor that does not fit.
    """
    reader = _Reader(calls, tensors, input_name, input_shape, quantized)
    for call in calls:
        reader.read(call)
    return reader.finish(output)


@dataclass(frozen=True)
class _Pending:
    """A tensor on its way: made (node), maybe quantized (quantizer), not yet readable."""

    node: Node | None  # None for the graph's input
    quantizer: Quantizer | None = None


@dataclass(frozen=True)
class _Weight:
    """int8 values and their float32 scale per output channel."""

    values: np.ndarray
    scale: np.ndarray


class _Reader:
    """State while walking the calls; every value is pending, readable, or a weight."""

    def __init__(
        self,
        calls: Sequence[Call],
        tensors: Mapping[str, np.ndarray],
        input_name: str,
        input_shape: tuple[int, ...],
        quantized: bool,
    ) -> None:
        self.tensors, self.quantized = tensors, quantized
        self.input_name, self.input_shape = input_name, input_shape
        self.input_quantizer: Quantizer | None = None
        self.nodes: list[Node] = []
        self.shapes = {"input": input_shape}
        self.scales: dict[str, float] = {}
        self.weights: dict[str, _Weight] = {}
        self.pending: dict[str, _Pending] = {}
        self.readable: dict[str, str] = {}  # name in the calls -> canonical tensor name
        self.uses = Counter(a.name for c in calls for a in c.args.values() if isinstance(a, Ref))
        self.relu_inputs = {
            c.args["self"].name
            for c in calls
            if c.target == RELU and isinstance(c.args.get("self"), Ref)
        }
        self.taken = set(tensors) | {input_name}
        if quantized:
            self.pending[input_name] = _Pending(None)
        else:
            self.readable[input_name] = "input"

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
        elif call.target == RELU and self._is_raw_conv(args["self"]):
            self._fuse_relu(call, args)
        else:
            self._operation(call, args)

    def finish(self, output: str) -> Graph:
        for pending in self.pending.values():
            name = pending.node.name if pending.node else "input"
            raise InputError(f"{name}: this tensor has no quantizer, or nothing reads it")
        if output not in self.readable:
            raise InputError(f"{output}: the program's output is not a tensor of its graph")
        return Graph(
            "input", self.input_shape, self.input_quantizer, tuple(self.nodes),
            self.readable[output],
        )  # fmt: skip

    # -- quantize / dequantize ------------------------------------------------------------------

    def _quantize(self, call: Call, args: dict[str, Any]) -> None:
        pending = self._take(call, args["input"])
        if pending.quantizer is not None or not self.quantized:
            raise InputError(f"{call.output}: a tensor is quantized twice, or in a float net")
        self.pending[call.output] = replace(pending, quantizer=_quantizer(call, args))

    def _dequantize(self, call: Call, args: dict[str, Any]) -> None:
        pending = self._take(call, args["input"])
        if pending.quantizer is None or not pending.quantizer.same_values(_quantizer(call, args)):
            raise InputError(f"{call.output}: dequantize does not match its quantize")
        if pending.node is None:
            self.input_quantizer = pending.quantizer
            self.scales["input"] = pending.quantizer.scale
            self.readable[call.output] = "input"
            return
        self._append(replace(pending.node, quantizer=pending.quantizer), call.output)

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
        self.weights[call.output] = _Weight(values, scale)

    # -- operations -----------------------------------------------------------------------------

    def _operation(self, call: Call, args: dict[str, Any]) -> None:
        op = next(op for op, target in OP_TARGETS.items() if target == call.target)
        inputs = tuple(
            self._read_tensor(call, args[key])
            for key in (("input",) if op in ("conv2d", "linear") else ("self", "other"))
            if key in args
        )
        fields = self._fields(op, call, args, inputs)
        name = f"{call.module}.{op}".lstrip(".") if op in FUNCTIONAL_OPS else call.module
        # The shape is checked once more, with every other, when the Graph is made.
        node = Node(op, name, inputs, (), **fields)
        node = replace(node, shape=output_shape(node, tuple(self.shapes[i] for i in inputs)))
        if not self.quantized or op == "flatten":
            if self._fuses_relu(node, call):
                self.pending[call.output] = _Pending(node)
            else:
                self._append(node, call.output)
        else:
            self.pending[call.output] = _Pending(node)

    def _fields(
        self, op: str, call: Call, args: dict[str, Any], inputs: tuple[str, ...]
    ) -> dict[str, Any]:
        """Node attributes of one call; refuses argument values that no lowering knows."""
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
            raise InputError(f"{call.module}: {call.target} with {_plain(args)} is not supported")
        if op not in ("conv2d", "linear"):
            return {}
        fields = self._weights(call, args, inputs[0])
        if op == "conv2d":
            fields["stride"], fields["padding"] = _pair(args["stride"]), _pair(args["padding"])
            fields["groups"] = args["groups"]
        return fields

    def _weights(self, call: Call, args: dict[str, Any], source: str) -> dict[str, Any]:
        if self.quantized:
            weight = self.weights.get(args["weight"].name)
            if weight is None:
                raise InputError(f"{call.module}: its weight is not an int8 tensor of its own")
            values, scale = weight.values, weight.scale
        else:
            values, scale = self._tensor(call, args["weight"]), None
        bias = np.zeros(values.shape[:1], np.float32)
        if args["bias"] is not None:
            bias = self._tensor(call, args["bias"])
        if bias.shape != values.shape[:1]:
            raise InputError(f"{call.module}: weight {values.shape} and bias {bias.shape} differ")
        fields = {"module": call.module, "weight": values, "weight_scale": scale, "bias": bias}
        if self.quantized:
            step = self.scales[source]
            fields["bias_q"] = bias_on_grid(call.module, bias, step, scale)
            if not np.array_equal(bias, bias_value(fields["bias_q"], step, scale)):
                raise InputError(f"{call.module}: a bias is not a multiple of its int32 step")
        return fields

    def _fuse_relu(self, call: Call, args: dict[str, Any]) -> None:
        node = self._take(call, args["self"]).node
        fused = replace(node, name=call.module, relu=True)
        if self.quantized:
            self.pending[call.output] = _Pending(fused)
        else:
            self._append(fused, call.output)

    def _is_raw_conv(self, ref: Any) -> bool:
        found = self.pending.get(ref.name) if isinstance(ref, Ref) else None
        return (
            found is not None
            and found.node is not None
            and found.quantizer is None
            and found.node.op in ("conv2d", "linear")
            and not found.node.relu
        )

    def _fuses_relu(self, node: Node, call: Call) -> bool:
        """Float nets have no quantizer to tell: a conv read by one ReLU alone is fused with it."""
        alone = self.uses[call.output] == 1 and call.output in self.relu_inputs
        return node.op in ("conv2d", "linear") and alone

    # -- bookkeeping ----------------------------------------------------------------------------

    def _append(self, node: Node, output: str) -> None:
        if node.name in self.shapes:
            raise InputError(f"{node.name}: two tensors have this name; give each its own module")
        self.nodes.append(node)
        self.shapes[node.name] = node.shape
        self.readable[output] = node.name
        if node.op == "flatten":
            self.scales[node.name] = self.scales.get(node.inputs[0], 0.0)
        elif node.quantizer is not None:
            self.scales[node.name] = node.quantizer.scale

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


def bias_on_grid(
    module: str, bias: np.ndarray, input_scale: float, weight_scale: np.ndarray
) -> np.ndarray:
    """int32 bias at input_scale * weight_scale, rounded half to even in float64.

    The float32 value of the result, read again, gives the same integers: where the grid is finer
    than a float32 step, the step is what counts. Raises InputError naming the module on overflow.
    """
    grid = np.float64(input_scale) * weight_scale.astype(np.float64)
    units = np.rint(bias.astype(np.float64) / grid)
    limits = np.iinfo(np.int32)
    if not np.all((units >= limits.min) & (units <= limits.max)):
        channel = int(np.argmax(np.abs(units)))
        raise InputError(
            f"{module}: the bias of channel {channel} is {bias[channel]:g}, over int32 at "
            f"a step of {grid[channel]:g} (input scale * weight scale); raise its weight scale"
        )
    return units.astype(np.int32)


def bias_value(units: np.ndarray, input_scale: float, weight_scale: np.ndarray) -> np.ndarray:
    """The float32 bias that stands for int32 `units` in the program."""
    grid = np.float64(input_scale) * weight_scale.astype(np.float64)
    return (units * grid).astype(np.float32)


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


def _plain(args: Mapping[str, Any]) -> str:
    return ", ".join(f"{k}={v}" for k, v in args.items() if not isinstance(v, Ref))
