"""The options of the pre-processing, and those that lie beside a checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from edgevit.commands.generate import Command, collect, explicit, options_of
from edgevit.data.options import PreprocessingOptions
from edgevit.data.presets import NAMES, Preset, find_preset, read_preset
from edgevit.models.named import is_timm

log = logging.getLogger(__name__)


def preprocessing_options() -> Callable[[Command], Command]:
    """Decorator: the options of the class, and --preprocessing."""
    preset = click.option(
        "--preprocessing",
        metavar="FILE|NAME",
        help="timm's config.json, a Hugging Face preprocessor_config.json, or a name: "
        f"{', '.join(NAMES)}. Other options go first.  [default: such a file beside CKPT; of "
        "timm:NAME what timm says]",
    )

    def add(command: Command) -> Command:
        return preset(options_of(PreprocessingOptions)(command))

    return add


def chosen_preprocessing(given: Mapping[str, Any], checkpoint: Path) -> PreprocessingOptions:
    """What the command was given, over the preset it names or that comes with the checkpoint.

    The log says in a line what a preset brought. Raises InputError for one that cannot be read.
    """
    named = given["preprocessing"]
    found = _preset_with(checkpoint) if named is None else read_preset(named)
    if found is None:
        return collect(PreprocessingOptions, given)
    own = explicit(PreprocessingOptions, given)
    options = PreprocessingOptions(**found.merged(own))
    log.info(str(found) + (f"; given: {', '.join(sorted(own))}" if own else ""))
    return options


def _preset_with(checkpoint: Path) -> Preset | None:
    """Of a net's name timm's own, of a checkpoint the file beside it."""
    if not is_timm(checkpoint):
        return find_preset(checkpoint)
    from edgevit.models.timm_nets import preset_of

    return preset_of(checkpoint)
