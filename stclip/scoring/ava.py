"""``ava``: the metric of the AVA challenge on AVA's own files."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from stclip.data.ava_files import read_label_map, read_moments
from stclip.data.labels import read_label_file
from stclip.errors import UserError
from stclip.evaluation.ava import CLASSES, ava_map
from stclip.evaluation.generalized import generalized
from stclip.evaluation.result_csv import read_ava_rows
from stclip.evaluation.results import format_table, percent
from stclip.evaluation.rows import DetectionRows
from stclip.scoring.common import (
    Outcome,
    add_command,
    add_iou,
    add_output,
    add_unseen,
    check_rows,
    note,
    read_unseen,
    why_zero,
)

_TEXT = """\
AVA mAP of a csv of detections, in percent.

The metric of the AVA challenge: detections match ground truth of their second and class at an
IoU of 0.5, classes without ground truth are left out of the mean, excluded timestamps are dropped
on both sides, and rows of classes that are not evaluated are skipped. Detections in seconds without
ground truth are false positives.

Evaluated are the classes of --label-map (AVA's .pbtxt files have all 80 or the 60 official ones; of
a text file of names, line n is class n), of these the ones whose ids --classes lists, one a line;
without either, the ids 1 to 80. The means of the three groups are given too.
"""
_EXAMPLE = """\
example:
  stclip evaluate ava --ground-truth data/ava/annotations/ava_val_v2.2.csv \\
      --detections output/inference/ava/result_ava.csv \\
      --excluded data/ava/annotations/ava_val_excluded_timestamps_v2.2.csv \\
      --label-map data/label_splits/ava/all_label.txt --json output/ava.json
"""


def add_ava(commands: Any) -> None:
    """Add the subcommand."""
    parser = add_command(commands, "ava", _TEXT, _EXAMPLE)
    parser.add_argument(
        "--ground-truth", type=Path, required=True, metavar="CSV",
        help="AVA's csv: rows `video,second,x1,y1,x2,y2,action id[,person id]`, boxes from 0 to 1",
    )  # fmt: skip
    parser.add_argument(
        "--detections", type=Path, required=True, metavar="CSV",
        help="rows `video,second,x1,y1,x2,y2,action id,score`; both plain or gzipped",
    )  # fmt: skip
    parser.add_argument(
        "--excluded", type=Path, metavar="CSV", help="rows `video,second` that are left out"
    )
    parser.add_argument(
        "--classes", type=Path, metavar="FILE", help="the evaluated action ids, one a line"
    )
    parser.add_argument(
        "--label-map", type=Path, metavar="FILE", help="the names: a .pbtxt, or one name a line"
    )
    add_unseen(parser)
    add_iou(parser, 0.5)
    add_output(parser)
    parser.set_defaults(command=run_ava)


def run_ava(arguments: argparse.Namespace) -> Outcome:
    """The metrics of ``ava``, and a table of them."""
    classes = _classes(arguments.label_map, arguments.classes)
    names = list(classes.values())
    unseen = read_unseen(arguments.unseen_label, names) if arguments.unseen_label else None
    excluded = read_moments(arguments.excluded) if arguments.excluded else set()
    truth = _read(arguments.ground_truth, classes, scored=False)
    rows = _read(arguments.detections, classes, scored=True)
    if len(rows) and not set(rows.keys) & set(truth.keys):
        raise UserError(
            f"{arguments.detections}: none of its {len(rows.keys)} seconds is in "
            f"{arguments.ground_truth}; the first is {rows.keys[0].video} {rows.keys[0].frame}, "
            f"there it is {truth.keys[0].video} {truth.keys[0].frame}"
        )
    metrics = ava_map(truth, rows, classes, excluded, arguments.iou)
    if hint := why_zero(metrics, rows, set(truth.keys), positive=False):
        note(f"{arguments.detections}: {hint}")
    if unseen is not None:
        metrics = generalized(metrics, unseen)
    table = format_table(metrics)
    for group, value in metrics.get("per_group", {}).items():
        table += f"\nmean {group}: {percent(value)}"
    return metrics, table


def _classes(label_map: Path | None, listed: Path | None) -> dict[int, str]:
    """The evaluated action ids and their names."""
    if label_map is None:
        classes = {number: str(number) for number in CLASSES}
    elif label_map.suffix == ".pbtxt":
        classes = read_label_map(label_map)
    else:
        classes = dict(enumerate(read_label_file(label_map), start=1))
    if len(set(classes.values())) < len(classes):
        raise UserError(f"{label_map}: two classes have the same name; names must be unique")
    if listed is None:
        return classes
    chosen: dict[int, str] = {}
    for text in read_label_file(listed):
        number = int(text) if text.strip().isdecimal() else -1
        if number not in classes:
            raise UserError(
                f"{listed}: {text!r} is not one of the {len(classes)} action ids of "
                f"{label_map or 'AVA'} ({min(classes)} to {max(classes)})"
            )
        chosen[number] = classes[number]
    return chosen


def _read(path: Path, classes: dict[int, str], scored: bool) -> DetectionRows:
    rows = read_ava_rows(path, list(classes), scored)
    if not scored and not len(rows):
        raise UserError(f"{path}: no row of any of the {len(classes)} evaluated classes")
    check_rows(rows, rows.boxes, path, shares=True)
    return rows
