"""Charts as SVG, drawn by matplotlib."""

from __future__ import annotations

import html
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # importing matplotlib takes a second, and most commands draw nothing
    from matplotlib.figure import Figure

# Stand for the colours of the page that the chart becomes part of, which has a dark form too.
_SOFT, _LINE, _MAIN = "#5b6878", "#dbe1e8", "#2563c9"
_VARIABLES = {_SOFT: "var(--soft)", _LINE: "var(--line)", _MAIN: "var(--main)"}


@dataclass(frozen=True)
class Curve:
    """A quantity by iteration.

    Attributes:
        title: what it is.
        x: ascending iterations.
        y: the values, as many; not finite where there is none.
        top: the end of the scale; the highest mean decides without it. It starts at 0.
    """

    title: str
    x: Sequence[float]
    y: Sequence[float]
    top: float | None = None


def line_chart(curve: Curve) -> str:
    """The values as a faint line and their running mean as a strong one: an element for a page.

    Its colours are the page's ``--soft``, ``--line`` and ``--main``. Empty without finite values.
    """
    from matplotlib.figure import Figure

    points = [(x, y) for x, y in zip(curve.x, curve.y, strict=True) if math.isfinite(y)]
    if not points:
        return ""
    x, y = zip(*points, strict=True)
    smooth = running_mean(y)
    figure = Figure(figsize=(4.6, 2.3), layout="constrained", facecolor="none")
    axes = figure.add_subplot(facecolor="none")
    axes.plot(x, y, color=_MAIN, alpha=0.25, linewidth=1)
    axes.plot(x, smooth, color=_MAIN, linewidth=2)
    # The first values of a loss may be far above all others: the scale follows the mean.
    axes.set_ylim(0, curve.top or 1.05 * max(smooth) or 1)
    axes.set_xlim(0, max(x[-1], 1))
    axes.set_xlabel("iteration", color=_SOFT)
    axes.tick_params(colors=_SOFT, length=0)
    axes.grid(axis="y", color=_LINE)
    axes.spines[:].set_visible(False)
    text = _svg(figure, curve.title)
    label = html.escape(
        f"{curve.title}: {smooth[0]:.3g} at first, {smooth[-1]:.3g} at iteration {x[-1]:.0f}"
    )
    box = re.search(r'viewBox="[^"]+"', text)
    assert box
    # Inside a page the names of groups would occur once for every chart.
    text = re.sub(r'<g id="[a-z0-9_.]+">', "<g>", text[text.index(">", box.end()) + 1 :])
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, variable)
    return f'<svg {box[0]} role="img" aria-label="{label}">{text}'


def running_mean(values: Sequence[float]) -> list[float]:
    """For each value the mean over its neighbours, a fifteenth of them to either side."""
    reach = len(values) // 15
    means = []
    for index in range(len(values)):
        part = values[max(0, index - reach) : index + reach + 1]
        means.append(sum(part) / len(part))
    return means


def growth_chart(curves: Sequence[Mapping[str, Any]]) -> str:
    """An SVG file of what ``stclip.benchmark.work.grow`` returns: a row for time, one for memory.

    All axes are logarithmic. The dashed lines are linear growth from the first point.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.4 * len(curves), 5), layout="constrained")
    grid = figure.subplots(2, len(curves), squeeze=False)
    for column, curve in enumerate(curves):
        x = [float(point["x"]) for point in curve["points"]]
        titles = {
            "u": f"u over {curve['name']}: slope {curve['u_slope']:+.2f}",
            "memory_mb": f"MB over {curve['name']}: {curve['memory_mb_each']:+.3f} each",
        }
        for axes, (name, title) in zip(grid[:, column], titles.items(), strict=True):
            y = [float(point[name]) for point in curve["points"]]
            axes.loglog(x, y, "o-", color=_MAIN)
            low, high = axes.get_ylim()
            low, high = min(low, y[0] / 2.1), max(high, 2.1 * y[0])  # at least two ticks
            axes.loglog(x, [y[0] * value / x[0] for value in x], "--", color=_SOFT, linewidth=1)
            axes.set_ylim(low, high)
            axes.set_title(title, fontsize="medium")
            axes.set_xlabel(curve["name"])
            axes.set_xticks(x, [f"{value:g}" for value in x])
            axes.minorticks_off()
            axes.yaxis.set_major_locator(_ticks(low, high))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.grid(axis="y", color=_LINE)
    return _svg(figure, "growth")


def _ticks(low: float, high: float) -> Any:
    """1, 2, 5 times powers of ten; only the powers over long ranges."""
    from matplotlib.ticker import LogLocator

    return LogLocator(subs=(1, 2, 5) if high / low < 300 else (1,), numticks=20)


def _svg(figure: Figure, salt: str) -> str:
    """The figure as an SVG file, the same whenever it is drawn.

    Args:
        figure: not one of pyplot's, which keeps them all.
        salt: makes the names of its parts differ from those of other figures.
    """
    from matplotlib import rc_context

    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": salt}):  # texts stay texts
        figure.savefig(buffer, format="svg", metadata=nothing)
    return buffer.getvalue()
