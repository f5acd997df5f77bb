"""What a net's outputs are called, and the outputs one after another.

Names come from the net's author: the keys of a dict that the net returns, the fields of a named
tuple, both joined by "." where they are nested ("boxes.0"), or an attribute `output_names`. A net
that returns a tensor or a plain tuple gives no names; users see the tensors' own then.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from edgevit.errors import InputError
from edgevit.graph.graph import Graph
from edgevit.ops import Weighted

if TYPE_CHECKING:
    from torch import nn

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_INNER = ".inner"


def named_leaves(outputs: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """What a net returned, one after another, each with its path: "" of a tensor alone.

    Dicts, tuples and lists are opened, in the order in which torch.export does.
    """
    if isinstance(outputs, Mapping):
        pairs = [(str(key), value) for key, value in outputs.items() if value is not None]
    elif isinstance(outputs, tuple | list):
        fields = getattr(outputs, "_fields", range(len(outputs)))
        pairs = [(str(field), value) for field, value in zip(fields, outputs, strict=True)]
    else:
        yield prefix, outputs
        return
    for key, value in pairs:
        yield from named_leaves(value, f"{prefix}.{key}" if prefix else key)


def own_names(net: nn.Module, outputs: Any) -> tuple[str, ...]:
    """What the net calls its outputs; none where it does not.

    outputs   what it returns, or anything nested as that is
    """
    paths = tuple(name for name, _ in named_leaves(outputs))
    given = getattr(net, "output_names", ())
    if isinstance(given, tuple | list) and len(given) == len(paths):
        return tuple(map(str, given))
    return () if all(path == "" or _is_number(path) for path in paths) else paths


def _is_number(path: str) -> bool:
    return all(part.isdecimal() for part in path.split("."))


def with_names(graph: Graph, names: tuple[str, ...]) -> Graph:
    """The graph whose outputs are called so; a tensor or layer of that name gets another.

    Raises InputError for names that are not one an output, or that a file format could not hold.
    """
    if not names:
        return graph
    for name in names:
        if not _NAME.fullmatch(name) or name == graph.input_name:
            raise InputError(
                f"{name!r} cannot be an output's name: use up to 128 letters, digits, '_', '.' and "
                f"'-', and not {graph.input_name!r} (output_names=)"
            )
    inside = {*graph.tensors(), *(node.module for node in graph.weighted())}
    renamed = {name: _free(name, {*inside, *names}) for name in names if name in inside}
    nodes = []
    for node in graph.nodes:
        inputs = tuple(renamed.get(each, each) for each in node.inputs)
        node = replace(node, name=renamed.get(node.name, node.name), inputs=inputs)
        if isinstance(node, Weighted):
            node = replace(node, module=renamed.get(node.module, node.module))
        nodes.append(node)
    outputs = tuple(renamed.get(name, name) for name in graph.outputs)
    return replace(graph, nodes=tuple(nodes), outputs=outputs, given_names=names)


def _free(name: str, taken: set[str]) -> str:
    found = name + _INNER
    while found in taken:
        found += _INNER
    return found
