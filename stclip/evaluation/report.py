"""A report as one HTML file that needs no network, no script and no other file to be shown.

The page is ``report.html.jinja``. Everything that is put into it is given as plain data, and every
text is escaped.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from PIL import Image

from stclip.evaluation.charts import Curve, line_chart

_PAGE = Path(__file__).with_name("report.html.jinja")
_PALETTE = 96  # colours of an animation: drawn scenes have few


@dataclass(frozen=True)
class BarRow:
    """A row of a table of percentages.

    Attributes:
        name: the first cell.
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
        note: below the table.
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
        note: a remark.
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
        film: of a video that was gone through from the pixels to events.
        film_page: address of the page of that video.
        film_note: what was done.
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
    film: BarTable | None = None
    film_page: str = ""
    film_note: str = ""
    curves: Sequence[Curve] = ()
    classes: BarTable | None = None
    facts: Sequence[tuple[str, str]] = ()
    terms: Sequence[tuple[str, str]] = ()


def render_report(report: Report) -> str:
    """The page; to be written in UTF-8."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.from_string(_PAGE.read_text(encoding="utf-8"))
    text = page.render(
        report=report, animation=animation_data, picture=picture_data, chart=line_chart
    )
    return text.lstrip() + "\n"


def animation_data(frames: Sequence[Image.Image], milliseconds: int) -> str:
    """Frames of one size as an endless GIF in a data URL."""
    # One palette for all frames, without dithering, so that what does not move stays equal.
    sheet = Image.new("RGB", (frames[0].width, frames[0].height * len(frames)))
    for index, frame in enumerate(frames):
        sheet.paste(frame, (0, index * frame.height))
    palette = sheet.quantize(_PALETTE, dither=Image.Dither.NONE)
    first, *others = [f.quantize(palette=palette, dither=Image.Dither.NONE) for f in frames]
    buffer = io.BytesIO()
    first.save(buffer, "GIF", save_all=True, append_images=others, duration=milliseconds, loop=0)
    return _data_url("image/gif", buffer)


def picture_data(picture: Image.Image) -> str:
    """One picture as a PNG in a data URL."""
    buffer = io.BytesIO()
    picture.quantize(_PALETTE, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    return _data_url("image/png", buffer)


def _data_url(kind: str, buffer: io.BytesIO) -> str:
    return f"data:{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
