"""What a person detector might say of a drawn frame, so that none has to be run.

The boxes of the drawing, moved a little; now and then a person is missed, or something that is no
person is found, with a low score.
"""

import random
from collections.abc import Sequence
from typing import NamedTuple

from stclip.puppet.draw.chance import Chance

Box = tuple[int, int, int, int]

_MISSES = 0.04  # share of the persons
_FALSE_POSITIVES = 0.10  # share of the frames
_SHIFT = 0.05  # standard deviation of an edge, in widths (heights) of the box
_SCORES = (0.85, 0.9999)  # of persons
_FALSE_SCORES = (0.05, 0.5)


class Detection(NamedTuple):
    """A box that was found: xyxy in whole pixels, and its score in [0, 1]."""

    box: Box
    score: float


def detect(rng: random.Random, boxes: Sequence[Box], width: int, height: int) -> list[Detection]:
    """Detections of one frame, the best score first.

    Args:
        rng: draws all errors.
        boxes: of the persons, xyxy in pixels.
        width: of the frame, in pixels.
        height: of the frame, in pixels.
    """
    chance = Chance(rng)
    found = [
        Detection(_shifted(chance, box, width, height), chance.uniform(*_SCORES))
        for box in boxes
        if not chance.happens(_MISSES)
    ]
    if chance.happens(_FALSE_POSITIVES):
        wide, high = 15 + chance.below(26), 25 + chance.below(26)
        x, y = chance.below(width - wide), chance.below(height - high)
        somewhere, score = (x, y, x + wide, y + high), chance.uniform(*_FALSE_SCORES)
        # On a person it would be a second, worse detection, which a detector suppresses.
        if all(_overlap(somewhere, box) < 0.3 for box in boxes):
            found.append(Detection(somewhere, score))
    return sorted(found, key=lambda detection: -detection.score)


def _shifted(chance: Chance, box: Box, width: int, height: int) -> Box:
    x1, y1, x2, y2 = box
    wide, high = x2 - x1, y2 - y1
    left, right = (round(x + _SHIFT * wide * _normal(chance)) for x in (x1, x2))
    top, bottom = (round(y + _SHIFT * high * _normal(chance)) for y in (y1, y2))
    # However small the box was, and wherever, something of it is left in the frame.
    left, top = min(max(left, 0), width - 2), min(max(top, 0), height - 2)
    return left, top, min(max(right, left + 1), width - 1), min(max(bottom, top + 1), height - 1)


def _normal(chance: Chance) -> float:
    """Nearly normal, of variance 1, and never beyond 3."""
    # Not sum(), which adds floats in another way since Python 3.12.
    return 2 * (chance.uniform(-0.5, 0.5) + chance.uniform(-0.5, 0.5) + chance.uniform(-0.5, 0.5))


def _overlap(a: Box, b: Box) -> float:
    """Intersection over union."""
    wide = min(a[2], b[2]) - max(a[0], b[0])
    high = min(a[3], b[3]) - max(a[1], b[1])
    if wide <= 0 or high <= 0:
        return 0.0
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return wide * high / (areas - wide * high)
