"""Frame mAP of J-HMDB and UCF101-24 (docs/evaluation.md, "Frame mAP").

For each class, detections are ranked by score. A detection matches the ground truth of its frame
and class that it overlaps most, if the overlap reaches the threshold and no higher-ranked
detection has matched it; otherwise it is a false positive, also where the frame has no ground
truth at all. A best match that is already taken does not fall through to the second best.

AVA's metric and video mAP use the same matching (``stclip.evaluation.ava``, ``video_map``).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from stclip.errors import UserError
from stclip.evaluation.result_csv import DetectionRows
from stclip.structures import FrameKey
from stclip.structures.boxes import paired_iou

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Metrics = dict[str, Any]


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
    truth = TruthBoxes.of_frames(ground_truth, labels)
    return evaluate_rows(truth, rows, labels, check_thresholds(iou_thresholds))


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


def generalized(metrics: Metrics, unseen: Collection[str]) -> Metrics:
    """The metrics of a whole vocabulary, with means over its unseen and its seen classes.

    Args:
        metrics: what ``frame_map`` returns for the whole vocabulary.
        unseen: class names, all of them in the vocabulary; the others count as seen.

    Returns:
        The same, but ``frame_mAP@T`` is the mean over the unseen classes for each threshold T,
        ``frame_mAP_seen@T`` over the others and ``frame_mAP_all@T`` over all, each in percent over
        the classes that have ground truth and None if none has. ``H@T`` is the harmonic mean of
        the first two, None where one of them is; ``H`` is the one at the threshold of
        ``per_class``. ``unseen``: the unseen classes in the order of the vocabulary.
    """
    known = metrics["ground_truth_boxes"]
    assert set(unseen) <= set(known), "unseen: classes of the vocabulary"
    found = dict(metrics)
    for threshold in metrics["iou_thresholds"]:
        per_class = metrics[f"per_class@{threshold:g}"]
        a = mean(value for name, value in per_class.items() if name in unseen)
        b = mean(value for name, value in per_class.items() if name not in unseen)
        found[f"frame_mAP@{threshold:g}"], found[f"frame_mAP_seen@{threshold:g}"] = a, b
        found[f"frame_mAP_all@{threshold:g}"] = mean(per_class.values())
        found[f"H@{threshold:g}"] = None if a is None or b is None else harmonic_mean(a, b)
    chosen = 0.5 if 0.5 in metrics["iou_thresholds"] else metrics["iou_thresholds"][0]
    found["H"] = found[f"H@{chosen:g}"]
    found["unseen"] = [name for name in known if name in unseen]
    return found


def harmonic_mean(a: float, b: float) -> float:
    """2ab / (a + b); 0 if both are 0."""
    return 2 * a * b / (a + b) if a + b else 0.0


def mean(values: Iterable[float | None]) -> float | None:
    """The mean of the values that are not None; None if there is none."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


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


def why_zero(
    metrics: Metrics, rows: DetectionRows, annotated: Collection[FrameKey], positive: bool = True
) -> str | None:
    """What explains a frame mAP of 0 at every threshold; None if it is not 0.

    Args:
        metrics: the frame mAP's.
        rows: the detections.
        annotated: the frames with ground truth.
        positive: only rows with a score above 0 take part.
    """
    lowest = metrics["iou_thresholds"][0]
    if any(metrics[f"per_class@{lowest:g}"].values()):
        return None
    if not len(rows):
        return "the mAP is 0 because the file has no rows"
    if positive and rows.scores.max() <= 0:
        return "the mAP is 0 because no score is above 0"
    inside = sum(key in annotated for key in rows.keys)
    if not inside:
        return (
            f"the mAP is 0: none of its {len(rows.keys)} frames is annotated; are frames "
            "counted the same way in both files?"
        )
    return (
        f"the mAP is 0: in its {inside} annotated frames no box overlaps one of its class by "
        f"IoU {lowest:g}; are boxes pixels of the same pictures, and labels in the same order?"
    )


def average_precision(
    scores: NDArray[np.floating[Any]], is_true_positive: NDArray[np.bool_], num_ground_truth: int
) -> float:
    """Area under the precision-recall curve, precision made non-increasing from the right.

    Args:
        scores: (n,) scores of one class's detections, in any order. Of equal scores, the one that
            comes first ranks first.
        is_true_positive: (n,) whether each detection matches a ground truth; every ground truth
            is matched at most once.
        num_ground_truth: how many ground truths there are, found or not.

    Returns:
        A fraction in [0, 1]; 0 without detections, NaN without ground truth.
    """
    assert scores.shape == is_true_positive.shape, f"{scores.shape}, {is_true_positive.shape}"
    if num_ground_truth == 0:
        return float("nan")
    hits = is_true_positive[np.argsort(-scores, kind="stable")]
    # Recall grows only at true positives, so only the precisions there are steps of the curve.
    ranks = np.flatnonzero(hits) + 1
    precision = np.arange(1, len(ranks) + 1) / ranks
    assert len(ranks) <= num_ground_truth, "more true positives than ground truths"
    envelope = np.maximum.accumulate(precision[::-1])
    return float(envelope.sum() / num_ground_truth)


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
