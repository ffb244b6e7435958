"""Score a result file against ground truth. See `python tools/evaluate.py COMMAND --help`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stclip.cli import Parser, run
from stclip.data.ground_truth import EvaluationTruth, read_evaluation_truth
from stclip.data.labels import choices, read_label_file, read_video_list
from stclip.errors import UserError
from stclip.evaluation.frame_map import frame_map
from stclip.evaluation.result_csv import read_result_csv
from stclip.evaluation.results import format_table
from stclip.files import write_json

FRAME_MAP = """\
Frame mAP of a result csv (what tools/test_net.py writes), in percent.

The evaluated classes are those of --test-label, in the order that the csv's label indices count
in. The ground truth is all their boxes in the test videos, also in frames without detections.
Every row of the csv counts: where its video and frame have no ground truth of its class, it is a
false positive. A row in a video that the ground truth file does not know (of J-HMDB: that is not
in the official test list) is an error.
"""
FRAME_MAP_EXAMPLE = """\
example:
  python tools/evaluate.py frame-map --ground-truth data/jhmdb/JHMDB-GT.pkl \\
      --detections output/inference/jhmdb/result_jhmdb.csv \\
      --test-label data/label_splits/jhmdb/split_1/test_label.txt \\
      --iou 0.2 0.5 0.75 --json output/frame_map.json
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the subcommand that ``argv`` names."""
    arguments = _parser().parse_args(argv)
    out: Path | None = arguments.json
    if out is not None and out.exists() and not arguments.overwrite:
        raise UserError(f"{out}: exists already; give another --json, or --overwrite")
    metrics, table = arguments.command(arguments)
    if out is not None:
        write_json(out, metrics)
    print(table)
    return 0


def run_frame_map(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """The metrics of ``frame-map``, and a table of them."""
    labels = read_label_file(arguments.test_label)
    all_names = read_label_file(arguments.all_label) if arguments.all_label else None
    truth = read_evaluation_truth(arguments.ground_truth, arguments.official_split, all_names)
    for name in labels:
        if name not in truth.labels:
            raise UserError(
                f"{arguments.test_label}: label {name!r} is not a class of {truth.path}; "
                f"{choices(name, truth.labels)}"
            )
    videos = set(truth.keyframes)
    rows = read_result_csv(arguments.detections, labels, videos, arguments.test_label)
    if arguments.videos:
        videos = _listed_videos(truth, arguments.videos)
        total, rows = len(rows), rows.of_videos(videos)
        if len(rows) < total:
            print(
                f"{arguments.detections}: {total - len(rows)} of {total} rows are left out, their "
                "videos are not in --videos",
                file=sys.stderr,
            )
    keyframes = [frame for video in sorted(videos) for frame in truth.keyframes[video]]
    metrics = frame_map(keyframes, rows, labels, arguments.iou)
    if not any(metrics["ground_truth_boxes"].values()):
        raise UserError(
            f"{truth.path}: none of its boxes in the {len(videos)} evaluated videos has a label of "
            f"{arguments.test_label}; are these the right files?"
        )
    return metrics, format_table(metrics)


def _listed_videos(truth: EvaluationTruth, path: Path) -> set[str]:
    listed = read_video_list(path)
    videos, unknown = truth.listed(listed)
    if not videos:
        raise UserError(
            f"{path}: none of its {len(listed)} videos is in {truth.path}; the first it names is "
            f"{listed[0]!r}"
        )
    if unknown:
        print(
            f"{path}: {len(unknown)} of {len(listed)} videos are left out, they are not in "
            f"{truth.path} (first: {unknown[0]})",
            file=sys.stderr,
        )
    return videos


def _parser() -> argparse.ArgumentParser:
    parser = Parser(description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_frame_map(commands)
    return parser


def _add_frame_map(commands: Any) -> None:
    parser = commands.add_parser(
        "frame-map",
        help="frame mAP of a result csv",
        description=FRAME_MAP,
        epilog=FRAME_MAP_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--ground-truth", type=Path, required=True, metavar="FILE",
        help="JHMDB-GT.pkl, a jhmdb_*_gt_min.json, or a file in our annotations format",
    )  # fmt: skip
    parser.add_argument(
        "--detections", type=Path, required=True, metavar="CSV",
        help="rows `class/video,frame,x1,y1,x2,y2,label (from 1),score`, plain or gzipped",
    )  # fmt: skip
    parser.add_argument(
        "--test-label", type=Path, required=True, metavar="FILE",
        help="the evaluated classes, one a line",
    )  # fmt: skip
    parser.add_argument(
        "--all-label", type=Path, metavar="FILE",
        help="all classes of the dataset in its order, if their names were worded differently",
    )  # fmt: skip
    parser.add_argument(
        "--iou", type=float, nargs="+", default=[0.2, 0.5, 0.75], metavar="T",
        help="IoU thresholds (default: 0.2 0.5 0.75)",
    )  # fmt: skip
    parser.add_argument(
        "--videos", type=Path, metavar="FILE",
        help="evaluate these videos only (one a line, with or without the class folder); boxes and "
        "rows of all other videos are left out",
    )  # fmt: skip
    parser.add_argument(
        "--official-split", type=int, default=1, metavar="N",
        help="which test list of JHMDB-GT.pkl (1, 2 or 3; default: 1)",
    )  # fmt: skip
    _add_output(parser)
    parser.set_defaults(command=run_frame_map)


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the numbers to this file")
    parser.add_argument("--overwrite", action="store_true", help="OUT may exist already")


if __name__ == "__main__":
    run(main)
