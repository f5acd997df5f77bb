"""The difference between the program's graph and the one that was read back out of an artifact.

`read` of a target makes a graph of the artifact's bytes alone; here it is compared with the
program's, everything of it and exactly. What may be missing are the quantizers that the target
declared to drop, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from edgevit.errors import EdgevitError
from edgevit.graph.graph import Graph
from edgevit.ops import FloatWeights, Int8Weights, LayerNorm, Node, Quantizer, Weighted


@dataclass(frozen=True)
class Equal:
    """How much was compared, all of it equal; 0 and 0 of a float artifact."""

    activations: int
    weight_channels: int


@dataclass(frozen=True)
class Stored:
    """How an artifact holds real numbers.

    real_type   element type of biases and float weights, unless `real_types` has the node's name
    integer_biases  whether biases are int32 on their grid rather than real numbers
    """

    real_type: np.dtype = field(default_factory=lambda: np.dtype(np.float32))
    real_types: dict[str, np.dtype] = field(default_factory=dict)
    integer_biases: bool = True

    def of(self, node: Node) -> np.dtype:
        """Element type of a node's real numbers."""
        return self.real_types.get(node.name, self.real_type)


def compare(
    expected: Graph,
    found: Graph,
    quantizers: Mapping[str, Quantizer],
    *,
    dropped: Collection[str] = (),
    stored: Stored | None = None,
    spelled: Callable[[str], str] = str,
) -> Equal:
    """Compares a graph that was read with the program's.

    expected  the program's, or its `float_graph` for a float artifact
    found     the operations that were read; names are spelled as the artifact spells them
    quantizers  every quantizer that was read, by the tensor's spelled name: of tensors that share
              one, too, where the artifact has it
    dropped   canonical names of the quantizers that the target does without
    stored    how the artifact holds real numbers: they are equal once rounded to that
    spelled   canonical name -> the artifact's spelling of it
    Raises EdgevitError naming what differs, is missing or is extra.
    """
    return _Comparison(expected, found, quantizers, set(dropped), stored or Stored(), spelled).run()


class _Comparison:
    def __init__(
        self,
        expected: Graph,
        found: Graph,
        quantizers: Mapping[str, Quantizer],
        dropped: set[str],
        stored: Stored,
        spelled: Callable[[str], str],
    ) -> None:
        self.expected, self.found, self.quantizers = expected, found, quantizers
        self.dropped, self.stored, self.spelled = dropped, stored, spelled
        self.names = {spelled(name): name for name in expected.tensors()}

    def run(self) -> Equal:
        expected, found = self.expected, self.found
        if tuple(found.input_shape) != tuple(expected.input_shape):
            name = expected.input_name
            raise differs(name, f"shape {found.input_shape}, program {expected.input_shape}")
        by_name = {node.name: node for node in found.nodes}
        for node in expected.nodes:
            other = by_name.pop(self.spelled(node.name), None)
            if other is None:
                raise differs(node.name, f"no {node.kind} of the artifact makes this tensor")
            self._node(node, other)
        if by_name:
            extra = next(iter(by_name.values()))
            raise differs(extra.name, f"{extra.kind} is not part of the program")
        outputs = tuple(self.spelled(name) for name in expected.outputs)
        if found.outputs != outputs:
            have = tuple(self.names.get(name, name) for name in found.outputs)
            what = f"the outputs are {have}, not {expected.outputs}"
            raise differs(expected.outputs[0], what)
        left_real = expected.real_outputs | self.dropped.intersection(expected.outputs)
        real = {self.spelled(name) for name in left_real}
        for spelled in sorted(real ^ found.real_outputs):
            name, kinds = self.names.get(spelled, spelled), ("real numbers", "int8 values")
            have, want = kinds if spelled in found.real_outputs else kinds[::-1]
            raise differs(name, f"the output has {have}, program {want}")
        activations = self._quantizers()
        quantized = [node for node in expected.weighted() if isinstance(node.weights, Int8Weights)]
        return Equal(activations, sum(node.channels for node in quantized))

    def _node(self, node: Node, found: Node) -> None:
        if type(found) is not type(node):
            raise differs(node.name, f"made by {found.kind}, program {node.kind}")
        inputs = tuple(self.spelled(name) for name in node.inputs)
        if found.inputs != inputs:
            pairs = zip(found.inputs, inputs, strict=False)
            wrong = next((have for have, want in pairs if have != want), node.name)
            reads = tuple(self.names.get(name, name) for name in found.inputs)
            what = f"{node.kind} {node.name} reads {reads}, program {node.inputs}"
            raise differs(self.names.get(wrong, wrong), what)
        for attribute in node.attribute_fields():
            name = attribute.name
            want, have = getattr(node, name), getattr(found, name)
            if name == "module":
                want = self.spelled(want)
            if isinstance(want, float) and isinstance(have, float):
                want, have = (self.stored.of(node).type(value) for value in (want, have))
            if want != have:
                raise differs(node.name, f"{name} is {have}, program {want}")
        if isinstance(node, LayerNorm) and isinstance(found, LayerNorm):
            for part in ("weight", "bias"):
                values = getattr(found.weights, part), getattr(node.weights, part)
                self._same_real(f"{node.name}.{part}", node, *values)
        if isinstance(node, Weighted) and isinstance(found, Weighted):
            self._weighted(node, found)

    def _weighted(self, node: Weighted, found: Weighted) -> None:
        if found.activation is not node.activation:
            have, want = (n.activation.kind if n.activation else "none" for n in (found, node))
            raise differs(node.name, f"the activation behind it is {have}, program {want}")
        is_real = node.name in self.expected.unquantized
        if is_real and isinstance(found.weights, FloatWeights):
            node = replace(node, weights=FloatWeights(node.real_weight(), node.bias))
        if isinstance(node.weights, FloatWeights) or isinstance(found.weights, FloatWeights):
            self._float_weights(node, found)
            return
        weight, expected = found.weights, node.int8
        where = f"{node.module}.weight"
        same_array(where, weight.weight, expected.weight, "its int8 values are not the program's")
        if weight.scale.shape != expected.scale.shape:
            raise differs(where, f"{weight.scale.size} scales, program {expected.scale.size}")
        if not np.array_equal(weight.scale, expected.scale):
            channel = int(np.argmax(weight.scale != expected.scale))
            raise differs(
                where,
                f"scale of channel {channel} is {weight.scale[channel]!r}, program "
                f"{expected.scale[channel]!r}",
            )
        where = f"{node.module}.bias"
        if not self.stored.integer_biases:
            self._same_real(where, node, weight.bias, expected.bias)
        elif weight.bias_q is None or expected.bias_q is None:
            raise differs(where, "one of the two is real, the other int32")
        else:
            same_array(where, weight.bias_q, expected.bias_q, "its int32 values differ")

    def _float_weights(self, node: Weighted, found: Weighted) -> None:
        if type(node.weights) is not type(found.weights):
            raise differs(f"{node.module}.weight", "one of the two is not quantized")
        self._same_real(f"{node.module}.weight", node, found.weight, node.weight)
        self._same_real(f"{node.module}.bias", node, found.bias, node.bias)

    def _same_real(self, where: str, node: Node, found: np.ndarray, want: np.ndarray) -> None:
        kind = self.stored.of(node)
        same_array(where, found.astype(kind), want.astype(kind), f"differs as {kind.name}")

    def _quantizers(self) -> int:
        """Every quantizer of the program that is not dropped, and no other."""
        expected = self.expected
        if not expected.quantized:
            for name in self.quantizers:
                raise differs(name, "it has a quantizer, in a float artifact")
            return 0
        unwanted = {*self.dropped, *expected.unquantized}
        for spelled, quantizer in self.quantizers.items():
            name = self.names.get(spelled)
            if name is None or expected.owner(name) in unwanted:
                raise differs(name or spelled, "it has a quantizer that should not be there")
            same_quantizer(name, quantizer, expected.quantizer(name))
        kept = [name for name in expected.owners() if name not in self.dropped]
        for name in kept:
            if self.spelled(name) not in self.quantizers:
                raise differs(name, "its quantizer is missing")
        return len(kept)


def same_quantizer(name: str, found: Quantizer, expected: Quantizer) -> None:
    """Raises EdgevitError, naming the tensor, unless scale and zero-point are equal."""
    if found.scale != expected.scale:
        raise differs(name, f"scale {found.scale!r}, program {expected.scale!r}")
    if found.zero_point != expected.zero_point:
        raise differs(name, f"zero-point {found.zero_point}, program {expected.zero_point}")


def same_array(where: str, found: np.ndarray, expected: np.ndarray, how: str) -> None:
    """Raises EdgevitError, naming the place, unless shape and all values are equal."""
    if found.shape != expected.shape:
        raise differs(where, f"shape {found.shape}, program {expected.shape}")
    if found.dtype != expected.dtype or not np.array_equal(found, expected):
        raise differs(where, how)


def differs(name: str, what: str) -> EdgevitError:
    """The error of an artifact that is not the program's."""
    return EdgevitError(f"scale audit: {name}: {what}; the artifact was not kept")
