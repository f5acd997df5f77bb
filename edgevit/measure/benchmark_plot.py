"""A benchmark as a picture: latency against size and, where it is known, against accuracy."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edgevit.console import printable
from edgevit.errors import InputError, ToolMissing
from edgevit.files import atomic_path
from edgevit.measure.benchmark_rows import Benchmark, Row

# Okabe and Ito's colours, which people who see few colours tell apart; shapes tell the rest.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_SHAPES = "osD^vPX"
_STYLE = {"svg.hashsalt": "edgevit", "svg.fonttype": "none", "font.size": 9.0}
"""The same figures are the same bytes, and text stays text."""


def require_matplotlib() -> None:
    """Raises ToolMissing where it is not installed: ask before work that takes long."""
    _matplotlib("matplotlib.figure")


def write_plot(found: Benchmark, path: Path, force: bool) -> None:
    """Write an SVG; see `Benchmark.plot`."""
    matplotlib, figure_module = _matplotlib("matplotlib"), _matplotlib("matplotlib.figure")
    timed = [row for row in found.rows if row.p50_us is not None]
    if not timed:
        raise InputError("no row has a time, so that there is nothing to draw")
    panels: list[tuple[str, Callable[[Row], float | None]]] = [
        ("size, MB", lambda row: (row.size_bytes or 0) / 1e6)
    ]
    if any(row.accuracy for row in timed):
        panels.append(("top-1, %", lambda row: row.accuracy and row.accuracy.top1_percent))
    with matplotlib.rc_context(_STYLE):
        figure = figure_module.Figure(figsize=(6.5 * len(panels), 5), layout="constrained")
        for place, (label, value) in enumerate(panels):
            _panel(figure.add_subplot(1, len(panels), place + 1), timed, label, value)
        figure.suptitle(printable(str(found.machine.get("cpu", "")), keep=""), parse_math=False)
        with atomic_path(path, force) as temporary:
            figure.savefig(temporary, format="svg", metadata={"Date": None})


def _panel(
    axes: Any, rows: Sequence[Row], label: str, value: Callable[[Row], float | None]
) -> None:
    kinds = list(dict.fromkeys((row.target, row.precision) for row in rows))
    for place, kind in enumerate(kinds):
        points = [
            (row.p50_us / 1e3, y, row.net)
            for row in rows
            if (row.target, row.precision) == kind
            and row.p50_us is not None
            and (y := value(row)) is not None
        ]
        if not points:
            continue
        axes.scatter(
            [x for x, _, _ in points],
            [y for _, y, _ in points],
            color=_COLOURS[place % len(_COLOURS)],
            marker=_SHAPES[place % len(_SHAPES)],
            label=" ".join(kind),
        )
        for x, y, net in points:
            text = printable(net, keep="")
            axes.annotate(
                text, (x, y), (4, 4), textcoords="offset points", fontsize=7, parse_math=False
            )
    axes.set_xlabel("median inference, ms")
    axes.set_ylabel(label)
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    axes.legend()


def _matplotlib(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ToolMissing(
            f"a plot needs matplotlib, which cannot be imported ({error}); install it with "
            "pip install 'edgevit[plot]'"
        ) from error
