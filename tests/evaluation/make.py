"""Small ground truths and detections for the tests."""

from typing import NamedTuple

import numpy as np
import torch

from stclip.evaluation.result_csv import DetectionRows
from stclip.structures import Detections, FrameKey


class Frame(NamedTuple):
    key: FrameKey
    boxes: np.ndarray
    labels: tuple[tuple[str, ...], ...]


def annotated(video, frame, *persons):
    """A ground-truth frame of (box, label, label, ...) persons."""
    boxes = np.array([person[0] for person in persons], dtype=np.float32).reshape(-1, 4)
    return Frame(FrameKey(video, frame), boxes, tuple(tuple(p[1:]) for p in persons))


def rows(*entries):
    """Rows from (video, frame, box, 0-based label, score)."""
    keys = list(dict.fromkeys(FrameKey(e[0], e[1]) for e in entries))
    return DetectionRows(
        keys=tuple(keys),
        frame=np.array([keys.index(FrameKey(e[0], e[1])) for e in entries], dtype=np.int64),
        boxes=np.array([e[2] for e in entries], dtype=np.float64).reshape(-1, 4),
        labels=np.array([e[3] for e in entries], dtype=np.int64),
        scores=np.array([e[4] for e in entries], dtype=np.float64),
    )


def detections(keys, persons, classes):
    """Detections from (row of keys, box, det_score, class scores) persons."""
    return Detections(
        keys=tuple(FrameKey(*key) for key in keys),
        owner=torch.tensor([p[0] for p in persons], dtype=torch.long),
        boxes=torch.tensor([p[1] for p in persons], dtype=torch.float32).reshape(-1, 4),
        det_scores=torch.tensor([p[2] for p in persons], dtype=torch.float32),
        scores=torch.tensor([p[3] for p in persons], dtype=torch.float32).reshape(-1, classes),
    )
