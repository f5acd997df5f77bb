"""Where the teacher of a distillation comes from."""

from __future__ import annotations

import copy
import importlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from edgevit.data.batches import weights_channels_last
from edgevit.errors import InputError
from edgevit.quantize.subject import key_of

Teacher = Callable[[Tensor], Tensor]
"""float32 normalised images (N, 3, H, W) to logits (N, classes)."""


def load_teacher(
    source: Teacher | str | os.PathLike[str] | None,
    float_net: nn.Module,
    device: torch.device | str = "cpu",
) -> Teacher:
    """The float net itself (None), a checkpoint's, what `module:function` returns, or the given.

    The function is called without arguments and returns the teacher. It is the user's own code:
    it is imported, so name only what you trust. Raises InputError when it cannot be loaded.
    """
    if source is None:
        return _frozen(float_net, device)
    if isinstance(source, nn.Module):
        return _frozen(copy.deepcopy(source), device)
    if isinstance(source, os.PathLike):
        source = os.fspath(source)
    if not isinstance(source, str):
        return source
    if _is_a_file(source):
        from edgevit.models.checkpoint import load
        from edgevit.models.repvit import is_fused

        model = load(source).model.eval()
        return _frozen(model if is_fused(model) else model.fuse(), device)
    module_name, colon, function_name = source.partition(":")
    if not colon or not function_name:
        raise InputError(
            f"--teacher {source!r} is neither a checkpoint nor module:function, as in "
            "mypackage.teachers:regnet"
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


def check_teacher(
    teacher: Teacher,
    image: Sequence[int],
    shapes: Sequence[tuple[int, ...]],
    kept: Callable[[Any], Tensor],
    device: torch.device | str = "cpu",
) -> None:
    """Raises InputError unless the teacher gives what the student does, shown one black image.

    image   the student's (channels, height, width)
    shapes  of the student's outputs, (N, ...)
    kept    what the task learns from outputs (`Task.kept`)
    """
    channels, height, width = image
    try:
        with torch.no_grad():
            found = kept(teacher(torch.zeros(1, channels, height, width, device=device)))
        given: tuple[int, ...] = tuple(found.shape[1:])
    except Exception as error:  # the teacher may be anybody's code
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(
            f"--teacher: it fails on an image of {channels}×{height}×{width}, which is what the "
            f"student is given: {reason}"
        ) from error
    student = [torch.zeros(shape) for shape in shapes]
    wanted = tuple(kept(tuple(student) if len(student) > 1 else student[0]).shape[1:])
    if len(given) == len(wanted) == 1 and given != wanted:
        raise InputError(
            f"--teacher: it has {given[0]} classes, the student has {wanted[0]}; a teacher must "
            "know the student's classes, in the same order"
        )
    if given != wanted:
        raise InputError(
            f"--teacher: its output has the shape {given} for each image, the student's {wanted}"
        )


def teacher_name(given: Teacher | str | os.PathLike[str] | None) -> str:
    """What a program's provenance calls it."""
    if given is None:
        return "the float net"
    if isinstance(given, str | os.PathLike):
        return os.fspath(given)
    return getattr(given, "__qualname__", type(given).__qualname__)


def teacher_key(given: Teacher | str | os.PathLike[str] | None, taught: Teacher) -> str:
    """What a resumed run must find again: the weights of the teacher, where it has any.

    Another file of the same name is another teacher.
    """
    if given is not None and isinstance(taught, nn.Module):
        return key_of(taught)
    return teacher_name(given)


def _is_a_file(source: str) -> bool:
    """Whether a teacher is meant as a checkpoint: something is there, or only a path looks so."""
    path = Path(source)
    return path.exists() or (":" not in source and (path.suffix != "" or len(path.parts) > 1))


def _frozen(model: nn.Module, device: torch.device | str) -> nn.Module:
    return weights_channels_last(model.eval().requires_grad_(False).to(device))
