"""Fuses a RepViT into plain convolutions, and proves that it is the same net.

The proof: no batch norm and no branch is left, the convolutions are as many as the config asks
for, and the logits on images differ from the unfused net's by no more than a stated bound.
"""

from __future__ import annotations

import copy
import json
import math
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import NoneType
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from edgevit.data.options import PreprocessingOptions
from edgevit.errors import GateFailed, InputError
from edgevit.files import atomic_path
from edgevit.models.checkpoint import METADATA_KEY, METADATA_SCHEMA_VERSION
from edgevit.models.options import FuseOptions
from edgevit.models.repvit import RepViT, RepViTConfig, is_fused, unfused_layers
from edgevit.options import Size

DEFAULT_BOUND = FuseOptions.bound
NOISE_IMAGES = 8
NOISE_SEED = 0
NOISE_SOURCE = f"seeded noise (standard normal, seed {NOISE_SEED})"
BATCH_SIZE = 16


@dataclass(frozen=True)
class FuseProof:
    """What was counted and measured on a fused net.

    `max_abs_delta_logit` is the largest |fused − unfused| over all `images` and classes, in logits;
    `max_abs_logit` the largest unfused logit, and `top1_changed` the number of images whose
    predicted class differs (0 for a backbone, whose maps are taken for logits). All three are None
    when the net came in fused already (`already_fused`), since nothing is there to compare with;
    `original` then holds the proof that was stored with it, if any. `bound` is what the largest
    difference was held against, in logits.
    """

    already_fused: bool
    norms_and_branches_left: int
    convs: int
    expected_convs: int
    bound: float
    images: int
    images_source: str
    image_size: Size
    max_abs_delta_logit: float | None
    max_abs_logit: float | None
    top1_changed: int | None
    original: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> FuseProof:
        """The inverse of `to_json`. Raises InputError for other keys, or values of another type."""
        known = {field.name for field in fields(cls)}
        if set(value) != known:
            raise InputError(
                f"fusion proof with the keys {sorted(value)}, expected {sorted(known)}"
            )
        other = {"already_fused": bool, "images_source": str, "original": (dict, NoneType)}
        measured = ("max_abs_delta_logit", "max_abs_logit", "top1_changed")
        for name, item in value.items():
            kinds = (int, float, NoneType) if name in measured else other.get(name, (int, float))
            if not isinstance(item, kinds):
                raise InputError(f"fusion proof with {item!r} for {name}; fuse the net again")
        return cls(**value)


@dataclass(frozen=True)
class FuseResult:
    """The fused net, in eval mode, and the proof that it is the net it was made from."""

    net: RepViT
    proof: FuseProof


def noise_images(
    image_size: Size = PreprocessingOptions.image_size, channels: int = RepViTConfig.in_channels
) -> Tensor:
    """Stand-ins where there are no images: (8, channels, H, W), standard normal.

    The same on every machine and call; the global random state is not touched.
    """
    generator = torch.Generator().manual_seed(NOISE_SEED)
    height, width = image_size if isinstance(image_size, tuple) else (image_size, image_size)
    return torch.randn(NOISE_IMAGES, channels, height, width, generator=generator)


def fuse(
    model: RepViT,
    images: Tensor | Iterable[Tensor] | None = None,
    bound: float = DEFAULT_BOUND,
    *,
    images_source: str = "images given by the caller",
    original: dict[str, Any] | None = None,
) -> FuseResult:
    """Fuse a copy of the model and prove it; the model itself is left as it is.

    `images` is one batch or several, (N, C, H, W) each, float32, normalised as in training, on
    the model's device; without any, `noise_images()` stand in, and the proof says so. `bound` is
    the largest |Δlogit| allowed, as a share of the largest |logit|. `original` is the proof that
    came with an already fused net.

    Raises GateFailed, with the figures, when a part of the proof does not hold, and InputError
    for images of the wrong shape.
    """
    if not (math.isfinite(bound) and bound > 0):
        raise InputError(
            f"bound={bound}; use a positive share of the largest logit, such as {DEFAULT_BOUND}"
        )
    if images is None:
        device = next(model.parameters()).device
        noise = noise_images(channels=model.config.in_channels)
        images, images_source = noise.to(device), NOISE_SOURCE
    before = copy.deepcopy(model).eval()
    net = copy.deepcopy(before).fuse()
    already = is_fused(before)
    compared = _compare(before, net, [images] if isinstance(images, Tensor) else images)
    proof = FuseProof(
        already_fused=already,
        norms_and_branches_left=len(unfused_layers(net)),
        convs=sum(isinstance(layer, nn.Conv2d) for layer in net.modules()),
        expected_convs=net.config.fused_convs,
        bound=bound * compared.max_abs_logit,
        images=compared.images,
        images_source=images_source,
        image_size=compared.image_size,
        max_abs_delta_logit=None if already else compared.max_abs_delta,
        max_abs_logit=None if already else compared.max_abs_logit,
        top1_changed=None if already else compared.top1_changed,
        original=_first_proof(original) if already else None,
    )
    _demand(proof, net, compared, bound)
    return FuseResult(net, proof)


def _first_proof(stored: dict[str, Any] | None) -> dict[str, Any] | None:
    """The proof from when the net was still unfused, however often it was fused again since."""
    return stored and (stored.get("original") or stored)


@dataclass
class _Comparison:
    images: int = 0
    image_size: Size = 0
    max_abs_delta: float = 0.0
    max_abs_logit: float = 0.0
    top1_changed: int = 0
    finite: bool = True


@torch.no_grad()
def _compare(before: RepViT, net: RepViT, batches: Iterable[Tensor]) -> _Comparison:
    found, channels = _Comparison(), before.config.in_channels
    for batch in batches:
        if batch.ndim != 4 or batch.shape[1] != channels or not len(batch):
            raise InputError(
                f"images of shape {tuple(batch.shape)}; expected (N, {channels}, H, W): the net "
                f"takes images of {channels} channel{'s' * (channels != 1)}"
            )
        for part in batch.split(BATCH_SIZE):
            found.images += len(part)
            height, width = part.shape[2:]
            found.image_size = height if height == width else (height, width)
            for expected, fused in zip(_outputs(before(part)), _outputs(net(part)), strict=True):
                _add(found, expected, fused)
    if not found.images:
        raise InputError("no images to prove the fusion on; give at least one, or none at all")
    return found


def _outputs(found: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return found if isinstance(found, tuple) else (found,)


def _add(found: _Comparison, expected: Tensor, fused: Tensor) -> None:
    # Maxima and comparisons pass over NaN in silence, so that is asked for by itself.
    found.finite &= bool(torch.isfinite(expected).all() and torch.isfinite(fused).all())
    delta = (fused - expected).abs().max().item()
    found.max_abs_delta = max(found.max_abs_delta, delta)
    found.max_abs_logit = max(found.max_abs_logit, expected.abs().max().item())
    if expected.ndim == 2:
        found.top1_changed += int((fused.argmax(1) != expected.argmax(1)).sum())


def _demand(proof: FuseProof, net: RepViT, compared: _Comparison, bound: float) -> None:
    """Raises GateFailed for the first part of the proof that does not hold."""
    where = f"fusing {net.config.variant}"
    if proof.norms_and_branches_left:
        path, kind = next(iter(unfused_layers(net).items()))
        raise GateFailed(
            f"{where}: {proof.norms_and_branches_left} layers did not fuse, first {path} ({kind})"
        )
    if proof.convs != proof.expected_convs:
        raise GateFailed(
            f"{where}: {proof.convs} convolutions, where its config has {proof.expected_convs}: "
            "the net was changed after it was built"
        )
    if not compared.finite:
        raise GateFailed(f"{where}: logits that are not finite on {proof.images_source}")
    if proof.max_abs_delta_logit is not None and proof.max_abs_delta_logit > proof.bound:
        raise GateFailed(
            f"{where}: the logits of {proof.images} images ({proof.images_source}) differ by up to "
            f"{proof.max_abs_delta_logit:.3g}, the bound is {bound:g} of the largest logit, "
            f"{proof.max_abs_logit:.3g} ({proof.top1_changed} predictions changed). Check for "
            "batch norms with a variance near zero, or state a wider bound (--bound)"
        )


def save_fused(result: FuseResult, path: str | os.PathLike[str], force: bool = False) -> Path:
    """Write the fused net as .safetensors, with its config and proof; returns the path.

    The file appears whole or not at all, and equal nets and proofs give equal bytes.
    `checkpoint.load` reads it back. Raises InputError when the path may not be written.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise InputError(f"{path}: a fused net is written as .safetensors; give such a name")
    # One key, since the format's writer puts several in an order that changes from run to run.
    stored = {
        "schema_version": METADATA_SCHEMA_VERSION,
        "config": asdict(result.net.config),
        "proof": result.proof.to_json(),
    }
    metadata = {METADATA_KEY: json.dumps(stored, sort_keys=True, allow_nan=False)}
    state = {name: tensor.cpu().contiguous() for name, tensor in result.net.state_dict().items()}
    with atomic_path(path, force) as temporary:
        temporary.write_bytes(save(state, metadata))
    return path
