"""What a run quantizes: a float net, its graph, the proof that both compute the same."""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from edgevit.errors import GateFailed, InputError
from edgevit.graph import Graph, trace
from edgevit.graph.float_run import GraphNet
from edgevit.graph.naming import named_leaves
from edgevit.models.fuse import DEFAULT_BOUND, fuse
from edgevit.models.nets import load_net
from edgevit.models.repvit import RepViT
from edgevit.options import Size

PROOF_BATCH = 16
RELATIVE_BOUND = 1e-4
"""Of the largest output: float32 rounding alone moves outputs by 1e-6 to 1e-5 of it."""


ALL_OUTPUTS = "all"
"""Stands for the outputs that an option does not name."""


@dataclass(frozen=True)
class Subject:
    """A float net in eval mode on the CPU, with its graph.

    name        what the program is called, such as "repvit_m0_9"
    origin      where the net came from, and the proof of its fusing, for the program's provenance
    key         names the net: its classes, structure and weights
    """

    net: nn.Module
    graph: Graph
    name: str
    origin: dict[str, Any]
    key: str


@dataclass(frozen=True)
class TraceProof:
    """The largest |graph − net| over all outputs of `images`, and the largest |net|."""

    images: int
    max_abs_delta: float
    max_abs_output: float
    bound: float


def module_of(model: nn.Module | str | os.PathLike[str], image_size: Size) -> nn.Module:
    """The net itself, or that of a RepViT checkpoint.

    Raises InputError for anything else, and for a net with NaN or infinity in it.
    """
    if isinstance(model, str | os.PathLike):
        return load_net(model, image_size=image_size)
    if not isinstance(model, nn.Module):
        raise InputError(
            f"{type(model).__name__} is no model: give a torch.nn.Module or a checkpoint's path"
        )
    for tensor, values in model.state_dict().items():
        if values.is_floating_point() and not torch.isfinite(values).all():
            raise InputError(
                f"{type(model).__name__}: the tensor {tensor!r} holds values that are not finite; "
                "give the net as it was before its training diverged"
            )
    return model


def subject_of(
    model: nn.Module,
    images: Tensor,
    images_source: str,
    name: str | None,
    bound: float = DEFAULT_BOUND,
    output_names: Sequence[str] | None = None,
) -> Subject:
    """A copy of the model, fused where it has branches, and its graph.

    images  float32 (N, C, H, W) that the proof is made on; H and W are the program's input size
    bound   how far fusing may move a logit, as a share of the largest
    output_names    as of `edgevit.graph.trace`
    Raises InputError for an operation that no program may hold, GateFailed when the graph does not
    compute what the model does.
    """
    key = key_of(model)
    net = copy.deepcopy(model).cpu().eval()
    origin: dict[str, Any] = {"model": {"class": type(model).__name__, "sha256": key}}
    info = getattr(model, "checkpoint_info", None)
    if info is not None:
        file = {"file": os.path.basename(info.path), "sha256": info.sha256}
        origin["checkpoint"] = file | getattr(info, "provenance", {})
    if isinstance(net, RepViT):
        original = info.proof if info is not None else None
        fused = fuse(net, images, bound, images_source=images_source, original=original)
        net, name = fused.net, name or fused.net.config.variant
        origin["fusion_proof"] = fused.proof.to_json()
    graph = trace(net, tuple(images.shape[1:]), output_names)
    net = one_after_another(net, images[:1])
    origin["trace_proof"] = asdict(_prove(net, graph, images)) | {"images_source": images_source}
    called = name or getattr(info, "variant", "") or type(model).__name__
    return Subject(net, graph, called, origin, key)


def with_output_types(graph: Graph, types: Mapping[str, str]) -> Graph:
    """The graph with the outputs that are asked for as "float32" given out as real numbers.

    types   output's name, or "all" for those that are not named and can be -> "int8" or "float32"
    Raises InputError for a name that is no output's, and a named one that can be no real numbers.
    """
    tensors = dict(zip(graph.public_names, graph.outputs, strict=True))
    if unknown := sorted(set(types) - {*tensors, ALL_OUTPUTS}):
        raise InputError(
            f"--output-type {unknown[0]}: the net has no such output; its outputs are "
            f"{', '.join(tensors)}"
        )
    asked = {tensors[name]: kind for name, kind in types.items() if name != ALL_OUTPUTS}
    others = types.get(ALL_OUTPUTS, "int8")
    chosen = {name for name in graph.outputs if asked.get(name, others) == "float32"}
    while left := set(graph.only_int8(chosen)) - set(asked):
        chosen -= left
    return replace(graph, real_outputs=frozenset(chosen))


class OneAfterAnother(nn.Module):
    """A net whose outputs, dicts and lists among them, come as one tuple, or as one tensor."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        found = [value for _, value in named_leaves(self.net(images))]
        return tuple(found) if len(found) > 1 else found[0]


@torch.no_grad()
def one_after_another(net: nn.Module, image: Tensor) -> nn.Module:
    """The net itself where it returns a tensor or a tuple of tensors, else it in that form."""
    found = net(image)
    plain = (found,) if isinstance(found, Tensor) else found
    is_plain = isinstance(plain, tuple) and all(isinstance(each, Tensor) for each in plain)
    return net if is_plain else OneAfterAnother(net)


def key_of(model: nn.Module) -> str:
    """Hex sha256 of a net's class, structure and weights."""
    digest = hashlib.sha256(f"{type(model).__module__}.{type(model).__qualname__}\n".encode())
    digest.update(repr(model).encode())
    for name, tensor in sorted(model.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"\n{name} {values.dtype} {tuple(values.shape)}\n".encode())
        digest.update(values.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@torch.no_grad()
def _prove(net: nn.Module, graph: Graph, images: Tensor) -> TraceProof:
    traced = GraphNet(graph)
    delta = largest = 0.0
    for part in images.split(PROOF_BATCH):
        for found, expected in zip(_all(traced(part)), _all(net(part)), strict=True):
            if not (torch.isfinite(found).all() and torch.isfinite(expected).all()):
                raise GateFailed(
                    f"{type(net).__name__}: its outputs are not finite on the proof images"
                )
            delta = max(delta, float((found - expected).abs().max()))
            largest = max(largest, float(expected.abs().max()))
    proof = TraceProof(len(images), delta, largest, RELATIVE_BOUND * max(1.0, largest))
    if delta > proof.bound:
        raise GateFailed(
            f"{type(net).__name__}: its graph's outputs differ from its own by up to {delta:.3g} "
            f"on {len(images)} images, the bound is {proof.bound:.3g}. A batch norm with a "
            "variance near zero may do that, or a forward that depends on the values of its input"
        )
    return proof


def _all(outputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)
