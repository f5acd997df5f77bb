"""What is said of tensors that are no RepViT's, or not all of one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from edgevit.errors import InputError
from edgevit.models.heads import Shape
from edgevit.models.variants import VARIANTS

if TYPE_CHECKING:
    from edgevit.models.recognise import Match


def other_architecture(
    path: Path,
    shapes: Mapping[str, Shape],
    best: Match | None = None,
    share: float | None = None,
) -> InputError:
    """The error for tensors that are no RepViT's; `share` of them fit where there is no `best`."""
    looks = looks_like(shapes)
    first = ", ".join(list(shapes)[:3])
    guess = f"this looks like {looks}" if looks else f"its tensors begin with {first}"
    if best is not None:
        reason = f"the nearest, {best.config.variant}, shares {best.score:.0%} of its tensors"
        unmatched = [e for e in best.expected.values() if shapes.get(e[0]) != e[1]]
        if unmatched:
            reason += f"; the first without a match is {unmatched[0][0]!r}, {unmatched[0][1]}"
    elif share is not None:
        reason = f"it has a RepViT's names, but {share:.0%} of its tensors fit into blocks"
    else:
        reason = "no token mixers under stages.* (timm) or features.* (THU-MIG)"
    return InputError(
        f"{path}: not a RepViT: {guess}; {reason}. edgevit loads {', '.join(VARIANTS)}, nets of "
        "the same blocks with other widths and depths, and the image encoders of RepViT-SAM and "
        "EdgeSAM"
    )


def looks_like(shapes: Mapping[str, Shape]) -> str | None:
    """Well-known nets, by a part of a tensor's name that only they have."""
    signs = {
        "Segment Anything with a vision transformer as its image encoder": "image_encoder.blocks.0",
        "MobileSAM, whose image encoder is a TinyViT": "image_encoder.layers.0",
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
    known = {*expected, *match.riders}
    unknown = [name for name in shapes if name not in known]
    if unknown:
        raise InputError(
            f"{path}: the tensor {unknown[0]!r} belongs to no part of the net"
            f"{_and_more(unknown)} ({as_what}); {hint}"
        )


def _and_more(found: list) -> str:
    return f", and {len(found) - 1} more" if len(found) > 1 else ""
