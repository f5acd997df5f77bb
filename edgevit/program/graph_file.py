"""The graph in a program file: graph.json for its structure, weights.safetensors for its numbers.

Together they are the truth, and each scale stands once: an activation's in graph.json, a weight's
beside its int8 values. What follows from these is not stored: shapes, and the real biases.

    graph.json  {"input": {"name", "shape"}, "outputs": [tensor…], "output_names": [name…],
                 "real_outputs": [tensor…],
                 "quantizers": [{"name", "scale", "zero_point", "how"}…],
                 "nodes": [{"op", "name", "inputs", and the operation's own attributes}…]}
                output_names is missing where the outputs are called as their tensors
    weights     "MODULE.weight" int8, "MODULE.weight_scale" float32 [O], "MODULE.bias" int32 [O];
                of a layer norm "NAME.weight" and "NAME.bias" float32 [C]
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from typing import Any, get_type_hints

import numpy as np

from edgevit.errors import InputError
from edgevit.graph import Graph
from edgevit.graph.quantized import bias_value
from edgevit.ops import (
    BY_KIND,
    CLAMPS,
    HOW,
    FloatWeights,
    Int8Weights,
    LayerNorm,
    Node,
    Quantizer,
    Weighted,
)
from edgevit.program.container import fields
from edgevit.program.tensors import read_tensors, tensor_bytes
from edgevit.schema import parse_json

GRAPH, WEIGHTS = "graph.json", "weights.safetensors"
MAX_NODES, MAX_NAME, MAX_RANK, MAX_SIZE = 16384, 256, 8, 2**31

_NAMES, _REAL = "output_names", "real_outputs"
_METADATA = {"schema_version": "2"}
_NAME = re.compile(r"[^\s\x00-\x1f/\\](?:[^\x00-\x1f]*[^\s\x00-\x1f])?")


def graph_members(graph: Graph) -> dict[str, bytes]:
    """graph.json and weights.safetensors of a quantized graph; the same graph, the same bytes.

    Raises InputError for names and sizes that `read_graph` would not take.
    """
    _array(list(graph.nodes), "nodes")
    for name in (*graph.tensors(), *(n.stored_as for n in graph.nodes if n.stored_as)):
        _name(name, "a tensor or module")
    for name in graph.given_names:
        _name(name, _NAMES)
    value = {
        "input": {"name": graph.input_name, "shape": list(graph.input_shape)},
        "outputs": list(graph.outputs),
        **({_NAMES: list(graph.given_names)} if graph.given_names else {}),
        "quantizers": [
            {"name": name, "scale": q.scale, "zero_point": q.zero_point, "how": q.how}
            for name, q in graph.quantizers.items()
        ],
        "nodes": [_node_json(node) for node in graph.nodes],
    }
    if graph.real_outputs:
        value[_REAL] = [name for name in graph.outputs if name in graph.real_outputs]
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    weights: dict[str, np.ndarray] = {}
    for node in graph.weighted():
        weights[f"{node.module}.weight"] = node.weight
        weights[f"{node.module}.weight_scale"] = node.weight_scale
        weights[f"{node.module}.bias"] = node.bias_q
    for node in graph.nodes:
        if isinstance(node, LayerNorm):
            weights[f"{node.name}.weight"] = node.weights.weight
            weights[f"{node.name}.bias"] = node.weights.bias
    return {GRAPH: text.encode(), WEIGHTS: tensor_bytes(weights, _METADATA)}


def _node_json(node: Node) -> dict[str, Any]:
    row = node.to_json()
    if isinstance(node, Weighted):
        row["activation"] = node.activation.kind if node.activation else None
        row["weight_how"] = node.int8.how
    return row


def read_graph(members: Mapping[str, bytes]) -> Graph:
    """The inverse of `graph_members`. Raises InputError, saying what and where."""
    value = parse_json(members[GRAPH], GRAPH)
    real = _real_outputs(value)
    keys = ("input", "outputs", "quantizers", "nodes")
    # Files of nets whose outputs have no names of their own lack the key.
    has_names = isinstance(value, dict) and _NAMES in value
    source, outputs, rows, nodes, *named = fields(value, GRAPH, (*keys, _NAMES)[: 4 + has_names])
    input_name, input_shape = fields(source, f"{GRAPH}: input", ("name", "shape"))
    tensors, metadata = read_tensors(members[WEIGHTS], WEIGHTS)
    if metadata != _METADATA:
        raise InputError(f"{WEIGHTS}: its metadata is {str(metadata)[:80]}, not {_METADATA}")
    quantizers = _quantizers(_array(rows, "quantizers"))
    reader = _Reader(tensors, quantizers)
    made = [reader.node(row) for row in _array(nodes, "nodes")]
    if reader.unread:
        raise InputError(f"{sorted(reader.unread)[0]}: no operation reads this weight")
    shape = tuple(_size(size, "input") for size in _array(input_shape, "input"))
    names = tuple(_name(name, "outputs") for name in _array(outputs, "outputs"))
    given = tuple(_name(name, _NAMES) for each in named for name in _array(each, _NAMES))
    if has_names and not given:
        raise InputError(f"{GRAPH}: {_NAMES} is empty")
    graph = Graph(
        shape,
        tuple(made),
        names,
        quantizers,
        _name(input_name, "input"),
        frozenset(real),
        given,
    )
    if real != [name for name in names if name in graph.real_outputs]:
        raise InputError(f"{GRAPH}: {_REAL} are not in the order of the outputs, each once")
    return _with_real_biases(graph)


def _real_outputs(value: Any) -> list[str]:
    """Taken out of graph.json, which lacks the key where all outputs are rounded."""
    if not isinstance(value, dict) or _REAL not in value:
        return []
    names = [_name(name, _REAL) for name in _array(value.pop(_REAL), _REAL)]
    if not names:
        raise InputError(f"{GRAPH}: {_REAL} is empty")
    return names


class _Reader:
    """Nodes from their JSON rows and the weights."""

    def __init__(
        self, tensors: Mapping[str, np.ndarray], quantizers: Mapping[str, Quantizer]
    ) -> None:
        self.tensors, self.quantizers = tensors, quantizers
        self.unread = set(tensors)

    def node(self, row: Any) -> Node:
        if not isinstance(row, dict) or not isinstance(row.get("op"), str):
            raise InputError(f"{GRAPH}: a node is not an object with an op")
        kind = BY_KIND.get(row["op"])
        if kind is None:
            raise InputError(
                f"{GRAPH}: operation {row['op'][:80]!r} is not one a program may hold "
                f"({', '.join(BY_KIND)})"
            )
        extra = ("activation", "weight_how") if issubclass(kind, Weighted) else ()
        attributes = [f.name for f in kind.attribute_fields()]
        name, inputs, *values = fields(
            {k: v for k, v in row.items() if k != "op"},
            f"{GRAPH}: {str(row.get('name'))[:80]}",
            ("name", "inputs", *attributes, *extra),
        )
        name = _name(name, "a node")
        hints = _hints(kind)
        given = {
            key: _attribute(value, hints[key], f"{name}: {key}")
            for key, value in zip(attributes, values)
        }
        if extra:
            activation, how = values[-2:]
            given |= {
                "activation": _clamp(activation, name),
                "weights": self._weights(given["module"], how, name),
            }
        if issubclass(kind, LayerNorm):
            parts = (self._tensor(f"{name}.{part}", "float32") for part in ("weight", "bias"))
            given["weights"] = FloatWeights(*parts)
        sources = tuple(_name(item, name) for item in _array(inputs, name))
        return kind(name=name, inputs=sources, **given)

    def _weights(self, module: str, how: Any, name: str) -> Int8Weights:
        if how not in HOW:
            raise InputError(f"{name}: weight_how is not one of {', '.join(HOW)}")
        weight, scale, bias = (
            self._tensor(f"{module}.{part}", kind)
            for part, kind in (("weight", "int8"), ("weight_scale", "float32"), ("bias", "int32"))
        )
        # The real bias needs the scale of the input, which is known once the graph is whole.
        return Int8Weights(weight, scale, bias, np.zeros(bias.shape, np.float32), how)

    def _tensor(self, name: str, kind: str) -> np.ndarray:
        if name not in self.unread:
            raise InputError(f"{name}: {WEIGHTS} lacks it, or two operations read it")
        self.unread.remove(name)
        found = self.tensors[name]
        if found.dtype.name != kind or found.ndim > MAX_RANK:
            raise InputError(f"{name}: it is {found.dtype} {found.shape}, expected {kind}")
        return found


@cache
def _hints(kind: type[Node]) -> dict[str, Any]:
    return get_type_hints(kind)


def _with_real_biases(graph: Graph) -> Graph:
    from dataclasses import replace

    def completed(node: Node) -> Node:
        if not isinstance(node, Weighted):
            return node
        step = graph.quantizer(node.inputs[0]).scale
        with np.errstate(over="ignore", invalid="ignore"):  # no scale is checked to be fp16's yet
            bias = bias_value(node.bias_q, step, node.weight_scale)
        return replace(node, weights=replace(node.int8, bias=bias))

    return graph.with_nodes(completed(node) for node in graph.nodes)


def _quantizers(rows: list[Any]) -> dict[str, Quantizer]:
    found: dict[str, Quantizer] = {}
    for row in rows:
        name, quantizer = _quantizer(row)
        if name in found:
            raise InputError(f"{name}: it has two quantizers")
        found[name] = quantizer
    return found


def _quantizer(row: Any) -> tuple[str, Quantizer]:
    keys = ("name", "scale", "zero_point", "how")
    name, scale, zero_point, how = fields(row, f"{GRAPH}: quantizers", keys)
    name = _name(name, "quantizers")
    if type(scale) is not float or type(zero_point) is not int:
        raise InputError(f"{name}: scale {scale!r}, zero-point {zero_point!r} are no quantizer")
    try:
        return name, Quantizer(scale, zero_point, how=how)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error


def _attribute(value: Any, hint: Any, where: str) -> Any:
    """A JSON value as the field's type has it: int, float, str, or a pair of ints."""
    if hint is float and type(value) is float:
        return value
    if hint is int and type(value) is int and abs(value) < MAX_SIZE:
        return value
    if hint is str and isinstance(value, str):
        return _name(value, where)
    if (
        hint == tuple[int, int]
        and isinstance(value, list)
        and len(value) == 2
        and all(type(item) is int and 0 <= item < MAX_SIZE for item in value)
    ):
        return tuple(value)
    raise InputError(f"{GRAPH}: {where} cannot be {str(value)[:80]}")


def _clamp(value: Any, name: str) -> Any:
    if value is None:
        return None
    if not isinstance(value, str) or value not in CLAMPS:
        raise InputError(f"{GRAPH}: {name}: activation {str(value)[:80]!r} is not known")
    return CLAMPS[value]


def _size(value: Any, where: str) -> int:
    if type(value) is not int or not 0 < value < MAX_SIZE:
        raise InputError(f"{GRAPH}: {where}: {str(value)[:80]} is not a size")
    return value


def _name(value: Any, where: str) -> str:
    if not isinstance(value, str) or len(value) > MAX_NAME or not _NAME.fullmatch(value):
        raise InputError(f"{GRAPH}: {where}: {str(value)[:80]!r} is not a name")
    return value


def _array(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list) or len(value) > MAX_NODES:
        raise InputError(f"{GRAPH}: {where} is not a list of at most {MAX_NODES}")
    return value
