"""Random nets of known operations, as graphs and as programs: what the property tests draw from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from edgevit.graph import Graph
from edgevit.graph.passes import fuse_activations
from edgevit.ops import (
    OPERATIONS,
    Add,
    AvgPool2d,
    Concat,
    Conv2d,
    ConvTranspose2d,
    Flatten,
    FloatWeights,
    LayerNorm,
    Linear,
    MaxPool2d,
    Mean,
    Mul,
    Node,
    Pad,
    Resize,
    Shape,
    Sigmoid,
    Silu,
    Slice,
    Softmax,
)
from edgevit.program import Program, build_program
from tests.programs import SMALL, make_info, quantizers, seeded_images, weight_scales

IMAGE_SIZE, CLASSES = 32, 10

POINTWISE = tuple(kind for kind in OPERATIONS if kind.__module__ == "edgevit.ops.pointwise")
"""Every activation: a new one is drawn and tested without being named here."""


def norm_weights(random: np.random.Generator, channels: int) -> FloatWeights:
    """Weight and bias of a layer norm."""
    weight, bias = random.normal(1, 0.3, channels), random.normal(0, 0.3, channels)
    return FloatWeights(weight.astype(np.float32), bias.astype(np.float32))


class Builder:
    """Appends random operations; every tensor that nothing reads ends in the last sum."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng([seed, 7])
        self.nodes: list[Node] = []
        self.shapes: dict[str, Shape] = {"input": (1, 3, IMAGE_SIZE, IMAGE_SIZE)}

    def add(self, node: Node) -> str:
        self.nodes.append(node)
        self.shapes[node.name] = node.output_shape([self.shapes[name] for name in node.inputs])
        return node.name

    def name(self, kind: type[Node]) -> str:
        return f"block.{len(self.nodes)}.{kind.kind}"

    def weights(self, shape: Sequence[int], channels: int) -> FloatWeights:
        fan_in = int(np.prod(shape)) / channels
        weight = self.random.normal(0, 1.2 / np.sqrt(fan_in), shape).astype(np.float32)
        return FloatWeights(weight, self.random.normal(0, 0.2, channels).astype(np.float32))

    def conv(self, source: str, out: int | None = None, plain: bool = False) -> str:
        """A convolution: dense, grouped or depthwise, dilated or strided; `plain`: of stride 1."""
        channels = self.shapes[source][1]
        out = int(self.random.choice([4, 8, 12])) if out is None else out
        choices = [g for g in (1, 1, 2, 4, channels) if channels % g == 0 and out % g == 0]
        groups = 1 if plain else int(self.random.choice(choices))
        kernel = int(self.random.choice([1, 3, 5]))
        stride = 1 if plain else int(self.random.choice([1, 1, 2]))
        dilation = int(self.random.choice([1, 1, 2])) if stride == 1 else 1
        name = self.name(Conv2d)
        return self.add(
            Conv2d(
                name=name,
                inputs=(source,),
                module=name,
                weights=self.weights((out, channels // groups, kernel, kernel), out),
                stride=(stride, stride),
                padding=(dilation * (kernel // 2),) * 2,
                dilation=(dilation, dilation),
                groups=groups,
            )
        )

    def transposed(self, source: str) -> str:
        channels, out, kernel = self.shapes[source][1], 4, int(self.random.choice([2, 4]))
        name = self.name(ConvTranspose2d)
        return self.add(
            ConvTranspose2d(
                name=name,
                inputs=(source,),
                module=name,
                weights=self.weights((channels, out, kernel, kernel), out),
                stride=(2, 2),
                padding=((kernel - 2) // 2,) * 2,
            )
        )

    def unary(self, source: str) -> str:
        kind = POINTWISE[self.random.integers(len(POINTWISE))]
        return self.add(kind(name=self.name(kind), inputs=(source,)))

    def silu(self, source: str) -> str:
        *_, last = (self.add(node) for node in Silu.nodes(f"block.{len(self.nodes)}.silu", source))
        return last

    def moved(self, source: str) -> str:
        """An operation that keeps its input's quantizer."""
        _, channels, height, width = self.shapes[source]
        choice = int(self.random.integers(6))
        if choice == 0 and height > 4:
            name = self.name(MaxPool2d)
            return self.add(
                MaxPool2d(name=name, inputs=(source,), kernel=(3, 3), stride=(2, 2), padding=(1, 1))
            )
        if choice == 1 and height > 4:
            name = self.name(AvgPool2d)
            return self.add(AvgPool2d(name=name, inputs=(source,), kernel=(2, 2), stride=(2, 2)))
        if choice == 2 and height <= 16:
            mode = str(self.random.choice(["nearest", "bilinear"]))
            size = (2 * height, 2 * width)
            return self.add(Resize(name=self.name(Resize), inputs=(source,), size=size, mode=mode))
        if choice == 3 and channels > 4:
            stop = int(self.random.integers(2, channels))
            return self.add(
                Slice(name=self.name(Slice), inputs=(source,), axis=1, start=1, stop=stop)
            )
        before, after = (1, 0), (0, 2)
        return self.add(Pad(name=self.name(Pad), inputs=(source,), before=before, after=after))

    def joined(self, source: str) -> str:
        """Two branches of one tensor: a sum, a product, a concatenation, a gate."""
        channels = self.shapes[source][1]
        choice = int(self.random.integers(4))
        first = self.conv(source, channels, plain=True)
        if choice == 0:
            pair = (source, first) if self.random.integers(2) else (first, source)
            return self.add(Add(name=self.name(Add), inputs=pair))
        if choice == 1:
            second = self.conv(source, 4, plain=True)
            return self.add(Concat(name=self.name(Concat), inputs=(first, second)))
        if choice == 2:
            return self.add(Mul(name=self.name(Mul), inputs=(first, source)))
        mean = self.add(Mean(name=self.name(Mean), inputs=(first,)))
        gate = self.add(Sigmoid(name=self.name(Sigmoid), inputs=(self._gate(mean, channels),)))
        pair = (first, gate) if self.random.integers(2) else (gate, first)
        return self.add(Mul(name=self.name(Mul), inputs=pair))

    def _gate(self, mean: str, channels: int) -> str:
        name = self.name(Conv2d)
        weights = self.weights((channels, channels, 1, 1), channels)
        return self.add(Conv2d(name=name, inputs=(mean,), module=name, weights=weights))

    def norm(self, source: str) -> str:
        name = self.name(LayerNorm)
        weights = norm_weights(self.random, self.shapes[source][1])
        return self.add(LayerNorm(name=name, inputs=(source,), eps=2.0**-20, weights=weights))

    def head(self, source: str, softmax: bool) -> str:
        mean = self.add(Mean(name="mean", inputs=(source,)))
        flat = self.add(Flatten(name="flatten", inputs=(mean,)))
        weights = self.weights((CLASSES, self.shapes[flat][1]), CLASSES)
        head = self.add(Linear(name="head", inputs=(flat,), module="head", weights=weights))
        return self.add(Softmax(name="probabilities", inputs=(head,))) if softmax else head


def random_graph(seed: int, operations: int = 8, softmax: bool = False) -> Graph:
    """A float classifier of 32 px images and 10 classes; the same seed gives the same net."""
    builder = Builder(seed)
    last = builder.conv("input", 8, plain=True)
    steps = (
        builder.conv,
        builder.unary,
        builder.moved,
        builder.joined,
        builder.silu,
        builder.transposed,
    )
    for _ in range(operations):
        step = steps[builder.random.choice(len(steps), p=[0.2, 0.2, 0.25, 0.2, 0.05, 0.1])]
        if step == builder.transposed and builder.shapes[last][2] > 16:
            step = builder.conv
        last = step(last)
    if seed % 5 == 2:
        last = builder.norm(last)
    output = builder.head(last, softmax)
    graph = Graph(builder.shapes["input"], tuple(builder.nodes), (output,))
    return fuse_activations(graph)


def random_program(
    seed: int, profile: str = "portable", operations: int = 8, softmax: bool = False
) -> Program:
    """The program of `random_graph`, with max-abs scales over seeded images."""
    graph = random_graph(seed, operations, softmax)
    return program_of(graph, profile)


def program_of(graph: Graph, profile: str = "portable") -> Program:
    """The program of any float graph for 32 px images, with max-abs scales over seeded images."""
    torch.manual_seed(0)
    size = graph.input_shape[2]
    activations = quantizers(graph, seeded_images(4, size), profile)
    info = make_info(SMALL, size, profile)
    info = replace(info, provenance={"made_by": "tests/random_graphs.py"})
    return build_program(graph, activations, weight_scales(graph), info, weight_how="calibrated")
