"""Greedy matching of detections with ground truth: frame mAP's, and AVA's (docs/evaluation.md).

For each class, detections are ranked by score. A detection matches the ground truth of its frame
and class that it overlaps most, if the overlap reaches the threshold and no higher-ranked
detection has matched it; otherwise it is a false positive, also where the frame has no ground
truth at all. A best match that is already taken does not fall through to the second best.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from stclip.evaluation.rows import DetectionRows
from stclip.structures import FrameKey
from stclip.structures.boxes import paired_iou

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class AnnotatedFrame(Protocol):
    """What the evaluation needs of an annotated keyframe."""

    @property
    def key(self) -> FrameKey:
        """The frame."""

    @property
    def boxes(self) -> NDArray[np.float32]:
        """(n, 4) xyxy pixels."""

    @property
    def labels(self) -> tuple[tuple[str, ...], ...]:
        """The class names of each box."""


@dataclass(frozen=True)
class TruthBoxes:
    """Ground-truth boxes of each class, ordered by frame.

    Attributes:
        frames: a number for each annotated frame.
        frame: for each class, (n,) the boxes' frame numbers, ascending.
        boxes: for each class, (n, 4) xyxy.
    """

    frames: Mapping[FrameKey, int]
    frame: list[Integers]
    boxes: list[Floats]

    @classmethod
    def of_frames(cls, ground_truth: Iterable[AnnotatedFrame], labels: Sequence[str]) -> TruthBoxes:
        """The boxes that have one of ``labels``; a label that a box has twice counts once."""
        index = {name: i for i, name in enumerate(labels)}
        assert len(index) == len(labels), "a class is named twice"
        frames: dict[FrameKey, int] = {}
        owners: list[list[int]] = [[] for _ in labels]
        boxes: list[list[NDArray[np.float32]]] = [[] for _ in labels]
        for annotated in ground_truth:
            number = frames.setdefault(annotated.key, len(frames))
            for box, names in zip(annotated.boxes, annotated.labels, strict=True):
                for name in dict.fromkeys(names):
                    if name in index:
                        owners[index[name]].append(number)
                        boxes[index[name]].append(box)
        frame = [np.array(numbers, dtype=np.int64) for numbers in owners]
        order = [np.argsort(numbers, kind="stable") for numbers in frame]
        arrays = [np.array(rows, dtype=np.float64).reshape(-1, 4) for rows in boxes]
        return cls(
            frames,
            [numbers[o] for numbers, o in zip(frame, order, strict=True)],
            [rows[o] for rows, o in zip(arrays, order, strict=True)],
        )

    @classmethod
    def of_rows(cls, rows: DetectionRows, classes: int) -> TruthBoxes:
        """One box for every row, whatever its score."""
        by_class = np.argsort(rows.labels, kind="stable")
        bounds = np.searchsorted(rows.labels[by_class], np.arange(1, classes))
        chosen = np.split(by_class, bounds)
        ordered = [some[np.argsort(rows.frame[some], kind="stable")] for some in chosen]
        return cls(
            {key: number for number, key in enumerate(rows.keys)},
            [rows.frame[some] for some in ordered],
            [rows.boxes[some] for some in ordered],
        )


@dataclass(frozen=True)
class ClassRanking:
    """The detections of one class by descending score, and what each of them overlaps most.

    Attributes:
        rows: (n,) indices of the rows.
        best: (n,) the ground truth of its frame and class that it overlaps most, -1 for none.
        overlap: (n,) the IoU with that, 0 for none.
    """

    rows: Integers
    best: Integers
    overlap: Floats

    def hits(self, threshold: float) -> NDArray[np.bool_]:
        """(n,) which are true positives at an IoU threshold."""
        return first_claims(self.best, self.overlap >= threshold)


def rank_classes(
    truth: TruthBoxes, rows: DetectionRows, positive: bool = True
) -> Iterator[ClassRanking]:
    """The ranking of each class of ``truth``, one after the other to spare memory.

    Rows of equal score rank by video name, frame and then their own order, so the order of a
    file's frames changes nothing. With ``positive`` rows whose score is not positive are left out.
    """
    order = {key: i for i, key in enumerate(sorted(set(rows.keys)))}
    frame_rank = np.array([order[key] for key in rows.keys], dtype=np.int64)
    # Frames that carry no ground truth get -1, which no ground truth has.
    numbers = np.array([truth.frames.get(key, -1) for key in rows.keys], dtype=np.int64)
    by_class = np.argsort(rows.labels, kind="stable")
    bounds = np.searchsorted(rows.labels[by_class], np.arange(len(truth.frame) + 1))
    for index, (truth_frame, truth_boxes) in enumerate(zip(truth.frame, truth.boxes, strict=True)):
        chosen = by_class[bounds[index] : bounds[index + 1]]
        if positive:
            chosen = chosen[rows.scores[chosen] > 0]
        frame = rows.frame[chosen]
        by_rank = np.lexsort((frame_rank[frame], -rows.scores[chosen]))
        ranked = chosen[by_rank].astype(np.int64)
        best, overlap = best_matches(
            rows.boxes[ranked], numbers[frame[by_rank]], truth_boxes, truth_frame
        )
        yield ClassRanking(ranked, best, overlap)


def best_matches(
    boxes: Floats, frame: Integers, truth_boxes: Floats, truth_frame: Integers
) -> tuple[Integers, Floats]:
    """For each of n detections the ground truth of its frame with the highest IoU, and that IoU.

    ``truth_frame`` ascends. The first of equal overlaps is taken. Where the frame has no ground
    truth the match is -1 and the IoU 0.
    """
    start = np.searchsorted(truth_frame, frame, side="left")
    count = np.searchsorted(truth_frame, frame, side="right") - start
    best = np.full(len(frame), -1, dtype=np.int64)
    overlap = np.zeros(len(frame))
    some = np.flatnonzero(count)
    if not len(some):
        return best, overlap
    count = count[some]
    # All (detection, ground truth of its frame) pairs end to end; `first` opens each detection's.
    first = np.cumsum(count) - count
    owner = np.repeat(np.arange(len(some)), count)
    position = np.arange(len(owner))
    candidate = (start[some] - first)[owner] + position
    ious = paired_iou(boxes[some][owner], truth_boxes[candidate])
    highest = np.maximum.reduceat(ious, first)
    is_highest = ious == highest[owner]
    winner = np.minimum.reduceat(np.where(is_highest, position, len(position)), first)
    best[some], overlap[some] = candidate[winner], highest
    return best, overlap


def first_claims(best: Integers, reaches: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which detections, in order of rank, are the first to reach their ground truth."""
    claims = np.zeros(len(best), dtype=bool)
    if reaches.any():
        reaching = np.flatnonzero(reaches)
        _, first = np.unique(best[reaching], return_index=True)
        claims[reaching[first]] = True
    return claims
