"""Pictures of a report: boxes drawn into frames, and pictures as text that a page can hold."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

# Of boxes by verdict: right, wrong, not asked. The page's style has nearly the same.
COLOURS = {True: (10, 125, 82), False: (194, 65, 12), None: (105, 118, 135)}
SCALE = 2
_PALETTE = 96  # colours of an animation: drawn scenes have few

Box = Sequence[float]


def mark_persons(
    picture: Image.Image, persons: Sequence[tuple[Box, str, bool | None]], scale: int = SCALE
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
        draw.rectangle((x1, y1, x2, y2), outline=COLOURS[verdict], width=scale)
        side = 8 * scale
        top = y1 - side if y1 >= side else y1
        draw.rectangle((x1, top, x1 + side, top + side), fill=COLOURS[verdict])
        draw.text((x1 + side / 2, top + side / 2), tag, (255, 255, 255), font, anchor="mm")
    return marked


def animation_data(frames: Sequence[Image.Image], milliseconds: int) -> str:
    """Frames of one size as an endless GIF in a data URL."""
    # One palette for all frames, without dithering, so that what stands still stays equal.
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
