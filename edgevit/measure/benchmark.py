"""Runs nets, targets and precisions in turn in the C++ harness, so that their times compare.

Each round runs every artifact once, in an order of its own, and a ratio is taken within a round:
what slows the machine for a while slows all of them.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edgevit.data.images import ImageSet
from edgevit.data.preprocessing import Preprocessing
from edgevit.errors import EdgevitError, InputError, Interrupted
from edgevit.files import check_target
from edgevit.graph.count import count
from edgevit.measure.benchmark_nets import Entry, Nets, entries_of
from edgevit.measure.benchmark_rows import (
    KIND,
    SCHEMA_VERSION,
    Accuracy,
    Benchmark,
    Operators,
    Row,
    with_figures,
)
from edgevit.measure.harness import build_harness, run_harness
from edgevit.measure.options import BenchmarkOptions
from edgevit.measure.request import HarnessRequest, ValidateOptions
from edgevit.measure.validate import measured
from edgevit.options import option_texts
from edgevit.program import Program
from edgevit.progress import Progress
from edgevit.targets import load_target
from edgevit.targets.artifact import Artifact, load_artifact, tool_versions
from edgevit.tasks import load_task

LONG_COMPILE_S = 5.0
"""What is compiled in less is compiled twice: the first time may load a toolkit."""
_MAX_NAME_BYTES = 255

log = logging.getLogger(__name__)


class BenchmarkInterrupted(Interrupted):
    """Ctrl-C between or in rounds. `result` holds the whole rounds that were measured."""

    def __init__(self, message: str, result: Benchmark) -> None:
        super().__init__(message)
        self.result = result


@dataclass
class _Case:
    """A row in the making, and what runs it; `error`: why it is not run."""

    row: Row
    artifact: Artifact | None = None
    images: Path | None = None
    error: EdgevitError | None = None

    def fail(self, error: EdgevitError) -> None:
        self.error = error
        self.row = replace(self.row, problem=str(error), rounds_us=(), least_us=None)


def benchmark(
    nets: Nets,
    targets: str | Sequence[str] = BenchmarkOptions.target,
    precisions: str | Sequence[str] = BenchmarkOptions.precision,
    *,
    out: str | os.PathLike[str] | None = None,
    force: bool = False,
    command: str | None = None,
    **options: Any,
) -> Benchmark:
    """Size, compile time and latency of every net, target and precision, one row each.

        edgevit.benchmark(["m.evq", "repvit_m1_1"], ["tflite", "onnx"], ["int8", "float32"]).rows

    nets        a program, its .evq file, an artifact folder (measured as it is, whatever targets
                and precisions say), a RepViT checkpoint, the name of a published variant,
                "timm:NAME" or an nn.Module for 3 channels; one, several, or a mapping of names to
                them. What is no program or artifact gives times and sizes only
    out         JSON to write after each round; one that an interrupted run of the same command
                left is gone on with. `force` replaces it
    command     what was typed, for the JSON
    options     the other fields of `BenchmarkOptions`: rounds, threads, image_size, data, ...
    What cannot be compiled or run is a row that says why. Raises InputError for a bad option and a
    net that there is not, what stopped the first row where no row has a figure, ToolMissing
    without the harness, and BenchmarkInterrupted, with the whole rounds, at Ctrl-C.
    """
    chosen = {"target": _listed(targets), "precision": _listed(precisions)}
    asked = BenchmarkOptions(**chosen, **options)
    path = None if out is None else Path(out)
    earlier = _earlier(path, force)
    entries = entries_of(nets, asked.image_size, asked.seed)
    if asked.data is not None and not any(each.weights == "program" for each in entries):
        raise InputError(
            "--data measures accuracy, and none of the nets is a quantized program or an artifact"
        )
    harness = build_harness()
    with tempfile.TemporaryDirectory(prefix="edgevit-") as folder:
        run = _Run(asked, harness, Path(folder), command)
        run.compile(entries)
        if earlier is not None and path is not None:
            run.take(earlier, path)
        if asked.data is not None:
            run.measure_accuracy(asked.data, entries)
        run.measure_rounds(path)
    return run.result(complete=True)


def _listed(words: str | Sequence[str]) -> Any:
    return (words,) if isinstance(words, str) else tuple(words)


def _earlier(path: Path | None, force: bool) -> Benchmark | None:
    """An interrupted benchmark to go on with; InputError for a file that may not be written."""
    if path is None:
        return None
    if path.is_file() and not force:
        with contextlib.suppress(InputError):
            found = Benchmark.load(path)
            if not found.complete:
                return found
    check_target(path, force)
    return None


class _Run:
    """One benchmark at work."""

    def __init__(
        self, options: BenchmarkOptions, harness: Path, folder: Path, command: str | None
    ) -> None:
        self.options, self.harness, self.folder, self.command = options, harness, folder, command
        self.cases: list[_Case] = []
        self.started_at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        self.machine: dict[str, Any] = {}
        self.images: dict[tuple[str, str], Path] = {}
        self.load_averages = [round(each, 2) for each in os.getloadavg()]

    def result(self, complete: bool) -> Benchmark:
        packages = {p for t in self.options.target for p in load_target(t).packages}
        return Benchmark(
            schema_version=SCHEMA_VERSION,
            kind=KIND,
            command=self.command,
            started_at=self.started_at,
            settings=option_texts(self.options),
            machine=self.machine | {"load_averages": self.load_averages},
            tools=tool_versions(*sorted(packages)),
            complete=complete,
            rows=with_figures([case.row for case in self.cases]),
        )

    # -- what is measured -----------------------------------------------------------------------

    def compile(self, entries: Sequence[Entry]) -> None:
        """Make every artifact, and a row for each that cannot be made. Raises where none can."""
        for number, entry in enumerate(entries):
            log.info("benchmark: net %d of %d: %s", number + 1, len(entries), entry.name)
            for case in self._cases(entry, number):
                self.cases.append(case)
        self._require_one()

    def _cases(self, entry: Entry, number: int) -> Iterator[_Case]:
        if entry.artifact is not None:
            manifest = entry.artifact.manifest
            precision = manifest.options.get("precision") or manifest.profile
            row = Row(entry.name, manifest.target, precision, entry.weights)
            yield self._ready(_Case(row), entry.artifact)
            return
        pairs = [(t, p) for t in self.options.target for p in self.options.precision]
        blank = [_Case(Row(entry.name, t, p, entry.weights)) for t, p in pairs]
        try:
            assert entry.make is not None
            program = entry.make()
        except EdgevitError as error:
            for case in blank:
                case.fail(error)
                yield case
            return
        for place, case in enumerate(blank):
            yield self._compiled(case, program, self.folder / f"{number}-{place}")

    def _compiled(self, case: _Case, program: Program, folder: Path) -> _Case:
        size, counted = program.info.model.image_size, count(program.graph())
        case.row = replace(
            case.row, image_size=size, parameters=counted.parameters, macs=counted.macs
        )
        log.info("benchmark: compiling %s", case.row.name)
        target, took_s = load_target(case.row.target), []
        try:
            while not took_s or (len(took_s) < 2 and took_s[0] < LONG_COMPILE_S):
                start = time.perf_counter()
                target.compile(program, folder, force=True, precision=case.row.precision)
                took_s.append(time.perf_counter() - start)
            artifact = load_artifact(folder)
        except EdgevitError as error:
            case.fail(error)
            return case
        case.row = replace(case.row, compile_s=round(min(took_s), 3))
        return self._ready(_on_record(case, program), artifact)

    def _ready(self, case: _Case, artifact: Artifact) -> _Case:
        """The case with what its artifact tells."""
        manifest = artifact.manifest
        if case.row.macs is None:
            try:
                counted = count(load_target(manifest.target).read(artifact.data).graph)
            except EdgevitError as error:
                case.row = replace(case.row, problem=f"its operations cannot be counted: {error}")
            else:
                case.row = replace(case.row, parameters=counted.parameters, macs=counted.macs)
        case.artifact = artifact
        case.row = replace(
            case.row,
            image_size=manifest.preprocessing.image_size,
            sha256=manifest.artifact.sha256,
            size_bytes=manifest.artifact.size_bytes,
            operators=Operators(sum(manifest.ops.values()), None),
        )
        try:
            case.images = self._noise(manifest.preprocessing, manifest.labels)
        except EdgevitError as error:
            case.fail(error)
        return case

    def _noise(self, rules: Preprocessing, labels: Sequence[str]) -> Path:
        """A folder of noise in the input's size: what a net takes for it does not depend on it."""
        import numpy as np
        from PIL import Image

        names = [name for name in labels if _is_folder_name(name)]
        if labels and not names:
            raise InputError("none of its labels can be a folder's name, which the harness needs")
        label = names[0] if labels else "any"
        key = rules.size_text, label
        if key in self.images:
            return self.images[key]
        folder = self.images[key] = self.folder / f"images-{len(self.images)}"
        (folder / label).mkdir(parents=True)
        source = np.random.default_rng(self.options.seed)
        for i in range(self.options.inferences):
            pixels = source.integers(0, 256, (rules.height, rules.width, 3), np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{i:05d}.png", compress_level=0)
        return folder

    def take(self, earlier: Benchmark, path: Path) -> None:
        """Go on from an interrupted run's rounds. Raises InputError for another benchmark's."""
        own = [case.row for case in self.cases]
        same = [(row.name, row.sha256) for row in own] == [
            (row.name, row.sha256) for row in earlier.rows
        ]
        if not same or earlier.settings != option_texts(self.options):
            raise InputError(
                f"{path} holds an interrupted benchmark of other nets or options; choose another "
                "name, or --force to replace it"
            )
        for case, row in zip(self.cases, earlier.rows, strict=True):
            if case.error is None and row.rounds_us:
                case.row = replace(
                    case.row,
                    rounds_us=row.rounds_us,
                    least_us=row.least_us,
                    runtime=row.runtime,
                    operators=row.operators,
                )
        self.started_at, self.machine = earlier.started_at, dict(earlier.machine)
        self.load_averages = list(self.machine.pop("load_averages", self.load_averages))

    def measure_accuracy(self, data: Path, entries: Sequence[Entry]) -> None:
        """Run what has trained weights on labelled images; a row that cannot says why."""
        files = {each.name: each.file for each in entries}
        for case in self._running():
            if case.row.weights != "program" or case.artifact is None:
                continue
            log.info("benchmark: accuracy of %s", case.row.name)
            try:
                found = self._accuracy(case.artifact, data, files[case.row.net])
            except EdgevitError as error:
                case.row = replace(case.row, accuracy=None, problem=f"no accuracy: {error}")
            else:
                case.row = replace(case.row, accuracy=found)

    def _accuracy(self, artifact: Artifact, data: Path, file: Path | None) -> Accuracy:
        manifest = artifact.manifest
        if not load_task(manifest.task).has_labels:
            raise InputError("it has no classes")
        if file is not None:
            known = Program.load(file).reference
            images = ImageSet.open(data, manifest.labels)
            file = file if known and known.dataset_sha256 == images.sha256 else None
        request = HarnessRequest(
            artifact.folder, data, threads=self.options.threads, limit=self.options.limit
        )
        asked = ValidateOptions(gate=False, program=file, harness=self.harness)
        result = measured(request, asked).result
        accuracy, agreement = result["accuracy"], result["agreement_float"]
        as_float = None if agreement is None else agreement["top1_percent"]
        return Accuracy(accuracy["top1_percent"], accuracy["count"], as_float, True)

    def measure_rounds(self, path: Path | None) -> None:
        """Run the rounds that are left; `path` is written after each."""
        counts = [len(case.row.rounds_us) for case in self._running()]
        done, total = min(counts, default=0), self.options.rounds
        size = max(len(counts), 1)
        with Progress("benchmark", total * size, "runs", done * size) as progress:
            try:
                while done < total and self._running():
                    self._round(done, progress)
                    done += 1
                    if path is not None:
                        self.result(done == total).save(path, force=True)
            except KeyboardInterrupt:
                left = self._interrupted(done, path)
                raise BenchmarkInterrupted(left, self.result(complete=False)) from None
        self._require_one()
        if path is not None:
            self.result(complete=True).save(path, force=True)

    def _round(self, number: int, progress: Progress) -> None:
        """Every artifact once; its time is kept when the whole round is there."""
        order = self._running()
        random.Random(f"{self.options.seed} {number}").shuffle(order)
        found: list[tuple[_Case, dict[str, Any]]] = []
        for case in order:
            progress.update(progress.done, f"round {number + 1}: {case.row.name}")
            try:
                found.append((case, self._time(case)))
            except EdgevitError as error:
                case.fail(error)
            progress.update(progress.done + 1)
        for case, time_us in found:
            case.row = replace(
                case.row,
                rounds_us=(*case.row.rounds_us, time_us["p50"]),
                least_us=min(case.row.least_us or math.inf, time_us["min"]),
            )

    def _time(self, case: _Case) -> dict[str, Any]:
        """Microseconds of an inference in a process of its own, as the harness sums them up."""
        assert case.artifact is not None and case.images is not None
        request = HarnessRequest(
            case.artifact.folder,
            case.images,
            threads=self.options.threads,
            warmup=self.options.warmup,
            maps_last=load_target(case.row.target).maps_last,
        )
        result = run_harness(request, self.harness, quiet=True)
        ops, runtime = result["ops"], result["runtime"]
        written = case.row.operators.total if case.row.operators else None
        case.row = replace(
            case.row,
            operators=Operators(ops["total"] or written, ops["delegated"]),
            runtime=" ".join(filter(None, (runtime["name"], runtime["version"]))),
        )
        self.machine = self.machine or {
            name: value for name, value in result["machine"].items() if name != "load_averages"
        }
        return result["latency_us"]["invoke"]

    def _running(self) -> list[_Case]:
        return [case for case in self.cases if case.error is None and case.artifact is not None]

    def _require_one(self) -> None:
        """Raises the first row's error where no row has a figure."""
        if any(case.row.size_bytes is not None for case in self.cases):
            return
        first = self.cases[0]
        assert first.error is not None
        raise type(first.error)(f"nothing could be measured; {first.row.name}: {first.error}")

    def _interrupted(self, done: int, path: Path | None) -> str:
        kept = f"{done} of {self.options.rounds} rounds are measured"
        if path is None or not done:
            return f"interrupted: {kept}"
        return f"interrupted: {kept}; the same command goes on from {path}"


def _on_record(case: _Case, program: Program) -> _Case:
    """The case with the accuracy that its program has on record, if it has one."""
    metrics = {each.name: each for each in program.info.metrics}
    whole = case.row.precision == "int8"
    metric = metrics.get("program_top1" if whole else "float_top1")
    if metric is not None:
        agreement = metrics.get("program_float_agreement") if whole else None
        as_float = None if agreement is None else 100 * agreement.value
        found = Accuracy(100 * metric.value, metric.count, as_float, False)
        case.row = replace(case.row, accuracy=found)
    return case


def _is_folder_name(name: str) -> bool:
    return (
        not name.startswith(".")
        and not {"/", "\0", "\n"} & set(name)
        and len(os.fsencode(name)) <= _MAX_NAME_BYTES
    )
