"""Growth curves as an SVG file, both axes logarithmic."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

_WIDTH, _HEIGHT = 340, 240  # of one chart
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 16, 34, 40  # margins that hold the words
_STYLE = (
    "text{font:12px sans-serif;fill:#1d2733}.grid{stroke:#dbe1e8}"
    ".line{fill:none;stroke:#2563c9;stroke-width:2}circle{fill:#2563c9}"
    ".linear{fill:none;stroke:#697687;stroke-dasharray:4 4}"
)


def growth_chart(curves: Sequence[Mapping[str, Any]]) -> str:
    """A whole SVG file of what ``cost_scale.grow`` gives: a row for time, one for memory.

    The dashed line in a chart is linear growth from its first point.
    """
    parts = []
    for row, name in enumerate(("u", "memory_mb")):
        for column, curve in enumerate(curves):
            x = [float(point["x"]) for point in curve["points"]]
            y = [float(point[name]) for point in curve["points"]]
            title = f"u over {curve['name']}: slope {curve['u_slope']:+.2f}"
            if name == "memory_mb":
                title = f"MB over {curve['name']}: {curve['memory_mb_each']:+.3f} each"
            corner = f"translate({column * _WIDTH},{row * _HEIGHT})"
            parts.append(f'<g transform="{corner}">{log_chart(title, curve["name"], x, y)}</g>')
    size = f'width="{len(curves) * _WIDTH}" height="{2 * _HEIGHT}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size}><style>{_STYLE}</style>'
        f'<rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


def log_chart(title: str, x_name: str, x: Sequence[float], y: Sequence[float]) -> str:
    """One chart: the elements inside a group.

    Args:
        title: above it.
        x_name: below it.
        x: ascending, above 0; each gets its number on the axis.
        y: above 0.
    """
    ticks = log_ticks(min(y), max(y))
    bottom, top = ticks[0], ticks[-1]

    def across(value: float) -> float:
        share = math.log(value / x[0]) / math.log(x[-1] / x[0]) if x[-1] > x[0] else 0.5
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    def down(value: float) -> float:
        share = math.log(value / bottom) / math.log(top / bottom)
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)

    parts = [f'<text x="{_LEFT}" y="20">{html.escape(title)}</text>']
    for tick in ticks:
        parts.append(
            f'<path class="grid" d="M{_LEFT},{down(tick):.1f}H{_WIDTH - _RIGHT}"/>'
            f'<text x="{_LEFT - 6}" y="{down(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>'
        )
    for value in x:
        parts.append(
            f'<text x="{across(value):.1f}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="middle">'
            f"{value:g}</text>"
        )
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(
        f'<text x="{middle:.1f}" y="{_HEIGHT - 8}" text-anchor="middle">'
        f"{html.escape(x_name)}</text>"
    )
    end = min(x[-1], x[0] * top / y[0])  # where linear growth leaves the chart
    parts.append(
        f'<path class="linear" d="M{across(x[0]):.1f},{down(y[0]):.1f}'
        f'L{across(end):.1f},{down(y[0] * end / x[0]):.1f}"/>'
    )
    places = [(across(a), down(b)) for a, b in zip(x, y, strict=True)]
    line = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
    parts.append(f'<polyline class="line" points="{line}"/>')
    parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3.5"/>' for a, b in places]
    return "".join(parts)


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2, 5 times powers of ten (only the powers over long ranges) that enclose both values."""
    assert 0 < low <= high, f"{low} to {high}"
    steps = (1, 2, 5) if high / low < 300 else (1,)
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
    ticks = [step * 10.0**power for power in powers for step in steps]
    below = max(tick for tick in ticks if tick <= low * (1 + 1e-9))
    above = min(tick for tick in ticks if tick >= high * (1 - 1e-9) and tick > below)
    return [tick for tick in ticks if below <= tick <= above]
