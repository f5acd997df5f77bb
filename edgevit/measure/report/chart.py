"""Small line charts over time as inline SVG: no script, no library, nothing fetched."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 720, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 28, 10, 30
_MAX_DOTS = 60
# Okabe and Ito's colours, which people who see few colours tell apart; dashes tell the rest.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MAX_SERIES = len(_COLOURS)


@dataclass(frozen=True)
class Series:
    """A line: (seconds, value) in order of time; None is a gap."""

    name: str
    points: list[tuple[float, float | None]]


def chart(
    title: str, unit: str, series: Sequence[Series], duration_s: float, from_zero: bool = False
) -> str:
    """A figure with up to MAX_SERIES lines from 0 to `duration_s`, values in `unit`.

    Empty where no series has a value.
    """
    values = [v for each in series for _, v in each.points if v is not None]
    if not values:
        return ""
    ticks = _ticks(0.0 if from_zero else min(values), max(values))
    low, high = ticks[0], ticks[-1]
    wide, high_px = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM

    def x(time_s: float) -> float:
        return _LEFT + wide * time_s / (duration_s or 1.0)

    def y(value: float) -> float:
        return _TOP + high_px * (high - value) / (high - low)

    drawn = []
    for tick in ticks:
        drawn.append(
            f'<path d="M{_LEFT} {y(tick):.1f}H{WIDTH - _RIGHT}" stroke="#ddd"/>'
            f'<text x="{_LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>'
        )
    for tick in _ticks(0.0, duration_s):
        if tick <= duration_s:
            drawn.append(
                f'<text x="{x(tick):.1f}" y="{HEIGHT - 12}" text-anchor="middle">{tick:g} s</text>'
            )
    legend = []
    for i, (each, colour) in enumerate(zip(series, _COLOURS)):
        dashes = f' stroke-dasharray="{6 - i // 2} {2 + i // 2}"' if i % 2 else ""
        drawn.append(_line(each, unit, colour, dashes, x, y))
        legend.append(
            f'<svg width="28" height="10"><path d="M0 5H28" stroke="{colour}" stroke-width="2"'
            f"{dashes}/></svg> {escape(each.name)}"
        )
    return (
        f'<figure><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" font-size="12">'
        f"<title>{escape(title)} over time, {escape(unit)}</title>{''.join(drawn)}</svg>"
        f"<figcaption>{escape(title)}, {escape(unit)}: {' &emsp; '.join(legend)}</figcaption>"
        "</figure>"
    )


def _line(
    series: Series, unit: str, colour: str, dashes: str, x: Callable[[float], float],
    y: Callable[[float], float],
) -> str:  # fmt: skip
    path, pen = [], "M"
    for time_s, value in series.points:
        if value is None:
            pen = "M"
            continue
        path.append(f"{pen}{x(time_s):.1f} {y(value):.1f}")
        pen = "L"
    drawn = f'<path d="{"".join(path)}" fill="none" stroke="{colour}" stroke-width="2"{dashes}/>'
    if len(series.points) <= _MAX_DOTS:
        drawn += "".join(
            f'<circle cx="{x(t):.1f}" cy="{y(v):.1f}" r="3" fill="{colour}">'
            f"<title>{escape(series.name)}: {v:.4g} {escape(unit)} at {t:.4g} s</title></circle>"
            for t, v in series.points
            if v is not None
        )
    return drawn


def _ticks(low: float, high: float) -> list[float]:
    """Two to seven round numbers around a range, in steps of 1, 2 or 5 times a power of ten."""
    span = high - low or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / 4))
    step = next(f * power for f in (1, 2, 5, 10) if f * power >= span / 5)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(i * step, 12) for i in range(first, max(last, first + 1) + 1)]
