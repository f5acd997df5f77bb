"""`edgevit compile`: a program, or a checkpoint's weights, into an artifact folder per target."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgevit.choices import WEIGHTS_ONLY
from edgevit.commands.generate import (
    PATH,
    collect,
    collect_given,
    given_flags,
    options_of,
    options_of_several,
    own_values,
)
from edgevit.commands.options import (
    BUILD_FOLDER,
    force_option,
    json_option,
    labels_option,
    read_labels,
)
from edgevit.commands.preprocessing import chosen_preprocessing, preprocessing_options
from edgevit.console import print_table
from edgevit.data.options import PreprocessingOptions
from edgevit.errors import InputError
from edgevit.models.named import is_timm
from edgevit.models.options import CheckpointOptions
from edgevit.options import option_fields
from edgevit.targets import load_target, option_classes, target_names, unknown_option

if TYPE_CHECKING:
    from edgevit.program import Program
    from edgevit.targets.manifest import Manifest


@click.command("compile")
@click.argument("source", metavar="M.evq|CKPT|timm:NAME", type=PATH)
@click.option(
    "--target",
    "targets",
    multiple=True,
    required=True,
    type=click.Choice(target_names()),
    help="Target to compile for; repeat it for several.",
)
@click.option(
    "-o",
    "--output",
    default=BUILD_FOLDER,
    show_default=True,
    metavar="DIR",
    type=PATH,
    help="Each artifact is written to DIR/<target>.",
)
@options_of_several(option_classes())
@preprocessing_options()
@labels_option("class name", "class_0000, class_0001, ...")
@options_of(CheckpointOptions)
@force_option("an artifact folder")
@json_option
def compile_command(
    source: Path,
    targets: tuple[str, ...],
    output: Path,
    force: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Compile a quantized program for one target or several, with the program's own scales.

    edgevit reads every scale, zero-point, weight and bias back out of the written artifact and
    compares it with the program. If one differs, the command fails and keeps nothing.

    With --weights-only a checkpoint will do, and no image is needed: the weights are int8, what
    lies between the operations is not. The options of pre-processing, --labels, --variant and
    --weights are for a checkpoint; a program has its own.

    \b
    Example:
      edgevit compile model.evq --target tflite --target coreml -o build
    Without data:
      edgevit compile repvit.pth --weights-only --target tflite --image-size 224 -o build
      edgevit compile timm:resnet18 --weights mine.pth --weights-only --target tflite
    """
    own = _own_options(list(dict.fromkeys(targets)), collect_given(option_classes(), options))

    from edgevit.files import check_target
    from edgevit.targets.artifact import written_files

    for name in own:
        check_target(output / name, force, listing=written_files)
    weights_only = any(chosen.get("weights_only") == "on" for chosen in own.values())
    program = _program(source, weights_only, options)
    manifests: dict[str, Manifest] = {}
    for name, chosen in own.items():
        manifests[name] = load_target(name).compile(program, output / name, force, **chosen)
        if not as_json:
            _print_summary(manifests[name], output / name)
    if as_json:
        click.echo(
            json.dumps(
                {name: manifest.to_json() for name, manifest in manifests.items()},
                indent=2,
                allow_nan=False,
            )
        )


def _program(source: Path, weights_only: bool, given: dict[str, Any]) -> Program:
    """The program in a file, or what is made of a checkpoint without data.

    Raises InputError for a checkpoint where that is not asked for, and for its options beside a
    program.
    """
    from edgevit.errors import InputError
    from edgevit.program import Program
    from edgevit.program.evq import is_program

    named = is_timm(source)
    if not weights_only and named:
        raise InputError(
            f"{source} is quantized first (edgevit quantize), or compiled without data by "
            "--weights-only"
        )
    if not named and (is_program(source) or not weights_only):
        unused = given_flags(
            PreprocessingOptions, CheckpointOptions, names=("preprocessing", "labels")
        )
        if unused:
            raise InputError(f"{unused[0]} is for a checkpoint; a program has its own")
        try:
            return Program.load(source)
        except InputError as error:
            if is_program(source):
                raise
            raise InputError(
                f"{error}. A checkpoint is quantized first (edgevit quantize), or compiled without "
                "data by --weights-only"
            ) from error
    preprocessing = chosen_preprocessing(given, source)

    from edgevit.data.images import Preprocessing
    from edgevit.models.nets import load_net
    from edgevit.quantize.weights_only import weights_program

    asked = collect(CheckpointOptions, given)
    net = load_net(
        source,
        variant=asked.variant,
        weights=asked.weights,
        image_size=preprocessing.image_size,
    )
    rules = Preprocessing.from_options(preprocessing)
    return weights_program(net, rules, read_labels(given["labels"]))


def _own_options(targets: list[str], given: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Each target's part of the options, checked before anything is read or written.

    Raises InputError for an option that none of the targets has, for --weights-only where one has
    it not, and for a value that one refuses.
    """
    classes = {name: option_classes()[name] for name in targets}
    known = {name: {each.name for each in option_fields(cls)} for name, cls in classes.items()}
    for option in given:
        lacking = [target for target, names in known.items() if option not in names]
        # Of weights alone nothing else can be made: not even one target may pass it over.
        if len(lacking) == len(targets) or (lacking and option == "weights_only"):
            raise unknown_option(option, lacking)
    own: dict[str, dict[str, Any]] = {}
    for name, cls in classes.items():
        fields = {each.name: each for each in option_fields(cls)}
        taken = {
            option: own_values(fields[option], value)
            for option, value in given.items()
            if option in known[name]
        }
        own[name] = {option: value for option, value in taken.items() if value is not None}
        cls(**own[name])
    _check_values_taken(given, own)
    return own


def _check_values_taken(given: dict[str, Any], own: dict[str, dict[str, Any]]) -> None:
    """Raises InputError for a value of a list that no target of those asked for takes."""
    for option, value in given.items():
        if not isinstance(value, tuple):
            continue
        taken = {one for chosen in own.values() for one in chosen.get(option, ())}
        for one in value:
            if one not in taken:
                raise InputError(f"--{option.replace('_', '-')} {one} is none of {', '.join(own)}")


def _print_summary(manifest: Manifest, folder: Path) -> None:
    artifact, audit = manifest.artifact, manifest.audit
    rows = [("profile", manifest.profile)]
    several = len(manifest.outputs) > 1
    outputs = [(f"output {each.name}" if several else "output", each) for each in manifest.outputs]
    edges = [("input", manifest.input), *outputs]
    for name, tensor in edges:
        how = "" if tensor.scale is None else f", scale {tensor.scale:.6g}, "
        how += "" if tensor.scale is None else f"zero-point {tensor.zero_point}"
        rows.append((name, f"{tensor.dtype} {list(tensor.shape)}{how}"))
    audited = "none: a float artifact, to compare with"
    if audit:
        audited = f"exact: {audit.activations} activations, {audit.weight_channels} weight channels"
    if manifest.profile == WEIGHTS_ONLY:
        audited += "; LiteRT or Core ML decides how the rest is computed"
    rows += [
        ("operators", ", ".join(f"{n} {op}" for op, n in manifest.ops.items())),
        ("options", ", ".join(f"{k} {v}" for k, v in manifest.options.items())),
        ("scale audit", audited),
        ("dropped quantizers", _few(manifest.drops)),
        *([("runs in float", _few(manifest.islands))] if manifest.islands else []),
        *((found.name, str(found)) for found in manifest.placement),
        ("size", f"{artifact.size_bytes / 1e6:.2f} MB"),
        ("written to", str(folder)),
    ]
    print_table(f"{manifest.target}: {manifest.model.variant}", rows)


def _few(names: Sequence[str], most: int = 8) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "none") + rest
