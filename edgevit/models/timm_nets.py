"""Nets of timm by name, filled from a weights file: "timm:mobilenetv3_large_100".

timm (the optional extra `train`) has the definition; the weights are the user's file, opened by the
same readers as a RepViT's. Nothing is ever downloaded: of a tag, as in "timm:resnet18.a1_in1k", the
preprocessing alone is taken.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from edgevit.data.options import PreprocessingOptions
from edgevit.data.presets import Preset, of_timm
from edgevit.errors import InputError
from edgevit.models import tensorfile
from edgevit.models.checkpoint import checked_values, listed
from edgevit.models.named import TIMM_PREFIX as PREFIX
from edgevit.models.recognise import is_counter
from edgevit.models.repvit import count_parameters
from edgevit.models.timm_file import (
    TimmWeights,
    check_names_and_shapes,
    choose,
    counts_of,
    file_and_key,
)
from edgevit.models.timm_package import check_size, config_of, made, shapes_of, timm_version
from edgevit.models.weights import WeightsInfo
from edgevit.options import Size

_PREPROCESSING = ("input_size", "interpolation", "crop_pct", "crop_mode", "mean", "std")


@dataclass(frozen=True)
class TimmInfo:
    """What a net of timm was made and filled of.

    path, size_bytes, sha256    the weights file; "", 0 and "" of a net without weights
    variant         timm's name of the net, without a tag
    tag             of its preprocessing
    wrappers        dictionary keys opened and name prefixes taken off, outermost first
    dtype           of the tensors in the file
    fused           whether the file's branches were merged already, by timm's own code
    num_classes, in_channels    as the file's tensors say
    parameters      learned numbers, unmerged
    weights         every such net in the file
    notes           what was assumed, a sentence each
    """

    path: str
    size_bytes: int
    sha256: str
    variant: str
    tag: str
    timm_version: str
    wrappers: tuple[str, ...]
    dtype: str
    fused: bool
    num_classes: int
    in_channels: int
    parameters: int
    image_size: Size
    weights: tuple[WeightsInfo, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def provenance(self) -> dict[str, str]:
        """What a program records beside the file's name and sha256."""
        name = f"{self.variant}.{self.tag}" if self.tag else self.variant
        return {"timm": name, "timm_version": self.timm_version}

    def to_json(self) -> dict[str, Any]:
        """All of it, as `edgevit inspect --json` prints it."""
        return {"schema_version": 1, "family": "timm", **asdict(self)}


def preset_of(source: str | os.PathLike[str]) -> Preset:
    """The preprocessing that timm's configuration of the name says.

    Raises InputError for a name or tag that timm does not have, and as `presets.of_timm`.
    """
    name, config = config_of(source)
    known = {key: config[key] for key in _PREPROCESSING if config.get(key) is not None}
    return of_timm(known, f"{PREFIX}{name}")


def timm_info(net: nn.Module) -> TimmInfo:
    """Of a net that `load_timm` or `untrained` made."""
    return vars(net)["checkpoint_info"]


def load_timm(
    source: str | os.PathLike[str],
    weights: str | os.PathLike[str] | None,
    *,
    variant: str | None = None,
    image_size: Size = PreprocessingOptions.image_size,
) -> nn.Module:
    """A net of timm in eval mode, float32 on the CPU, with the weights of a file.

    source      "timm:NAME" or "timm:NAME.TAG"
    weights     a file or folder, as a RepViT's checkpoint is; "FILE#KEY" takes one of several nets
                in it, which else is the averaged one (EMA)
    variant     demands this name, without a tag
    Classes and input channels are read from the file's tensors. `net.checkpoint_info` is a
    `TimmInfo`. Raises ToolMissing without timm; InputError for an unknown name, for no weights, for
    a file that cannot be read safely or whose tensors are not the net's, and for an image size that
    the net does not take.
    """
    name, config = config_of(source)
    if variant not in (None, name.partition(".")[0]):
        raise InputError(f"{PREFIX}{name} is not {variant}; leave the variant out")
    if weights is None:
        raise InputError(
            f"{PREFIX}{name} is a net without weights, and edgevit downloads none: give the file "
            f"of its trained ones, --weights FILE; in Python "
            f'edgevit.load("{PREFIX}{name}", weights=FILE)'
        )
    check_size(name, config, image_size)
    path, key = file_and_key(weights)
    file = tensorfile.read(path)
    chosen = choose(file, name, key)
    counts = counts_of(file.path, chosen, config)
    net = made(name, chosen.fused, **counts)
    check_names_and_shapes(file.path, chosen, shapes_of(net), name)
    _fill(net, file.path, chosen)
    vars(net)["checkpoint_info"] = _describe(file, chosen, name, config, net, counts, image_size)
    return net.eval()


def untrained(
    source: str | os.PathLike[str],
    image_size: Size = PreprocessingOptions.image_size,
    seed: int = 0,
) -> nn.Module:
    """A net of timm with random weights, which say nothing: to be described and timed alone.

    The same seed gives the same weights. Raises as `load_timm` does of the name and the size.
    """
    name, config = config_of(source)
    check_size(name, config, image_size)
    net = made(name, False, seed=seed).eval()
    vars(net)["checkpoint_info"] = TimmInfo(
        path="",
        size_bytes=0,
        sha256="",
        variant=name.partition(".")[0],
        tag=str(config.get("tag") or ""),
        timm_version=timm_version(),
        wrappers=(),
        dtype="float32",
        fused=False,
        num_classes=int(config.get("num_classes") or 0),
        in_channels=int(config["input_size"][0]),
        parameters=count_parameters(net),
        image_size=image_size,
        notes=("its weights are random: no file was given",),
    )
    return net


def _fill(net: nn.Module, path: Path, chosen: TimmWeights) -> None:
    state = net.state_dict()
    for each, stored in chosen.tensors.items():
        state[each] = checked_values(path, f"{chosen.candidate.prefix}{each}", stored)
    net.load_state_dict(state)


def _describe(
    file: tensorfile.TensorFile,
    chosen: TimmWeights,
    name: str,
    config: Mapping[str, Any],
    net: nn.Module,
    counts: Mapping[str, int],
    image_size: Size,
) -> TimmInfo:
    types = {str(tensor.dtype).removeprefix("torch.") for tensor in chosen.tensors.values()}
    aside = tuple(n for n in chosen.candidate.outside if not is_counter(n))
    notes = (f"left aside, as no part of the net: {listed(aside)}",) if aside else ()
    classes = counts["num_classes"]
    return TimmInfo(
        path=str(file.path),
        size_bytes=file.size_bytes,
        sha256=file.sha256,
        variant=name.partition(".")[0],
        tag=str(config.get("tag") or ""),
        timm_version=timm_version(),
        wrappers=chosen.candidate.wrappers,
        dtype=" and ".join(sorted(types)),
        fused=chosen.fused,
        num_classes=classes,
        in_channels=counts["in_chans"],
        parameters=count_parameters(net),
        image_size=image_size,
        weights=tuple(replace(each, num_classes=classes) for each in chosen.infos),
        notes=(*chosen.notes, *notes),
    )
