"""Tells boxes that are not x1, y1, x2, y2 in pixels, by what they would mean if they were."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Boxes = NDArray[np.floating]

# Boxes may reach so many pixels over the edge of a picture without being strange.
_TOLERANCE = 2.0
# Shares of boxes: fewer that can be pixels make us doubt, and so many must fit another reading.
_DOUBTFUL, _CONVINCING = 0.9, 0.98


def _corners_from_size(boxes: Boxes) -> Boxes:
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def _corners_from_centre(boxes: Boxes) -> Boxes:
    half = boxes[:, 2:] / 2
    return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)


# In pixels; where two readings fit equally well the first counts.
_IN_PIXELS: dict[str, Callable[[Boxes], Boxes]] = {
    "x2, y2, x1, y1": lambda boxes: boxes[:, [2, 3, 0, 1]],
    "x, y, width, height": _corners_from_size,
    "centre x, centre y, width, height": _corners_from_centre,
    "y1, x1, y2, x2": lambda boxes: boxes[:, [1, 0, 3, 2]],
}
# Of numbers from 0 to 1.
_NORMALISED: dict[str, Callable[[Boxes], Boxes]] = {
    "x1, y1, x2, y2": lambda boxes: boxes,
    **{name: _IN_PIXELS[name] for name in list(_IN_PIXELS)[1:3]},
}


def readings(boxes: Boxes, sizes: Boxes) -> dict[str, Boxes]:
    """The boxes in xyxy pixels, if their numbers were meant in other ways.

    Args:
        boxes: (n, 4) as they stand in the file.
        sizes: (n, 2) width and height of each box's picture.

    Returns:
        The name of each way, and (n, 4) boxes.
    """
    found = {name: read(boxes) for name, read in _IN_PIXELS.items()}
    scale = np.concatenate([sizes, sizes], axis=1)
    for name, read in _NORMALISED.items():
        found[f"{name}, as shares (0 to 1) of the picture"] = read(boxes) * scale
    return found


def guess_format(boxes: Boxes, sizes: Boxes) -> str | None:
    """What the numbers seem to mean, if that is not x1, y1, x2, y2 in pixels.

    Args:
        boxes: (n, 4) as they stand in the file.
        sizes: (n, 2) width and height of each box's picture.

    Returns:
        A name of ``readings``; None if the boxes can be pixels, or nothing else fits them better.
    """
    if len(boxes) == 0:
        return None
    ways = readings(boxes, sizes)
    shares = [name for name in ways if name.endswith("picture")]
    if float((np.abs(boxes) <= 1.05).all(axis=1).mean()) < _CONVINCING:
        if _fitting(boxes, sizes) >= _DOUBTFUL:
            return None
        shares, ways = [], {name: ways[name] for name in _IN_PIXELS}
    fits = {name: _fitting(ways[name], sizes) for name in (shares or ways)}
    best = max(fits, key=lambda name: fits[name])
    return best if fits[best] >= _CONVINCING else None


def _fitting(boxes: Boxes, sizes: Boxes) -> float:
    """The share of boxes that lie in their pictures and are not empty."""
    inside = (boxes >= -_TOLERANCE).all(axis=1) & (boxes[:, 2:] <= sizes + _TOLERANCE).all(axis=1)
    return float((inside & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)).mean())
