"""Frames with scored persons: their boxes with names and scores, and what they attend to.

Shape letters: R vision layers, n persons of a keyframe, K interest tokens, L patches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

# Of the persons, in turn; far apart for most eyes (Okabe and Ito's, without yellow and black).
PERSON_COLOURS = (
    (213, 94, 0), (0, 114, 178), (0, 158, 115), (204, 121, 167), (230, 159, 0), (86, 180, 233),
)  # fmt: skip
TOKEN_COLOUR = (255, 40, 140)
# Opacity of the most and the least attended token, of 255.
STRONGEST, WEAKEST = 215, 50

# Of boxes by verdict: right, wrong, not judged. The report's page has nearly the same.
VERDICT_COLOURS = {True: (10, 125, 82), False: (194, 65, 12), None: (105, 118, 135)}

_INK, _SOFT, _PAPER = (29, 39, 51), (91, 104, 120), (255, 255, 255)
_CROP_COLOUR = (255, 255, 255)
_TEXT = 15
_GAP = 8

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class ScoredPerson:
    """A person as it is drawn.

    Attributes:
        box: x1, y1, x2, y2 in pixels of the frame.
        det_score: the person detector's score; 1 for annotated boxes.
        names: (class name, class score) of the best classes, the best first; at least one.
    """

    box: Sequence[float]
    det_score: float
    names: Sequence[tuple[str, float]]


def draw_detections(
    picture: Image.Image, persons: Sequence[ScoredPerson], title: str, width: int = 640
) -> Image.Image:
    """A frame with every person's box and best class, and next to it a list of the best classes.

    Args:
        picture: the frame.
        persons: numbered from 1 in this order.
        title: one line above it.
        width: of the frame in the result; its height follows.
    """
    font = ImageFont.load_default(_TEXT)
    frame = _resized(picture, width)
    draw = ImageDraw.Draw(frame)
    scale = _scale(picture, frame)
    for number, person in enumerate(persons, start=1):
        _box(draw, person.box, scale, _colour(number), width=3)
    for number, person in enumerate(persons, start=1):  # above all boxes, to stay readable
        name, score = person.names[0]
        _tag(draw, person.box, scale, f"{number}  {name} {score:.2f}", _colour(number), frame.size)
    lists = [_person_text(number, person) for number, person in enumerate(persons, start=1)]
    panel = _panel_width(lists, font)
    line = _line_height(font)
    height = max(frame.height, sum((len(lines) + 1) * line for lines in lists))
    sheet = Image.new("RGB", (frame.width + panel, line + _GAP + height), _PAPER)
    sheet.paste(frame, (0, line + _GAP))
    text = ImageDraw.Draw(sheet)
    text.text((_GAP, _GAP / 2), title, _INK, font)
    y = line + _GAP
    for number, lines in enumerate(lists, start=1):
        _lines(text, (frame.width + _GAP, y), lines, _colour(number), font)
        y += (len(lines) + 1) * line
    return sheet


def draw_interest_tokens(
    picture: Image.Image,
    persons: Sequence[ScoredPerson],
    tokens: NDArray[np.integer],
    patches: NDArray[np.floating],
    title: str,
    *,
    layers: Sequence[int],
    width: int = 240,
) -> Image.Image:
    """A grid of what each person attends to: a row for each person, a column for each layer.

    In a cell the interest tokens are squares over the frame, the more opaque the more attended; the
    thin line is the centre of the frame that the model sees. The class token has no place in
    the frame: the line under the cell has its rank.

    Args:
        picture: the frame.
        persons: n of them.
        tokens: (R, n, K), most attended first: 0 is the class token, 1 + l is patch l.
        patches: (L, 4), xyxy of the patches in pixels of the frame.
        title: one line above it.
        layers: which layers to show, from 1.
        width: of a cell; its height follows.
    """
    assert tokens.shape[1] == len(persons), f"{tokens.shape}, {len(persons)} persons"
    font = ImageFont.load_default(_TEXT)
    frame = _resized(picture, width)
    scale = _scale(picture, frame)
    line = _line_height(font)
    lists = [_person_text(number, person) for number, person in enumerate(persons, start=1)]
    panel = _panel_width(lists, font)
    step_x = frame.width + _GAP
    step_y = max(frame.height + line, max(map(len, lists)) * line) + _GAP
    top = 2 * (line + _GAP)
    size = (panel + step_x * len(layers), top + step_y * len(persons))
    sheet = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP, _GAP / 2), title, _INK, font)
    for column, layer in enumerate(layers):
        x = panel + column * step_x
        draw.text((x, line + _GAP), f"layer {layer}", _SOFT, font)
        for row, person in enumerate(persons):
            y = top + row * step_y
            chosen = tokens[layer - 1, row]
            cell = draw_cell(frame, scale, person.box, chosen, patches, _colour(row + 1))
            sheet.paste(cell, (x, y))
            draw.text((x, y + cell.height), _class_token(chosen), _SOFT, font)
    for row, lines in enumerate(lists):
        _lines(draw, (_GAP, top + row * step_y), lines, _colour(row + 1), font)
    return sheet


def draw_cell(
    frame: Image.Image,
    scale: tuple[float, float],
    box: Sequence[float],
    tokens: NDArray[np.integer],
    patches: NDArray[np.floating],
    colour: tuple[int, int, int],
) -> Image.Image:
    """One person in one layer.

    Args:
        frame: the frame, enlarged or reduced.
        scale: pixels of ``frame`` for a pixel of the original, across and down.
        box: xyxy in pixels of the original.
        tokens: (K,), most attended first.
        patches: (L, 4) xyxy in pixels of the original.
        colour: of the box.
    """
    veil = Image.new("RGBA", frame.size, (0, 0, 0, 0))
    draw = ImageDraw.Draw(veil)
    for rank, token in enumerate(tokens.tolist()):
        if token == 0:
            continue
        x1, y1, x2, y2 = _pixels(patches[token - 1], scale)
        # One pixel less, because Pillow draws the last one too and neighbours must not overlap.
        draw.rectangle((x1, y1, x2 - 1, y2 - 1), fill=(*TOKEN_COLOUR, opacity(rank, len(tokens))))
    cell = Image.alpha_composite(frame.convert("RGBA"), veil).convert("RGB")
    draw = ImageDraw.Draw(cell)
    _box(draw, (*patches[0, :2], *patches[-1, 2:]), scale, _CROP_COLOUR, width=1)
    _box(draw, box, scale, colour, width=2)
    return cell


def mark_persons(
    picture: Image.Image,
    persons: Sequence[tuple[Sequence[float], str, bool | None]],
    scale: int = 2,
) -> Image.Image:
    """An enlarged copy of a frame with a box and a letter for each person.

    Args:
        picture: RGB, w x h.
        persons: xyxy box in pixels of ``picture``, letter, verdict.
        scale: how many times larger the copy is.
    """
    size = (picture.width * scale, picture.height * scale)
    marked = picture.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(marked)
    font = ImageFont.load_default(7 * scale)
    for box, tag, verdict in persons:
        x1, y1, x2, y2 = (round(scale * value) for value in box)
        x1, y1 = min(max(x1, 0), size[0] - 1), min(max(y1, 0), size[1] - 1)
        x2, y2 = min(max(x2, x1), size[0] - 1), min(max(y2, y1), size[1] - 1)
        draw.rectangle((x1, y1, x2, y2), outline=VERDICT_COLOURS[verdict], width=scale)
        side = 8 * scale
        top = y1 - side if y1 >= side else y1
        draw.rectangle((x1, top, x1 + side, top + side), fill=VERDICT_COLOURS[verdict])
        draw.text((x1 + side / 2, top + side / 2), tag, (255, 255, 255), font, anchor="mm")
    return marked


def opacity(rank: int, count: int) -> int:
    """How opaque the token of a rank, from 0, of so many is: STRONGEST to WEAKEST, evenly."""
    return round(STRONGEST - (STRONGEST - WEAKEST) * rank / max(count - 1, 1))


def _class_token(tokens: NDArray[np.integer]) -> str:
    place = np.flatnonzero(tokens == 0)
    return f"class token: rank {place[0] + 1}" if len(place) else ""


def _person_text(number: int, person: ScoredPerson) -> list[str]:
    return [
        f"person {number} ({person.det_score:.2f})",
        *(f"{score:.2f}  {name}" for name, score in person.names),
    ]


def _lines(
    draw: ImageDraw.ImageDraw,
    place: tuple[int, int],
    lines: Sequence[str],
    colour: tuple[int, int, int],
    font: Font,
) -> None:
    """The first line in a colour, the others in ink."""
    x, y = place
    for index, text in enumerate(lines):
        draw.text((x, y + index * _line_height(font)), text, _INK if index else colour, font)


def _tag(
    draw: ImageDraw.ImageDraw,
    box: Sequence[float],
    scale: tuple[float, float],
    text: str,
    colour: tuple[int, int, int],
    size: tuple[int, int],
) -> None:
    """A line of text on a coloured ground above a box, or inside it where there is no room."""
    font = ImageFont.load_default(_TEXT)
    x1, y1, _, _ = _pixels(box, scale)
    wide, high = round(font.getlength(text)) + 8, _line_height(font)
    x = min(max(x1, 0), max(size[0] - wide, 0))
    y = min(max(y1 - high, 0), max(size[1] - high, 0))
    draw.rectangle((x, y, x + wide - 1, y + high - 1), fill=colour)
    draw.text((x + 4, y + 1), text, _PAPER, font)


def _box(
    draw: ImageDraw.ImageDraw,
    box: Sequence[float],
    scale: tuple[float, float],
    colour: tuple[int, int, int],
    width: int,
) -> None:
    x1, y1, x2, y2 = _pixels(box, scale)
    draw.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=colour, width=width)


def _pixels(
    box: Sequence[float] | NDArray[np.floating], scale: tuple[float, float]
) -> tuple[int, int, int, int]:
    x1, y1, x2, y2 = (round(float(value) * scale[index % 2]) for index, value in enumerate(box))
    return x1, y1, x2, y2


def _resized(picture: Image.Image, width: int) -> Image.Image:
    height = max(round(picture.height * width / picture.width), 1)
    return picture.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)


def _scale(picture: Image.Image, frame: Image.Image) -> tuple[float, float]:
    return frame.width / picture.width, frame.height / picture.height


def _colour(number: int) -> tuple[int, int, int]:
    return PERSON_COLOURS[(number - 1) % len(PERSON_COLOURS)]


def _panel_width(lists: Sequence[Sequence[str]], font: Font) -> int:
    texts = [text for lines in lists for text in lines]
    return round(max((font.getlength(text) for text in texts), default=0)) + 2 * _GAP


def _line_height(font: Font) -> int:
    return _TEXT + 4
