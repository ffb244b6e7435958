"""The metric of the AVA challenge (docs/evaluation.md, "AVA").

It is frame mAP with seconds for frames and boxes as fractions of the picture: the same matching
and average precision, and classes without ground truth left out of the mean. Unlike there, a row
counts whatever its score.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from stclip.evaluation.frame_map import Metrics, TruthBoxes, check_thresholds, evaluate_rows, mean
from stclip.evaluation.result_csv import DetectionRows
from stclip.structures.groups import OBJECT, PERSON, POSE

CLASSES = range(1, 81)  # AVA's action ids; 60 of them are evaluated officially


def ava_map(
    ground_truth: DetectionRows,
    detections: DetectionRows,
    classes: Mapping[int, str],
    excluded: Collection[tuple[str, int]] = (),
    iou_thresholds: Sequence[float] = (0.5,),
) -> Metrics:
    """Frame mAP of AVA's files.

    Args:
        ground_truth: a row for each label of each box; labels are places in ``classes``. A box
            that has a label twice counts twice, as in the challenge.
        detections: likewise; rows in frames without ground truth are false positives.
        classes: the evaluated action ids and their names.
        excluded: (video, second) whose rows are dropped on both sides.
        iou_thresholds: a match needs at least this IoU.

    Returns:
        What ``frame_map`` returns, and ``class_ids``: {class: action id}. If all ids are AVA's,
        ``per_group``: {pose, object and person: mean AP in percent of the group's classes, None
        without ground truth}.

    Raises:
        UserError: a threshold outside (0, 1], or none.
    """
    thresholds = check_thresholds(iou_thresholds)
    names = list(classes.values())
    assert len(set(names)) == len(names), "a class is named twice"
    truth = TruthBoxes.of_rows(ground_truth.without(excluded), len(names))
    rows = detections.without(excluded)
    metrics = evaluate_rows(truth, rows, names, thresholds, positive=False)
    metrics["class_ids"] = {name: number for number, name in classes.items()}
    if all(number in CLASSES for number in classes):
        aps: dict[str, list[float | None]] = {}
        for number, name in classes.items():
            aps.setdefault(group_of(number), []).append(metrics["per_class"][name])
        metrics["per_group"] = {group: mean(values) for group, values in aps.items()}
    return metrics


def group_of(number: int) -> str:
    """The group of one of AVA's action ids: pose, object (manipulation) or person (interaction)."""
    return POSE if number <= 14 else OBJECT if number <= 63 else PERSON
