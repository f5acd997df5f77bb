"""Renames our state dicts as the official (THU-MIG) code would, written apart from edgevit's own.

There a net is one list, `features`: the stem, then each block, with a stride-2 layer between the
stages that counts as one more (the block before it, our `pre_block`, is an ordinary one).
"""

from __future__ import annotations

import re

PARTS = {
    "token_mixer.": "token_mixer.0.",
    "se.": "token_mixer.1.",
    "channel_mixer.conv1.": "channel_mixer.m.0.",
    "channel_mixer.conv2.": "channel_mixer.m.2.",
    "spatial_downsample.": "token_mixer.0.",
    "channel_downsample.": "token_mixer.2.",
    "ffn.conv1.": "channel_mixer.m.0.",
    "ffn.conv2.": "channel_mixer.m.2.",
}
FIXED = {
    "stem.conv1.": "features.0.0.",
    "stem.conv2.": "features.0.2.",
    "head.head_dist.": "classifier.classifier_dist.",
    "head.head.": "classifier.classifier.",
    "head.": "classifier.",
}


def official_name(name: str, depths: tuple[int, ...]) -> str:
    """The official name of one of our tensors in a net with these blocks a stage."""
    for ours, theirs in FIXED.items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    stage, kind, rest = re.fullmatch(
        r"stages\.(\d+)\.(downsample\.pre_block|downsample|blocks\.\d+)\.(.+)", name
    ).groups()
    first = 1 + sum(depths[: int(stage)]) + 2 * int(stage)  # of the stage's own blocks
    if kind == "downsample.pre_block":
        place = first - 2
    elif kind == "downsample":
        place = first - 1
    else:
        place = first + int(kind.rpartition(".")[2])
    part = next(part for part in PARTS if rest.startswith(part))
    return f"features.{place}.{PARTS[part]}{rest.removeprefix(part)}"


def official_state_dict(model) -> dict:
    """The state dict of a RepViT under the official names."""
    depths = model.config.depths
    return {official_name(name, depths): tensor for name, tensor in model.state_dict().items()}
