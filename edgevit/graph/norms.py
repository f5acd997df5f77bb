"""Finds layer norms over channels in a traced graph, however the net writes them."""

from __future__ import annotations

from collections.abc import Iterator

from edgevit.errors import InputError
from edgevit.graph.graph import Graph, live
from edgevit.ops import Add, ChannelAffine, Mul, Node
from edgevit.ops.norm import layer_norm
from edgevit.ops.norm_parts import (
    ChannelMean,
    ChannelVariance,
    LastNorm,
    Permute,
    Power,
    Quotient,
)

_TO_LAST, _TO_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)


def find_norms(graph: Graph) -> Graph:
    """Parts of a layer norm become one.

    Given   x -> channel_mean, sub, power 2, channel_mean, + eps, power 1/2, div (or rsqrt, mul;
            or a variance); or permute, last_norm, permute
    Result  x -> layer_norm, named after the module that the parts are written in

    A weight and bias behind it are folded in by `fold_affines`.
    Raises InputError, naming it, for a part that is in no layer norm.
    """
    nodes = {node.name: node for node in graph.nodes}
    taken, renamed = set(nodes), {}
    for node in graph.nodes:
        found = _Finder(graph, nodes).find(node)
        if found is None:
            continue
        made, parts = found
        name = _module_of(parts)
        if not name or (name in taken and name not in parts):
            name = node.name
        taken.add(name)
        renamed[node.name] = name
        nodes[node.name] = layer_norm(name, **made)
    outputs = [renamed.get(name, name) for name in graph.outputs]
    kept = tuple(live([node.renamed(renamed) for node in nodes.values()], outputs))
    for node in kept:
        if node.traced_only and not isinstance(node, ChannelAffine):
            raise InputError(
                f"{_written_in(node)}: {_described(node)} is not supported but in a layer norm "
                "over the channels of maps"
            )
    return graph.with_nodes(kept, outputs)


_WHAT: dict[type[Node], str] = {
    ChannelMean: "aten.mean.dim: a mean over axes (1,)",
    ChannelVariance: "aten.var: a variance",
    Quotient: "aten.div.Tensor: a quotient with a tensor below the line",
    Permute: "aten.permute.default: another order of axes",
    LastNorm: "aten.layer_norm.default: a norm of the last axis",
}


def _described(node: Node) -> str:
    if not isinstance(node, Power):
        return _WHAT[type(node)]
    roots = {0.5: "aten.sqrt.default: a root", -0.5: "aten.rsqrt.default: a root"}
    return roots.get(node.exponent, f"aten.pow.Tensor_Scalar: a power of {node.exponent:g}")


def _written_in(node: Node) -> str:
    """The module path of a call that has not its module's name to itself.

    A mean and a quotient are named by the operations that read their calls.
    """
    owner, _, last = node.name.rpartition(".")
    return owner if last.rstrip("_0123456789") in (node.kind, "mean", "mul") else node.name


class _Finder:
    """Looks for one norm backwards from its last part; `parts` are those that it met."""

    def __init__(self, graph: Graph, nodes: dict[str, Node]) -> None:
        self.graph, self.nodes, self.parts = graph, nodes, set[str]()

    def find(self, last: Node) -> tuple[dict, set[str]] | None:
        """The arguments of `layer_norm` but for its name, and the parts' names."""
        made = self._permuted(last) if isinstance(last, Permute) else self._written_out(last)
        if made is None:
            return None
        inside = self.parts - {last.name}
        read_outside = any(
            name in self.graph.outputs
            or any(reader.name not in self.parts for reader in self.graph.readers(name))
            for name in inside
        )
        return None if read_outside else (made, self.parts)

    def _made(self, name: str, kind: type[Node]) -> Node | None:
        node = self.nodes.get(name)
        if type(node) is not kind:
            return None
        self.parts.add(name)
        return node

    def _permuted(self, last: Permute) -> dict | None:
        self.parts.add(last.name)
        norm = self._made(last.inputs[0], LastNorm)
        if last.order != _TO_FIRST or not isinstance(norm, LastNorm):
            return None
        first = self._made(norm.inputs[0], Permute)
        if not isinstance(first, Permute) or first.order != _TO_LAST:
            return None
        return self._arguments(first.inputs[0], norm.eps, norm.weight, norm.bias)

    def _written_out(self, last: Node) -> dict | None:
        if not isinstance(last, Quotient | Mul):
            return None
        exponent = 0.5 if isinstance(last, Quotient) else -0.5
        pairs = [last.inputs] if isinstance(last, Quotient) else [last.inputs, last.inputs[::-1]]
        for above, below in pairs:
            self.parts = {last.name}
            source = self._centred(above)
            root = self._made(below, Power)
            if source is None or not isinstance(root, Power) or root.exponent != exponent:
                continue
            shifted = self._made(root.inputs[0], ChannelAffine)
            if not isinstance(shifted, ChannelAffine) or shifted.offset.size != 1:
                continue
            if (shifted.gain != 1).any() or self._variance(shifted.inputs[0]) != source:
                continue
            return self._arguments(source, float(shifted.offset.item()), None, None)
        return None

    def _arguments(self, source: str, eps: float, weight: object, bias: object) -> dict:
        channels = self.graph.shape(source)[1]
        return {
            "source": source, "eps": eps, "weight": weight, "bias": bias, "channels": channels
        }  # fmt: skip

    def _variance(self, name: str) -> str | None:
        """What a tensor is the variance of, over its channels."""
        node = self._made(name, ChannelVariance)
        if node is not None:
            return node.inputs[0]
        mean = self._made(name, ChannelMean)
        if mean is None:
            return None
        square = self._made(mean.inputs[0], Power)
        if isinstance(square, Power):
            return self._centred(square.inputs[0]) if square.exponent == 2 else None
        product = self._made(mean.inputs[0], Mul)
        if product is None:
            return None
        sources = set(self._each_centred(product.inputs))
        return sources.pop() if len(sources) == 1 else None

    def _each_centred(self, names: tuple[str, ...]) -> Iterator[str | None]:
        return (self._centred(name) for name in names)

    def _centred(self, name: str) -> str | None:
        """The x of x - mean(x): a sum with the negated mean."""
        total = self._made(name, Add)
        if total is None:
            return None
        source, below = total.inputs
        negated = self._made(below, ChannelAffine)
        if not isinstance(negated, ChannelAffine) or (negated.gain != -1).any():
            return None
        mean = self._made(negated.inputs[0], ChannelMean)
        if mean is None or mean.inputs[0] != source or negated.offset.any():
            return None
        return source


def _module_of(parts: set[str]) -> str:
    """The module path that all parts are written in; "" where they share none."""
    paths = [name.split(".") for name in sorted(parts)]
    shared: list[str] = []
    for level in zip(*paths):
        if len(set(level)) != 1:
            break
        shared.append(level[0])
    return ".".join(shared)
