"""Finds the tensors of a net of timm in a weights file, whatever they are wrapped in."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgevit.errors import InputError
from edgevit.limits import MAX_CLASSES
from edgevit.models import tensorfile
from edgevit.models.heads import Shape
from edgevit.models.named import TIMM_PREFIX as PREFIX
from edgevit.models.recognise import MIN_MATCH, is_counter
from edgevit.models.refusals import looks_like
from edgevit.models.timm_package import made, shapes_of, skeleton_of
from edgevit.models.torchfile import StoredTensor
from edgevit.models.weights import (
    MAX_CANDIDATES,
    Candidate,
    WeightsInfo,
    choice_note,
    label,
    preference,
    tensor_groups,
    without_wrappers,
)

KEY_MARK = "#"
"""Between a weights file and the key of one of several nets in it: "run.pth#model_ema"."""

CHANNELS = (1, 3, 4)
_SHOWN = 3
_PROBES = 5


@dataclass(frozen=True)
class TimmWeights:
    """The tensors that are taken, less what only counts; `fused`: named as timm's merged net."""

    candidate: Candidate
    fused: bool
    infos: tuple[WeightsInfo, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def tensors(self) -> dict[str, StoredTensor]:
        return {n: t for n, t in self.candidate.tensors.items() if not is_counter(n)}


def file_and_key(weights: str | os.PathLike[str]) -> tuple[Path, str | None]:
    """The file and the key of "run.pth#model_ema"; a file of just that name is taken whole."""
    text = os.fspath(weights)
    if KEY_MARK in text and not os.path.exists(text):
        file, _, key = text.rpartition(KEY_MARK)
        return Path(file), key
    return Path(text), None


def choose(file: tensorfile.TensorFile, name: str, key: str | None) -> TimmWeights:
    """The net of a file; InputError where none has half of the tensors, or none has that key."""
    groups = tensor_groups(file.path, file.value)
    plain = skeleton_of(name)
    found = _matching(groups, shapes_of(plain), False)
    if not found:
        merged = shapes_of(made(name, True))
        found = _matching(groups, merged, True) if set(merged) != set(shapes_of(plain)) else []
    if not found:
        raise _other_net(file.path, groups, name, shapes_of(plain))
    named = [each for each in found if key is None or each.candidate.goes_by(key)]
    if not named:
        keys = ", ".join(".".join(each.candidate.parts) for each in found if each.candidate.parts)
        raise InputError(f"{file.path}: no weights under the key {key!r}; found {keys or 'none'}")
    best = min(named, key=lambda each: preference(each.candidate))
    candidates = [each.candidate for each in found]
    infos = tuple(
        WeightsInfo(
            label(each.candidate, candidates), name, 0, len(each.candidate.tensors), each is best
        )
        for each in found
    )
    notes = choice_note(infos, f"--weights {file.path}{KEY_MARK}") if key is None else ()
    return replace(best, infos=infos, notes=notes)


def _matching(
    groups: Mapping[tuple[str, ...], dict[str, StoredTensor]],
    expected: Mapping[str, Shape],
    fused: bool,
) -> list[TimmWeights]:
    """Each set of tensors, behind any keys and name prefix, that has half of the net's names."""
    found: list[TimmWeights] = []
    for keys, tensors in groups.items():
        clean = {without_wrappers(name): tensor for name, tensor in tensors.items()}
        for prefix in _prefixes(clean, expected):
            own = {n.removeprefix(prefix): t for n, t in clean.items() if n.startswith(prefix)}
            outside = {n: t for n, t in clean.items() if not n.startswith(prefix)}
            if sum(name in own for name in expected) >= MIN_MATCH * len(expected):
                found.append(TimmWeights(Candidate(keys, prefix, own, outside), fused))
        if len(found) >= MAX_CANDIDATES:
            break
    return found[:MAX_CANDIDATES]


def _prefixes(names: Mapping[str, Any], expected: Mapping[str, Shape]) -> list[str]:
    """What the names may begin with, told by a few tensors of the net."""
    every = list(expected)
    probes = every[:: max(1, len(every) // _PROBES)]
    found: dict[str, None] = {}
    for name in names:
        for probe in probes:
            if name == probe or name.endswith(f".{probe}"):
                found[name.removesuffix(probe)] = None
    return list(found)[:MAX_CANDIDATES]


def _other_net(
    path: Path,
    groups: Mapping[tuple[str, ...], dict[str, StoredTensor]],
    name: str,
    expected: Mapping[str, Shape],
) -> InputError:
    largest = max(groups.values(), key=len)
    hits = sum(each in largest for each in expected)
    kind = looks_like({n: t.shape for n, t in largest.items()})
    guess = f"this looks like {kind}" if kind else f"its tensors begin with {_names(list(largest))}"
    return InputError(
        f"{path}: not {PREFIX}{name}: {guess}; it has {hits} of the net's {len(expected)} tensors, "
        f"which begin with {_names(list(expected))}. Give the name of the net that was trained, "
        "and its weights in timm's naming"
    )


def counts_of(path: Path, chosen: TimmWeights, config: Mapping[str, Any]) -> dict[str, int]:
    """Classes and input channels, from the classifier's and the first convolution's tensors."""
    tensors = chosen.tensors
    heads = {module: tensors.get(f"{module}.weight") for module in _modules(config, "classifier")}
    if any(tensor is None or not tensor.shape for tensor in heads.values()):
        missing = next(m for m, t in heads.items() if t is None or not t.shape)
        raise InputError(
            f"{path}: the tensor {f'{missing}.weight'!r} is missing, which is the classifier and "
            "says how many classes there are; take the whole state dict of the trained net"
        )
    classes = {tensor.shape[0] for tensor in heads.values() if tensor is not None}
    if len(classes) != 1 or not 1 <= min(classes) <= MAX_CLASSES:
        raise InputError(f"{path}: its classifiers say {sorted(classes)} classes")
    first = [tensors.get(f"{module}.weight") for module in _modules(config, "first_conv")]
    shapes = [tensor.shape for tensor in first if tensor is not None and len(tensor.shape) == 4]
    channels = shapes[0][1] if shapes else int(config["input_size"][0])
    if channels not in CHANNELS:
        raise InputError(f"{path}: its first convolution takes {channels} channels; use 1, 3 or 4")
    return {"num_classes": min(classes), "in_chans": channels}


def _modules(config: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = config.get(key) or ()
    return (value,) if isinstance(value, str) else tuple(value)


def check_names_and_shapes(
    path: Path, chosen: TimmWeights, expected: Mapping[str, Shape], name: str
) -> None:
    """Raises InputError naming the tensors that are missing, of another shape or unknown."""
    found = {n: t.shape for n, t in chosen.tensors.items()}
    missing = [each for each in expected if each not in found]
    wrong = [
        f"{each} {found[each]} for {shape}"
        for each, shape in expected.items()
        if each in found and found[each] != shape
    ]
    unexpected = [each for each in found if each not in expected]
    problems = [
        f"{len(each)} {what} ({_names(each)})"
        for what, each in (
            ("missing", missing), ("of another shape", wrong), ("unexpected", unexpected)
        )
        if each
    ]  # fmt: skip
    if problems:
        raise InputError(
            f"{path}: its tensors are not those of {PREFIX}{name}: {'; '.join(problems)}. Give the "
            "name of the net that was trained, and its whole state dict"
        )


def _names(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{more}"
