"""Outputs of a task without classes: what the harness kept of them, against the program's.

The harness writes as many samples of each output as the task keeps, at the same places; the program
is run here, on the same images and no others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgevit.choices import WEIGHTS_ONLY
from edgevit.data.source import ImageSource
from edgevit.errors import InputError
from edgevit.limits import FEATURE_SAMPLES
from edgevit.measure.parity import find_program, program_beside
from edgevit.measure.request import MIN_COSINE, MIN_SQNR_DB, HarnessRequest, ValidateOptions
from edgevit.program import Program, WeightsProgram
from edgevit.targets.manifest import Manifest
from edgevit.tasks import Limits, load_task

if TYPE_CHECKING:
    from edgevit.tasks.features import FeatureGate

MAX_SAMPLE_BYTES = 2**30
"""Of all outputs of all images of a run: they are held at once, twice."""
AGAINST, AGAINST_FLOAT = "the quantized program", "the program's weights in float32"
_FLOATS = (WEIGHTS_ONLY, "float32", "float16")


def check_asked(
    request: HarnessRequest, options: ValidateOptions, manifest: Manifest, images: int
) -> None:
    """Raises InputError for what only classes have, and for more images than can be compared."""
    what = f"{request.artifact}: its task is {manifest.task}, which has no classes"
    if options.max_drop is not None or options.early_stop:
        asked = "--early-stop" if options.early_stop else "--max-drop"
        raise InputError(f"{what} for {asked}; its gates are --min-sqnr and --min-cosine")
    limits_of_outputs(options.min_sqnr_of, [output.name for output in manifest.outputs])
    size = FEATURE_SAMPLES * len(manifest.outputs) * 4
    if min(images, request.limit or images) * size > MAX_SAMPLE_BYTES:
        raise InputError(
            f"{request.artifact}: {size} bytes are kept of each image, and {MAX_SAMPLE_BYTES} at "
            f"most of all; run {MAX_SAMPLE_BYTES // size} images or fewer (--limit)"
        )


def limits_of_outputs(given: Mapping[str, str], names: Sequence[str]) -> dict[str, float]:
    """The limits of single outputs, in dB. Raises InputError for no number, or no output's name."""
    found = {}
    for name, text in given.items():
        if name not in names:
            raise InputError(
                f"--min-sqnr-of {name}={text}: there is no output {name!r}; the outputs are "
                f"{', '.join(names)}"
            )
        try:
            found[name] = float(text)
        except ValueError:
            found[name] = math.nan
        if not -100 <= found[name] <= 200:
            raise InputError(f"--min-sqnr-of {name}={text}: {text!r} is no number from -100 to 200")
    return found


def program_for(
    request: HarnessRequest, options: ValidateOptions, manifest: Manifest
) -> Program | None:
    """The program to compare with; None without one where nothing is gated.

    Raises InputError for another program, and without one that a gate needs.
    """
    path = program_beside(request.artifact, manifest)
    if options.program is not None:
        path = find_program(request.artifact, manifest, options.program)
    if path is not None:
        return Program.load(path)
    if not options.gate:
        return None
    whole = manifest.profile != WEIGHTS_ONLY
    advice = "name the program with --program M.evq, or " if whole else ""
    raise InputError(
        f"{request.artifact}: the program is not beside it, so there is nothing to gate its "
        f"outputs on; {advice}measure with --no-gate"
    )


def output_gate(
    program: Program,
    manifest: Manifest,
    source: ImageSource,
    samples: Path,
    options: ValidateOptions,
) -> FeatureGate:
    """Every output of the artifact against the program's; of one that computes in floats, against
    the program's weights in float32.

    source   has the images of the run, by the names in `samples`
    samples  what the harness wrote
    """
    from safetensors.numpy import load_file

    from edgevit.data.batches import outputs_of
    from edgevit.data.distributed import Group

    computes_floats = manifest.profile in _FLOATS
    if computes_floats:
        program = WeightsProgram.of(program)
    tensors = load_file(samples)
    names = tensors["paths"].tobytes().decode("utf-8", "surrogateescape").split("\n")
    place = {name: index for index, name in enumerate(source.names)}
    order = [place[name] for name in names]
    # As the artifact calls them: Core ML has "_" for what its names cannot hold.
    names_here = [output.name for output in manifest.outputs]
    task = load_task(program.info.task).for_outputs(names_here)
    title = "program on the images"
    expected = outputs_of(program, task.kept, source, order, Group.alone(), title).numpy()
    found = tensors["samples"]
    if found.shape != expected.shape:
        raise InputError(
            f"the artifact has {found.shape[1] // FEATURE_SAMPLES} outputs, its program "
            f"{expected.shape[1] // FEATURE_SAMPLES}; compile it again"
        )
    limits = Limits(
        0.0,
        options.min_agreement or 0.0,
        MIN_SQNR_DB if options.min_sqnr is None else options.min_sqnr,
        MIN_COSINE if options.min_cosine is None else options.min_cosine,
        limits_of_outputs(options.min_sqnr_of, names_here),
    )
    gate = task.gate(expected, found, np.zeros(len(order), np.int64), limits)
    against = AGAINST_FLOAT if computes_floats else AGAINST
    return replace(gate, against=against)  # pyright: ignore[reportArgumentType,reportReturnType,reportCallIssue]  # of a task without classes
