"""Video mAP (docs/evaluation.md, "Video mAP"): tubes are matched as boxes are for frame mAP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from stclip.evaluation.average_precision import average_precision
from stclip.evaluation.frame_map import Metrics, check_thresholds, mean
from stclip.evaluation.matching import first_claims
from stclip.structures import Tube
from stclip.structures.boxes import paired_iou

# The mean over these is reported as "0.5:0.95".
RANGE = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
RANGE_NAME = "0.5:0.95"

Tubes = Mapping[str, Sequence[Tube]]


def video_map(
    ground_truth: Tubes,
    detections: Tubes,
    labels: Sequence[str],
    iou_thresholds: Sequence[float] = (0.2, 0.5, 0.75),
) -> Metrics:
    """Video mAP of ``detections`` against ``ground_truth``.

    A detected tube matches the ground-truth tube of its video and class that it overlaps most
    (``tube_iou``), under the rules of frame mAP: by descending score, and a best match that is
    already taken does not fall through.

    Args:
        ground_truth: the tubes of every evaluated video, those without detections included.
        detections: the tubes found, by video; equal scores rank by the video's name, then in their
            order.
        labels: the evaluated classes; tubes of others are left out on both sides.
        iou_thresholds: a match needs at least this IoU.

    Returns:
        ``video_mAP@T`` in percent for each threshold T: the mean over the classes that have ground
        truth, None if none has. ``video_mAP@0.5:0.95``: the mean of those at 0.5, 0.55 ... 0.95.
        ``per_class@T``: {class: AP in percent, None without ground truth}, also for 0.5:0.95.
        ``per_class``: the same at 0.5, or at the first threshold if 0.5 is not asked for.
        ``iou_thresholds``: ascending. ``ground_truth_tubes``: {class: count}. ``tubes``: how many
        detected ones took part.

    Raises:
        UserError: a threshold outside (0, 1], or none.
    """
    thresholds = check_thresholds(iou_thresholds)
    wanted = sorted({*thresholds, *RANGE})
    per_class: dict[float, dict[str, float | None]] = {t: {} for t in wanted}
    all_truths, all_found = _by_class(ground_truth), _by_class(detections)
    counts, taken = {}, 0
    for name in labels:
        truths = all_truths.get(name, {})
        found = [(tube, v) for v, tubes in all_found.get(name, {}).items() for tube in tubes]
        scores = np.array([tube.score for tube, _ in found], dtype=np.float64)
        ranked = [found[i] for i in np.argsort(-scores, kind="stable")]
        total, numbers = 0, {}  # of the first ground truth of each video
        for video, tubes in truths.items():
            numbers[video] = total
            total += len(tubes)
        best = np.full(len(ranked), -1, dtype=np.int64)
        overlap = np.zeros(len(ranked))
        for row, (tube, video) in enumerate(ranked):
            if video in truths:
                ious = [tube_iou(tube, truth) for truth in truths[video]]
                best[row] = numbers[video] + int(np.argmax(ious))
                overlap[row] = max(ious)
        ordered = -np.sort(-scores)
        for threshold in wanted:
            hits = first_claims(best, overlap >= threshold)
            value = average_precision(ordered, hits, total)
            per_class[threshold][name] = 100 * value if total else None
        counts[name] = total
        taken += len(found)
    ranges = {name: mean(per_class[t][name] for t in RANGE) for name in labels}
    metrics: Metrics = {f"video_mAP@{t:g}": mean(per_class[t].values()) for t in thresholds}
    metrics[f"video_mAP@{RANGE_NAME}"] = mean(ranges.values())
    metrics["per_class"] = per_class[0.5 if 0.5 in thresholds else thresholds[0]]
    metrics.update({f"per_class@{t:g}": per_class[t] for t in thresholds})
    metrics[f"per_class@{RANGE_NAME}"] = ranges
    metrics["iou_thresholds"] = list(thresholds)
    metrics["ground_truth_tubes"] = counts
    metrics["tubes"] = taken
    return metrics


def tube_iou(a: Tube, b: Tube) -> float:
    """Spatio-temporal IoU, as MultiSports computes it.

    The mean spatial IoU over the frames that both have, times the temporal IoU (tmax - tmin) /
    (union extent): tmin and tmax bound the overlap in time, and the union reaches from the first
    frame of either to the last. Extents are differences of frame numbers, without + 1, so tubes
    that share one frame only have 0; but two tubes of one and the same frame have the spatial IoU.
    """
    low, high = max(a.first, b.first), min(a.last, b.last)
    union = max(a.last, b.last) - min(a.first, b.first)
    if high < low or (high == low and union):
        return 0.0
    _, of_a, of_b = np.intersect1d(a.frames, b.frames, assume_unique=True, return_indices=True)
    if not len(of_a):
        return 0.0
    ious = paired_iou(a.boxes[of_a].astype(np.float64), b.boxes[of_b].astype(np.float64))
    return float(ious.mean()) * ((high - low) / union if union else 1.0)


def _by_class(tubes: Tubes) -> dict[str, dict[str, list[Tube]]]:
    """{label: {video: its tubes of that label}}, with the videos in order."""
    sorted_: dict[str, dict[str, list[Tube]]] = {}
    for video in sorted(tubes):
        for tube in tubes[video]:
            sorted_.setdefault(tube.label, {}).setdefault(video, []).append(tube)
    return sorted_
