"""Frame mAP of J-HMDB and UCF101-24 (docs/evaluation.md, "Frame mAP").

The rules that detections are matched by are in ``stclip.evaluation.matching``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stclip.errors import UserError
from stclip.evaluation.average_precision import average_precision
from stclip.evaluation.matching import (
    AnnotatedFrame,
    Integers,
    TruthBoxes,
    rank_classes,
)
from stclip.evaluation.rows import DetectionRows, rows_of
from stclip.structures import Detections

Metrics = dict[str, Any]


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
    truth = TruthBoxes.of_frames(ground_truth, labels)
    return evaluate_rows(truth, rows, labels, check_thresholds(iou_thresholds))


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
    truth = TruthBoxes.of_frames(ground_truth, labels)
    number = {video: i for i, video in enumerate(videos)}
    of_truth = np.array([number[key.video] for key in truth.frames], dtype=np.int64)
    of_row = np.array([number[key.video] for key in rows.keys], dtype=np.int64)
    matches = []
    for index, ranking in enumerate(rank_classes(truth, rows)):
        truths = np.bincount(of_truth[truth.frame[index]], minlength=len(videos))
        matches.append(
            ClassMatches(
                of_row[rows.frame[ranking.rows]],
                ranking.hits(iou_threshold),
                truths.astype(np.int64),
            )
        )
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
        self._truth = TruthBoxes.of_frames(ground_truth, self._vocabulary)
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
        return evaluate_rows(self._truth, rows, self._vocabulary, self._thresholds)


def check_thresholds(iou_thresholds: Sequence[float]) -> tuple[float, ...]:
    """The thresholds as ``evaluate_rows`` needs them: distinct and ascending.

    Raises:
        UserError: one lies outside (0, 1], or there is none.
    """
    for threshold in iou_thresholds:
        if not 0 < threshold <= 1:
            raise UserError(f"IoU threshold {threshold:g}: must be above 0 and at most 1")
    if not iou_thresholds:
        raise UserError("no IoU threshold given: name at least one, 0.5 say")
    return tuple(sorted({float(threshold) for threshold in iou_thresholds}))


def evaluate_rows(
    truth: TruthBoxes,
    rows: DetectionRows,
    labels: Sequence[str],
    thresholds: tuple[float, ...],
    positive: bool = True,
) -> Metrics:
    """What ``frame_map`` returns, for ground truth that is indexed already.

    Args:
        truth: the boxes of each of ``labels``.
        rows: see ``frame_map``.
        labels: see ``frame_map``.
        thresholds: distinct and ascending.
        positive: leave out rows whose score is not positive.
    """
    per_class: dict[float, dict[str, float | None]] = {t: {} for t in thresholds}
    counts = [len(frame) for frame in truth.frame]
    taken = 0
    for name, count, ranking in zip(
        labels, counts, rank_classes(truth, rows, positive), strict=True
    ):
        taken += len(ranking.rows)
        for threshold in thresholds:
            value = average_precision(rows.scores[ranking.rows], ranking.hits(threshold), count)
            per_class[threshold][name] = 100 * value if count else None
    metrics: Metrics = {f"frame_mAP@{t:g}": mean(per_class[t].values()) for t in thresholds}
    metrics["per_class"] = per_class[0.5 if 0.5 in thresholds else thresholds[0]]
    metrics.update({f"per_class@{t:g}": per_class[t] for t in thresholds})
    metrics["iou_thresholds"] = list(thresholds)
    metrics["ground_truth_boxes"] = dict(zip(labels, counts, strict=True))
    metrics["rows"] = taken
    return metrics


def mean(values: Iterable[float | None]) -> float | None:
    """The mean of the values that are not None; None if there is none."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _no_rows() -> DetectionRows:
    none = np.zeros(0, dtype=np.int64)
    return DetectionRows((), none, np.zeros((0, 4)), none, np.zeros(0))
