"""Where the teacher of a distillation comes from."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from edgevit.data.batches import weights_channels_last
from edgevit.errors import InputError

Teacher = Callable[[Tensor], Tensor]
"""float32 normalised images (N, 3, H, W) to logits (N, classes)."""


def load_teacher(
    source: Teacher | str | None, float_net: nn.Module, device: torch.device | str = "cpu"
) -> Teacher:
    """The float net itself (None), a checkpoint's, what `module:function` returns, or the given.

    The function is called without arguments and returns the teacher. It is the user's own code:
    it is imported, so name only what you trust. Raises InputError when it cannot be loaded.
    """
    if source is None:
        return _frozen(float_net, device)
    if isinstance(source, nn.Module):
        return _frozen(copy.deepcopy(source), device)
    if not isinstance(source, str):
        return source
    if Path(source).suffix in (".pth", ".pt", ".safetensors"):
        from edgevit.models.checkpoint import load
        from edgevit.models.repvit import is_fused

        model = load(source).model.eval()
        return _frozen(model if is_fused(model) else model.fuse(), device)
    module_name, colon, function_name = source.partition(":")
    if not colon or not function_name:
        raise InputError(
            f"--teacher {source!r} is neither a checkpoint (.pth, .pt, .safetensors) nor "
            "module:function, as in mypackage.teachers:regnet"
        )
    try:
        teacher = getattr(importlib.import_module(module_name), function_name)()
    except (ImportError, AttributeError) as error:
        raise InputError(f"--teacher {source!r} cannot be imported: {error}") from error
    if not callable(teacher):
        raise InputError(f"--teacher {source!r} returned {type(teacher).__name__}, not a callable")
    if isinstance(teacher, nn.Module):
        return _frozen(teacher, device)
    return cast(Teacher, teacher)  # what it takes and gives shows when it is called


def _frozen(model: nn.Module, device: torch.device | str) -> nn.Module:
    return weights_channels_last(model.eval().requires_grad_(False).to(device))
