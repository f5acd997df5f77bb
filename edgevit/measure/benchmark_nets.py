"""What a benchmark measures: programs and artifacts as they are, and nets that only give a time."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import torch
from torch import nn

from edgevit.errors import InputError
from edgevit.graph import trace
from edgevit.measure.timing_program import settle, timing_program
from edgevit.models.named import is_timm
from edgevit.models.repvit import RepViT
from edgevit.models.timm_nets import untrained
from edgevit.models.timm_package import config_of
from edgevit.models.variants import VARIANTS
from edgevit.options import Size
from edgevit.program import Program
from edgevit.program.evq import is_program
from edgevit.targets.artifact import Artifact, load_artifact
from edgevit.targets.manifest import MANIFEST_FILE

Weights = Literal["program", "timing", "random"]
NetLike: TypeAlias = "str | os.PathLike[str] | Program | nn.Module"
Nets: TypeAlias = "NetLike | Sequence[NetLike] | Mapping[str, NetLike]"


@dataclass(frozen=True)
class Entry:
    """A net of a benchmark.

    weights   "program": those of a quantized program, with its accuracy; "timing": trained ones, in
              a program for timing only; "random": seeded ones, in such a program
    make      the program, which may take seconds; raises InputError where the net cannot be one
    artifact  where the net is an artifact folder already: nothing is made
    file      of a program, to measure agreement with
    """

    name: str
    weights: Weights
    make: Callable[[], Program] | None = None
    artifact: Artifact | None = None
    file: Path | None = None


def entries_of(nets: Nets, image_size: Size, seed: int) -> list[Entry]:
    """The nets by name, in order; `image_size` and `seed` are for those that have no program.

    Raises InputError for no net, a name that is none and a file that cannot be read: what only
    making a program can tell is told there.
    """
    if isinstance(nets, Mapping):
        named: list[tuple[str | None, NetLike]] = list(nets.items())
    else:
        several = [nets] if isinstance(nets, str | os.PathLike | Program | nn.Module) else nets
        named = [(None, each) for each in several]
    if not named:
        raise InputError("no net is given")
    found = [_entry(net, name, image_size, seed) for name, net in named]
    names = [each.name for each in found]
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(
            f"two nets go by the name {twice[0]!r}: rename one, or in Python give a mapping of "
            "names to nets"
        )
    return found


def _entry(net: NetLike, name: str | None, size: Size, seed: int) -> Entry:
    if isinstance(net, Program):
        return Entry(name or net.info.model.variant, "program", lambda: net)
    if isinstance(net, nn.Module):
        name = name or type(net).__name__
        return Entry(name, "timing", _timing(lambda: copy.deepcopy(net).cpu().eval(), size, name))
    text = os.fspath(net)
    if is_timm(text):
        timm_name, _ = config_of(text)
        build = _seeded(lambda: untrained(text, size, seed), size, seed)
        return Entry(name or timm_name, "random", _timing(build, size, timm_name))
    if text in VARIANTS and not os.path.lexists(text):
        build = _seeded(lambda: VARIANTS[text](distillation=False), size, seed)
        return Entry(name or text, "random", _timing(build, size, text))
    return _of_path(Path(net), name, size)


def _of_path(path: Path, name: str | None, size: Size) -> Entry:
    if not os.path.lexists(path):
        raise InputError(
            f"{path} is no file or folder, and no net's name: a program (.evq), an artifact "
            f"folder, a checkpoint, timm:NAME, or one of {', '.join(VARIANTS)}"
        )
    if (path / MANIFEST_FILE).is_file():
        artifact = load_artifact(path)
        own = f"{artifact.manifest.model.variant} ({path})"
        return Entry(name or own, "program", artifact=artifact)
    name = name or path.resolve().stem
    if not path.is_dir() and is_program(path):
        program = Program.load(path)
        return Entry(name, "program", lambda: program, file=path)

    from edgevit.models.checkpoint import load

    model = load(path, image_size=size).model
    if model.config.in_channels != 3:
        raise InputError(
            f"{path}: its input has {model.config.in_channels} channels, a benchmark's images have "
            "3; quantize it first, and give the program"
        )
    return Entry(name, "timing", _timing(lambda: model, size, model.config.variant))


def _timing(build: Callable[[], nn.Module], size: Size, name: str) -> Callable[[], Program]:
    """What makes the timing program of a net."""

    def make() -> Program:
        net = build()
        if isinstance(net, RepViT):
            net = net.fuse()
        height, width = size if isinstance(size, tuple) else (size, size)
        return timing_program(trace(net, (3, height, width)), name)

    return make


def _seeded(build: Callable[[], nn.Module], size: Size, seed: int) -> Callable[[], nn.Module]:
    """`build` with seeded weights that `settle` put in order; torch's own seed stays as it was."""

    def make() -> nn.Module:
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)
            return settle(build(), size, seed)

    return make
