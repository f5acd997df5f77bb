"""Loads a trained RepViT: naming, variant, classes and heads are recognised from its tensors.

Known namings are timm's (which is also edgevit's own) and THU-MIG's official one, each unfused or
as their own fuse functions leave it.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgevit.data.options import PreprocessingOptions
from edgevit.errors import InputError
from edgevit.limits import MAX_IMAGE_SIZE
from edgevit.models import tensorfile
from edgevit.models.inert import PickleError
from edgevit.models.recognise import STATISTICS_COUNTER, Match, without_counters
from edgevit.models.refusals import check_names_and_shapes
from edgevit.models.repvit import RepViT, RepViTConfig, count_macs, count_parameters, skeleton
from edgevit.models.sam import SamConfig
from edgevit.models.torchfile import StoredTensor
from edgevit.models.variants import VARIANTS, variant_of
from edgevit.models.weights import Chosen, WeightsInfo, choose
from edgevit.options import Size, size_text

METADATA_KEY = "edgevit"
METADATA_SCHEMA_VERSION = 2
"""Of fused files; version 1 lacks the config's `in_channels` and `branch_norms`."""

FLOAT_TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

_LATER_FIELDS = {"in_channels", "branch_norms"}
_AVERAGED_COPY = re.compile(r"^(ema_)\w+$")
_VARIANT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CheckpointInfo:
    """What a checkpoint is.

    `parameters` counts the learned numbers in the file, `fused_parameters` and `fused_macs` (for
    one image of `image_size`, a side or (height, width)) those of the fused net, as papers do.
    `wrappers` lists the dictionary keys opened and the name prefixes taken off to reach the
    weights. `distillation` tells whether there is a second head; a fused net has only one.
    `num_classes` is 0 for a backbone, which has no head. `proof` is what `edgevit fuse` measured,
    when it wrote the file. `weights` lists every RepViT in the file, `riders` the tensors that are
    no part of the net, and `notes` says what was assumed, a sentence each.
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
    weights: tuple[WeightsInfo, ...] = ()
    riders: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

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
    """Load a RepViT checkpoint: PyTorch's, TorchScript's or safetensors, float16 to float64.

    `variant`, such as "repvit_m0_9", demands that one; otherwise it is recognised. `weights` names
    one of several nets in a file, such as "model_ema". `image_size`, in pixels, is the one that
    `info.fused_macs` is counted at.

    A net of one logit comes as one of two classes, whose logits are −z/2 and z/2. What was assumed
    of a file is logged, and listed in `info.notes`.

    Raises InputError when the file cannot be read safely (see `tensorfile.read`), is of another
    architecture, or has a tensor that is missing, unknown, misshapen or not finite.
    """
    if variant is not None and variant not in VARIANTS:
        raise InputError(f"unknown variant {variant!r}; use one of {', '.join(VARIANTS)}")
    sides = image_size if isinstance(image_size, tuple) else (image_size,)
    if not all(32 <= side <= MAX_IMAGE_SIZE for side in sides):
        raise InputError(f"image size {size_text(image_size)} px; use 32 to {MAX_IMAGE_SIZE}")
    file = tensorfile.read(path)
    chosen = choose(file, weights)
    match = chosen.match
    if variant not in (None, match.config.variant):
        raise InputError(
            f"{file.path}: holds {match.config.variant} ({match.score:.0%} of its tensors match), "
            f"not {variant}; leave the variant out to take what the file holds"
        )
    shapes = without_counters({name: tensor.shape for name, tensor in chosen.tensors.items()})
    check_names_and_shapes(file.path, match, shapes)
    config, proof = _read_metadata(file, match)
    model = _filled(file.path, chosen, config)
    info = _describe(file, chosen, model, image_size, proof)
    for note in info.notes:
        log.info("%s: %s", file.path, note)
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
    """The inverse of dataclasses.asdict; keys with defaults that came later may be missing.

    Raises InputError for other keys, and for values of another type.
    """
    if not isinstance(value, Mapping):
        raise InputError(f"the config is {value!r}, expected an object")
    kind = SamConfig if "fusion" in value else RepViTConfig
    known = {field.name for field in fields(kind)}
    if not known - _LATER_FIELDS <= set(value) <= known:
        raise InputError(f"the config has the keys {sorted(value)}, expected {sorted(known)}")
    try:
        return kind(**{name: _as_tuples(each) for name, each in value.items()})
    except (TypeError, ValueError) as error:
        raise InputError(f"the config holds a value of the wrong type: {error}") from error


def _as_tuples(value: Any) -> Any:
    """JSON has lists where the config has tuples."""
    return tuple(_as_tuples(each) for each in value) if isinstance(value, list) else value


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
        if version not in range(1, METADATA_SCHEMA_VERSION + 1):
            raise InputError(
                f"{file.path}: its metadata has schema version {version!r}, this edgevit reads "
                f"versions up to {METADATA_SCHEMA_VERSION}; use the edgevit that wrote it, or a "
                "newer one"
            )
        if set(stored) != {"schema_version", "config", "proof"}:
            raise InputError(f"{file.path}: unknown keys in its metadata: {sorted(stored)}")
        config, proof = config_from_json(stored["config"]), stored["proof"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(
            f"{file.path}: its {METADATA_KEY!r} metadata cannot be read ({error}); run "
            "`edgevit fuse` on the original checkpoint again"
        ) from error
    if not _is_same_net(match.config, config) or not isinstance(proof, dict):
        raise InputError(
            f"{file.path}: its metadata describes another net than its tensors; run "
            "`edgevit fuse` on the original checkpoint again"
        )
    return config, proof


def _is_same_net(found: RepViTConfig, stored: RepViTConfig) -> bool:
    """Whether the stored config fits the tensors, in all that a fused net shows."""
    if type(found) is not type(stored):
        return False
    shown = ["variant", "distillation", "reparameterization", "branch_norms"]
    shown += ["upsample"] if isinstance(stored, SamConfig) else []
    trained = {name: getattr(stored, name) for name in shown}
    names = {variant_of(found.widths, found.depths, norms) for norms in (True, False)}
    named = stored.variant in names or (
        isinstance(stored.variant, str)
        and stored.variant not in VARIANTS
        and _VARIANT_NAME.fullmatch(stored.variant) is not None
    )
    return named and replace(found, **trained) == stored


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _filled(path: Path, chosen: Chosen, config: RepViTConfig) -> RepViT:
    """The net with its weights, in eval mode: float32 copies, so that nothing hangs on the file."""
    match, tensors = chosen.match, chosen.tensors
    state = {
        name: checked_values(path, theirs, tensors[theirs])
        for name, (theirs, _) in match.expected.items()
    }
    for name in match.zeros:
        weight = state[f"{name.removesuffix('bias')}weight"]
        state[name] = torch.zeros(len(weight))
    if _is_one_logit(config):
        config = replace(config, num_classes=2)
        state = {name: _as_two_logits(name, tensor) for name, tensor in state.items()}
    model = skeleton(config, match.plain)
    for name in model.state_dict():
        if name.endswith(STATISTICS_COUNTER):
            state[name] = torch.zeros((), dtype=torch.int64)
    model.load_state_dict(state, assign=True)
    model.unknown_neck = match.unknown_neck
    return model.eval()


def _is_one_logit(config: RepViTConfig) -> bool:
    return config.num_classes == 1 and not config.features_only


def _as_two_logits(name: str, tensor: Tensor) -> Tensor:
    """A head's weight or bias for z, as that for −z/2 and z/2: their softmax is z's sigmoid."""
    if not name.startswith("head.") or ".bn." in name:
        return tensor
    return torch.cat([-tensor / 2, tensor / 2])


def checked_values(path: Path, name: str, stored: StoredTensor) -> Tensor:
    """A copy as float32. Raises InputError, naming the tensor, for no plain finite numbers."""
    if stored.problem:
        raise InputError(
            f"{path}: the tensor {name!r} is {stored.problem}; expected plain float16, bfloat16, "
            "float32 or float64 weights: save the model before it is quantized or packed"
        )
    try:
        tensor = stored.load()
    except (PickleError, RuntimeError, OSError) as error:
        raise InputError(
            f"{path}: the tensor {name!r} cannot be read ({error}); {tensorfile.COPY_HINT}"
        ) from error
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
    chosen: Chosen,
    model: RepViT,
    image_size: Size,
    proof: dict[str, Any] | None,
) -> CheckpointInfo:
    match, config = chosen.match, model.config
    plain = skeleton(config, fused=True).eval()
    types = {chosen.tensors[n].dtype for n, _ in match.expected.values()}
    riders = tuple(name for name in match.riders if name not in chosen.candidate.beside)
    return CheckpointInfo(
        path=str(file.path),
        size_bytes=file.size_bytes,
        sha256=file.sha256,
        naming=match.naming if proof is None else "edgevit",
        wrappers=chosen.candidate.wrappers,
        dtype=" and ".join(sorted(str(each).removeprefix("torch.") for each in types)),
        variant=config.variant,
        num_classes=0 if config.features_only else config.num_classes,
        distillation=config.distillation and "head" not in match.plain,
        fused=match.fused,
        config=config,
        parameters=count_parameters(model),
        fused_parameters=count_parameters(plain),
        fused_macs=count_macs(plain, image_size),
        image_size=image_size,
        proof=proof,
        weights=chosen.weights,
        riders=riders,
        notes=(*chosen.notes, *_assumed(match, riders), *_inside(chosen, riders)),
    )


def _assumed(match: Match, riders: tuple[str, ...]) -> tuple[str, ...]:
    notes = list(match.notes)
    if isinstance(match.config, SamConfig):
        kind = "EdgeSAM's form, a sum of two stages" if match.config.fusion else "RepViT-SAM's form"
        notes.append(f"it is an image encoder of Segment Anything in {kind}")
    elif match.unknown_neck:
        notes.append(
            "it is the trunk of an image encoder whose neck edgevit does not know; its last stage "
            "is taken to halve its maps, which the tensors do not tell"
        )
    elif match.config.features_only:
        notes.append("it is a backbone: a RepViT without a head")
    if _is_one_logit(match.config):
        notes.append(
            "its one logit z is taken as that of two classes, negative and positive in this "
            "order, with the logits −z/2 and z/2"
        )
    if riders:
        notes.append(f"left aside, as no part of the net: {listed(riders)}")
    return tuple(notes)


def _inside(chosen: Chosen, riders: tuple[str, ...]) -> tuple[str, ...]:
    """What a backbone's own module has beside the stages, such as a norm of each map."""
    own = tuple(name for name in riders if name in chosen.candidate.tensors)
    if not (own and chosen.candidate.prefix and chosen.match.config.features_only):
        return ()
    return (f"its maps are the stages' own: {listed(own)} of the backbone is not applied to them",)


def parts_of(riders: Iterable[str]) -> tuple[str, ...]:
    """The parts that tensors belong to, such as "neck" or "bbox_head", in their order.

    Copies that a training framework averaged ("ema_backbone_features_0_...") are one part.
    """
    firsts = (_AVERAGED_COPY.sub(r"\1*", name).partition(".")[0] for name in riders)
    return tuple(dict.fromkeys(firsts))


def listed(riders: tuple[str, ...]) -> str:
    """Tensors by name, or by part where there are parts of several."""
    counts = Counter(parts_of((name,))[0] for name in riders)
    if len(riders) > 3 and max(counts.values()) > 1:
        return ", ".join(
            f"{part!r} ({count} tensor{'s'[: count > 1]})" for part, count in counts.items()
        )
    more = f" and {len(riders) - 3} more" if len(riders) > 3 else ""
    return f"{', '.join(map(repr, riders[:3]))}{more}"
