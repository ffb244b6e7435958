"""Draw docs/assets/overview.png, the picture of the method in README.md.

Example:
    python docs/draw_overview.py
"""

import random
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from stclip.puppet.draw.scene import plan_scene

OUT = Path(__file__).parent / "assets" / "overview.png"
SCALE = 2  # drawn this much larger, then reduced
SIZE = (1180, 560)
SEED = 7  # of the drawn scene

INK, PAPER, GREY = (40, 44, 52), (255, 255, 255), (120, 126, 138)
FROZEN, TRAINED = (228, 232, 240), (255, 224, 178)
FROZEN_EDGE, TRAINED_EDGE = (150, 160, 180), (230, 140, 30)
PERSON, CONTEXT, CLASS_TOKEN, TEXT = (225, 87, 89), (78, 121, 167), (90, 90, 90), (89, 161, 79)


class Drawing:
    """A picture that takes coordinates of the reduced size."""

    def __init__(self) -> None:
        self.picture = Image.new("RGB", (SCALE * SIZE[0], SCALE * SIZE[1]), PAPER)
        self.draw = ImageDraw.Draw(self.picture)

    def box(self, x, y, w, h, text="", fill=FROZEN, edge=FROZEN_EDGE, size=14):
        """A rounded rectangle with centred text."""
        corners = [SCALE * v for v in (x, y, x + w, y + h)]
        self.draw.rounded_rectangle(corners, SCALE * 7, fill, edge, SCALE * 2)
        self.text(x + w / 2, y + h / 2, text, size, anchor="mm")

    def trained(self, x, y, w, h, text="", size=14):
        """A box in the colour of what is trained."""
        self.box(x, y, w, h, text, TRAINED, TRAINED_EDGE, size)

    def text(self, x, y, text, size=14, anchor="la", colour=INK):
        """Text, of several lines if it holds line ends."""
        font = ImageFont.load_default(SCALE * size)
        self.draw.text(
            (SCALE * x, SCALE * y), text, colour, font, anchor, SCALE * 4, align="center"
        )

    def arrow(self, *points, colour=INK):
        """A line through points, with a head at the last one."""
        for (x1, y1), (x2, y2) in pairwise(points):
            self.draw.line([SCALE * v for v in (x1, y1, x2, y2)], colour, SCALE * 2)
        (x1, y1), (x2, y2) = points[-2:]
        dx, dy = np.sign(x2 - x1), np.sign(y2 - y1)
        head = [(x2, y2), (x2 - 8 * dx - 4 * dy, y2 - 8 * dy - 4 * dx)]
        head.append((x2 - 8 * dx + 4 * dy, y2 - 8 * dy + 4 * dx))
        self.draw.polygon([(SCALE * x, SCALE * y) for x, y in head], colour)

    def tokens(self, x, y, colours, side=14):
        """A row of squares."""
        for number, colour in enumerate(colours):
            left = x + number * (side + 3)
            corners = [SCALE * v for v in (left, y, left + side, y + side)]
            self.draw.rectangle(corners, colour)

    def paste(self, picture, x, y, w, h, edge=GREY):
        """A picture with a thin frame."""
        self.picture.paste(picture.resize((SCALE * w, SCALE * h)), (SCALE * x, SCALE * y))
        self.draw.rectangle([SCALE * v for v in (x, y, x + w, y + h)], None, edge, SCALE)


def main() -> None:
    """Draw the picture and write it."""
    d = Drawing()
    scene = plan_scene(random.Random(SEED), ("kick_ball", "pick"), 24)
    first = 6
    frames = [scene.draw(first + number)[0] for number in range(9)]
    boxes = scene.draw(first + 4)[1]

    # Context: the window of nine frames.
    for number in range(9):
        d.paste(frames[number], 20 + 9 * number, 70 + 7 * number, 104, 78)
    d.paste(frames[4], 20 + 36, 70 + 28, 104, 78)
    for number in range(5, 9):
        d.paste(frames[number], 20 + 9 * number, 70 + 7 * number, 104, 78)
    d.text(110, 42, "window of 9 frames", anchor="mm")
    d.box(240, 100, 110, 64, "patch\nembedding")
    d.trained(385, 100, 130, 64, "attention over\ntime, mean")
    d.arrow((202, 132), (238, 132))
    d.arrow((352, 132), (383, 132))

    # Persons: the boxes of the keyframe.
    keyframe = frames[4].copy()
    for box in boxes:
        ImageDraw.Draw(keyframe).rectangle(box, outline=PERSON, width=2)
    d.text(95, 232, "keyframe, person boxes", anchor="mm")
    d.paste(keyframe, 20, 248, 120, 90)
    for number, box in enumerate(boxes):
        crop = frames[4].crop(box)
        width = round(46 * crop.width / crop.height)
        d.paste(crop, 166, 244 + 52 * number, width, 46, edge=PERSON)
    d.arrow((142, 293), (164, 293))
    d.box(240, 262, 110, 64, "CLIP image\nencoder")
    d.trained(385, 262, 130, 64, "adapter")
    d.arrow((216, 293), (238, 293))
    d.arrow((352, 293), (383, 293))

    # Interaction: all tokens through CLIP's own blocks.
    d.box(600, 60, 250, 300)
    d.text(725, 80, "CLIP's image encoder once more", 14, "mm")
    d.tokens(622, 104, [CLASS_TOKEN, PERSON, PERSON] + 9 * [CONTEXT])
    d.text(725, 133, "class, person and context tokens", 12, "mm", GREY)
    for number, name in enumerate(("block 1", "block 2", "block 12")):
        top = 152 + 62 * number + (14 if number == 2 else 0)
        d.box(622, top, 116, 42, name, PAPER)
        d.trained(744, top + 6, 84, 30, "LoRA", 13)
    d.text(680, 263, "...", 16, "mm")
    d.arrow((517, 132), (560, 132), (560, 111), (598, 111), colour=CONTEXT)
    d.arrow((517, 293), (575, 293), (575, 125), (598, 125), colour=PERSON)
    d.text(528, 84, "context\ntokens", 12, "mm", CONTEXT)
    d.text(545, 312, "person\ntokens", 12, "mm", PERSON)

    # Prompting: the tokens of every block change the text features.
    d.text(110, 412, "class names", anchor="mm")
    names = ("kick_ball", "run", "climb_stairs", "stand", "shoot_gun", "pick")
    for number, name in enumerate(names):
        d.text(30 + 95 * (number % 2), 434 + 26 * (number // 2), name, 14, colour=TEXT)
    d.box(240, 436, 110, 64, "CLIP text\nencoder")
    d.arrow((205, 468), (238, 468))
    d.trained(600, 430, 250, 76, "context prompting after every block:\ntext attends to all tokens")
    d.arrow((352, 468), (598, 468), colour=TEXT)
    d.text(475, 452, "text features", 12, "mm", TEXT)
    for x in (655, 725, 795):
        d.arrow((x, 362), (x, 428))

    # Scores.
    d.box(905, 262, 110, 64, "cosine,\nsoftmax")
    d.arrow((852, 293), (903, 293), colour=PERSON)
    d.arrow((852, 468), (960, 468), (960, 328), colour=TEXT)
    d.text(878, 258, "person\nfeatures", 12, "mm", PERSON)
    d.text(906, 487, "prompted text", 12, "mm", TEXT)
    d.arrow((1017, 293), (1040, 293))
    for number, (name, share) in enumerate(zip(names, (78, 9, 4, 3, 4, 2), strict=True)):
        top = 232 + 21 * number
        d.text(1046, top, name, 12)
        d.draw.rectangle([SCALE * v for v in (1128, top + 2, 1128 + 0.5 * share, top + 13)], PERSON)
    d.arrow((80, 340), (80, 378), (878, 378), (878, 300), colour=GREY)
    d.text(470, 390, "CLIP's feature of the whole keyframe is added", 12, "mm", GREY)

    d.box(20, 524, 22, 18)
    d.text(50, 526, "CLIP, frozen", 13)
    d.trained(150, 524, 22, 18)
    d.text(
        180,
        526,
        "trained on the seen classes; LoRA acts in every pass through the image encoder",
        13,
    )
    OUT.parent.mkdir(exist_ok=True)
    d.picture.reduce(SCALE).quantize(128).save(OUT, optimize=True)


if __name__ == "__main__":
    main()
