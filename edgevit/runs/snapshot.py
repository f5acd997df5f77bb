"""The state of a fine-tuning run on disk: one file, replaced atomically, safe to read.

A kill at any moment leaves either the old state or the new one. The file is safetensors (no code
in it); what is not a tensor is JSON in its metadata.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgevit.errors import InputError
from edgevit.files import atomic_path
from edgevit.program.tensors import write_tensors

SCHEMA_VERSION = 1


def write_snapshot(path: Path, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Replace the snapshot; it is on disk when this returns."""
    metadata = {"schema_version": str(SCHEMA_VERSION), "state": json.dumps(state)}
    arrays = {name: tensor.detach().cpu().contiguous().numpy() for name, tensor in tensors.items()}
    # The widest first: each then lies at a multiple of its own size, which reading asks for.
    ordered = dict(sorted(arrays.items(), key=lambda pair: -pair[1].itemsize))
    with atomic_path(path, force=True) as temporary, temporary.open("wb") as file:
        write_tensors(file, ordered, metadata)


def read_snapshot(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the state. Raises InputError when the file is not a whole snapshot."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dict)
        if metadata.get("schema_version") != str(SCHEMA_VERSION):
            raise InputError(
                f"{path}: written by another edgevit (schema {metadata.get('schema_version')}); "
                "remove the run folder, or use --fresh, to start again"
            )
        return tensors, json.loads(metadata["state"])
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise InputError(
            f"{path}: not a readable snapshot ({error}); remove it, or use --fresh, to start again"
        ) from error


def part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin so, by the rest of their names."""
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def optimizer_tensors(optimizer: torch.optim.Optimizer, prefix: str) -> dict[str, Tensor]:
    """An optimizer's state, by the parameter's place and the name of the value."""
    slots = optimizer.state_dict()["state"]
    return {f"{prefix}{i}.{key}": value for i, slot in slots.items() for key, value in slot.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """The inverse of `optimizer_tensors`, without the prefix."""
    in_order = [p for group in optimizer.param_groups for p in group["params"]]
    slots: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, key = name.split(".", 1)
        slots.setdefault(int(index), {})[key] = laid_out(value, in_order[int(index)])
    optimizer.load_state_dict({**optimizer.state_dict(), "state": slots})


def laid_out(value: Tensor, like: Tensor) -> Tensor:
    """The value with the strides of a parameter: others take other loops, which round differently.

    A scalar (Adam's step count) as it is.
    """
    return torch.empty_like(like).copy_(value) if value.shape == like.shape else value
