"""Loads a trained RepViT: naming, variant, classes and heads are recognised from its tensors.

Known namings are timm's (which is also edgevit's own) and THU-MIG's official one, each unfused or
as their own fuse functions leave it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgevit.data.options import PreprocessingOptions
from edgevit.errors import InputError
from edgevit.files import sha256_file
from edgevit.limits import MAX_IMAGE_SIZE
from edgevit.models import tensorfile
from edgevit.models.recognise import STATISTICS_COUNTER, Match, check_names_and_shapes, recognise
from edgevit.models.repvit import (
    VARIANTS,
    RepViT,
    RepViTConfig,
    count_macs,
    count_parameters,
    skeleton,
)
from edgevit.options import Size, size_text

METADATA_KEY = "edgevit"
METADATA_SCHEMA_VERSION = 1
FLOAT_TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True)
class CheckpointInfo:
    """What a checkpoint is.

    `parameters` counts the learned numbers in the file, `fused_parameters` and `fused_macs` (for
    one image of `image_size`, a side or (height, width)) those of the fused net, as papers do.
    `wrappers` lists the dictionary keys opened and the name prefixes taken off to reach the
    weights. `distillation` tells whether there is a second head; a fused net has only one.
    `proof` is what `edgevit fuse` measured, when it wrote the file.
    """

    path: str
    size_bytes: int
    sha256: str
    naming: str
    wrappers: tuple[str, ...]
    dtype: str
    variant: str
    num_classes: int
    distillation: bool
    fused: bool
    config: RepViTConfig
    parameters: int
    fused_parameters: int
    fused_macs: int
    image_size: Size
    proof: dict[str, Any] | None

    def to_json(self) -> dict[str, Any]:
        """All of it, as `edgevit inspect --json` prints it."""
        return {"schema_version": 1, **asdict(self)}


@dataclass(frozen=True)
class Loaded:
    """A net in eval mode, float32 on the CPU, and what it was loaded from."""

    model: RepViT
    info: CheckpointInfo


def load(
    path: str | os.PathLike[str],
    *,
    variant: str | None = None,
    weights: str | None = None,
    image_size: Size = PreprocessingOptions.image_size,
) -> Loaded:
    """Load a RepViT checkpoint (.pth, .pt or .safetensors; float16 to float64).

    `variant`, such as "repvit_m0_9", demands that one; otherwise it is recognised. `weights` is
    the wrapper key to open, such as "model_ema", where a file holds several. `image_size`, in
    pixels, is the one that `info.fused_macs` is counted at.

    Raises InputError when the file cannot be read safely (see `tensorfile.read`), is of another
    architecture, or has a tensor that is missing, unknown, misshapen or not finite.
    """
    if variant is not None and variant not in VARIANTS:
        raise InputError(f"unknown variant {variant!r}; use one of {', '.join(VARIANTS)}")
    sides = image_size if isinstance(image_size, tuple) else (image_size,)
    if not all(32 <= side <= MAX_IMAGE_SIZE for side in sides):
        raise InputError(f"image size {size_text(image_size)} px; use 32 to {MAX_IMAGE_SIZE}")
    file = tensorfile.read(path, weights)
    shapes = {
        name: tuple(tensor.shape)
        for name, tensor in file.tensors.items()
        if not name.endswith(STATISTICS_COUNTER)
    }
    match = recognise(file.path, shapes, variant)
    check_names_and_shapes(file.path, match, shapes)
    config, proof = _read_metadata(file, match)
    model = _filled(file, match, config)
    info = _describe(file, match, model, image_size, proof)
    model.checkpoint_info = info
    return Loaded(model, info)


def inspect(
    path: str | os.PathLike[str],
    *,
    variant: str | None = None,
    weights: str | None = None,
    image_size: Size = PreprocessingOptions.image_size,
) -> CheckpointInfo:
    """What the checkpoint is; it is checked as `load` checks it, and raises the same."""
    return load(path, variant=variant, weights=weights, image_size=image_size).info


def config_from_json(value: Mapping[str, Any]) -> RepViTConfig:
    """The inverse of dataclasses.asdict. Raises InputError for unknown or missing keys."""
    known = {field.name for field in fields(RepViTConfig)}
    if not isinstance(value, Mapping):
        raise InputError(f"the config is {value!r}, expected an object")
    if set(value) != known:
        raise InputError(f"the config has the keys {sorted(value)}, expected {sorted(known)}")
    # JSON has lists where the config has tuples.
    values: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in value.items()}
    try:
        return RepViTConfig(**values)
    except (TypeError, ValueError) as error:
        raise InputError(f"the config holds a value of the wrong type: {error}") from error


def _read_metadata(
    file: tensorfile.TensorFile, match: Match
) -> tuple[RepViTConfig, dict[str, Any] | None]:
    """The config, and the fusion proof if `edgevit fuse` wrote the file.

    The tensors of a fused net do not tell how it was trained; the stored config does, and must
    agree with the tensors in all else.
    """
    text = file.metadata.get(METADATA_KEY)
    if text is None:
        return match.config, None
    try:
        stored = json.loads(text, parse_constant=_refuse_constant)
        version = stored["schema_version"]
        if version != METADATA_SCHEMA_VERSION:
            raise InputError(
                f"{file.path}: its metadata has schema version {version!r}, this edgevit reads "
                f"version {METADATA_SCHEMA_VERSION}; use the edgevit that wrote it, or a newer one"
            )
        if set(stored) != {"schema_version", "config", "proof"}:
            raise InputError(f"{file.path}: unknown keys in its metadata: {sorted(stored)}")
        config, proof = config_from_json(stored["config"]), stored["proof"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(
            f"{file.path}: its {METADATA_KEY!r} metadata cannot be read ({error}); run "
            "`edgevit fuse` on the original checkpoint again"
        ) from error
    trained = {name: getattr(config, name) for name in ("distillation", "reparameterization")}
    if replace(match.config, **trained) != config or not isinstance(proof, dict):
        raise InputError(
            f"{file.path}: its metadata describes another net than its tensors; run "
            "`edgevit fuse` on the original checkpoint again"
        )
    return config, proof


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _filled(file: tensorfile.TensorFile, match: Match, config: RepViTConfig) -> RepViT:
    """The net with its weights, in eval mode: float32 copies, so that nothing hangs on the file."""
    state = {
        name: _checked_values(file.path, theirs, file.tensors[theirs])
        for name, (theirs, _) in match.expected.items()
    }
    model = skeleton(config, match.fused)
    for name in model.state_dict():
        if name.endswith(STATISTICS_COUNTER):
            state[name] = torch.zeros((), dtype=torch.int64)
    model.load_state_dict(state, assign=True)
    return model.eval()


def _checked_values(path: Path, name: str, tensor: Tensor) -> Tensor:
    plain = tensor.layout is torch.strided and tensor.device.type == "cpu"
    if not plain or tensor.dtype not in FLOAT_TYPES:
        raise InputError(
            f"{path}: the tensor {name!r} is {str(tensor.dtype).removeprefix('torch.')}, "
            f"{tensor.layout}, on {tensor.device}; expected plain float16, bfloat16, float32 or "
            "float64 weights: save the model before it is quantized or packed"
        )
    values = tensor.detach().to(torch.float32, memory_format=torch.contiguous_format, copy=True)
    if not torch.isfinite(values).all():
        raise InputError(
            f"{path}: the tensor {name!r} holds values that are not finite; take a checkpoint from "
            "before the training diverged"
        )
    if name.endswith("running_var") and values.min() < 0:
        raise InputError(f"{path}: the tensor {name!r} holds a negative variance; it is damaged")
    return values


def _describe(
    file: tensorfile.TensorFile,
    match: Match,
    model: RepViT,
    image_size: Size,
    proof: dict[str, Any] | None,
) -> CheckpointInfo:
    config = model.config
    plain = skeleton(config, fused=True).eval()
    dtypes = {str(file.tensors[n].dtype).removeprefix("torch.") for n, _ in match.expected.values()}
    return CheckpointInfo(
        path=str(file.path),
        size_bytes=file.size_bytes,
        sha256=sha256_file(file.path),
        naming=match.naming if proof is None else "edgevit",
        wrappers=file.wrappers,
        dtype=" and ".join(sorted(dtypes)),
        variant=config.variant,
        num_classes=config.num_classes,
        distillation=config.distillation and not match.fused,
        fused=match.fused,
        config=config,
        parameters=count_parameters(model),
        fused_parameters=count_parameters(plain),
        fused_macs=count_macs(plain, image_size),
        image_size=image_size,
        proof=proof,
    )
