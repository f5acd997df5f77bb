"""Tells which head stands behind a RepViT body: the published one, or what a fine-tuner put there.

A state dict names layers with weights only. A linear layer is one whatever dropout or flattening
stands before it; between two linear layers there is an activation that nothing names.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgevit.errors import InputError

Shape = tuple[int, ...]

_FROM_PYTHON = "give the net itself, from Python: edgevit.quantize(model, train, val)"
_HEADS = ("head.head", "head.head_dist")
_OF_OTHER_TASKS = re.compile(
    r"neck\.|(?:\w+_)?(?:bbox|rpn|roi|mask|decode|auxiliary|keypoint)_head\."
)
"""Parts of detectors and segmenters, as mmdet and mmseg call them: none reads the map's mean."""
_NORM_LINEAR = {
    f"{layer}.{name}"
    for layer, names in (("bn", ("weight", "bias", "running_mean", "running_var")),
                         ("l", ("weight", "bias")))
    for name in names
}  # fmt: skip


@dataclass(frozen=True)
class Head:
    """The head as edgevit lays it out.

    classes       outputs; 0 where there is no head
    renamed       our name -> the one it was found under, for each tensor of the head
    plain         paths of layers without a norm
    zeros         our names of biases that the file's layers do not have
    aside         tensors of a head that is not used, by the names they were found under
    notes         sentences on what was assumed
    """

    classes: int
    distillation: bool = False
    renamed: dict[str, str] = field(default_factory=dict)
    plain: frozenset[str] = frozenset()
    zeros: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    aside: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Layer:
    renamed: dict[str, str]
    plain: bool
    zeros: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()


def find_head(
    path: Path, inside: Mapping[str, Shape], outside: Mapping[str, Shape], features: int
) -> Head:
    """The head of a body that ends in `features` channels.

    inside    tensors under "head.", named as edgevit names them
    outside   tensors of the file that belong to no part of the net: where nothing is inside, a
              single linear layer among them is the head
    Raises InputError, naming `path`, for a head of several linear layers.
    """
    if not inside:
        return _outside(outside, features)
    two = {top: {n: s for n, s in inside.items() if n.startswith(f"{top}.")} for top in _HEADS}
    found = {top: names for top, names in two.items() if names}
    if not found:
        return _head(inside, {"head": _layer(path, "head", inside)})
    layers = {top: _layer(path, top, names) for top, names in found.items()}
    if list(found) == ["head.head_dist"]:
        only = layers["head.head_dist"]
        return _head(inside, {"head.head": only}, "it has the head of the distillation alone")
    others = {n: n for n in inside if not n.startswith(tuple(f"{top}." for top in found))}
    counts = {top: _classes(layer, inside) for top, layer in layers.items()}
    if None not in counts.values() and len(set(counts.values())) == 2:
        # Their mean, which the published net gives, cannot be what this one gives.
        first, other = layers
        note = (
            f"its second head has {counts[other]} classes and the first {counts[first]}, so that "
            "they have no mean: the first alone is taken"
        )
        head = _head(inside, {first: layers[first]}, note, others)
        return replace(head, aside=tuple(found[other]))
    return _head(inside, layers, more=others)


def _classes(layer: _Layer, inside: Mapping[str, Shape]) -> int | None:
    """The outputs of a layer whose tensors agree on them; None where they do not."""
    sizes = [inside.get(found) for ours, found in layer.renamed.items() if "bn." not in ours]
    counts = {shape[0] if shape else None for shape in sizes}
    return counts.pop() if len(counts) == 1 else None


def _head(
    inside: Mapping[str, Shape],
    layers: Mapping[str, _Layer],
    note: str | None = None,
    more: Mapping[str, str] | None = None,
) -> Head:
    renamed, plain, zeros = dict(more or {}), set(), set()
    notes = [note] if note else []
    for top, layer in layers.items():
        # A norm before the linear layer of a one-layer head: edgevit's own has it one level down.
        place = top if layer.plain or top in _HEADS else f"{top}.head"
        renamed |= {f"{place}.{ours}": theirs for ours, theirs in layer.renamed.items()}
        zeros |= {f"{place}.{ours}" for ours in layer.zeros}
        plain |= {place} if layer.plain else set()
        notes += layer.notes
    sizes = [inside.get(theirs) for ours, theirs in renamed.items() if ".bn." not in ours]
    votes = Counter(shape[0] for shape in sizes if shape)
    classes = votes.most_common(1)[0][0] if votes else 0
    return Head(
        classes, len(layers) == 2, renamed, frozenset(plain), frozenset(zeros), tuple(notes)
    )


def _layer(path: Path, top: str, names: Mapping[str, Shape]) -> _Layer:
    """The one layer under a name: a linear one, or a norm and a linear one."""
    own = {name.removeprefix(f"{top}."): name for name in names}
    if own.keys() & _NORM_LINEAR:
        return _Layer(own, plain=False)
    if own.keys() <= {"weight", "bias"}:
        return _linear(top, names)
    modules = sorted({name.rpartition(".")[0] for name in names}, key=_natural)
    linear = [m for m in modules if len(names.get(f"{m}.weight", ())) == 2]
    norms = [m for m in modules if f"{m}.running_mean" in names]
    if len(linear) > 1:
        raise InputError(
            f"{path}: its head has {len(linear)} linear layers ({', '.join(linear)}), and a state "
            f"dict does not say which activation stands between them; {_FROM_PYTHON}"
        )
    if len(linear) == 1 and not norms and len(modules) == 1:
        return _linear(linear[0], names)
    if len(linear) == 1 and len(norms) == 1 and len(modules) == 2:
        return _norm_and_linear(path, norms[0], linear[0], names)
    raise InputError(
        f"{path}: its head has layers that a state dict does not say enough of "
        f"({', '.join(modules[:3])}); {_FROM_PYTHON}"
    )


def _linear(module: str, names: Mapping[str, Shape]) -> _Layer:
    weight, bias = f"{module}.weight", f"{module}.bias"
    if bias in names:
        return _Layer({"weight": weight, "bias": bias}, plain=True)
    note = (
        f"its head {module!r} has no bias: a linear layer without one, and not a layer that "
        "compares directions (cosine, ArcFace), is assumed"
    )
    return _Layer({"weight": weight}, plain=True, zeros=frozenset({"bias"}), notes=(note,))


def _norm_and_linear(path: Path, norm: str, linear: str, names: Mapping[str, Shape]) -> _Layer:
    parent, _, place = norm.rpartition(".")
    following = f"{parent}.{int(place) + 1}" if place.isdecimal() else None
    if linear != following:
        raise InputError(
            f"{path}: its head has the batch norm {norm!r} and the linear layer {linear!r}, and a "
            f"state dict does not say what stands between them; {_FROM_PYTHON}"
        )
    renamed = {
        f"{ours}.{attribute}": f"{theirs}.{attribute}"
        for ours, theirs in (("bn", norm), ("l", linear))
        for attribute in ("weight", "bias", "running_mean", "running_var")
        if f"{theirs}.{attribute}" in names
    }
    return _Layer(renamed, plain=False)


def _outside(outside: Mapping[str, Shape], features: int) -> Head:
    """A single linear layer that takes the body's features, or no head at all."""
    weights = [n for n, shape in outside.items() if len(shape) >= 2 and n.endswith("weight")]
    if len(weights) != 1 or not weights[0].endswith(".weight"):
        return Head(0)
    module = weights[0].removesuffix(".weight")
    if _OF_OTHER_TASKS.match(module):
        return Head(0)
    shape = outside[weights[0]]
    if len(shape) != 2 or shape[1] != features or outside.get(f"{module}.bias") not in (
        None, shape[:1],
    ):  # fmt: skip
        return Head(0)
    layer = _linear(module, outside)
    note = f"the linear layer {module!r} is taken for its head, right behind the mean of the map"
    return _head(outside, {"head": layer}, note)


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(p), "") if p.isdecimal() else (-1, p) for p in re.split(r"\.", name)]
