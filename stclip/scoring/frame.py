"""``frame-map``: the frame mAP of a result csv, or of the scores before they were voted upon."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stclip.data.annotations import GroundTruth
from stclip.data.ground_truth import read_evaluation_truth
from stclip.data.labels import read_label_file
from stclip.errors import UserError
from stclip.evaluation.frame_map import Metrics, frame_map
from stclip.evaluation.generalized import generalized
from stclip.evaluation.predictions import of_vocabulary, read_predictions
from stclip.evaluation.result_csv import read_result_csv
from stclip.evaluation.results import format_table, soft_voting
from stclip.evaluation.rows import DetectionRows, rows_of
from stclip.scoring.common import (
    Outcome,
    add_command,
    add_iou,
    add_output,
    add_subset,
    add_unseen,
    check_boxes,
    check_labels,
    check_rows,
    listed_videos,
    note,
    read_names,
    read_unseen,
    refuse_csv,
    why_zero,
)
from stclip.structures import Detections

_TEXT = """\
Frame mAP of a result csv or of predictions.npz, in percent.

Both files are what stclip test writes. The evaluated classes are those of --test-label, in
the order that the csv's label indices count in. The ground truth is all their boxes in the test
videos, also in frames without detections. Every row of the csv counts: where its video and frame
have no ground truth of its class, it is a false positive. A row in a video that the ground truth
file does not know (of J-HMDB: that is not in the official test list) is an error.

predictions.npz knows its classes, so --test-label may be left out, or name some of them in any
order. It has the scores before soft voting, so --single-action can be tried without testing anew;
and with --renormalise the scores are those of a test of these classes alone.
"""
_EXAMPLE = """\
examples:
  stclip evaluate frame-map --ground-truth data/jhmdb/JHMDB-GT.pkl \\
      --detections output/inference/jhmdb/result_jhmdb.csv \\
      --test-label data/label_splits/jhmdb/split_1/test_label.txt \\
      --iou 0.2 0.5 0.75 --json output/frame_map.json
  stclip evaluate frame-map --ground-truth data/jhmdb/JHMDB-GT.pkl \\
      --detections output/inference/jhmdb/predictions.npz --single-action
  stclip evaluate frame-map --ground-truth data/jhmdb/JHMDB-GT.pkl \\
      --detections output/all_classes/inference/jhmdb/predictions.npz \\
      --unseen-label data/label_splits/jhmdb/split_1/test_label.txt
"""


def add_frame_map(commands: Any) -> None:
    """Add the subcommand."""
    parser = add_command(commands, "frame-map", _TEXT, _EXAMPLE)
    parser.add_argument(
        "--ground-truth", type=Path, required=True, metavar="FILE",
        help="JHMDB-GT.pkl, UCF101v2-GT.pkl, pyannot.pkl (with testlist01.txt beside it), a "
        "jhmdb_*_gt_min.json, or a .json in our annotations format; AVA's csv goes with the "
        "command ava",
    )  # fmt: skip
    parser.add_argument(
        "--detections", type=Path, required=True, metavar="FILE",
        help="rows `class/video,frame,x1,y1,x2,y2,label (from 1),score`, plain or gzipped; or a "
        "predictions.npz",
    )  # fmt: skip
    parser.add_argument(
        "--test-label", type=Path, metavar="FILE", help="the evaluated classes, one a line"
    )
    parser.add_argument(
        "--single-action", action="store_true",
        help="average the class scores over all persons of a video first (predictions.npz only)",
    )  # fmt: skip
    add_renormalise(parser)
    add_unseen(parser)
    add_iou(parser, 0.2, 0.5, 0.75)
    add_subset(parser)
    add_output(parser)
    parser.set_defaults(command=run_frame_map)


def add_renormalise(parser: argparse.ArgumentParser) -> None:
    """--renormalise."""
    parser.add_argument(
        "--renormalise", action="store_true",
        help="share each person's scores anew among the classes of --test-label: what a test of "
        "these classes alone gives, if the classes exclude each other (predictions.npz only)",
    )  # fmt: skip


def run_frame_map(arguments: argparse.Namespace) -> Outcome:
    """The metrics of ``frame-map``, and a table of them."""
    path: Path = arguments.detections
    if is_archive(path):
        detections, labels = read_scored(arguments, path)
        rows = rows_of(soft_voting(detections) if arguments.single_action else detections)
        truth = read_truth(arguments, labels, arguments.test_label or path)
        check_videos(rows, truth, path)
    else:
        for option in ("single_action", "renormalise"):
            if getattr(arguments, option):
                raise UserError(
                    f"--{option.replace('_', '-')}: {path} is a csv, whose scores are multiplied "
                    "by the detector's already; give the predictions.npz beside it"
                )
        if arguments.test_label is None:
            raise UserError(f"--test-label: is needed to know what the labels of {path} stand for")
        labels = read_label_file(arguments.test_label)
        truth = read_truth(arguments, labels, arguments.test_label)
        rows = read_result_csv(path, labels, set(truth.keyframes), arguments.test_label)
    metrics = evaluate(arguments, truth, rows, labels)
    return metrics, format_table(metrics)


def is_archive(path: Path) -> bool:
    """Whether a file is a zip archive, as .npz files are."""
    with open(path, "rb") as file:
        return file.read(2) == b"PK"


def read_scored(arguments: argparse.Namespace, path: Path) -> tuple[Detections, list[str]]:
    """Predictions over the classes of --test-label, before voting."""
    detections, known = read_predictions(path)
    labels = read_names(arguments.test_label) or list(known)
    check_labels(labels, known, arguments.test_label or path, path)
    try:
        return of_vocabulary(detections, known, labels, arguments.renormalise), labels
    except UserError as error:
        raise UserError(f"--renormalise: {path}: {error}") from error


def read_truth(
    arguments: argparse.Namespace, labels: Sequence[str], label_file: Path
) -> GroundTruth:
    """The ground truth, which knows all of the labels."""
    refuse_csv(arguments.ground_truth)
    all_names = read_names(arguments.all_label)
    truth = read_evaluation_truth(arguments.ground_truth, arguments.official_split, all_names)
    check_labels(labels, truth.labels, label_file, truth.path)
    return truth


def check_videos(rows: DetectionRows, truth: GroundTruth, path: Path) -> None:
    """Check that the ground truth knows all videos of predictions."""
    unknown = sorted({key.video for key in rows.keys} - set(truth.keyframes))
    if unknown:
        raise UserError(
            f"{path}: {len(unknown)} of its videos are not in {truth.path}, the first is "
            f"{unknown[0]!r}; give the ground truth of the dataset that was tested"
        )


def evaluate(
    arguments: argparse.Namespace, truth: GroundTruth, rows: DetectionRows, labels: list[str]
) -> Metrics:
    """The frame mAP, of --videos and with the means of --unseen-label where these are given."""
    unseen = read_unseen(arguments.unseen_label, labels) if arguments.unseen_label else None
    videos = set(truth.keyframes)
    if arguments.videos:
        videos = listed_videos(videos, truth.path, arguments.videos)
        total, rows = len(rows), rows.of_videos(videos)
        if len(rows) < total:
            note(
                f"{arguments.detections}: {total - len(rows)} of {total} rows are left out, their "
                "videos are not in --videos"
            )
    keyframes = [frame for video in sorted(videos) for frame in truth.keyframes[video]]
    annotated = [frame.key for frame in keyframes for _ in frame.boxes]
    if annotated:
        boxes = np.concatenate([frame.boxes for frame in keyframes])
        check_boxes(
            boxes,
            boxes,
            truth.path,
            lambda index: f"{annotated[index].video} {annotated[index].frame}",
            fate="cannot be found",
        )
        check_rows(rows, boxes, arguments.detections)
    metrics = frame_map(keyframes, rows, labels, arguments.iou)
    if not any(metrics["ground_truth_boxes"].values()):
        raise UserError(
            f"{truth.path}: none of its boxes in the {len(videos)} evaluated videos has a label of "
            f"{arguments.test_label or arguments.detections}; are these the right files?"
        )
    if hint := why_zero(metrics, rows, set(annotated)):
        note(f"{arguments.detections}: {hint}")
    return metrics if unseen is None else generalized(metrics, unseen)
