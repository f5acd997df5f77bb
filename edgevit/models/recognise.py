"""Tells which RepViT a state dict belongs to, from the names and shapes of its tensors alone.

Widths, depths, kernels and the place of each squeeze-excite are read off the tensors, so that any
net of RepViT's blocks is found; a published one has its name as well.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from edgevit.errors import InputError
from edgevit.limits import MAX_CLASSES
from edgevit.models.heads import Head, Shape, find_head
from edgevit.models.layers import FUSABLE
from edgevit.models.refusals import other_architecture
from edgevit.models.repvit import SE_CHOICES, RepViTConfig, SqueezeExciteUse, skeleton
from edgevit.models.sam import beside_trunk, neck_of, sam_config
from edgevit.models.variants import variant_of

# Below this share of matching tensors a file is called another architecture, not a damaged one.
MIN_MATCH = 0.5
MAX_WIDTH = 2**16
MAX_BLOCKS = 500
"""M2.3 has 52; laying out a net of 500 takes seconds."""

MAX_NUMBERS = 2**28
"""Weights of a net; M2.3 has 2**24.5."""

STATISTICS_COUNTER = "num_batches_tracked"
_COUNTERS = (STATISTICS_COUNTER, "total_ops", "total_params", "n_averaged")
"""Of training and profiling only; neither needed nor compared."""

_TIMM_BLOCK = re.compile(r"stages\.(\d+)\.(?:blocks\.(\d+)|downsample\.pre_block)\.token_mixer\.")
_THU_BLOCK = re.compile(r"features\.(\d+)\.token_mixer\.(\d+)?")
_SE_BLOCK = re.compile(r"stages\.(\d+)\.blocks\.(\d+)\.se\.")
_OWN_MODULES = {"timm": ("stem", "stages", "head"), "thu-mig": ("features", "classifier")}


@dataclass(frozen=True)
class Match:
    """A net, and the file's name and shape for each of its own tensors.

    plain     paths of the layers that are fused
    zeros     our names of tensors that the file does not have and that are zero
    riders    tensors of the file that are no part of the net
    notes     sentences on what was assumed
    unknown_neck    those of `riders` that are an image encoder's neck, not one that edgevit knows
    score     share of the tensors that fit
    """

    config: RepViTConfig
    plain: frozenset[str]
    naming: str
    expected: dict[str, tuple[str, Shape]]
    score: float
    zeros: frozenset[str] = frozenset()
    riders: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    unknown_neck: tuple[str, ...] = ()

    @property
    def fused(self) -> bool:
        """Whether every layer is."""
        return self.plain >= set(_fusable(self.config))


def is_counter(name: str) -> bool:
    """Whether a tensor only counts training steps, or operations."""
    return name.rpartition(".")[2] in _COUNTERS


def without_counters(shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """The tensors less those that only count something."""
    return {n: s for n, s in shapes.items() if not is_counter(n)}


def recognise(
    path: Path, shapes: Mapping[str, Shape], outside: Mapping[str, Shape] | None = None
) -> Match:
    """The RepViT that most of the tensors speak for.

    `shapes` has the file's names; `outside` other tensors beside them, where a head may be. A
    tensor or two may still be missing or misshapen: `refusals.check_names_and_shapes` tells. Raises
    InputError naming `path` when the file holds another architecture.
    """
    shapes, outside = without_counters(shapes), without_counters(outside or {})
    naming = _naming(shapes)
    if naming is None:
        raise other_architecture(path, shapes)
    own = {n: s for n, s in shapes.items() if n.partition(".")[0] in _OWN_MODULES[naming]}
    riders = {n: s for n, s in shapes.items() if n not in own}
    body = _body(own, naming)
    if body is None:
        raise other_architecture(path, shapes, share=0.0)
    names = _our_names(own, naming, body)
    ours = {our: own[theirs] for our, theirs in names.items()}
    inside = {n: s for n, s in ours.items() if n.startswith("head.")}
    fusion = neck_of(riders)
    head = Head(0)
    if fusion is None:
        head = find_head(path, inside, {**riders, **outside}, body.widths[-1])
    match = _match(body, head, fusion, names, naming, shapes, outside)
    if match is None or match.score < MIN_MATCH:
        raise other_architecture(path, shapes, match)
    # A tensor that repeats one number takes no room in the file, and all of it in memory.
    numbers = sum(math.prod(shape) for _, shape in match.expected.values())
    if numbers > MAX_NUMBERS:
        raise InputError(f"{path}: {numbers} weights, more than any RepViT has")
    if fusion is None and (unknown := tuple(beside_trunk(riders))):
        match = replace(match, unknown_neck=unknown)
    return match


def _naming(shapes: Mapping[str, Shape]) -> str | None:
    if any(_THU_BLOCK.match(name) for name in shapes):
        return "thu-mig"
    if any(_TIMM_BLOCK.match(name) for name in shapes):
        return "timm"
    return None


# --- the body ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Body:
    """What the tensors of a body say; `options` are fields of RepViTConfig."""

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    options: dict[str, Any]


def _body(own: Mapping[str, Shape], naming: str) -> _Body | None:
    """Widths by majority, so that one misshapen tensor is reported as such and not as another net.

    None where the tensors are not those of stages of blocks.
    """
    depths = _thu_depths(own) if naming == "thu-mig" else _timm_depths(own)
    # A name may claim the billionth block.
    if not depths or min(depths) < 1 or sum(depths) > MAX_BLOCKS:
        return None
    plain = _Body((), depths, {})
    names = _our_names(own, naming, plain)
    shapes = {ours: own[theirs] for ours, theirs in names.items()}
    kernels = {n: s for n, s in shapes.items() if len(s) == 4 and all(s)}
    widths = [_width(stage, kernels) for stage in range(len(depths))]
    if any(width is None or width > MAX_WIDTH for width in widths):
        return None
    mixers = {n: s for n, s in kernels.items() if ".token_mixer." in n and ".conv1." not in n}
    hidden = [s[0] / s[1] for n, s in kernels.items() if ".channel_mixer.conv1." in n]
    stem = [s[1] for n, s in kernels.items() if n.startswith("stem.conv1.")]
    options = {
        "kernel_size": _most_common((s[-1] for s in mixers.values()), 3),
        "expansion": _most_common(hidden, 2),
        "reparameterization": not _most_common((n.endswith("mixer.c.weight") for n in mixers), 0),
        "branch_norms": any(n.endswith(".token_mixer.conv1.c.weight") for n in shapes),
        "se": _squeeze_excite(shapes, depths),
        "in_channels": _most_common(stem, 3),
    }
    return _Body(tuple(w for w in widths if w is not None), depths, options)


def _timm_depths(own: Iterable[str]) -> tuple[int, ...]:
    last: dict[int, int] = {}
    for name in own:
        found = _TIMM_BLOCK.match(name)
        if found and found[2] is not None:
            stage, block = int(found[1]), int(found[2])
            last[stage] = max(last.get(stage, 0), block)
    return tuple(last[stage] + 1 for stage in sorted(last)) if len(last) == _extent(last) else ()


def _thu_depths(own: Iterable[str]) -> tuple[int, ...]:
    """There, all blocks are one list; a stage begins where a token mixer has a third part."""
    places: set[int] = set()
    downs: set[int] = set()
    for name in own:
        if found := _THU_BLOCK.match(name):
            places.add(int(found[1]))
            if found[2] == "2":
                downs.add(int(found[1]))
    if not places or max(places) > len(places) + 2:
        return ()
    depths, start = [], 1
    for down in sorted(downs):
        depths.append(down - 1 - start)  # the block before it is part of the downsampling
        start = down + 1
    return (*depths, max(places) - start + 1)


def _extent(places: Collection[int]) -> int:
    return max(places) + 1 if places else 0


def _width(stage: int, kernels: Mapping[str, Shape]) -> int | None:
    place = f"stages.{stage}."
    votes = [
        shape[axis]
        for name, shape in kernels.items()
        if name.startswith(place) and ".pre_block." not in name
        for part, axis in (
            (".token_mixer.", 0), (".channel_mixer.conv1.", 1), (".channel_mixer.conv2.", 0),
        )
        if part in name
    ]  # fmt: skip
    return _most_common(votes, None)


def _squeeze_excite(shapes: Iterable[str], depths: tuple[int, ...]) -> SqueezeExciteUse:
    found: list[set[int]] = [set() for _ in depths]
    for name in shapes:
        if place := _SE_BLOCK.match(name):
            stage, block = int(place[1]), int(place[2])
            if stage < len(depths) and block < depths[stage]:
                found[stage].add(block)
    listed = tuple(tuple(sorted(blocks)) for blocks in found)
    for choice in SE_CHOICES[::-1]:
        config = RepViTConfig("", (2,) * len(depths), depths, se=choice, out_indices=(0,))
        if listed == tuple(
            tuple(b for b in range(depth) if config.uses_se(stage, b))
            for stage, depth in enumerate(depths)
        ):
            return choice
    return listed


def _most_common(values: Iterable[Any], default: Any) -> Any:
    counted = Counter(values).most_common(1)
    return counted[0][0] if counted else default


# --- names ---------------------------------------------------------------------------------------


def _our_names(own: Iterable[str], naming: str, body: _Body) -> dict[str, str]:
    """Our name -> the file's, of each tensor; one without a place in the net keeps its own."""
    if naming == "timm":
        return {name: name for name in own}
    prefixes = {theirs: ours for ours, theirs in _thu_prefixes(body.depths).items()}
    return {_renamed(name, prefixes): name for name in own}


def _thu_prefixes(depths: tuple[int, ...]) -> dict[str, str]:
    """The official module name for each of ours: there, all blocks are one list of features."""
    names = {"stem.conv1": "features.0.0", "stem.conv2": "features.0.2"}
    place = 0

    def add_block(ours: str) -> None:
        nonlocal place
        place += 1
        names[f"{ours}.token_mixer"] = f"features.{place}.token_mixer.0"
        names[f"{ours}.se"] = f"features.{place}.token_mixer.1"
        names[f"{ours}.channel_mixer.conv1"] = f"features.{place}.channel_mixer.m.0"
        names[f"{ours}.channel_mixer.conv2"] = f"features.{place}.channel_mixer.m.2"

    for stage, depth in enumerate(depths):
        if stage:
            downsample = f"stages.{stage}.downsample"
            add_block(f"{downsample}.pre_block")
            place += 1
            names[f"{downsample}.spatial_downsample"] = f"features.{place}.token_mixer.0"
            names[f"{downsample}.channel_downsample"] = f"features.{place}.token_mixer.2"
            names[f"{downsample}.ffn.conv1"] = f"features.{place}.channel_mixer.m.0"
            names[f"{downsample}.ffn.conv2"] = f"features.{place}.channel_mixer.m.2"
        for block in range(depth):
            add_block(f"stages.{stage}.blocks.{block}")
    names["head"] = "classifier"
    names["head.head"] = "classifier.classifier"
    names["head.head_dist"] = "classifier.classifier_dist"
    return names


def _renamed(name: str, prefixes: Mapping[str, str]) -> str:
    module = name
    while "." in module:
        module = module.rpartition(".")[0]
        if module in prefixes:
            return prefixes[module] + name.removeprefix(module)
    return name


# --- the whole net -------------------------------------------------------------------------------


def _match(
    body: _Body,
    head: Head,
    fusion: bool | None,
    names: Mapping[str, str],
    naming: str,
    shapes: Mapping[str, Shape],
    outside: Mapping[str, Shape],
) -> Match | None:
    if head.classes > MAX_CLASSES:
        return None
    norms = body.options["branch_norms"]
    try:
        config = RepViTConfig(
            variant_of(body.widths, body.depths, norms),
            body.widths,
            body.depths,
            num_classes=max(1, head.classes),
            distillation=head.distillation,
            features_only=not head.classes,
            out_indices=tuple(range(len(body.widths))),
            **body.options,
        )
        if fusion is not None:
            config = sam_config(config, fusion)
    except InputError:
        return None  # options that no RepViT has: none of its tensors would fit either
    theirs = {n: t for n, t in names.items() if not n.startswith("head.")}
    for ours, found in head.renamed.items():
        if found in names:
            theirs[ours] = names[found]
        elif found in shapes or found in outside:
            theirs[ours] = found
    plain = _plain_layers(config, head, theirs)
    prefixes = _thu_prefixes(body.depths) if naming == "thu-mig" else {}
    expected = {
        name: (theirs.get(name) or _renamed(name, prefixes), shape)
        for name, shape in _skeleton_shapes(config, plain).items()
        if name not in head.zeros
    }
    used = {name for name, _ in expected.values()}
    modules = _OWN_MODULES[naming]
    riders = [n for n in shapes if n not in used and n.partition(".")[0] not in modules]
    riders += [n for n in outside if n not in used]
    riders += [names[ours] for ours in head.aside]
    every = {**outside, **shapes}
    hits = sum(every.get(name) == shape for name, shape in expected.values())
    score = hits / max(len(expected), len(shapes))
    return Match(config, plain, naming, expected, score, head.zeros, tuple(riders), head.notes)


def _plain_layers(config: RepViTConfig, head: Head, names: Collection[str]) -> frozenset[str]:
    """The paths of the fused layers; one of which nothing is left is as most others are."""
    layers = [path for path in _fusable(config) if not path.startswith("head")]
    plain = {path for path in layers if f"{path}.weight" in names}
    inside = {path for path in layers if any(n.startswith(f"{path}.") for n in names)} - plain
    if len(plain) > len(inside):
        plain |= set(layers) - inside
    return frozenset(plain) | head.plain


@lru_cache(maxsize=64)
def _fusable(config: RepViTConfig) -> tuple[str, ...]:
    """Paths of the outermost layers that fuse."""
    found: list[str] = []
    for path, layer in skeleton(config, fused=False).named_modules():
        if isinstance(layer, FUSABLE) and not path.startswith(tuple(f"{p}." for p in found)):
            found.append(path)
    return tuple(found)


@lru_cache(maxsize=64)
def _skeleton_shapes(config: RepViTConfig, plain: frozenset[str]) -> Mapping[str, Shape]:
    shapes = {
        name: tuple(tensor.shape)
        for name, tensor in skeleton(config, plain).state_dict().items()
        if not name.endswith(STATISTICS_COUNTER)
    }
    return MappingProxyType(shapes)
