"""Small programs of one operation each, in every form that it has: for measuring targets op by op.

    for label in LABELS:
        program = operation_program(label, seed)    # 16 px images

A graph is the operation between one or two convolutions and the output, of any rank; so these
programs are no classifiers, and are made past that check (`with_graph`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from edgevit.graph import Graph, quantize_graph
from edgevit.graph.ties import tie_free
from edgevit.ops import (
    Add,
    AvgPool2d,
    Concat,
    Conv2d,
    ConvTranspose2d,
    Flatten,
    FloatWeights,
    Gelu,
    LayerNorm,
    Linear,
    MaxPool2d,
    Mean,
    Mul,
    Node,
    Pad,
    Relu,
    Relu6,
    Resize,
    Shape,
    Slice,
    Softmax,
)
from edgevit.program import Program
from tests.programs import make_program, quantizers, seeded_images, weight_scales, with_graph
from tests.random_graphs import POINTWISE, norm_weights

IMAGE_SIZE = 16


class Net:
    """Appends nodes to a graph of (1, 3, 16, 16)."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng([seed, 11])
        self.nodes: list[Node] = []
        self.shapes: dict[str, Shape] = {"input": (1, 3, IMAGE_SIZE, IMAGE_SIZE)}

    def __call__(self, kind: type[Node], *inputs: str, **attributes: Any) -> str:
        name = f"n{len(self.nodes)}.{kind.kind}"
        return self._add(kind(name=name, inputs=inputs or (self.last,), **attributes))

    @property
    def last(self) -> str:
        return self.nodes[-1].name if self.nodes else "input"

    def conv(
        self,
        kind: type[Any] = Conv2d,
        shape: tuple[int, ...] = (8, 3, 3, 3),
        source: str | None = None,
        **attributes: Any,
    ) -> str:
        """A convolution or linear of a weight of `shape`, in PyTorch's layout."""
        channels = shape[kind.channel_axis]
        fan_in = np.prod(shape) / channels
        weight = self.random.normal(0, 1.2 / np.sqrt(fan_in), shape).astype(np.float32)
        bias = self.random.normal(0, 0.3, channels).astype(np.float32)
        name = f"n{len(self.nodes)}.{kind.kind}"
        weights = FloatWeights(weight, bias)
        inputs = (source or self.last,)
        return self._add(kind(name=name, inputs=inputs, module=name, weights=weights, **attributes))

    def _add(self, node: Node) -> str:
        self.nodes.append(node)
        self.shapes[node.name] = node.output_shape([self.shapes[name] for name in node.inputs])
        return node.name


Build = Callable[[Net], Any]


def _convolution(shape: tuple[int, ...], **attributes: Any) -> Build:
    """Of 8 channels of 16 x 16."""

    def build(net: Net) -> None:
        net.conv(padding=(1, 1))
        net.conv(shape=shape, **attributes)

    return build


def _transposed(kernel: int, stride: int, padding: int = 0, **attributes: Any) -> Build:
    def build(net: Net) -> None:
        net.conv(stride=(2, 2), padding=(1, 1))
        sides = {"stride": (stride, stride), "padding": (padding, padding)}
        net.conv(ConvTranspose2d, (8, 6, kernel, kernel), **sides, **attributes)

    return build


def _map(kind: type[Node], **attributes: Any) -> Build:
    """An operation on one map of 8 x 16 x 16."""

    def build(net: Net) -> None:
        net.conv(padding=(1, 1))
        net(kind, **attributes)

    return build


def _norm(channels: int, behind: bool = True) -> Build:
    """A layer norm between two convolutions, or the last."""

    def build(net: Net) -> None:
        net.conv(shape=(channels, 3, 3, 3), padding=(1, 1))
        weights = norm_weights(net.random, channels)
        net(LayerNorm, eps=float(np.float32(1e-6)), weights=weights)
        if behind:
            net.conv(shape=(4, channels, 1, 1))

    return build


def _pair(kind: type[Node], how: str) -> Build:
    """Of a map and, in either order, a like one, one value a channel, or one channel."""

    def build(net: Net) -> None:
        first = net.conv(padding=(1, 1))
        if how.startswith("gate"):
            net(Mean)
            second = net.conv(shape=(8, 8, 1, 1))
        else:
            channels = 1 if how.startswith("plane") else 8
            second = net.conv(shape=(channels, 3, 1, 1), source="input")
        pair = (second, first) if how.endswith("first") else (first, second)
        net(kind, *pair)

    return build


def _linear(net: Net) -> None:
    net.conv(stride=(2, 2), padding=(1, 1))
    net(Mean)
    net(Flatten)
    net.conv(Linear, (10, 8))


def _softmax(net: Net) -> None:
    _linear(net)
    net(Softmax)


def _flatten(net: Net) -> None:
    """Of maps, read by a linear: the order of its values is (channel, row, column)."""
    net.conv(stride=(4, 4), padding=(1, 1))
    net(Flatten)
    net.conv(Linear, (10, 8 * 4 * 4))


def _vectors(net: Net) -> None:
    """Operations on (1, C): a flattened map, sliced, joined, added to, with an activation."""
    net.conv(stride=(4, 4), padding=(1, 1))
    flat = net(Flatten)
    part = net(Slice, flat, axis=1, start=5, stop=77, step=3)
    first = net.conv(Linear, (24, 8 * 4 * 4), source=flat)
    total = net(Add, part, first)
    net(Gelu)
    net(Concat, net.last, total)


def _concat(net: Net) -> None:
    first = net.conv(padding=(1, 1))
    second = net.conv(shape=(4, 3, 1, 1), source="input")
    third = net(Relu, net.conv(shape=(4, 3, 1, 1), source="input"))
    net(Concat, first, second, third, first)


def _chain(net: Net) -> None:
    """Operations that keep their quantizer, one behind the other and side by side."""
    first = net.conv(padding=(1, 1))
    pooled = net(MaxPool2d, first, kernel=(2, 2), stride=(2, 2))
    enlarged = net(Resize, pooled, size=(16, 16), mode="nearest")
    net(Concat, first, enlarged)
    net(Slice, axis=1, start=3, stop=13)
    net(Pad, before=(1, 0), after=(0, 2))
    net.conv(shape=(4, 10, 3, 3))


FORMS: dict[str, Build] = {
    "conv": _convolution((8, 8, 3, 3), padding=(1, 1)),
    "conv strided": _convolution((8, 8, 3, 3), stride=(2, 2), padding=(1, 1)),
    "conv strided, uneven": _convolution((8, 8, 3, 2), stride=(2, 1), padding=(0, 1)),
    "conv 5": _convolution((4, 8, 5, 5), padding=(2, 2)),
    "conv dilated": _convolution((8, 8, 3, 3), padding=(2, 2), dilation=(2, 2)),
    "conv dilated, padded less": _convolution((8, 8, 3, 3), padding=(1, 0), dilation=(3, 1)),
    "conv of 2 groups": _convolution((12, 4, 3, 3), padding=(1, 1), groups=2),
    "conv of 4 groups": _convolution((4, 2, 1, 1), groups=4, activation=Relu),
    "conv depthwise": _convolution((8, 1, 3, 3), padding=(1, 1), groups=8),
    "conv depthwise, strided": _convolution((8, 1, 3, 3), stride=(2, 2), padding=(1, 1), groups=8),
    "conv depthwise, dilated": _convolution(
        (8, 1, 3, 3), padding=(2, 2), dilation=(2, 2), groups=8, activation=Relu6
    ),
    "conv depthwise, twofold": _convolution((16, 1, 3, 3), padding=(1, 1), groups=8),
    "conv and relu": _convolution((8, 8, 1, 1), activation=Relu),
    "conv and relu6": _convolution((8, 8, 1, 1), activation=Relu6),
    "conv_transpose 2/2": _transposed(2, 2),
    "conv_transpose 4/2": _transposed(4, 2, 1),
    "conv_transpose 3/2": _transposed(3, 2, 1, output_padding=(1, 1)),
    "conv_transpose 3/2 whole": _transposed(3, 2),
    "conv_transpose 3/1": _transposed(3, 1, 1, activation=Relu),
    "conv_transpose 2/3": _transposed(2, 3, output_padding=(1, 1)),
    "linear": _linear,
    "linear of maps": _flatten,
    "vectors": _vectors,
    "softmax": _softmax,
    "add": _pair(Add, "like"),
    "add gate": _pair(Add, "gate"),
    "add gate first": _pair(Add, "gate first"),
    "add plane": _pair(Add, "plane"),
    "mul": _pair(Mul, "like"),
    "mul gate": _pair(Mul, "gate"),
    "mul gate first": _pair(Mul, "gate first"),
    "mul plane first": _pair(Mul, "plane first"),
    **{kind.kind: _map(kind) for kind in POINTWISE},
    "mean": _map(Mean),
    "avg_pool2d": _map(AvgPool2d, kernel=(2, 2), stride=(2, 2)),
    "avg_pool2d 3/2": _map(AvgPool2d, kernel=(3, 2), stride=(2, 1)),
    "max_pool2d": _map(MaxPool2d, kernel=(2, 2), stride=(2, 2)),
    "max_pool2d 3/2": _map(MaxPool2d, kernel=(3, 3), stride=(2, 2), padding=(1, 1)),
    "max_pool2d 5/1": _map(MaxPool2d, kernel=(5, 5), stride=(1, 1), padding=(2, 2)),
    "resize nearest": _map(Resize, size=(32, 32), mode="nearest"),
    "resize nearest, uneven": _map(Resize, size=(48, 32), mode="nearest"),
    "resize bilinear": _map(Resize, size=(32, 32), mode="bilinear"),
    "resize bilinear, fourfold": _map(Resize, size=(64, 64), mode="bilinear"),
    "resize bilinear, uneven": _map(Resize, size=(16, 48), mode="bilinear"),
    "layer_norm": _norm(8),
    "layer_norm of 48": _norm(48),
    "layer_norm, given out": _norm(16, behind=False),
    "slice channels": _map(Slice, axis=1, start=2, stop=7, step=2),
    "slice rows": _map(Slice, axis=2, start=1, stop=16, step=3),
    "slice columns": _map(Slice, axis=3, start=0, stop=9),
    "pad": _map(Pad, before=(1, 0), after=(0, 3)),
    "concat": _concat,
    "kept quantizers": _chain,
}
LABELS: tuple[str, ...] = tuple(FORMS)


def operation_graph(label: str, seed: int) -> Graph:
    """The float graph of a form, its last tensor the output; the seed chooses the weights."""
    net = Net(seed)
    FORMS[label](net)
    return Graph(net.shapes["input"], tuple(net.nodes), (net.last,))


def operation_program(label: str, seed: int, profile: str = "portable") -> Program:
    """The program of `operation_graph`; its scales are off max-abs ones by up to a third."""
    return any_program(operation_graph(label, seed), seed, profile)


def any_program(graph: Graph, seed: int = 0, profile: str = "portable") -> Program:
    """A program of any float graph of 16 px images and any outputs; see `operation_program`."""
    random = np.random.default_rng([seed, 12])
    found = quantizers(graph, seeded_images(4, IMAGE_SIZE, seed), profile)
    factors = {name: 1.0 if graph.fixed(name) else random.uniform(0.67, 1.33) for name in found}
    scales = tie_free(graph, {name: q.scale * factors[name] for name, q in found.items()})
    found = {name: replace(q, scale=scales[name]) for name, q in found.items()}
    quantized = quantize_graph(graph, found, weight_scales(graph), profile, "calibrated")
    return with_graph(make_program(IMAGE_SIZE, profile), quantized)


def norm_program(profile: str = "portable") -> Program:
    """A classifier of 10 classes with a layer norm, "n1.layer_norm"."""
    net = Net(3)
    net.conv(shape=(12, 3, 3, 3), padding=(1, 1))
    net(LayerNorm, eps=2.0**-20, weights=norm_weights(net.random, 12))
    net.conv(shape=(8, 12, 1, 1))
    net(Mean)
    net(Flatten)
    net.conv(Linear, (10, 8))
    graph = Graph(net.shapes["input"], tuple(net.nodes), (net.last,))
    return any_program(graph, 0, profile)
