"""The graph: operations in execution order, from one input to one or more outputs.

Trainer, calibration, program, executor and lowerings all work on the same `Graph`. A float graph
has no quantizers and float32 weights; a quantized one has a quantizer for every tensor and int8
weights. Layout is PyTorch's throughout: tensors NCHW or (N, C), batch 1.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from edgevit.errors import InputError
from edgevit.ops import Fixed, FloatWeights, Node, Quantizer, SameAs, Shape, Weighted

INPUT = "input"
"""The canonical name of a graph's input."""


@dataclass(frozen=True, eq=False)
class Graph:
    """Nodes in execution order; checked on construction.

    input_shape  (1, C, H, W)
    outputs      names of the tensors that the graph gives out, in order
    quantizers   owner's name -> quantizer (see `owner`); empty in a float graph
    real_outputs  outputs that are given out as real numbers, of the integers that their operation
                 reads, where others are rounded to int8; where an operation reads such a tensor, it
                 reads it as int8 all the same
    given_names  what the net's author calls the outputs, in order; empty: as their tensors
    Raises InputError, naming the tensor, for a name used twice, a tensor read before it is made, a
    shape that does not follow from its inputs, an output that nothing makes, a tensor that nothing
    reads, quantizers of tensors that are not there or that share another's, or given names that
    are not one an output, or are a tensor's or a module's.
    """

    input_shape: Shape
    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]
    quantizers: Mapping[str, Quantizer] = field(default_factory=dict)
    input_name: str = INPUT
    real_outputs: frozenset[str] = frozenset()
    given_names: tuple[str, ...] = ()

    def __deepcopy__(self, memo: dict[int, object]) -> Graph:
        """Itself: a graph does not change, and nets that hold one are copied."""
        return self

    def __post_init__(self) -> None:
        object.__setattr__(self, "nodes", tuple(self.nodes))
        object.__setattr__(self, "outputs", tuple(self.outputs))
        object.__setattr__(self, "quantizers", dict(self.quantizers))
        object.__setattr__(self, "given_names", tuple(self.given_names))
        read = {name for node in self.nodes for name in node.inputs}
        shapes = self._shapes  # checks names, order and shapes
        if not self.outputs or len(set(self.outputs)) != len(self.outputs):
            raise InputError("a graph has one or more outputs, each once")
        for name in self.outputs:
            if name not in shapes or name == self.input_name:
                raise InputError(f"{name}: the output must be made by an operation")
        for name in sorted(self.real_outputs - set(self.outputs)):
            raise InputError(f"{name}: it is no output, so that nothing takes it as real numbers")
        for name in self.only_int8(self.real_outputs):
            raise InputError(
                f"{name}: this {self.node(name).kind} moves int8 values, which other operations "
                "read as well; it has no finer numbers to give out"
            )
        unread = [name for name in shapes if name not in read and name not in self.outputs]
        if unread:
            raise InputError(f"{unread[0]}: nothing reads this tensor")
        for module, count in Counter(filter(None, (n.stored_as for n in self.nodes))).items():
            if count > 1:
                raise InputError(f"{module}: two operations have the weights of this module")
        for name in self.quantizers:
            if self._owners.get(name) != name or name in self.unquantized:
                raise InputError(f"{name}: it has a quantizer, but no such tensor owns one")
        if self.given_names:
            self._check_given_names()

    def _check_given_names(self) -> None:
        names = self.given_names
        if len(names) != len(self.outputs) or len(set(names)) != len(names):
            raise InputError(
                f"the net has {len(self.outputs)} outputs, each with a name of its own; the names "
                f"given are {', '.join(names)}"
            )
        inside = {*self._shapes, *(node.module for node in self.weighted())}
        if clash := [name for name in names if name in inside]:
            raise InputError(f"{clash[0]}: an output cannot have the name of a tensor or layer")

    @cached_property
    def unquantized(self) -> frozenset[str]:
        """The tensors that are real numbers alone; see `unquantized_by`."""
        return self.unquantized_by(self.real_outputs)

    def unquantized_by(self, real_outputs: Collection[str]) -> frozenset[str]:
        """The tensors that would be real numbers alone: real outputs that no operation reads.

        Where such an output is made by an operation that moves values only, so is what that reads
        and nothing else does: the embedding that is a flattened mean, the concatenation of scores.
        """
        readers: dict[str, set[str]] = {}
        for node in self.nodes:
            for name in node.inputs:
                readers.setdefault(name, set()).add(node.name)
        found = set(real_outputs) - readers.keys()
        int8 = {self.input_name, *self.outputs} - found
        for node in reversed(self.nodes):
            if node.name in found and not node.requantizes:
                found |= {n for n in set(node.inputs) - int8 if readers[n] <= found}
        return frozenset(found)

    def only_int8(self, real_outputs: Collection[str]) -> list[str]:
        """Those of them that cannot be: what moves int8 values has no finer ones to give out."""
        real = self.unquantized_by(real_outputs)
        nodes = [self.node(name) for name in self.outputs if name in real_outputs]
        return [n.name for n in nodes if not n.requantizes and real.isdisjoint(n.inputs)]

    @cached_property
    def _shapes(self) -> dict[str, Shape]:
        shapes: dict[str, Shape] = {self.input_name: tuple(self.input_shape)}
        for node in self.nodes:
            if node.name in shapes:
                raise InputError(f"{node.name}: two tensors have this name")
            for name in node.inputs:
                if name not in shapes:
                    raise InputError(f"{node.name}: reads {name}, which nothing made before it")
            shapes[node.name] = node.output_shape([shapes[name] for name in node.inputs])
        return shapes

    @cached_property
    def _by_name(self) -> dict[str, Node]:
        return {node.name: node for node in self.nodes}

    @cached_property
    def _owners(self) -> dict[str, str]:
        """Tensor -> the tensor whose quantizer it has: of those that share one, the first made."""
        place = {name: index for index, name in enumerate(self._shapes)}
        parent = {name: name for name in place}

        def first_of(name: str) -> str:
            while parent[name] != name:
                parent[name] = parent[parent[name]]  # halves the way for the next one
                name = parent[name]
            return name

        for node in self.nodes:
            if isinstance(node.rule, SameAs) and node.name not in self.unquantized:
                sources = node.inputs if node.rule.every_input else node.inputs[:1]
                group = {first_of(name) for name in (*sources, node.name)}
                first = min(group, key=place.__getitem__)
                parent |= {name: first for name in group}
        return {name: first_of(name) for name in place}

    @cached_property
    def _sources(self) -> dict[str, list[str]]:
        """Owner -> the tensors that share its quantizer and are not copied from others."""
        found: dict[str, list[str]] = {}
        for name, owner in self._owners.items():
            node = self._by_name.get(name)
            own = node is None or not isinstance(node.rule, SameAs)
            if own and name not in self.unquantized:
                found.setdefault(owner, []).append(name)
        return found

    @property
    def quantized(self) -> bool:
        """False for the float net, which has quantizers nowhere."""
        return bool(self.quantizers)

    @property
    def public_names(self) -> tuple[str, ...]:
        """What users call the outputs, in order: the given names, or else their tensors'."""
        return self.given_names or self.outputs

    @property
    def output_name(self) -> str:
        """The only output's tensor; InputError where there are several."""
        if len(self.outputs) != 1:
            raise InputError(f"the net has {len(self.outputs)} outputs where one is needed")
        return self.outputs[0]

    def node(self, name: str) -> Node:
        """The node that makes tensor `name`; InputError if none does."""
        if name not in self._by_name:
            raise InputError(f"{name}: no operation of this graph makes such a tensor")
        return self._by_name[name]

    def makes(self, name: str) -> Node | None:
        """The node that makes tensor `name`; None for the input."""
        return self._by_name.get(name)

    def shape(self, name: str) -> Shape:
        """Shape of a tensor with batch 1, (1, C, H, W) or (1, C)."""
        if name not in self._shapes:
            raise InputError(f"{name}: no operation of this graph makes such a tensor")
        return self._shapes[name]

    def tensors(self) -> list[str]:
        """Every tensor's name in execution order, the input first."""
        return list(self._shapes)

    def readers(self, name: str) -> list[Node]:
        """The nodes that read a tensor, in order."""
        return [node for node in self.nodes if name in node.inputs]

    def owner(self, name: str) -> str:
        """The tensor whose quantizer `name` has: itself, or the first made of those that share."""
        return self._owners[name]

    def owners(self) -> list[str]:
        """The tensors with a quantizer of their own, in execution order, the input first."""
        return [n for n, own in self._owners.items() if own == n and n not in self.unquantized]

    def sources(self, owner: str) -> list[str]:
        """The tensors whose values a shared quantizer must cover: those not copied from others."""
        return self._sources.get(owner, [])

    def fixed(self, owner: str) -> Quantizer | None:
        """The quantizer that an owner's operation fixes, if it does.

        Raises InputError where tensors that share a quantizer disagree about it.
        """
        rules = [self._by_name[n].rule if n in self._by_name else None for n in self.sources(owner)]
        fixed = [rule.quantizer if isinstance(rule, Fixed) else None for rule in rules]
        if any(quantizer != fixed[0] for quantizer in fixed):
            raise InputError(
                f"{owner}: a concatenation gives all of its inputs one scale, and one of them has "
                "a fixed one (a sigmoid's); concatenate before the sigmoid instead"
            )
        return fixed[0]

    def islands(self) -> tuple[str, ...]:
        """The operations that a quantized graph computes on real numbers, in order."""
        real = self.real_outputs | self.unquantized
        return tuple(n.name for n in self.nodes if n.runs_in_float or n.name in real)

    def quantizer(self, name: str) -> Quantizer:
        """The one quantizer of a tensor, its owner's; InputError if it has none."""
        found = self.quantizers.get(self._owners.get(name, name))
        if found is None:
            raise InputError(
                f"{name}: tensor has no quantizer, but INT8 runtimes store it as int8; run "
                "`edgevit quantize` again"
            )
        return found

    def activations(self) -> dict[str, Quantizer]:
        """Canonical name -> quantizer of every tensor that has its own, input first."""
        return {name: self.quantizer(name) for name in self.owners()}

    def weighted(self) -> tuple[Weighted, ...]:
        """The convolutions and linears, in order."""
        return tuple(node for node in self.nodes if isinstance(node, Weighted))

    def with_nodes(self, nodes: Iterable[Node], outputs: Iterable[str] | None = None) -> Graph:
        """The graph of other nodes, and other outputs if given."""
        return replace(
            self, nodes=tuple(nodes), outputs=tuple(self.outputs if outputs is None else outputs)
        )

    def peak_values(self) -> int:
        """The most values of tensors that are held at once to run one image, freed as they can be.

        An operation's inputs and its result are held together.
        """
        last = self.last_uses()
        held = peak = math.prod(self.input_shape)
        for node in self.nodes:
            held += math.prod(self.shape(node.name))
            peak = max(peak, held)
            held -= sum(math.prod(self.shape(name)) for name in last.get(node.name, ()))
        return peak

    def last_uses(self) -> dict[str, list[str]]:
        """Node -> the tensors that nothing needs behind it, so that they can be freed."""
        last = {name: node.name for node in self.nodes for name in node.inputs}
        result: dict[str, list[str]] = {}
        for name, reader in last.items():
            if name not in self.outputs:
                result.setdefault(reader, []).append(name)
        return result


def float_graph(graph: Graph) -> Graph:
    """The graph without quantizers, its int8 weights as the float32 they stand for.

    All of its outputs are real, so that none is marked so.
    """
    nodes = [
        replace(node, weights=FloatWeights(node.real_weight(), node.bias))
        if isinstance(node, Weighted)
        else node
        for node in graph.nodes
    ]
    return replace(graph, nodes=tuple(nodes), quantizers={}, real_outputs=frozenset())


def live(nodes: Iterable[Node], outputs: Iterable[str]) -> Iterator[Node]:
    """The nodes that the outputs depend on, in their order."""
    nodes = list(nodes)
    needed = set(outputs)
    kept: list[Node] = []
    for node in reversed(nodes):
        if node.name in needed:
            needed |= set(node.inputs)
            kept.append(node)
    return reversed(kept)
