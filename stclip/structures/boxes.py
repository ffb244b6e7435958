"""Boxes as float arrays of xyxy pixels in continuous coordinates (no +1 anywhere)."""

import numpy as np
from numpy.typing import NDArray

Boxes = NDArray[np.floating]


def area(boxes: Boxes) -> Boxes:
    """Areas (n,) of boxes (n, 4) xyxy; zero where a box is empty or inverted."""
    sides = np.clip(boxes[:, 2:] - boxes[:, :2], 0, None)
    return sides[:, 0] * sides[:, 1]


def iou(a: Boxes, b: Boxes) -> Boxes:
    """Intersection over union (n, m) of boxes (n, 4) and (m, 4), xyxy; 0 where both are empty."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    sides = np.clip(high - low, 0, None)
    intersection = sides[..., 0] * sides[..., 1]
    union = area(a)[:, None] + area(b)[None, :] - intersection
    ratio: Boxes = np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)
    return ratio


def clip(boxes: Boxes, height: int, width: int) -> Boxes:
    """Boxes (n, 4) xyxy clipped to [0, width - 1] x [0, height - 1]."""
    limit = np.array([width - 1, height - 1, width - 1, height - 1], dtype=boxes.dtype)
    return np.clip(boxes, 0, limit)
