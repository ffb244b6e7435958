"""Tells boxes that are not x1, y1, x2, y2 in pixels, by what they would mean if they were."""

import logging
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from stclip.errors import UserError
from stclip.structures.boxes import are_empty

logger = logging.getLogger(__name__)

Boxes = NDArray[np.floating]

# Boxes may reach so many pixels over the edge of a picture without being strange.
_TOLERANCE = 2.0
# Shares of boxes: fewer that can be pixels make us doubt, and so many must fit another reading.
_DOUBTFUL, _CONVINCING = 0.9, 0.98
# So many strange boxes, and this share of all, are accidents of a detector and no other format.
_FEW, _FEW_OF_ALL = 3, 0.01
# Real files have one empty box in ten thousand, which is nothing to warn of.
_NEGLIGIBLE = 0.001


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
    if not look_like_shares(boxes):
        strange = (1 - _fitting(boxes, sizes)) * len(boxes)
        if strange <= (1 - _DOUBTFUL) * len(boxes) or round(strange) < 2:  # one proves nothing
            return None
        shares, ways = [], {name: ways[name] for name in _IN_PIXELS}
    fits = {name: _fitting(ways[name], sizes) for name in (shares or ways)}
    best = max(fits, key=lambda name: fits[name])
    return best if fits[best] >= _CONVINCING else None


def look_like_shares(boxes: Boxes) -> bool:
    """Whether the numbers of boxes (n, 4) are shares of a picture, from 0 to 1, and no pixels."""
    return float((np.abs(boxes) <= 1.05).all(axis=1).mean()) >= _CONVINCING


def check_boxes(
    boxes: Boxes,
    sizes: Boxes,
    where: str,
    place: Callable[[int], str],
    fate: str,
    dropped: NDArray[np.bool_] | None = None,
) -> None:
    """Refuse boxes of another format, and tell of the few that are of no use.

    Args:
        boxes: (n, 4) as they stand in a file.
        sizes: (n, 2) width and height of each box's picture.
        where: the file, for messages.
        place: words for where box i is, for messages.
        fate: what happens to the boxes that are of no use, for messages.
        dropped: (n,) which these are; by default those that are empty.

    Raises:
        UserError: more than a few boxes are empty, or most seem to mean something else.
    """
    empty = are_empty(boxes)
    meant = guess_format(boxes, sizes)
    if meant is not None or not are_few(empty):
        seen = int(empty.argmax()) if empty.any() else 0
        problem = f"{empty.sum()} of {len(boxes)} boxes have x2 <= x1 or y2 <= y1"
        if meant is not None:
            problem = f"{len(boxes)} boxes look like {meant}"
        raise UserError(
            f"{where}: {problem} ({place(seen)}: {_described(boxes, sizes, seen)}); x1, y1, x2, y2 "
            "in pixels of the picture were expected"
        )
    useless = empty if dropped is None else dropped
    if useless.any():
        first = int(useless.argmax())
        logger.log(
            logging.INFO if are_negligible(useless) else logging.WARNING,
            "%s: %d of %d boxes are empty%s and %s (first: %s, %s)",
            where, useless.sum(), len(boxes), "" if dropped is None else " within their picture",
            fate, place(first), _described(boxes, sizes, first),
        )  # fmt: skip
    over = ~_inside(boxes, sizes) & ~empty
    if over.sum() > max(_FEW, (1 - _DOUBTFUL) * len(boxes)):
        first = int(over.argmax())
        logger.warning(
            "%s: %d of %d boxes reach more than %g pixels over the edge of their picture (first: "
            "%s, %s); were they made at another resolution?",
            where, over.sum(), len(boxes), _TOLERANCE, place(first),
            _described(boxes, sizes, first),
        )  # fmt: skip


def are_few(strange: NDArray[np.bool_]) -> bool:
    """Whether strange boxes, of all (n,), may be accidents."""
    return bool(strange.sum() <= max(_FEW, _FEW_OF_ALL * len(strange)))


def are_negligible(strange: NDArray[np.bool_]) -> bool:
    """Whether strange boxes, of all (n,), are as rare as in files that are right."""
    return bool(strange.sum() <= _NEGLIGIBLE * len(strange))


def _described(boxes: Boxes, sizes: Boxes, index: int) -> str:
    numbers = ", ".join(f"{value:g}" for value in boxes[index])
    width, height = sizes[index]
    return f"({numbers}) in {width:g} x {height:g}"


def _inside(boxes: Boxes, sizes: Boxes) -> NDArray[np.bool_]:
    low = (boxes >= -_TOLERANCE).all(axis=1)
    return np.asarray(low & (boxes[:, 2:] <= sizes + _TOLERANCE).all(axis=1))


def _fitting(boxes: Boxes, sizes: Boxes) -> float:
    """The share of boxes that lie in their pictures and are not empty."""
    return float((_inside(boxes, sizes) & ~are_empty(boxes)).mean())
