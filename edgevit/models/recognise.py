"""Tells which RepViT a state dict belongs to, from the names and shapes of its tensors alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from edgevit.errors import InputError
from edgevit.models.repvit import VARIANTS, RepViTConfig, skeleton, variant_config

# Below this share of matching tensors a file is called another architecture, not a damaged one.
MIN_MATCH = 0.5
STATISTICS_COUNTER = "num_batches_tracked"  # of training only; neither needed nor compared

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Match:
    """A net, and the file's name and shape for each of its own tensors."""

    config: RepViTConfig
    fused: bool
    naming: str
    expected: dict[str, tuple[str, Shape]]
    score: float


def recognise(path: Path, shapes: Mapping[str, Shape], variant: str | None) -> Match:
    """The RepViT that most of the tensors speak for.

    `shapes` has the file's names, without the statistics counters. A tensor or two may still be
    missing or misshapen: `check_names_and_shapes` tells. Raises InputError naming `path` when the
    file holds another architecture, or another variant than the one that is asked for.
    """
    naming = _naming(shapes)
    if naming is None:
        raise _other_architecture(path, shapes)
    if any("token_mixer" in name and ".conv1.c." in name for name in shapes):
        raise InputError(
            f"{path}: this looks like the first release of RepViT (M1, M2 or M3, with a batch norm "
            f"in each branch of a token mixer); edgevit loads {', '.join(VARIANTS)}"
        )
    fused = not any(".bn." in name for name in shapes)
    best: Match | None = None
    for config in _candidates(shapes, naming, fused):
        match = _match(config, naming, fused, shapes)
        best = match if best is None or match.score > best.score else best
    if best and best.config.se != "none":
        # Only now, since it tells no variants apart, and each candidate takes 50 ms to lay out.
        every = _match(replace(best.config, se="every"), naming, fused, shapes)
        best = max(best, every, key=lambda match: match.score)
    if best is None or best.score < MIN_MATCH:
        raise _other_architecture(path, shapes, best)
    if variant not in (None, best.config.variant):
        raise InputError(
            f"{path}: holds {best.config.variant} ({best.score:.0%} of its tensors match), "
            f"not {variant}; leave the variant out to take what the file holds"
        )
    return best


def _naming(shapes: Mapping[str, Shape]) -> str | None:
    if any(name.startswith("features.") and ".token_mixer." in name for name in shapes):
        return "thu-mig"
    if any(name.startswith("stages.") and ".token_mixer." in name for name in shapes):
        return "timm"
    return None


def _candidates(shapes: Mapping[str, Shape], naming: str, fused: bool) -> Iterator[RepViTConfig]:
    """Each variant with the options that most of the tensors speak for.

    Majorities, so that one misshapen tensor is reported as such and not as another net.
    """
    thu = naming == "thu-mig"
    head = "classifier." if thu else "head."
    mixer = "token_mixer.0." if thu else "token_mixer."
    hidden = "channel_mixer.m.0." if thu else "channel_mixer.conv1."
    kernels = {name: shape for name, shape in shapes.items() if len(shape) == 4 and all(shape)}
    sizes = [s[-1] for name, s in kernels.items() if mixer in name and ".conv1." not in name]
    ratios = [s[0] / s[1] for name, s in kernels.items() if hidden in name]
    classes = [s[0] for n, s in shapes.items() if n.startswith(head) and ".bn." not in n and s]
    squeeze = any(name.endswith((".fc1.weight", ".fc2.weight")) for name in shapes)
    options = {
        "num_classes": _most_common(classes, 1000),
        "distillation": any("_dist." in name for name in shapes if name.startswith(head)),
        "kernel_size": _most_common(sizes, 3),
        "expansion": _most_common(ratios, 2),
        # Fusing leaves no trace of the branches; the nets are the same.
        "reparameterization": fused or any(f"{mixer}conv1." in name for name in shapes),
        "se": "alternate" if squeeze else "none",
    }
    for variant in VARIANTS:
        try:
            yield variant_config(variant, **options)
        except InputError:
            # Options that no RepViT has: none of its tensors would match either.
            continue


def _most_common(values: list, default: float) -> Any:
    return Counter(values).most_common(1)[0][0] if values else default


def _match(config: RepViTConfig, naming: str, fused: bool, shapes: Mapping[str, Shape]) -> Match:
    prefixes = _thu_prefixes(config) if naming == "thu-mig" else {}
    expected = {
        name: (_renamed(name, prefixes), shape)
        for name, shape in _skeleton_shapes(config, fused).items()
    }
    hits = sum(shapes.get(name) == shape for name, shape in expected.values())
    return Match(config, fused, naming, expected, hits / max(len(expected), len(shapes)))


@lru_cache(maxsize=64)
def _skeleton_shapes(config: RepViTConfig, fused: bool) -> Mapping[str, Shape]:
    shapes = {
        name: tuple(tensor.shape)
        for name, tensor in skeleton(config, fused).state_dict().items()
        if not name.endswith(STATISTICS_COUNTER)
    }
    return MappingProxyType(shapes)


def _thu_prefixes(config: RepViTConfig) -> dict[str, str]:
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

    for stage, depth in enumerate(config.depths):
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


def _other_architecture(
    path: Path, shapes: Mapping[str, Shape], best: Match | None = None
) -> InputError:
    looks = _looks_like(shapes)
    first = ", ".join(list(shapes)[:3])
    guess = f"this looks like {looks}" if looks else f"its tensors begin with {first}"
    if best is None:
        reason = "no token mixers under stages.* (timm) or features.* (THU-MIG)"
    else:
        reason = f"the nearest, {best.config.variant}, shares {best.score:.0%} of its tensors"
        unmatched = [e for e in best.expected.values() if shapes.get(e[0]) != e[1]]
        if unmatched:
            reason += f"; the first without a match is {unmatched[0][0]!r}, {unmatched[0][1]}"
    return InputError(
        f"{path}: not a RepViT: {guess}; {reason}. edgevit loads {', '.join(VARIANTS)}"
    )


def _looks_like(shapes: Mapping[str, Shape]) -> str | None:
    """Well-known neighbours, by a part of a tensor's name that only they have."""
    signs = {
        "a ResNet": "layer1.0.conv1.weight",
        "a vision transformer": "blocks.0.attn.qkv.weight",
        "a FastViT": ".token_mixer.mixer.",
        "a ConvNeXt": "stages.0.blocks.0.conv_dw.weight",
        "an EfficientNet or MobileNetV3 of timm": "blocks.0.0.conv_dw.weight",
        "a MobileNet of torchvision": "features.1.conv.0.0.weight",
        "a Swin transformer": "relative_position_bias_table",
    }
    return next((kind for kind, sign in signs.items() if any(sign in n for n in shapes)), None)


def check_names_and_shapes(path: Path, match: Match, shapes: Mapping[str, Shape]) -> None:
    """Raises InputError naming the first tensor that is missing, misshapen or unknown."""
    as_what = f"recognised as {match.config.variant} in {match.naming} naming"
    hint = "take the whole state dict of one net"
    expected = dict(match.expected.values())
    missing = [(name, shape) for name, shape in expected.items() if name not in shapes]
    if missing:
        name, shape = missing[0]
        raise InputError(
            f"{path}: the tensor {name!r} of shape {shape} is missing"
            f"{_and_more(missing)} ({as_what}); {hint}"
        )
    wrong = [(name, shape) for name, shape in expected.items() if shapes[name] != shape]
    if wrong:
        name, shape = wrong[0]
        raise InputError(
            f"{path}: the tensor {name!r} has shape {shapes[name]}, expected {shape}"
            f"{_and_more(wrong)} ({as_what}); {hint}"
        )
    unknown = [name for name in shapes if name not in expected]
    if unknown:
        raise InputError(
            f"{path}: the tensor {unknown[0]!r} belongs to no part of the net"
            f"{_and_more(unknown)} ({as_what}); {hint}"
        )


def _and_more(found: list) -> str:
    return f", and {len(found) - 1} more" if len(found) > 1 else ""
