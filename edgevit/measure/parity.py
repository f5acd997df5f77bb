"""How far each artifact's tensors are from the program's, layer by layer, and its predictions.

One piece of code for every target: an artifact is opened by its target's `open_runner`, given the
same images as the program, and every tensor both of them hold is compared. A difference is counted
in steps of the program's own quantizer, and as a signal-to-quantization-noise ratio:
10 log10(sum of the program's values squared / sum of the differences squared).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgevit import console
from edgevit.choices import WEIGHTS_ONLY
from edgevit.console import say
from edgevit.data.source import ImageFolder, ImageSource, check_same_input
from edgevit.errors import GateFailed, InputError
from edgevit.files import atomic_path, check_target, sha256_file
from edgevit.measure.harness import description_of
from edgevit.measure.options import ParityOptions
from edgevit.measure.own_file import is_own
from edgevit.ops import Quantizer
from edgevit.program import Program
from edgevit.progress import Progress
from edgevit.schema import OMIT_DEFAULT
from edgevit.targets import Runner, load_target, make_options
from edgevit.targets.artifact import Artifact, load_artifact
from edgevit.targets.manifest import PARITY_FILE, Manifest
from edgevit.tasks import OutputFigures, Task, load_task

if TYPE_CHECKING:
    import torch

SCHEMA_VERSION, KIND = 1, "edgevit-parity"
CHUNK_IMAGES = 16


@dataclass(frozen=True)
class Layer:
    """One tensor of an artifact against the program's.

    differing_percent   of its values, by half a step or more
    max_steps           largest difference, in steps of the program's quantizer
    sqnr_db             None where nothing differs, or the program's values are all 0
    """

    name: str
    op: str
    values: int
    differing_percent: float
    max_steps: float
    sqnr_db: float | None


@dataclass(frozen=True)
class Parity:
    """What one artifact was found to be.

    layers          in the program's order; those the artifact does not hold are missing
    layer_images    how many images they were compared on
    first_departure the first layer with a difference; None: there is none
    images          how many the predictions were compared on
    agreement_percent   of the predictions, with the program's
    top1_percent    of the artifact's predictions, with the labels; None where there are no labels
    outputs         figures of each output, in the program's order, where the task has such
    """

    target: str
    engine: str
    artifact_sha256: str
    program_sha256: str
    dataset_sha256: str
    layers: tuple[Layer, ...]
    layer_images: int
    first_departure: str | None
    images: int
    agreement_percent: float
    top1_percent: float | None
    program_top1_percent: float | None
    outputs: tuple[OutputFigures, ...] = field(default=(), metadata=OMIT_DEFAULT)

    def to_json(self) -> dict[str, Any]:
        value = {"schema_version": SCHEMA_VERSION, "kind": KIND, **asdict(self)}
        if not self.outputs:
            del value["outputs"]
        return value


def compare(
    folder: Path,
    data: Path,
    *,
    program: Path | None = None,
    layer_images: int = ParityOptions.layer_images,
    images: int | None = ParityOptions.images,
    device: str = ParityOptions.device,
    out: Path | None = None,
    force: bool = False,
    **options: str,
) -> Parity:
    """Compare an artifact folder with its program; writes parity.json beside the artifact.

    An earlier run's parity.json is replaced; `force` replaces another file.

    data          labelled images; `images` of them, spread evenly (default all), are predicted, and
                  `layer_images` of them compared layer by layer
    program       the .evq; default: the file of that name near the folder
    device        that runs the program: "cpu", "cuda" or "auto"
    out           default: FOLDER/parity.json
    options       of the target's runner (its `RunOptions`)
    Raises InputError for an artifact that is not its manifest's or not this program's, and for
    options the target does not have.
    """
    if out is None:
        out = folder / PARITY_FILE
        force = force or is_own(out, KIND)
    check_target(out, force)
    artifact = load_artifact(folder)
    _check_comparable(artifact)
    loaded = Program.load(find_program(folder, artifact.manifest, program))
    labels = artifact.manifest.labels
    source = ImageFolder(
        data,
        classes=labels or None,
        like=artifact.manifest.preprocessing,
        labelled=bool(labels),
    )
    result = parity_of(
        artifact,
        loaded,
        source,
        layer_images=layer_images,
        images=images,
        device=device,
        **options,
    )
    with atomic_path(out, force) as temporary:
        temporary.write_text(json.dumps(result.to_json(), indent=1, allow_nan=False) + "\n")
    return result


def parity_of(
    artifact: Artifact,
    program: Program,
    source: ImageSource,
    *,
    layer_images: int = ParityOptions.layer_images,
    images: int | None = ParityOptions.images,
    device: str = ParityOptions.device,
    **options: str,
) -> Parity:
    """Compare an artifact with the program it was compiled from; see `compare`.

    Raises InputError for a source that is pre-processed or labelled otherwise than the program,
    and for options the target does not have.
    """
    import torch

    from edgevit.device import chosen_device

    _check_comparable(artifact)
    chosen = ParityOptions(layer_images=layer_images, images=images)
    labels = program.info.labels or source.classes  # without labels, folders mean nothing
    check_same_input(source, program.info.preprocessing, labels)
    place = chosen_device(device)
    runner = open_artifact(artifact, **options)
    layers = _layers(runner, program, place, source, _spread(len(source), chosen.layer_images))
    order = _spread(len(source), chosen.images)
    task = load_task(artifact.manifest.task).for_outputs(program.graph().public_names)
    labels = torch.from_numpy(source.labels[order])
    maps_last = load_target(artifact.manifest.target).maps_last
    title = artifact.folder.name
    expected, found = _kept(runner, program, place, task, source, order, title, maps_last)
    return Parity(
        target=artifact.manifest.target,
        engine=runner.engine,
        artifact_sha256=artifact.manifest.artifact.sha256,
        program_sha256=program.sha256,
        dataset_sha256=source.sha256,
        layers=tuple(layers),
        layer_images=min(chosen.layer_images, len(source)),
        first_departure=next((row.name for row in layers if row.max_steps), None),
        images=len(order),
        agreement_percent=100 * float(task.agreement(expected.numpy(), found.numpy()).mean()),
        top1_percent=100 * task.score(found, labels, expected) if task.has_labels else None,
        program_top1_percent=(
            100 * task.score(expected, labels, expected) if task.has_labels else None
        ),
        outputs=task.by_output(expected.numpy(), found.numpy()),
    )


def _check_comparable(artifact: Artifact) -> None:
    """Raises InputError for an artifact that has no steps of a program to be compared in."""
    if artifact.manifest.profile == WEIGHTS_ONLY:
        raise InputError(
            f"{artifact.folder}: its weights alone are int8, and no program says what lies between "
            "the operations; edgevit validate measures its predictions"
        )


def check_agreement(found: dict[str, Parity], min_agreement: float | None) -> None:
    """Raises GateFailed naming the artifacts whose predictions are too seldom the program's.

    min_agreement   None: the tolerance in the target's target.toml ([parity]), which is one of
                    predictions; without one, or without classes, there is no gate
    """
    below = []
    for name, parity in found.items():
        limit = min_agreement
        if limit is None and parity.top1_percent is not None:
            limit = tolerance_of(parity.target)
        if limit is not None and parity.agreement_percent < limit:
            below.append(
                f"{name}: {parity.agreement_percent:.2f} % of {parity.images} predictions are the "
                f"program's; at least {limit:.2f} % are asked for"
            )
    if below:
        raise GateFailed("; ".join(below))


def tolerance_of(target: str) -> float | None:
    """Percentage of predictions that must equal the program's, where a target states one."""
    stated = description_of(target).get("parity", {}).get("min_agreement_percent")
    return None if stated is None else float(stated)


def open_artifact(artifact: Artifact, **options: str) -> Runner:
    """The runner of an artifact's target. Raises InputError for options it does not have."""
    name = artifact.manifest.target
    target = load_target(name)
    chosen = make_options(name, target.RunOptions, options, "RunOptions")
    return target.open_runner(artifact, **vars(chosen))


def check_finite(values: np.ndarray, what: str) -> None:
    """Raises InputError when an artifact computed NaN or infinity, which equals nothing."""
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise InputError(
            f"{what}: {int((~np.isfinite(values)).sum())} values are not finite: the artifact is "
            "damaged, or was not made by `edgevit compile`"
        )


def find_program(folder: Path, manifest: Manifest, given: Path | None) -> Path:
    """The .evq that an artifact was compiled from: the given one, or the one beside its folder.

    Raises InputError where there is none, or the given one is another.
    """
    entry = manifest.program
    if given is not None:
        if sha256_file(given) != entry.sha256:
            raise InputError(f"{folder} was not compiled from {given}: its sha256 is another")
        return given
    if (path := program_beside(folder, manifest)) is not None:
        return path
    raise InputError(
        f"the program of {folder} ({entry.file or 'never saved'}, sha256 "
        f"{entry.sha256[:12]}) is not beside it; name it with --program M.evq"
    )


def program_beside(folder: Path, manifest: Manifest) -> Path | None:
    """The .evq that an artifact was compiled from, where it lies near its folder."""
    entry, parent = manifest.program, folder.resolve().parent
    for place in (parent, parent.parent, Path.cwd()):
        path = place / (entry.file or "")
        if path.is_file() and sha256_file(path) == entry.sha256:
            return path
    return None


def _layers(
    runner: Runner, program: Program, device: torch.device, source: ImageSource, order: list[int]
) -> list[Layer]:
    totals: dict[str, _Difference] = {}
    with Progress(f"layers of {runner.engine}", len(order), "images") as progress:
        for chunk in _chunks(order):
            pixels = source.pixels(chunk)
            images = source.preprocessing.normalise(pixels).to(device)
            expected = {name: values.cpu() for name, values in program.tensors(images)}
            for name, values in runner.tensors(pixels, program):
                total = totals.setdefault(name, _Difference(program.graph().quantizer(name)))
                check_finite(values, f"{runner.engine}: {name}")
                total.add(values, expected.pop(name).numpy())
            progress.update(progress.done + len(chunk))
    graph = program.graph()
    ops = {node.name: node.kind for node in graph.nodes} | {graph.input_name: "input"}
    return [totals[name].layer(name, ops[name]) for name in graph.activations() if name in totals]


class _Difference:
    """Sums over images of one tensor's differences."""

    def __init__(self, quantizer: Quantizer) -> None:
        self.quantizer = quantizer
        self.count = self.differing = 0
        self.max_steps = self.noise = self.signal = 0.0

    def add(self, found: np.ndarray, expected: np.ndarray) -> None:
        centred = expected.astype(np.float64) - self.quantizer.zero_point
        if found.dtype == np.int8:
            steps = found.astype(np.float64) - self.quantizer.zero_point - centred
        else:
            steps = found.astype(np.float64) / self.quantizer.scale - centred
        self.count += steps.size
        self.differing += int((np.abs(steps) >= 0.5).sum())
        self.max_steps = max(self.max_steps, float(np.abs(steps).max()))
        self.noise += float((steps**2).sum())
        self.signal += float((centred**2).sum())

    def layer(self, name: str, op: str) -> Layer:
        known = self.noise > 0 and self.signal > 0
        return Layer(
            name=name,
            op=op,
            values=self.count,
            differing_percent=100 * self.differing / self.count,
            max_steps=self.max_steps,
            sqnr_db=10 * float(np.log10(self.signal / self.noise)) if known else None,
        )


def _kept(
    runner: Runner,
    program: Program,
    device: torch.device,
    task: Task,
    source: ImageSource,
    order: list[int],
    title: str,
    maps_last: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """What the task keeps of the program's and the artifact's outputs, float32 (len(order), K)."""
    import torch

    expected, found = [], []
    with Progress(title, len(order), "images") as progress:
        for chunk in _chunks(order):
            pixels = source.pixels(chunk)
            images = source.preprocessing.normalise(pixels).to(device)
            expected.append(task.kept(program(images)).cpu())
            outputs = answers(runner, pixels, maps_last).values()
            found.append(task.kept(tuple(map(torch.from_numpy, outputs))))
            progress.update(progress.done + len(chunk))
    return torch.cat(expected), torch.cat(found)


def answers(runner: Runner, pixels: np.ndarray, maps_last: bool) -> dict[str, np.ndarray]:
    """Every output of uint8 (N, H, W, C) by name, maps as (N, C, H, W) whatever the target's order.

    Raises InputError for values that are not finite.
    """
    found = runner.outputs(pixels)
    for name, values in found.items():
        check_finite(values, f"{runner.engine}: {name}")
        if maps_last and values.ndim == 4:
            found[name] = np.ascontiguousarray(values.transpose(0, 3, 1, 2))
    return found


def _chunks(order: list[int]) -> Iterator[list[int]]:
    for start in range(0, len(order), CHUNK_IMAGES):
        yield order[start : start + CHUNK_IMAGES]


def _spread(size: int, count: int | None) -> list[int]:
    """`count` indices out of `size`, evenly and in order, as the harness takes them."""
    count = size if count is None else min(count, size)
    return [i * size // count for i in range(count)]


Column = tuple[str, Callable[[Layer], str]]
COLUMNS: tuple[Column, ...] = (
    ("SQNR dB", lambda row: "exact" if row.sqnr_db is None else f"{row.sqnr_db:.1f}"),
    ("max steps", lambda row: f"{row.max_steps:.3g}"),
    ("differ %", lambda row: f"{row.differing_percent:.3g}"),
)


def print_table(found: dict[str, Parity], every: bool = False, worst: int = 12) -> None:
    """The artifacts side by side: a line each, then per layer; the worst ones unless `every`.

    found  name for the table's heading -> what was found
    """
    for name, parity in found.items():
        say(
            f"{name}: {_answers(parity)} ({parity.engine}); "
            + (f"departs first at {parity.first_departure}" if parity.first_departure else "every "
               f"tensor of {parity.layer_images} images is the program's, bit for bit")
        )  # fmt: skip
    rows: dict[str, dict[str, Layer]] = {}
    for name, parity in found.items():
        for layer in parity.layers:
            rows.setdefault(layer.name, {})[name] = layer
    chosen = list(rows) if every else _worst(rows, worst)
    if not any(layer.max_steps for name in chosen for layer in rows[name].values()):
        return
    headings = ["layer", *(f"{name}\n{heading}" for name in found for heading, _ in COLUMNS)]
    cells = [
        [tensor, *(text(rows[tensor][name]) if name in rows[tensor] else ""
         for name in found for _, text in COLUMNS)]
        for tensor in chosen
    ]  # fmt: skip
    title = "every layer" if every else f"the {len(chosen)} layers farthest off"
    numbers, width = range(1, len(headings)), 60 + 40 * len(found)
    console.print_table(title, cells, headings, right=numbers, min_width=width)


def _answers(parity: Parity) -> str:
    """How the artifact's answers compare with the program's."""
    if parity.top1_percent is None or parity.program_top1_percent is None:
        figures = ", ".join(
            f"{each.name} {each.sqnr_db:.1f} dB (cosine {each.cosine:.4f})"
            for each in parity.outputs
        )
        return f"{figures} against the program's on {parity.images} images"
    return (
        f"{parity.agreement_percent:.2f} % of {parity.images} predictions are the program's; top-1 "
        f"{parity.top1_percent:.2f} % against {parity.program_top1_percent:.2f} %"
    )


def _worst(rows: dict[str, dict[str, Layer]], count: int) -> list[str]:
    """The names of the layers with the lowest SQNR in any artifact, in the program's order."""

    def lowest(name: str) -> float:
        known = [row.sqnr_db for row in rows[name].values() if row.sqnr_db is not None]
        return min(known, default=float("inf"))

    kept = set(sorted(rows, key=lowest)[:count])
    return [name for name in rows if name in kept]
