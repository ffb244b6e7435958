"""Boxes as float arrays of xyxy pixels in continuous coordinates (no +1 anywhere)."""

import numpy as np
from numpy.typing import NDArray

Boxes = NDArray[np.floating]

# No coordinate, score or time of a file is as large; beyond it areas and float32 overflow.
LARGEST = 1e7


def area(boxes: Boxes) -> Boxes:
    """Areas (n,) of boxes (n, 4) xyxy; zero where a box is empty or inverted."""
    sides = np.clip(boxes[:, 2:] - boxes[:, :2], 0, None)
    return sides[:, 0] * sides[:, 1]


def are_empty(boxes: Boxes) -> NDArray[np.bool_]:
    """(n,) which of boxes (n, 4) xyxy are empty or inverted."""
    return np.asarray((boxes[:, 2:] <= boxes[:, :2]).any(axis=1))


def clip(boxes: Boxes, height: int, width: int) -> Boxes:
    """Boxes (n, 4) xyxy clipped to [0, width - 1] x [0, height - 1]."""
    limit = np.array([width - 1, height - 1, width - 1, height - 1], dtype=boxes.dtype)
    return np.clip(boxes, 0, limit)


def are_visible(boxes: Boxes, sizes: NDArray[np.integer | np.floating]) -> NDArray[np.bool_]:
    """Which boxes (n, 4) are not empty in their pictures, as numbers and as whole pixels.

    Args:
        boxes: xyxy in pixels.
        sizes: (n, 2) width and height of each one's picture.
    """
    limit = np.concatenate([sizes, sizes], axis=1) - 1
    clipped = np.clip(boxes, 0, limit).astype(np.float32)
    whole = np.rint(clipped)  # halves to even, as cutting out a crop does it
    seen = (clipped[:, 2:] > clipped[:, :2]) & (whole[:, 2:] > whole[:, :2])
    return np.asarray(seen.all(axis=1))


def paired_iou(a: Boxes, b: Boxes) -> Boxes:
    """IoU (n,) of each box of ``a`` (n, 4) xyxy with the one of ``b`` (n, 4) in the same row.

    Zero where both boxes are empty.
    """
    low, high = np.maximum(a[:, :2], b[:, :2]), np.minimum(a[:, 2:], b[:, 2:])
    intersection = area(np.concatenate([low, high], axis=1))
    union = area(a) + area(b) - intersection
    return np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)
