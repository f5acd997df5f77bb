"""Finds the RepViTs in a checkpoint by their structure, whatever they are wrapped in.

A state dict may lie under any dictionary keys and behind any name prefix. Where a file holds
several nets, the averaged one (EMA) is taken, as timm and others take it for evaluation.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgevit.errors import InputError
from edgevit.models.heads import Shape
from edgevit.models.inert import Standin
from edgevit.models.recognise import Match, is_counter, recognise
from edgevit.models.refusals import other_architecture
from edgevit.models.tensorfile import SAVE_HINT, TensorFile
from edgevit.models.torchfile import StoredTensor

MAX_TENSORS = 20_000
MAX_NESTING = 64
MAX_NAME_CHARACTERS = 1000
MAX_CANDIDATES = 32
MAX_BESIDE = 8
"""Tensors of a head that was saved beside its body, in a dictionary of its own."""

# Put around modules anywhere in a net: they say nothing of it.
_AROUND = re.compile(r"(?:_fsdp_wrapped_module|_checkpoint_wrapped_module|_orig_mod)\.")
_NUMBERED_STAGE = re.compile(r"(^|\.)stages_(\d+)\.")  # of timm's features_only
_BLOCK = re.compile(
    r"(?:^|\.)(?:stages\.\d+\.(?:blocks\.\d+|downsample\.pre_block)|features\.\d+)\.token_mixer\."
)
_EMA = re.compile(r"(?:^|[^a-z])ema(?:[^a-z]|$)|averaged")

# Which one of several is taken: the averaged ones first, timm's own keys before all.
_FIRST = ("state_dict_ema", "model_ema")
_PLAIN = ("model", "state_dict", "model_state_dict", "net", "student")
_LAST = ("teacher",)


@dataclass(frozen=True)
class Candidate:
    """A set of tensors that may be a RepViT.

    keys      dictionary keys opened on the way to it
    prefix    what its names begin with, as the file has it
    tensors   by name, less the prefix and wrappers within the names
    outside   other tensors of the same dictionary
    beside    tensors of dictionaries that lie beside it
    """

    keys: tuple[str, ...]
    prefix: str
    tensors: dict[str, StoredTensor]
    outside: dict[str, StoredTensor] = field(default_factory=dict)
    beside: dict[str, StoredTensor] = field(default_factory=dict)

    @property
    def around(self) -> dict[str, StoredTensor]:
        """Where a head may be that is no part of the net's own names."""
        return {**self.beside, **self.outside}

    @property
    def wrappers(self) -> tuple[str, ...]:
        """The keys opened and the prefixes taken off, outermost first."""
        return (*self.keys, *(f"{part}." for part in self.prefix.split(".") if part))

    @property
    def parts(self) -> tuple[str, ...]:
        """The same without dots."""
        return tuple(part.rstrip(".") for part in self.wrappers)

    def goes_by(self, key: str) -> bool:
        """Whether `key` names it: one of its wrappers, or all of them joined by dots."""
        return key in self.parts or key == ".".join(self.parts)


@dataclass(frozen=True)
class WeightsInfo:
    """One of the nets in a file: `key` is what --weights takes for it, "" where it has no name."""

    key: str
    variant: str
    num_classes: int
    tensors: int
    taken: bool


@dataclass(frozen=True)
class Chosen:
    """The weights that were taken, what they are, and the nets of the file; notes on the choice."""

    candidate: Candidate
    match: Match
    weights: tuple[WeightsInfo, ...]
    notes: tuple[str, ...]

    @property
    def tensors(self) -> dict[str, StoredTensor]:
        """Of the net, and those around it that its match may name."""
        return {**self.candidate.around, **self.candidate.tensors}


def choose(file: TensorFile, weights: str | None) -> Chosen:
    """The net of a file; `weights` names one of several.

    Raises InputError when there are no tensors, no RepViT, or none of that name.
    """
    groups = tensor_groups(file.path, file.value)
    candidates = _candidates(groups)
    if weights is not None:
        named = [each for each in candidates if each.goes_by(weights)]
        if not named:
            found = ", ".join(".".join(each.parts) for each in candidates if each.parts)
            raise InputError(
                f"{file.path}: no weights under the key {weights!r}; found {found or 'none'}"
            )
    else:
        named = candidates
    if not candidates:
        largest = max(groups.values(), key=len)
        raise other_architecture(file.path, _shapes(_without_shared_prefix(largest)))
    matches, refusals = _recognised(file.path, candidates)
    usable = [each for each in named if id(each) in matches]
    if not usable:
        raise refusals[id(named[0])]
    best = min(usable, key=lambda each: _rank(each, matches[id(each)]))
    listed = [each for each in candidates if id(each) in matches]
    infos = tuple(
        WeightsInfo(
            label(each, listed),
            matches[id(each)].config.variant,
            0 if matches[id(each)].config.features_only else matches[id(each)].config.num_classes,
            len(each.tensors),
            each is best,
        )
        for each in listed
    )
    notes = () if weights is not None else choice_note(infos)
    return Chosen(best, matches[id(best)], infos, notes)


def choice_note(infos: tuple[WeightsInfo, ...], option: str = "--weights ") -> tuple[str, ...]:
    """Which of several was taken, and what takes another: `option` and its key."""
    others = [info.key for info in infos if not info.taken]
    if not others:
        return ()
    taken = next(info.key for info in infos if info.taken)
    kind = "averaged (EMA) weights" if _EMA.search(taken.lower()) else "weights"
    listed = ", ".join(repr(key) for key in others)
    return (
        f"took the {kind} under {taken!r}; the file also holds {listed}: "
        f"{option}{others[0]} takes them",
    )


def _recognised(
    path: Path, candidates: Iterable[Candidate]
) -> tuple[dict[int, Match], dict[int, InputError]]:
    matches: dict[int, Match] = {}
    refusals: dict[int, InputError] = {}
    for each in candidates:
        try:
            matches[id(each)] = recognise(path, _shapes(each.tensors), _shapes(each.around))
        except InputError as error:
            refusals[id(each)] = error
    return matches, refusals


def _rank(candidate: Candidate, match: Match) -> tuple[bool, int, int]:
    """Lower is taken first; what is equal stays in the order of the file."""
    return match.config.features_only, *preference(candidate)


def preference(candidate: Candidate) -> tuple[int, int]:
    """By its wrappers, averaged weights before others; lower is taken first."""
    parts = candidate.parts
    place = next((i for i, key in enumerate(_FIRST) if key in parts), None)
    if place is None and any(_EMA.search(part.lower()) for part in parts):
        place = len(_FIRST)
    if place is not None:
        return 0, place
    if any(part in _LAST for part in parts):
        return 2, 0
    place = next((i for i, key in enumerate(_PLAIN) if key in parts), len(_PLAIN))
    return 1, place


def label(candidate: Candidate, among: list[Candidate]) -> str:
    """The shortest name that only this one goes by."""
    names = (*candidate.parts, ".".join(candidate.parts))
    alone = [n for n in names if sum(each.goes_by(n) for each in among) == 1]
    return alone[0] if alone else names[-1]


def _shapes(tensors: Mapping[str, StoredTensor]) -> dict[str, Shape]:
    return {name: tensor.shape for name, tensor in tensors.items()}


# --- from what was read to sets of tensors -------------------------------------------------------


def tensor_groups(path: Path, value: Any) -> dict[tuple[str, ...], dict[str, StoredTensor]]:
    """The tensors of each dictionary, by the keys that lead to it, in the order of the file.

    Raises InputError where there are none, or more than any net has.
    """
    groups: dict[tuple[str, ...], dict[str, StoredTensor]] = {}
    count = 0
    for keys, name, tensor in _walk(value):
        groups.setdefault(keys, {})[name] = tensor
        count += 1
    if not groups:
        raise InputError(f"{path}: {_nothing_in(value)}")
    if max(map(len, groups.values())) > MAX_TENSORS:
        raise InputError(f"{path}: {count} tensors, more than any net of edgevit has; {SAVE_HINT}")
    return groups


def _nothing_in(value: Any) -> str:
    if isinstance(value, Standin):
        kind = f"a pickled {value.kind}" if value.kind else "a pickled object"
        if value.kind.startswith("__torch__."):
            kind = "a TorchScript program, frozen or without weights"
        return f"no tensors in it: it holds {kind}; {SAVE_HINT}"
    if not isinstance(value, Mapping):
        return f"no tensors in it: it holds a {type(value).__name__}; {SAVE_HINT}"
    found = ", ".join(sorted(map(str, value))[:5]) or "nothing"
    return f"no tensors in it (found: {found}); {SAVE_HINT}"


def _walk(value: Any) -> Iterator[tuple[tuple[str, ...], str, StoredTensor]]:
    """Every named tensor: dictionary keys, name there, tensor. Each object is entered once.

    A pickled module or a TorchScript object counts as the state dict it would give.
    """
    # (object, keys, name prefix inside the innermost state dict, depth)
    waiting: list[tuple[Any, tuple[str, ...], str, int]] = [(value, (), "", 0)]
    seen: dict[int, Any] = {}
    while waiting:
        node, keys, prefix, depth = waiting.pop()
        if id(node) in seen or depth > MAX_NESTING:
            continue
        seen[id(node)] = node
        inside = []
        for name, child, is_module in _children(node):
            if len(prefix) + len(name) > MAX_NAME_CHARACTERS:
                continue
            if isinstance(child, StoredTensor):
                yield keys, prefix + name, child
            elif is_module:
                inside.append((child, keys, f"{prefix}{name}.", depth + 1))
            elif not prefix:
                inside.append((child, (*keys, name), "", depth + 1))
        waiting += reversed(inside)


def _children(node: Any) -> Iterator[tuple[str, Any, bool]]:
    """Name, value, and whether the value is a part of the same net, of what a node holds."""
    if isinstance(node, Mapping):
        named = ((str(k), v) for k, v in node.items() if isinstance(k, str | int))
        yield from ((k, v, False) for k, v in named if not _is_plain(v))
    elif isinstance(node, list | tuple):
        yield from ((str(i), v, False) for i, v in enumerate(node) if not _is_plain(v))
    elif isinstance(node, Standin):
        state = node.state if isinstance(node.state, dict) else {}
        if "_modules" in state or "_parameters" in state:
            for part in ("_parameters", "_buffers", "_modules"):
                held = state.get(part)
                if isinstance(held, dict):
                    yield from ((str(k), v, part == "_modules") for k, v in held.items())
            return
        script = node.kind.startswith("__torch__.")
        yield from ((str(k), v, script) for k, v in {**node.items, **state}.items())
        # What a function was called on: the net of a method that was saved in place of its result.
        yield from ((str(i), v, False) for i, v in enumerate(node.arguments) if not _is_plain(v))


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float | bytes)


def _without_shared_prefix(tensors: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    found = dict(tensors)
    for prefix in ("module.", "_orig_mod.", "model."):
        if all(name.startswith(prefix) for name in found):
            found = {name.removeprefix(prefix): tensor for name, tensor in found.items()}
    return found


def without_wrappers(name: str) -> str:
    """A tensor's name without the modules that FSDP, checkpointing and torch.compile put around."""
    return _AROUND.sub("", name)


def _clean(name: str) -> str:
    return _NUMBERED_STAGE.sub(r"\1stages.\2.", without_wrappers(name))


def _candidates(groups: Mapping[tuple[str, ...], dict[str, StoredTensor]]) -> list[Candidate]:
    found: list[Candidate] = []
    for keys, tensors in groups.items():
        prefixes: dict[str, str] = {}
        for name in tensors:
            clean = _clean(name)
            if not is_counter(name) and (block := _BLOCK.search(clean)):
                prefix = clean[: block.start()] + "." * bool(block.start())
                if prefix not in prefixes and len(prefixes) < MAX_CANDIDATES:
                    prefixes[prefix] = _raw_prefix(name, prefix)
        parts, outside = _divided(tensors, prefixes)
        beside = _siblings(groups, keys)
        found += [Candidate(keys, prefixes[p], parts[p], outside, beside) for p in prefixes]
        if len(found) >= MAX_CANDIDATES:
            break
    return found[:MAX_CANDIDATES]


def _raw_prefix(name: str, clean: str) -> str:
    """The longest beginning of a name that is `clean` but for the wrappers in it."""
    ends = [0, *(dot.end() for dot in re.finditer(r"\.", name))]
    return next((name[:end] for end in reversed(ends) if _clean(name[:end]) == clean), clean)


def _divided(
    tensors: Mapping[str, StoredTensor], prefixes: Iterable[str]
) -> tuple[dict[str, dict[str, StoredTensor]], dict[str, StoredTensor]]:
    """The tensors behind each prefix, the longest one that fits, and those behind none."""
    ordered = sorted(prefixes, key=len, reverse=True)
    parts: dict[str, dict[str, StoredTensor]] = {prefix: {} for prefix in ordered}
    outside: dict[str, StoredTensor] = {}
    for name, tensor in tensors.items():
        clean = _clean(name)
        prefix = next((p for p in ordered if clean.startswith(p)), None)
        if prefix is None:
            outside[clean] = tensor
        else:
            parts[prefix][clean.removeprefix(prefix)] = tensor
    return parts, outside


def _siblings(
    groups: Mapping[tuple[str, ...], dict[str, StoredTensor]], keys: tuple[str, ...]
) -> dict[str, StoredTensor]:
    """Tensors saved beside a net in the same dictionary, such as a head of its own."""
    if not keys:
        return {}
    return {
        f"{other[-1]}.{name}": tensor
        for other, tensors in groups.items()
        if other and other[:-1] == keys[:-1] and other != keys and len(tensors) <= MAX_BESIDE
        for name, tensor in tensors.items()
    }
