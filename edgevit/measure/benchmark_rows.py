"""What a benchmark found: one row an artifact, as JSON, as a table's cells, as a plot."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from edgevit.errors import InputError
from edgevit.files import atomic_path, read_file
from edgevit.limits import MAX_RESULT_BYTES
from edgevit.options import size_text
from edgevit.schema import Rule, parse_json, read_json, to_json

SCHEMA_VERSION = 1
KIND = "edgevit-benchmark"

Count = Annotated[int, Rule(minimum=0)]
Positive = Annotated[float, Rule(above=0)]
Percent = Annotated[float, Rule(minimum=0, maximum=100)]


@dataclass(frozen=True)
class Operators:
    """Operators in the file, and how many of them a delegate runs; null: not known."""

    total: Count | None
    delegated: Count | None


@dataclass(frozen=True)
class Ratio:
    """The time over the first timed row's: of the rounds' ratios the median, least and most."""

    median: Positive
    min: Positive
    max: Positive


@dataclass(frozen=True)
class Accuracy:
    """Top-1 of labelled images, and predictions that are the float net's.

    measured   true: by the harness, of the artifact; false: on record in the program, of the float
               net where the row is a float artifact, else of the program
    """

    top1_percent: Percent
    images: Count
    float_agreement_percent: Percent | None
    measured: bool


@dataclass(frozen=True)
class Row:
    """One artifact.

    weights     "program": those of a quantized program; "timing": trained ones with ranges for
                timing only; "random": seeded ones with such ranges
    image_size  the input's side in pixels, or height and width
    sha256      of the artifact
    parameters, macs  of the net as it is compiled, for one image
    compile_s   the shorter of two compilations, of one where that takes over 5 s; null for an
                artifact that was there
    rounds_us   median inference of each round
    p50_us      the median of those
    least_us    shortest inference of all rounds: what a busy machine disturbs least
    problem     why a figure is missing
    """

    net: str
    target: str
    precision: str
    weights: Literal["program", "timing", "random"]
    image_size: int | tuple[int, int] | None = None
    sha256: str | None = None
    parameters: Count | None = None
    macs: Count | None = None
    size_bytes: Count | None = None
    compile_s: Positive | None = None
    operators: Operators | None = None
    runtime: str | None = None
    rounds_us: tuple[Positive, ...] = ()
    p50_us: Positive | None = None
    least_us: Positive | None = None
    ratio: Ratio | None = None
    accuracy: Accuracy | None = None
    problem: str | None = None

    @property
    def name(self) -> str:
        """For people: net, target and precision."""
        return f"{self.net}, {self.target} {self.precision}"


@dataclass(frozen=True)
class Benchmark:
    """Nets, targets and precisions, measured in turn on one machine.

    command     as it was typed; null from Python
    started_at  UTC
    settings    the options
    machine     as the harness describes it, with the load averages at the start
    tools       package -> version
    complete    false: interrupted; the same command with the same file goes on
    """

    schema_version: Annotated[int, Rule(minimum=1, maximum=1)]
    kind: Literal["edgevit-benchmark"]
    command: str | None
    started_at: str
    settings: Mapping[str, str]
    machine: Mapping[str, Any]
    tools: Mapping[str, str]
    complete: bool
    rows: tuple[Row, ...]

    def row(self, net: str, target: str = "tflite", precision: str = "int8") -> Row:
        """The row of a net. Raises InputError where there is none."""
        for each in self.rows:
            if (each.net, each.target, each.precision) == (net, target, precision):
                return each
        raise InputError(f"the benchmark has no row {net}, {target} {precision}")

    def to_json(self) -> dict[str, Any]:
        """The document of schemas/benchmark.schema.json."""
        return to_json(self)

    def save(self, path: str | os.PathLike[str], force: bool = False) -> None:
        """Write the JSON. Raises InputError when `path` exists, without `force`."""
        with atomic_path(path, force) as temporary:
            text = json.dumps(self.to_json(), indent=2, allow_nan=False)
            temporary.write_text(text + "\n", "utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Benchmark:
        """Reads what `save` wrote. Raises InputError for anything else."""
        value = parse_json(read_file(path, MAX_RESULT_BYTES, "a benchmark"), str(path))
        return read_json(cls, value, str(path))

    def plot(self, path: str | os.PathLike[str], force: bool = False) -> None:
        """Write an SVG: latency against size and, where it is known, against accuracy.

        Raises ToolMissing without matplotlib, InputError when `path` exists, without `force`.
        """
        from edgevit.measure.benchmark_plot import write_plot

        write_plot(self, Path(path), force)


def with_figures(rows: Sequence[Row]) -> tuple[Row, ...]:
    """The rows with `p50_us` and `ratio` of their rounds; the first row that has any is 1."""
    first = next((row.rounds_us for row in rows if row.rounds_us), ())
    return tuple(_with_figures(row, first) for row in rows)


def _with_figures(row: Row, first: Sequence[float]) -> Row:
    if not row.rounds_us:
        return row
    each = [own / other for own, other in zip(row.rounds_us, first)]
    found = statistics.median(each), min(each), max(each)
    ratio = Ratio(*(round(value, 4) for value in found))
    return replace(row, p50_us=round(statistics.median(row.rounds_us), 2), ratio=ratio)


HEADINGS = (
    "net", "target", "precision", "px", "M params", "MMACs", "MB", "p50 µs", "least µs",
    "× first", "min – max", "ops, delegate + rest", "compile s", "top-1 %", "as float %",
)  # fmt: skip
MARKS: Mapping[str, str] = {"program": "", "timing": " †", "random": " *"}
NOTES: Mapping[str, str] = {
    "timing": "† trained weights with ranges of a few images: for timing, nobody's accuracy",
    "random": "* random weights: for timing alone",
}


def cells(row: Row) -> list[str]:
    """The row under HEADINGS; empty where a figure is not known."""
    ratio, found = row.ratio, row.accuracy
    return [
        row.net + MARKS[row.weights],
        row.target,
        row.precision,
        "" if row.image_size is None else size_text(row.image_size),
        _number(row.parameters, 2, 1e-6),
        _number(row.macs, 1, 1e-6),
        _number(row.size_bytes, 2, 1e-6),
        _number(row.p50_us, 0),
        _number(row.least_us, 0),
        "" if ratio is None else f"{ratio.median:.3f}",
        "" if ratio is None else f"{ratio.min:.3f} – {ratio.max:.3f}",
        _operators(row.operators),
        _number(row.compile_s, 2),
        "" if found is None else f"{found.top1_percent:.2f}{'' if found.measured else ' ‡'}",
        "" if found is None else _number(found.float_agreement_percent, 2),
    ]


def notes(rows: Sequence[Row]) -> list[str]:
    """Sentences below a table: what its marks mean, and why figures are missing."""
    used = {row.weights for row in rows}
    lines = [text for weights, text in NOTES.items() if weights in used]
    if any(row.accuracy is not None and not row.accuracy.measured for row in rows):
        lines.append("‡ on record in the program, of its own images")
    return lines + [f"{row.name}: {row.problem}" for row in rows if row.problem]


def _operators(found: Operators | None) -> str:
    if found is None or found.total is None:
        return ""
    if found.delegated is None:
        return str(found.total)
    return f"{found.delegated} + {found.total - found.delegated}"


def _number(value: float | None, digits: int, factor: float = 1.0) -> str:
    return "" if value is None else f"{value * factor:.{digits}f}"
