"""``video-map``: the video mAP of tubes, or of a result csv whose boxes are linked first."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stclip.data.ground_truth import read_tube_truth
from stclip.data.tubes import TubeFile, read_detected_tubes, write_detected_tubes
from stclip.errors import UserError
from stclip.evaluation.frame_map import Metrics
from stclip.evaluation.result_csv import read_result_csv
from stclip.evaluation.results import format_columns, percent
from stclip.evaluation.rows import DetectionRows
from stclip.evaluation.tubes import MAX_GAP, MIN_FRAMES, MIN_SCORE, link_tubes
from stclip.evaluation.video_map import RANGE_NAME, video_map
from stclip.scoring.common import (
    Outcome,
    add_command,
    add_iou,
    add_output,
    add_subset,
    check_boxes,
    check_labels,
    check_rows,
    listed_videos,
    note,
    read_names,
    refuse_csv,
)
from stclip.structures import Tube

_TEXT = """\
Video mAP of tubes or of a result csv, in percent.

The boxes of a csv are linked to tubes first: for every class and frame, boxes that overlap a better
one by more than 0.3 are dropped and the best 10 of the others kept; from frame to frame a tube
takes the highest-scoring box that overlaps its last one by at least 0.2, and ends after 5 frames
without one. Its score is the mean of its boxes'. Tubes shorter than 15 frames (or than the video)
or scoring less than 0.01 are dropped. Tubes of a .json are taken as they are.

The evaluated classes are those of --test-label, in the order that the csv's label indices count in;
without it, all classes of the ground truth in its order. Beside --iou, the mean over 0.5, 0.55 ...
0.95 is always given. DATA.md ("Tubes") has the format of the .json files.
"""
_EXAMPLE = """\
examples:
  stclip evaluate video-map --ground-truth data/ucf24/UCF101v2-GT.pkl \\
      --detections output/inference/ucf24/result_ucf24.csv \\
      --test-label data/label_splits/ucf24/split_1/test_label.txt --json output/video_map.json
  stclip evaluate video-map --ground-truth tubes.json --detections found.json --iou 0.5
"""


def add_video_map(commands: Any) -> None:
    """Add the subcommand."""
    parser = add_command(commands, "video-map", _TEXT, _EXAMPLE)
    parser.add_argument(
        "--ground-truth", type=Path, required=True, metavar="FILE",
        help="JHMDB-GT.pkl, UCF101v2-GT.pkl, pyannot.pkl (with testlist01.txt beside it), or a "
        ".json of tubes",
    )  # fmt: skip
    parser.add_argument(
        "--detections", type=Path, required=True, metavar="FILE",
        help="a .json of tubes, or a result csv, plain or gzipped",
    )  # fmt: skip
    parser.add_argument(
        "--test-label", type=Path, metavar="FILE", help="the evaluated classes, one a line"
    )
    parser.add_argument(
        "--save-tubes", type=Path, metavar="FILE",
        help="write the tubes that a csv was linked to, as a .json that --detections takes",
    )  # fmt: skip
    add_iou(parser, 0.2, 0.5, 0.75)
    add_subset(parser)
    add_output(parser)
    parser.set_defaults(command=run_video_map)


def run_video_map(arguments: argparse.Namespace) -> Outcome:
    """The metrics of ``video-map``, and a table of them."""
    path: Path = arguments.detections
    is_tubes = path.suffix == ".json"
    saved: Path | None = arguments.save_tubes
    if saved is not None and (is_tubes or (saved.exists() and not arguments.overwrite)):
        problem = "needs a csv of detections" if is_tubes else "exists already (--overwrite?)"
        raise UserError(f"--save-tubes {saved}: {problem}")
    refuse_csv(arguments.ground_truth)
    truth = read_tube_truth(
        arguments.ground_truth, arguments.official_split, read_names(arguments.all_label)
    )
    labels = read_names(arguments.test_label) or list(truth.labels)
    source = arguments.test_label or truth.path
    check_labels(labels, truth.labels, source, truth.path)
    _check_tubes(truth.tubes, truth, truth.path, "cannot be found")
    if is_tubes:
        found = read_detected_tubes(path, truth.labels, truth.tubes)
        _check_tubes(found, truth, path, "count as misses")
    else:
        rows = read_result_csv(path, labels, truth.tubes, source)
        check_rows(rows, _boxes(truth.tubes), path)
        found = link_tubes(rows, labels, truth.lengths)
        if not any(found.values()):
            note(f"{path}: no tube in it{_why_no_tube(rows)}")
    if saved is not None:
        write_detected_tubes(saved, found)
    metrics = _evaluate(arguments, truth, found, labels)
    return metrics, _format(metrics)


def _boxes(tubes: Mapping[str, Sequence[Tube]]) -> NDArray[np.float32]:
    """All boxes (n, 4) of all tubes."""
    parts = [tube.boxes for some in tubes.values() for tube in some]
    return np.concatenate([np.zeros((0, 4), np.float32), *parts])


def _check_tubes(found: dict[str, list[Tube]], truth: TubeFile, path: Path, fate: str) -> None:
    places = [(video, frame) for video, some in found.items() for t in some for frame in t.frames]

    def place(index: int) -> str:
        return f"{places[index][0]} {places[index][1]}"

    check_boxes(_boxes(found), _boxes(truth.tubes), path, place, fate=fate)


def _why_no_tube(rows: DetectionRows) -> str:
    """What keeps all boxes from becoming tubes."""
    if not len(rows):
        return ", for it has no row"
    best = rows.scores.max()
    if best < MIN_SCORE:
        return (
            f": tubes that score less than {MIN_SCORE:g} are dropped, and its best box has {best:g}"
        )
    frames: dict[str, list[int]] = {}
    for key in rows.keys:
        frames.setdefault(key.video, []).append(key.frame)
    gaps = [gap for numbers in frames.values() for gap in np.diff(sorted(numbers)).tolist()]
    if not gaps or np.median(gaps) > MAX_GAP:
        apart = f"{np.median(gaps):g} apart" if gaps else "one a video"
        return (
            f": a tube ends after {MAX_GAP} frames without a box, and its frames are {apart}; "
            "detections in (nearly) every frame are needed"
        )
    return (
        f": none of {MIN_FRAMES} frames (or of the video's length) that scores {MIN_SCORE:g} or "
        "more; do its boxes overlap from frame to frame?"
    )


def _evaluate(
    arguments: argparse.Namespace,
    truth: TubeFile,
    found: dict[str, list[Tube]],
    labels: Sequence[str],
) -> Metrics:
    videos = set(truth.tubes)
    if arguments.videos:
        videos = listed_videos(videos, truth.path, arguments.videos)
    metrics = video_map(
        {video: truth.tubes[video] for video in videos},
        {video: tubes for video, tubes in found.items() if video in videos},
        labels,
        arguments.iou,
    )
    if not any(metrics["ground_truth_tubes"].values()):
        raise UserError(
            f"{truth.path}: none of its tubes in the {len(videos)} evaluated videos has a label of "
            f"{arguments.test_label or 'its own list'}; are these the right files?"
        )
    return metrics


def _format(metrics: Metrics) -> str:
    names = [*(f"{t:g}" for t in metrics["iou_thresholds"]), RANGE_NAME]
    counts: dict[str, int] = metrics["ground_truth_tubes"]
    lines = [["class", "tubes", *(f"AP@{name}" for name in names)]]
    for label, count in counts.items():
        values = [metrics[f"per_class@{name}"][label] for name in names]
        lines.append([label, str(count), *map(percent, values)])
    means = [metrics[f"video_mAP@{name}"] for name in names]
    lines.append(["mean", str(sum(counts.values())), *map(percent, means)])
    return format_columns(lines)
