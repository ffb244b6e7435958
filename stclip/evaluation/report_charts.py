"""Line charts as inline SVG."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 460, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 10, 38  # margins that hold the numbers


@dataclass(frozen=True)
class Curve:
    """A quantity by iteration.

    Attributes:
        title: what it is.
        x: ascending iterations.
        y: the values, as many; not finite where there is none.
        top: the end of the scale; the highest value decides without it. It starts at 0.
    """

    title: str
    x: Sequence[float]
    y: Sequence[float]
    top: float | None = None


def line_chart(curve: Curve) -> str:
    """The values as a faint line and their running mean as a strong one."""
    points = [(x, y) for x, y in zip(curve.x, curve.y, strict=True) if math.isfinite(y)]
    if not points:
        return "<p>No values were recorded.</p>"
    last_x = max(points[-1][0], 1.0)
    smooth = running_mean([y for _, y in points])
    # The first values of a loss may tower above all others: the scale follows the mean.
    top = curve.top or nice_ceiling(max(smooth))

    def place(x: float, y: float) -> str:
        across = _LEFT + (WIDTH - _LEFT - _RIGHT) * x / last_x
        up = (HEIGHT - _TOP - _BOTTOM) * min(max(y, 0.0), top) / top
        return f"{across:.1f},{HEIGHT - _BOTTOM - up:.1f}"

    parts = []
    for share in (0, 0.25, 0.5, 0.75, 1):
        y = HEIGHT - _BOTTOM - share * (HEIGHT - _TOP - _BOTTOM)
        parts.append(f"<path class=grid d='M{_LEFT},{y:.1f}H{WIDTH - _RIGHT}'/>")
        parts.append(f"<text x={_LEFT - 6} y={y + 4:.1f} text-anchor=end>{share * top:.3g}</text>")
    for share, anchor in ((0, "start"), (0.5, "middle"), (1, "end")):
        x = _LEFT + share * (WIDTH - _LEFT - _RIGHT)
        word = "iteration " if share == 0.5 else ""
        parts.append(
            f"<text x={x:.1f} y={HEIGHT - _BOTTOM + 20} text-anchor={anchor}>"
            f"{word}{share * last_x:.0f}</text>"
        )
    raw = " ".join(place(x, y) for x, y in points)
    strong = " ".join(place(x, y) for (x, _), y in zip(points, smooth, strict=True))
    parts.append(f"<polyline class=raw points='{raw}'/><polyline class=smooth points='{strong}'/>")
    label = html.escape(
        f"{curve.title}: {smooth[0]:.3g} at first, {smooth[-1]:.3g} at iteration {last_x:.0f}",
        quote=True,
    )
    box = f"0 0 {WIDTH} {HEIGHT}"
    return f"<svg viewBox='{box}' role=img aria-label='{label}'>{''.join(parts)}</svg>"


def running_mean(values: Sequence[float]) -> list[float]:
    """For each value the mean over its neighbours, a fifteenth of them to either side."""
    reach = len(values) // 15
    means = []
    for index in range(len(values)):
        part = values[max(0, index - reach) : index + reach + 1]
        means.append(sum(part) / len(part))
    return means


def nice_ceiling(value: float) -> float:
    """The next of 1, 2, 4, 5, 10 times a power of ten that is not below ``value``."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 4, 5, 10) if step * power >= value * (1 - 1e-9))
