"""Generalised zero-shot evaluation: seen and unseen classes compete, and are reported apart."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from stclip.evaluation.benchmark_table import harmonic_mean


def generalized(metrics: dict[str, Any], unseen: Collection[str]) -> dict[str, Any]:
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
        a = _mean([value for name, value in per_class.items() if name in unseen])
        b = _mean([value for name, value in per_class.items() if name not in unseen])
        found[f"frame_mAP@{threshold:g}"], found[f"frame_mAP_seen@{threshold:g}"] = a, b
        found[f"frame_mAP_all@{threshold:g}"] = _mean(list(per_class.values()))
        found[f"H@{threshold:g}"] = None if a is None or b is None else harmonic_mean(a, b)
    chosen = 0.5 if 0.5 in metrics["iou_thresholds"] else metrics["iou_thresholds"][0]
    found["H"] = found[f"H@{chosen:g}"]
    found["unseen"] = [name for name in known if name in unseen]
    return found


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
