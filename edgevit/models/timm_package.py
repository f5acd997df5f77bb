"""timm itself, an optional package: it is imported where a net of it is asked for."""

from __future__ import annotations

import difflib
import importlib
import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from edgevit.errors import InputError, ToolMissing
from edgevit.models.heads import Shape
from edgevit.models.named import TIMM_PREFIX as PREFIX
from edgevit.models.recognise import MAX_NUMBERS, without_counters
from edgevit.models.repvit import count_parameters
from edgevit.options import Size, size_text


def timm_module(name: str = "timm", what: str = f"a net named {PREFIX}NAME") -> Any:
    """timm, or a module of it, for `what`. Raises ToolMissing where it cannot be imported."""
    try:
        return importlib.import_module(name)
    except (ImportError, RuntimeError) as error:
        # torchvision, which timm needs, fails with a RuntimeError beside another build of torch.
        raise ToolMissing(
            f"{what} needs timm, which cannot be imported ({error}); install it with "
            "pip install 'edgevit[train]', and a torchvision of the same build as torch"
        ) from error


def timm_version() -> str:
    """Of the package that is installed."""
    return str(timm_module().__version__)


def config_of(source: str | os.PathLike[str]) -> tuple[str, dict[str, Any]]:
    """The name without the prefix, and timm's configuration of it.

    Raises InputError, with the nearest names, for one that timm does not have.
    """
    name = os.fspath(source).removeprefix(PREFIX)
    models = timm_module("timm.models")
    architecture, _, tag = name.partition(".")
    if not models.is_model(architecture):
        near = difflib.get_close_matches(architecture, models.list_models(), 3, 0.5)
        hint = f"the nearest are {', '.join(near)}" if near else "timm.list_models() lists them"
        raise InputError(f"{PREFIX}{name}: timm {timm_version()} has no net of this name; {hint}")
    known = models.get_arch_pretrained_cfgs(architecture)
    if tag and name not in known:
        tags = ", ".join(each.partition(".")[2] for each in known) or "none"
        raise InputError(
            f"{PREFIX}{name}: timm knows no tag {tag!r} of {architecture}; it has {tags}"
        )
    config = models.get_pretrained_cfg(name)
    if config is None:
        raise InputError(f"{PREFIX}{name}: timm has no configuration of this net")
    return name, config.to_dict()


def check_size(name: str, config: Mapping[str, Any], image_size: Size) -> None:
    """Raises InputError for a size that the net is not made for."""
    height, width = config["input_size"][1:]
    own = height if height == width else (height, width)
    if config.get("fixed_input_size") and image_size not in (own, (height, width)):
        raise InputError(
            f"{PREFIX}{name}: its attention is made for images of {size_text(own)} px, not "
            f"{size_text(image_size)}; leave --image-size out"
        )


def made(name: str, fused: bool, seed: int = 0, **counts: int) -> nn.Module:
    """The module, its random weights by the seed; torch's own random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = timm_module().create_model(name, pretrained=False, **counts)
    if fused:
        return timm_module("timm.utils.model").reparameterize_model(net.eval())
    return net


def skeleton_of(name: str) -> nn.Module:
    """The module for its names and shapes alone, without memory for weights where timm can."""
    try:
        with torch.device("meta"):
            net = made(name, False)
    except NotImplementedError:  # RegNet rounds its widths by an operation of real tensors
        net = made(name, False)
    if count_parameters(net) > MAX_NUMBERS:
        raise InputError(
            f"{PREFIX}{name}: {count_parameters(net):,} weights; edgevit takes up to "
            f"{MAX_NUMBERS:,}"
        )
    return net


def shapes_of(net: nn.Module) -> dict[str, Shape]:
    """Of its learned tensors and statistics; what counts or indexes is the definition's own."""
    state = {n: t for n, t in net.state_dict().items() if t.is_floating_point()}
    return without_counters({name: tuple(tensor.shape) for name, tensor in state.items()})
