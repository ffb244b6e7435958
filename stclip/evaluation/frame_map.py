"""Frame mAP of J-HMDB and UCF101-24 (evaluation.md, "Frame mAP").

For each class, detections are ranked by score. A detection matches the ground truth of its frame
and class that it overlaps most, if the overlap reaches the threshold and no higher-ranked
detection has matched it; otherwise it is a false positive, also where the frame has no ground
truth at all. A best match that is already taken does not fall through to the second best.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from stclip.errors import UserError
from stclip.evaluation.average_precision import average_precision
from stclip.evaluation.rows import DetectionRows, rows_of
from stclip.structures import Detections, FrameKey
from stclip.structures.boxes import area

Metrics = dict[str, Any]
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


def frame_map(
    ground_truth: Iterable[AnnotatedFrame],
    rows: DetectionRows,
    labels: Sequence[str],
    iou_thresholds: Sequence[float] = (0.2, 0.5, 0.75),
) -> Metrics:
    """Frame mAP of ``rows`` against ``ground_truth``.

    Args:
        ground_truth: every annotated frame of the evaluated videos, those without detections
            included; boxes of classes that are not in ``labels`` are left out.
        rows: the detections. All of them count: a row in a frame without ground truth is a false
            positive. Rows with a score that is not positive are dropped.
        labels: the evaluated classes, in the order of the rows' label indices.
        iou_thresholds: a match needs at least this IoU (continuous coordinates, no +1).

    Returns:
        ``frame_mAP@T`` in percent for each threshold T: the mean over the classes that have ground
        truth, None if none has. ``per_class@T``: {class: AP in percent, None without ground
        truth}. ``per_class``: the same at 0.5, or at the first threshold if 0.5 is not asked for.
        ``iou_thresholds``: ascending. ``ground_truth_boxes``: {class: count}. ``rows``: how many
        rows took part. Rows of equal score rank by video name, frame and then their own order, so
        the order of a file's frames changes nothing.

    Raises:
        UserError: a threshold outside (0, 1], or none.
    """
    return _evaluate(_index(ground_truth, labels), rows, labels, check_thresholds(iou_thresholds))


@dataclass(frozen=True)
class ClassMatches:
    """What the average precision of one class follows from, detection by detection.

    Attributes:
        video: (n,) for each detection, by descending score, a number of its video.
        hit: (n,) whether it is a true positive.
        truths: (V,) ground-truth boxes of each video.
    """

    video: Integers
    hit: NDArray[np.bool_]
    truths: Integers


def match_classes(
    ground_truth: Iterable[AnnotatedFrame],
    rows: DetectionRows,
    labels: Sequence[str],
    videos: Sequence[str],
    iou_threshold: float = 0.5,
) -> list[ClassMatches]:
    """The matches that ``frame_map`` computes from, for each of ``labels``.

    Args:
        ground_truth: see ``frame_map``.
        rows: see ``frame_map``.
        labels: see ``frame_map``.
        videos: V names, which number the videos; every video of ``ground_truth`` and ``rows``.
        iou_threshold: a match needs at least this IoU.
    """
    truth = _index(ground_truth, labels)
    number = {video: i for i, video in enumerate(videos)}
    of_truth = np.array([number[key.video] for key in truth.frames], dtype=np.int64)
    of_row = np.array([number[key.video] for key in rows.keys], dtype=np.int64)
    frames = np.array([truth.frames.get(key, -1) for key in rows.keys], dtype=np.int64)
    ranked = _ranking(rows)
    matches = []
    for index in range(len(labels)):
        chosen = ranked[rows.labels[ranked] == index]
        best, overlap = _best_matches(
            rows.boxes[chosen], frames[rows.frame[chosen]], truth.boxes[index], truth.frame[index]
        )
        hit = _first_claims(best, overlap >= iou_threshold)
        truths = np.bincount(of_truth[truth.frame[index]], minlength=len(videos))
        matches.append(ClassMatches(of_row[rows.frame[chosen]], hit, truths.astype(np.int64)))
    return matches


class FrameMapEvaluator:
    """Collects detections, then computes their frame mAP: reset, process, evaluate.

    The numbers are those that ``frame_map`` gives on the written result file.
    """

    def __init__(
        self,
        ground_truth: Iterable[AnnotatedFrame],
        vocabulary: Sequence[str],
        iou_thresholds: Sequence[float] = (0.2, 0.5, 0.75),
        action_thresh: float = 0.0,
    ) -> None:
        self._vocabulary = tuple(vocabulary)
        self._truth = _index(ground_truth, self._vocabulary)
        self._thresholds = check_thresholds(iou_thresholds)
        self._action_thresh = action_thresh
        self._parts: list[Detections] = []

    def reset(self) -> None:
        """Forget the detections."""
        self._parts = []

    def process(self, detections: Detections) -> None:
        """Add the detections of some keyframes; the order of calls does not matter."""
        assert detections.scores.shape[1] == len(self._vocabulary), "scores: one column a class"
        self._parts.append(detections)

    def evaluate(self) -> Metrics:
        """The metrics that ``frame_map`` returns, of everything processed since the last reset.

        Raises:
            UserError: a score or a box is not finite.
        """
        rows = _no_rows()
        if self._parts:
            detections = Detections.cat(self._parts)
            keys = detections.keys
            assert len(set(keys)) == len(keys), "a keyframe was processed twice"
            rows = rows_of(detections, self._action_thresh)
        return _evaluate(self._truth, rows, self._vocabulary, self._thresholds)


def check_thresholds(iou_thresholds: Sequence[float]) -> tuple[float, ...]:
    """The thresholds as ``_evaluate`` needs them: distinct and ascending.

    Raises:
        UserError: one lies outside (0, 1], or there is none.
    """
    for threshold in iou_thresholds:
        if not 0 < threshold <= 1:
            raise UserError(f"IoU threshold {threshold:g}: must be above 0 and at most 1")
    if not iou_thresholds:
        raise UserError("no IoU threshold given: name at least one, 0.5 say")
    return tuple(sorted({float(threshold) for threshold in iou_thresholds}))


@dataclass(frozen=True)
class _GroundTruth:
    """Boxes of each class, ordered by frame.

    Attributes:
        frames: a number for each annotated frame.
        frame: for each class, (n,) the boxes' frame numbers, ascending.
        boxes: for each class, (n, 4) xyxy.
    """

    frames: dict[FrameKey, int]
    frame: list[Integers]
    boxes: list[Floats]


def _index(ground_truth: Iterable[AnnotatedFrame], labels: Sequence[str]) -> _GroundTruth:
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
    return _GroundTruth(
        frames,
        [numbers[o] for numbers, o in zip(frame, order, strict=True)],
        [rows[o] for rows, o in zip(arrays, order, strict=True)],
    )


def _evaluate(
    truth: _GroundTruth,
    rows: DetectionRows,
    labels: Sequence[str],
    thresholds: tuple[float, ...],
) -> Metrics:
    # Frames that carry no ground truth get -1, which no ground truth has.
    frames = np.array([truth.frames.get(key, -1) for key in rows.keys], dtype=np.int64)
    ranked = _ranking(rows)
    ranked_labels = rows.labels[ranked]
    per_class: dict[float, dict[str, float | None]] = {t: {} for t in thresholds}
    for index, name in enumerate(labels):
        chosen = ranked[ranked_labels == index]
        count = len(truth.frame[index])
        best, overlap = _best_matches(
            rows.boxes[chosen], frames[rows.frame[chosen]], truth.boxes[index], truth.frame[index]
        )
        for threshold in thresholds:
            hits = _first_claims(best, overlap >= threshold)
            value = average_precision(rows.scores[chosen], hits, count)
            per_class[threshold][name] = 100 * value if count else None
    metrics: Metrics = {f"frame_mAP@{t:g}": _mean(per_class[t].values()) for t in thresholds}
    metrics["per_class"] = per_class[0.5 if 0.5 in thresholds else thresholds[0]]
    metrics.update({f"per_class@{t:g}": per_class[t] for t in thresholds})
    metrics["iou_thresholds"] = list(thresholds)
    counts = [len(frame) for frame in truth.frame]
    metrics["ground_truth_boxes"] = dict(zip(labels, counts, strict=True))
    metrics["rows"] = len(ranked)
    return metrics


def _ranking(rows: DetectionRows) -> Integers:
    """Indices of the rows with a positive score, by descending score."""
    order = {key: i for i, key in enumerate(sorted(set(rows.keys)))}
    frame_rank = np.array([order[key] for key in rows.keys], dtype=np.int64)
    chosen = np.flatnonzero(rows.scores > 0)
    ranked = chosen[np.lexsort((frame_rank[rows.frame[chosen]], -rows.scores[chosen]))]
    return ranked.astype(np.int64)


def _best_matches(
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
    ious = _paired_iou(boxes[some][owner], truth_boxes[candidate])
    highest = np.maximum.reduceat(ious, first)
    is_highest = ious == highest[owner]
    winner = np.minimum.reduceat(np.where(is_highest, position, len(position)), first)
    best[some], overlap[some] = candidate[winner], highest
    return best, overlap


def _paired_iou(a: Floats, b: Floats) -> Floats:
    """IoU (n,) of each box of ``a`` (n, 4) with the one of ``b`` (n, 4) in the same row."""
    low, high = np.maximum(a[:, :2], b[:, :2]), np.minimum(a[:, 2:], b[:, 2:])
    intersection = area(np.concatenate([low, high], axis=1))
    union = area(a) + area(b) - intersection
    return np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)


def _first_claims(best: Integers, reaches: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which detections, in order of rank, are the first to reach their ground truth."""
    reaching = np.flatnonzero(reaches)
    _, first = np.unique(best[reaching], return_index=True)
    claims = np.zeros(len(best), dtype=bool)
    claims[reaching[first]] = True
    return claims


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _no_rows() -> DetectionRows:
    none = np.zeros(0, dtype=np.int64)
    return DetectionRows((), none, np.zeros((0, 4)), none, np.zeros(0))
