"""A long run as a person reads it: sentences, and the part of report.html that shows it over time.

`run` is everywhere `long_run` of a harness result (schemas/result.schema.json).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from edgevit.measure.report.chart import MAX_SERIES, Series, chart

MAX_ROWS = 240
"""Rows and points shown; a run with more buckets has neighbours put together."""


@dataclass(frozen=True)
class Row:
    """One bucket, or neighbours put together: the highest latency, the last reading of sensors."""

    start_s: float
    end_s: float
    count: int
    p50_us: float
    p90_us: float
    sensors: dict[str, list[float | None]]


def rows_of(run: dict[str, Any]) -> list[Row]:
    """The buckets of a run, MAX_ROWS at most."""
    buckets = run["buckets"]
    together = -(-len(buckets) // MAX_ROWS)
    rows = []
    for i in range(0, len(buckets), together):
        group = buckets[i : i + together]
        rows.append(
            Row(
                group[0]["start_s"],
                min(group[-1]["start_s"] + run["bucket_s"], run["duration_s"]),
                sum(b["invoke_us"]["count"] for b in group),
                max(b["invoke_us"]["p50"] for b in group),
                max(b["invoke_us"]["p90"] for b in group),
                group[-1]["sensors"],
            )
        )
    return rows


def sentences(run: dict[str, Any]) -> list[str]:
    """What a long run found, in lines for the terminal."""
    lines = [_extent(run)]
    if run["p50_ratio"] is not None:
        lines.append(
            f"last {run['window_s']:.0f} s against the first: invoke p50 × {run['p50_ratio']:.2f}"
        )
    seen = [
        (celsius, zone)
        for reading in _readings(run)
        for zone, celsius in zip(run["zones"], reading["temperatures_c"])
        if celsius is not None
    ]
    if seen:
        lines.append(f"hottest: {max(seen)[1]} at {max(seen)[0]:.0f} °C")
    return lines


def section(run: dict[str, Any], invoke_us: dict[str, float]) -> str:
    """The run as HTML.

    invoke_us   summary of all its inferences (`latency_us.invoke` of the result)
    """
    parts = [f"<h3>Latency over time</h3><p>{escape(_extent(run))}</p>"]
    if run["mode"] == "mlperf":
        parts.append(
            f"<p>MLPerf-like, single-stream: invoke P90 <b>{invoke_us['p90'] / 1e3:.3f} ms</b> "
            f"over {run['samples']} inferences in {run['duration_s']:.0f} s (at least "
            f"{run['min_samples']} and {run['min_duration_s']:.0f} s are asked for). Not a result "
            "of MLPerf: no LoadGen, and images are decoded between inferences.</p>"
        )
    rows = rows_of(run)
    parts += [_windows(run), _latency_chart(run, rows)]
    for kind, title, unit, names, factor in (
        ("temperatures_c", "temperature", "°C", run["zones"], 1.0),
        ("frequencies_khz", "clock", "MHz", run["clocks"], 1e-3),
    ):
        if names:
            parts.append(_sensors(run, rows, kind, title, unit, names, factor))
    parts.append(_table(run, rows))
    return "".join(parts)


def _extent(run: dict[str, Any]) -> str:
    return (
        f"{run['samples']} inferences in {run['duration_s']:.0f} s, "
        f"{run['invoke_share_percent']:.0f} % of it in the runtime's call"
    )


def _readings(run: dict[str, Any]) -> list[dict[str, list[float | None]]]:
    return [run["sensors_at_start"], *(bucket["sensors"] for bucket in run["buckets"])]


def _windows(run: dict[str, Any]) -> str:
    """The first minute against the last; of a short run, its halves."""
    window = "minute" if run["window_s"] == 60 else f"{run['window_s']:.3g} s"
    body = ""
    for name in ("first", "last"):
        found = run[f"{name}_invoke_us"]
        body += f"<tr><td>{name} {window}"
        if found is None:
            body += '<td colspan="4">no inference ended in it'
        else:
            cells = [f"{found[key] / 1e3:.3f}" for key in ("p50", "p90", "p99")]
            body += "".join(f'<td class="n">{c}' for c in [*cells, f"{found['count']:d}"])
    if run["p50_ratio"] is not None:
        body += f'<tr><td>last / first<td class="n">× {run["p50_ratio"]:.3f}<td colspan="3">'
    heads = "".join(f"<th>{h}" for h in ("invoke, ms", "p50", "p90", "p99", "inferences"))
    return f"<table><tr>{heads}{body}</table>"


def _latency_chart(run: dict[str, Any], rows: Sequence[Row]) -> str:
    # A run ends in the middle of a bucket: percentiles of the few inferences in it mean little.
    whole = [row for row in rows if row.end_s - row.start_s >= run["bucket_s"] / 2] or rows
    middle = [(row.start_s + row.end_s) / 2 for row in whole]
    lines = [
        Series("p50", [(t, row.p50_us / 1e3) for t, row in zip(middle, whole)]),
        Series("p90", [(t, row.p90_us / 1e3) for t, row in zip(middle, whole)]),
    ]
    return chart("invoke", "ms", lines, run["duration_s"], from_zero=True)


def _sensors(
    run: dict[str, Any], rows: Sequence[Row], kind: str, title: str, unit: str,
    names: Sequence[str], factor: float,
) -> str:  # fmt: skip
    """The chart of one kind of sensor and the range of each; the extremes are of all readings."""
    times = [0.0, *(row.end_s for row in rows)]
    shown = [run["sensors_at_start"], *(row.sensors for row in rows)]
    lines, body = [], ""
    for i, name in enumerate(names):
        values = [reading[kind][i] for reading in shown]
        lines.append(
            Series(name, [(t, None if v is None else v * factor) for t, v in zip(times, values)])
        )
        known = [v for r in _readings(run) if (v := r[kind][i]) is not None]
        cells = [values[0], min(known, default=None), max(known, default=None), values[-1]]
        body += f"<tr><td>{escape(name)}" + "".join(
            f'<td class="n">{"" if v is None else format(v * factor, ".1f")}' for v in cells
        )
    lines.sort(key=lambda line: -max((v for _, v in line.points if v is not None), default=0.0))
    drawn = chart(title, unit, lines[:MAX_SERIES], run["duration_s"])
    left_out = f"<p>The chart has the {MAX_SERIES} highest of {len(lines)}.</p>"
    heads = "".join(f"<th>{h}" for h in (f"{title}, {unit}", "at start", "least", "most", "at end"))
    return (
        drawn + (left_out if len(lines) > MAX_SERIES else "") + f"<details><summary>{title}, each "
        f"sensor</summary><table><tr>{heads}{body}</table></details>"
    )


def _table(run: dict[str, Any], rows: Sequence[Row]) -> str:
    body = "".join(
        f'<tr><td class="n">{row.start_s:g}<td class="n">{row.count}'
        f'<td class="n">{row.p50_us / 1e3:.3f}<td class="n">{row.p90_us / 1e3:.3f}'
        for row in rows
    )
    together = -(-len(run["buckets"]) // MAX_ROWS)
    joined = f"; {together} together, the highest of each shown" if together > 1 else ""
    heads = "<th>from s<th>inferences<th>p50 ms<th>p90 ms"
    return (
        f"<details><summary>buckets of {run['bucket_s']:g} s{joined}</summary>"
        f"<table><tr>{heads}{body}</table></details>"
    )
