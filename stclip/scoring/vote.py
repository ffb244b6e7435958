"""``vote``: the results of a test under the single-action assumption, without testing anew."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from stclip.errors import UserError
from stclip.evaluation.results import format_table, soft_voting, write_results
from stclip.evaluation.rows import rows_of
from stclip.scoring.common import Outcome, add_command, add_iou, add_output, add_subset, add_unseen
from stclip.scoring.frame import (
    add_renormalise,
    check_videos,
    evaluate,
    read_scored,
    read_truth,
)

_TEXT = """\
Single-action voting: the voted results of a test, from its predictions.npz.

Class scores are averaged over all persons of a video before they are multiplied by the detector's,
which is what TEST.SINGLE_ACTION True does. --out receives what stclip test writes, with
the csv named after the folder; a folder that is there already is renamed. With --ground-truth the
frame mAP is computed too.
"""
_EXAMPLE = """\
example:
  stclip evaluate vote --predictions output/inference/jhmdb/predictions.npz \\
      --out output/voted/jhmdb --ground-truth data/jhmdb/JHMDB-GT.pkl
"""


def add_vote(commands: Any) -> None:
    """Add the subcommand."""
    parser = add_command(commands, "vote", _TEXT, _EXAMPLE)
    parser.add_argument(
        "--predictions", type=Path, required=True, metavar="NPZ", dest="detections",
        help="predictions.npz of a test, voted or not: it has the scores before voting",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="where the voted results go"
    )
    parser.add_argument(
        "--ground-truth", type=Path, metavar="FILE", help="as for frame-map; without it, no mAP"
    )
    parser.add_argument(
        "--test-label", type=Path, metavar="FILE", help="some of the classes, in any order"
    )
    add_renormalise(parser)
    add_unseen(parser)
    add_iou(parser, 0.2, 0.5, 0.75)
    add_subset(parser)
    add_output(parser)
    parser.set_defaults(command=run_vote)


def run_vote(arguments: argparse.Namespace) -> Outcome:
    """Write the folder; the metrics, and a table of them."""
    path: Path = arguments.detections
    unvoted, labels = read_scored(arguments, path)
    voted = soft_voting(unvoted)
    metrics: dict[str, Any] = {"boxes": len(voted)}
    table = f"{arguments.out}: written; no --ground-truth, so no mAP"
    if arguments.ground_truth:
        rows = rows_of(voted)
        truth = read_truth(arguments, labels, arguments.test_label or path)
        check_videos(rows, truth, path)
        metrics = {**evaluate(arguments, truth, rows, labels), **metrics}
        table = format_table(metrics)
    elif arguments.unseen_label or arguments.videos:
        raise UserError("--unseen-label, --videos: mean nothing without --ground-truth")
    texts = {"metrics.json": json.dumps(metrics, indent=2) + "\n"}
    out: Path = arguments.out
    write_results(out.parent, out.name, labels, voted, unvoted=unvoted, texts=texts)
    return metrics, table
