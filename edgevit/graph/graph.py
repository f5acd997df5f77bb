"""The graph that every lowering walks: the quantized program as plain, validated data.

A `Graph` is a read-only view of a RepViT after fusing, one `Node` per operation that an
INT8 runtime would execute. Names are the canonical tensor names: the module path of a leaf
("stem.conv1", "head"), or module path + operation ("stages.0.blocks.0.add", "mean").

The same classes also hold the float net (`Graph.quantized` is False then): no quantizers, and
weights as float32. Layout is PyTorch's throughout: tensors NCHW or (N, C), convolution weights
OIHW, linear weights (out, in).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import numpy as np

from edgevit.errors import InputError

INT8_MIN, INT8_MAX = -128, 127
WEIGHT_MAX = 127
"""Weights use -127..127: a symmetric range keeps the zero-point at 0 in every runtime."""

SIGMOID_SCALE, SIGMOID_ZERO_POINT = 1.0 / 256.0, -128
"""The output range TFLite fixes for LOGISTIC, so every program uses it (TFLite's 8-bit spec)."""

WEIGHTED_OPS = ("conv2d", "linear")
ARITY = {
    "conv2d": 1, "linear": 1, "add": 2, "mul": 2, "gelu": 1, "hard_swish": 1, "relu": 1,
    "sigmoid": 1, "mean": 1, "flatten": 1,
}  # fmt: skip
How = Literal["learned", "fixed", "calibrated"]
HOW: tuple[str, ...] = ("learned", "fixed", "calibrated")


def is_float16_exact(scale: float | np.ndarray) -> bool:
    """Whether every value is positive, finite and survives a trip through IEEE half precision.

    Core ML stores scales as float16 (facts: relative error 4.4e-4 otherwise), so a scale that
    fails here cannot be the same in every artifact.
    """
    values = np.asarray(scale, np.float64)
    with np.errstate(over="ignore"):  # an overflow to infinity is one of the answers
        halves = values.astype(np.float16).astype(np.float64)
    return bool(np.all(np.isfinite(values)) and np.all(values > 0) and np.all(halves == values))


@dataclass(frozen=True)
class Quantizer:
    """real = (q - zero_point) * scale, with q an int8 in quant_min..quant_max.

    Raises InputError for a scale that is not a positive finite number, a range that is not
    inside int8, or a zero-point outside the range.
    """

    scale: float
    zero_point: int
    quant_min: int = INT8_MIN
    quant_max: int = INT8_MAX
    how: How = "learned"

    def __post_init__(self) -> None:
        if not (isinstance(self.scale, float) and math.isfinite(self.scale) and self.scale > 0):
            raise InputError(f"a quantizer's scale must be a positive float, not {self.scale!r}")
        for value in (self.zero_point, self.quant_min, self.quant_max):
            if type(value) is not int:
                raise InputError(f"zero-point and range must be plain integers, not {value!r}")
        if not INT8_MIN <= self.quant_min < self.quant_max <= INT8_MAX:
            raise InputError(f"range {self.quant_min}..{self.quant_max} is not inside int8")
        if not self.quant_min <= self.zero_point <= self.quant_max:
            raise InputError(
                f"zero-point {self.zero_point} is outside {self.quant_min}..{self.quant_max}"
            )
        if self.how not in HOW:
            raise InputError(f"how must be one of {', '.join(HOW)}, not {self.how!r}")

    @property
    def low(self) -> float:
        """The smallest real value the quantizer can hold."""
        return (self.quant_min - self.zero_point) * self.scale

    @property
    def high(self) -> float:
        """The largest real value the quantizer can hold."""
        return (self.quant_max - self.zero_point) * self.scale

    def same_values(self, other: Quantizer) -> bool:
        """Equality of everything that changes numbers; `how` is provenance only."""
        return (self.scale, self.zero_point, self.quant_min, self.quant_max) == (
            other.scale, other.zero_point, other.quant_min, other.quant_max
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Node:
    """One operation and the tensor it makes.

    op          a key of `ARITY`
    name        canonical name of the output tensor; where a ReLU is fused (`relu`), the ReLU's
    inputs      canonical names of the activations it reads
    shape       of the output, batch 1: (1, C, H, W) or (1, C)
    quantizer   of the output; None for flatten (its input's holds) and in a float graph
    module      conv2d, linear: module path that owns weight and bias (weight tables use it)
    stride, padding, groups, relu    conv2d; relu also linear
    weight      int8 OIHW or OI (float32 in a float graph)
    weight_scale  float32 [O]; weight_how as a Quantizer's how
    bias        float32 [O]: bias_q * input scale * weight_scale, rounded to float32
    bias_q      int32 [O]
    """

    op: str
    name: str
    inputs: tuple[str, ...]
    shape: tuple[int, ...]
    quantizer: Quantizer | None = None
    module: str = ""
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    groups: int = 1
    relu: bool = False
    weight: np.ndarray | None = field(default=None, repr=False)
    weight_scale: np.ndarray | None = field(default=None, repr=False)
    weight_how: How = "learned"
    bias: np.ndarray | None = field(default=None, repr=False)
    bias_q: np.ndarray | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.op not in ARITY:
            raise InputError(f"{self.name}: unknown operation {self.op!r}")
        if len(self.inputs) != ARITY[self.op]:
            raise InputError(
                f"{self.name}: {self.op} takes {ARITY[self.op]} inputs, not {len(self.inputs)}"
            )
        if self.op in WEIGHTED_OPS:
            _check_weight(self)
        elif self.weight is not None or self.bias is not None:
            raise InputError(f"{self.name}: a {self.op} has no weight")

    @property
    def depthwise(self) -> bool:
        """A convolution with one input channel and one output channel per group."""
        return self.op == "conv2d" and self.groups > 1


def _check_weight(node: Node) -> None:
    weight, bias, where = node.weight, node.bias, node.module or node.name
    if weight is None or bias is None:
        raise InputError(f"{where}: weight or bias is missing")
    rank = 4 if node.op == "conv2d" else 2
    if weight.ndim != rank or bias.shape != weight.shape[:1] or bias.dtype != np.float32:
        raise InputError(f"{where}: weight {weight.shape} and bias {bias.shape} do not fit")
    if weight.dtype == np.float32:
        return
    if weight.dtype != np.int8 or int(weight.min(initial=0)) < -WEIGHT_MAX:
        raise InputError(f"{where}: weights must be int8 in -127..127, not {weight.dtype}")
    scale, bias_q = node.weight_scale, node.bias_q
    if scale is None or scale.dtype != np.float32 or scale.shape != weight.shape[:1]:
        raise InputError(f"{where}: one float32 weight scale per output channel is needed")
    if bias_q is None or bias_q.dtype != np.int32 or bias_q.shape != weight.shape[:1]:
        raise InputError(f"{where}: one int32 bias per output channel is needed")


@dataclass(frozen=True, eq=False)
class Graph:
    """Nodes in execution order, from one input to one output; checked on construction.

    input_shape is (1, C, H, W). Raises InputError, naming the tensor, for a name used twice, a
    tensor read before it is made, a shape that does not follow from its inputs, an output that
    nothing makes, or a tensor that nothing reads.
    """

    input_name: str
    input_shape: tuple[int, ...]
    input_quantizer: Quantizer | None
    nodes: tuple[Node, ...]
    output_name: str

    def __post_init__(self) -> None:
        shapes: dict[str, tuple[int, ...]] = {self.input_name: self.input_shape}
        read: set[str] = set()
        for node in self.nodes:
            if node.name in shapes:
                raise InputError(f"{node.name}: two tensors have this name")
            for name in node.inputs:
                if name not in shapes:
                    raise InputError(f"{node.name}: reads {name}, which nothing made before it")
            read.update(node.inputs)
            expected = output_shape(node, tuple(shapes[name] for name in node.inputs))
            if node.shape != expected:
                raise InputError(f"{node.name}: shape {node.shape}, expected {expected}")
            shapes[node.name] = node.shape
        if self.output_name not in shapes or self.output_name in read:
            raise InputError(f"{self.output_name}: the output must be made, and read by nothing")
        unread = [name for name in shapes if name not in read and name != self.output_name]
        if unread:
            raise InputError(f"{unread[0]}: nothing reads this tensor")

    @cached_property
    def _by_name(self) -> dict[str, Node]:
        return {node.name: node for node in self.nodes}

    @property
    def quantized(self) -> bool:
        """False for the float net, which has quantizers nowhere."""
        return self.input_quantizer is not None or any(n.quantizer for n in self.nodes)

    def node(self, name: str) -> Node:
        """The node that makes tensor `name`; InputError if none does."""
        if name not in self._by_name:
            raise InputError(f"{name}: no operation of this graph makes such a tensor")
        return self._by_name[name]

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor with batch 1, NCHW or (1, C)."""
        return self.input_shape if name == self.input_name else self.node(name).shape

    def quantizer(self, name: str) -> Quantizer:
        """The one quantizer of a tensor (a flatten's is its input's); InputError if it has none."""
        found = self.input_quantizer
        if name != self.input_name:
            node = self.node(name)
            if node.op == "flatten":
                return self.quantizer(node.inputs[0])
            found = node.quantizer
        if found is None:
            raise InputError(
                f"{name}: this tensor has no quantizer, and an INT8 runtime would hold it; "
                "quantize the model again, every tensor included"
            )
        return found

    def activations(self) -> dict[str, Quantizer]:
        """Canonical name -> quantizer of every tensor that has its own, input first."""
        names = [self.input_name] + [n.name for n in self.nodes if n.op != "flatten"]
        return {name: self.quantizer(name) for name in names}

    def weighted(self) -> tuple[Node, ...]:
        """The convolutions and linears, in order."""
        return tuple(node for node in self.nodes if node.op in WEIGHTED_OPS)


def float_graph(graph: Graph) -> Graph:
    """The graph without activation quantizers, its int8 weights as the float32 they stand for."""
    nodes = []
    for node in graph.nodes:
        if node.weight is not None:
            per_channel = (-1,) + (1,) * (node.weight.ndim - 1)
            weight = node.weight * node.weight_scale.reshape(per_channel)
            node = replace(node, weight=weight, weight_scale=None, bias_q=None)
        nodes.append(replace(node, quantizer=None))
    return replace(graph, input_quantizer=None, nodes=tuple(nodes))


def output_shape(node: Node, inputs: tuple[tuple[int, ...], ...]) -> tuple[int, ...]:
    """The shape that `node` makes of `inputs` (all NCHW or NC); InputError where they misfit."""
    first = inputs[0]
    if node.op == "conv2d":
        return _conv_shape(node, first)
    if node.op == "linear":
        if len(first) != 2 or first[1] != node.weight.shape[1]:
            raise InputError(f"{node.name}: linear {node.weight.shape} cannot read {first}")
        return first[0], node.weight.shape[0]
    if node.op in ("add", "mul"):
        try:
            return tuple(int(size) for size in np.broadcast_shapes(*inputs))
        except ValueError:
            raise InputError(f"{node.name}: {node.op} of {inputs[0]} and {inputs[1]}") from None
    if node.op == "mean":
        if len(first) != 4:
            raise InputError(f"{node.name}: mean over H and W needs (N, C, H, W), not {first}")
        return first[0], first[1], 1, 1
    if node.op == "flatten":
        return first[0], math.prod(first[1:])
    return first


def _conv_shape(node: Node, shape: tuple[int, ...]) -> tuple[int, ...]:
    out_channels, in_per_group, *kernel = node.weight.shape
    if len(shape) != 4 or in_per_group * node.groups != shape[1] or out_channels % node.groups:
        raise InputError(
            f"{node.name}: convolution {node.weight.shape}, groups {node.groups}, "
            f"cannot read {shape}"
        )
    if node.groups > 1 and (in_per_group != 1 or out_channels != node.groups):
        raise InputError(f"{node.name}: grouped convolutions must be depthwise, one to one")
    spatial = [
        (size + 2 * pad - width) // step + 1
        for size, pad, width, step in zip(shape[2:], node.padding, kernel, node.stride, strict=True)
    ]
    if min(spatial) < 1 or min(node.stride) < 1 or min(node.padding) < 0:
        raise InputError(f"{node.name}: {kernel} kernel does not fit an input of {shape}")
    return shape[0], out_channels, *spatial
