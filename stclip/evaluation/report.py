"""A report as one HTML file that needs nothing else: no network, no script, no other file.

Everything that is put into the page is given as plain data, and every text is escaped.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, field

from PIL import Image

from stclip.evaluation.report_charts import Curve, line_chart
from stclip.evaluation.report_pictures import animation_data, picture_data
from stclip.evaluation.report_style import STYLE


@dataclass(frozen=True)
class BarRow:
    """A row of a table of percentages.

    Attributes:
        name: what stands on the left.
        values: a number of percent for each column, None where there is none.
        strong: whether the row is what the page is about.
    """

    name: str
    values: Sequence[float | None]
    strong: bool = False


@dataclass(frozen=True)
class BarTable:
    """Percentages as numbers and bars.

    Attributes:
        corner: heads the names of the rows.
        columns: heads of the others.
        rows: as many values in each as columns.
        note: stands beneath.
        strong_column: the column that the page is about, if it is one.
    """

    corner: str
    columns: Sequence[str]
    rows: Sequence[BarRow]
    note: str = ""
    strong_column: str = ""


@dataclass(frozen=True)
class PersonVerdict:
    """What the model says about one person of a clip.

    Attributes:
        tag: the letter at the person's box.
        truth: what the person does.
        guesses: the names with the highest scores, and these in [0, 1], best first; empty for a
            person whose action is not in the vocabulary, or whom no box covers.
        right: whether the first guess is the truth; None without guesses.
        note: anything else worth saying.
    """

    tag: str
    truth: str
    guesses: Sequence[tuple[str, float]]
    right: bool | None
    note: str = ""


@dataclass(frozen=True)
class ClipView:
    """A test clip: its frames with the boxes drawn in, and the persons in them."""

    title: str
    frames: Sequence[Image.Image]
    persons: Sequence[PersonVerdict]
    milliseconds: int = 90


@dataclass(frozen=True)
class Report:
    """A whole page.

    Attributes:
        title: its heading.
        lead: one plain sentence that says what it shows.
        methods: the main table.
        clips: some test clips.
        clips_note: how they were chosen.
        curves: of the training, each with its own chart.
        classes: the average precision of each class by method.
        facts: how it was made, as (name, text).
        terms: words that a newcomer may not know, as (word, explanation).
    """

    title: str
    lead: str
    methods: BarTable
    clips: Sequence[ClipView] = ()
    clips_note: str = ""
    curves: Sequence[Curve] = ()
    classes: BarTable | None = None
    facts: Sequence[tuple[str, str]] = ()
    terms: Sequence[tuple[str, str]] = field(default=())


def render_report(report: Report) -> str:
    """The page; to be written in UTF-8."""
    parts = [
        f"<header><h1>{_text(report.title)}</h1><p class=lead>{_text(report.lead)}</p></header>",
        _section("Result", _bar_table(report.methods)),
    ]
    if report.clips:
        views = "".join(map(_clip, report.clips))
        body = f"<p>{_text(report.clips_note)}</p>{_LEGEND}<div class=clips>{views}</div>"
        parts.append(_section("What the model says", body))
    if report.classes is not None:
        parts.append(_section("Class by class", _bar_table(report.classes)))
    if report.curves:
        charts = "".join(
            f"<figure><figcaption>{_text(curve.title)}</figcaption>{line_chart(curve)}</figure>"
            for curve in report.curves
        )
        parts.append(_section("Training", f"<div class=charts>{charts}</div>"))
    if report.terms:
        parts.append(_section("Words", _definitions(report.terms)))
    if report.facts:
        parts.append(_section("How this was made", _definitions(report.facts, code=True)))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{_text(report.title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(parts)
        + "\n</main>\n</body>\n</html>\n"
    )


_LEGEND = (
    '<p class=legend><span class="tag right">A</span> named rightly '
    '<span class="tag wrong">B</span> named wrongly '
    '<span class="tag other">C</span> somebody whose action is not among the names to choose from; '
    "naming them counts against the model</p>"
)


def _text(text: str) -> str:
    return html.escape(text, quote=True)


def _section(title: str, body: str) -> str:
    return f"<section><h2>{_text(title)}</h2>{body}</section>"


def _bar_table(table: BarTable) -> str:
    heads = "".join(f"<th scope=col>{_text(name)}</th>" for name in table.columns)
    rows = []
    for row in table.rows:
        cells = "".join(
            _bar_cell(value, column == table.strong_column)
            for value, column in zip(row.values, table.columns, strict=True)
        )
        kind = " class=strong" if row.strong else ""
        rows.append(f"<tr{kind}><th scope=row>{_text(row.name)}</th>{cells}</tr>")
    note = f"<p class=note>{_text(table.note)}</p>" if table.note else ""
    width = 7 + 5 * len(table.columns)  # all columns are equally wide, so that bars compare
    return (
        f"<div class=scroll tabindex=0><table style='min-width:{width}rem'><thead><tr>"
        f"<th scope=col>{_text(table.corner)}</th>{heads}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>{note}"
    )


def _bar_cell(value: float | None, strong: bool) -> str:
    if value is None:
        return "<td class=none>–</td>"
    width = min(max(value, 0.0), 100.0)
    kind = " class=strong" if strong else ""
    return f"<td{kind}><b>{value:.1f}</b><i style='width:{width:.1f}%'></i></td>"


def _clip(clip: ClipView) -> str:
    moving = animation_data(clip.frames, clip.milliseconds)
    still = picture_data(clip.frames[len(clip.frames) // 2])
    width, height = clip.frames[0].size
    people = "; ".join(f"{p.tag}: {_spoken(p)}" for p in clip.persons)
    alt = _text(f"Animation of the test clip {clip.title} with a box around each person. {people}.")
    persons = "".join(map(_person, clip.persons))
    return (
        f"<article><picture><source media='(prefers-reduced-motion: reduce)' srcset='{still}'>"
        f"<img src='{moving}' width={width} height={height} alt='{alt}'></picture>"
        f"<h3>{_text(clip.title)}</h3><ul>{persons}</ul></article>"
    )


def _spoken(person: PersonVerdict) -> str:
    if person.right is None:
        return f"does {person.truth}"
    verdict = "rightly" if person.right else "wrongly"
    return f"does {person.truth}, {verdict} named {person.guesses[0][0]}"


def _person(person: PersonVerdict) -> str:
    kind = {True: "right", False: "wrong", None: "other"}[person.right]
    mark = {True: "✓ named rightly", False: "✗ named wrongly", None: ""}[person.right]
    bars = "".join(
        f"<div class=guess><span>{_text(name)}</span><b>{100 * score:.0f} %</b>"
        f"<i style='width:{min(max(100 * score, 0), 100):.0f}%'></i></div>"
        for name, score in person.guesses
    )
    note = (
        f"<p><em>{mark}</em> <small>{_text(person.note)}</small></p>" if mark or person.note else ""
    )
    return (
        f"<li class={kind}><p><span class='tag {kind}'>{_text(person.tag)}</span> does "
        f"<strong>{_text(person.truth)}</strong></p>{note}{bars}</li>"
    )


def _definitions(entries: Sequence[tuple[str, str]], code: bool = False) -> str:
    opening, closing = ("<code>", "</code>") if code else ("", "")
    return (
        "<dl>"
        + "".join(f"<dt>{_text(k)}</dt><dd>{opening}{_text(v)}{closing}</dd>" for k, v in entries)
        + "</dl>"
    )
