"""Whatever names a trained net, a RepViT's checkpoint or "timm:NAME", becomes a module here."""

from __future__ import annotations

import os

from torch import nn

from edgevit.data.options import PreprocessingOptions
from edgevit.models.named import is_timm
from edgevit.options import Size


def load_net(
    source: str | os.PathLike[str],
    *,
    variant: str | None = None,
    weights: str | os.PathLike[str] | None = None,
    image_size: Size = PreprocessingOptions.image_size,
) -> nn.Module:
    """A net in eval mode, float32 on the CPU; `checkpoint_info` says what it was loaded from.

    weights     of a RepViT's checkpoint: the key of one of several nets in it; of "timm:NAME": the
                weights file
    Raises as `checkpoint.load` and `timm_nets.load_timm` do.
    """
    if is_timm(source):
        from edgevit.models.timm_nets import load_timm

        return load_timm(source, weights, variant=variant, image_size=image_size)
    from edgevit.models import checkpoint

    key = None if weights is None else os.fspath(weights)
    return checkpoint.load(source, variant=variant, weights=key, image_size=image_size).model
