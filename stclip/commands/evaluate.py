"""Compute a metric from result files and ground truth, without a model.

`stclip evaluate COMMAND --help` says what each computes, and from which files.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stclip.cli import Parser
from stclip.commands.evaluate_checks import (
    check_boxes,
    check_labels,
    check_rows,
    listed_videos,
    note,
    read_names,
    read_unseen,
    refuse_csv,
)
from stclip.config.defaults import get_cfg_defaults
from stclip.config.load import CHOICES
from stclip.data.annotations import GroundTruth
from stclip.data.ava_files import read_label_map, read_moments
from stclip.data.ground_truth import read_evaluation_truth, read_tube_truth
from stclip.data.labels import read_label_file
from stclip.data.tubes import TubeFile, read_detected_tubes, write_detected_tubes
from stclip.errors import UserError
from stclip.evaluation.ava import CLASSES, ava_map
from stclip.evaluation.frame_map import Metrics, frame_map, generalized, why_zero
from stclip.evaluation.rejection import rejection
from stclip.evaluation.result_csv import DetectionRows, read_ava_rows, read_result_csv, rows_of
from stclip.evaluation.results import read_predictions, write_results
from stclip.evaluation.tables import frame_map_table, percent, video_map_table
from stclip.evaluation.video_map import link_tubes, video_map, why_no_tube
from stclip.evaluation.voting import of_vocabulary, voted
from stclip.files import write_json
from stclip.structures import Detections, Tube

# What a command returns: the metrics, and a table of them.
Outcome = tuple[dict[str, Any], str]

FRAME_MAP = """\
Frame mAP of a result csv or of predictions.npz, in percent.

Both files are what stclip test writes. The evaluated classes are those of --test-label, in
the order that the csv's label indices count in. The ground truth is all their boxes in the test
videos, also in frames without detections. Every row of the csv counts: where its video and frame
have no ground truth of its class, it is a false positive. A row in a video that the ground truth
file does not know (of J-HMDB: that is not in the official test list) is an error.

predictions.npz knows its classes, so --test-label may be left out, or name some of them in any
order. It has the scores before voting, so --voting can be tried without a new test; and with
--renormalise the scores are those of a test of these classes alone.

examples:
  stclip evaluate frame-map --ground-truth data/jhmdb/JHMDB-GT.pkl \\
      --detections output/inference/jhmdb/result_jhmdb.csv \\
      --test-label data/label_splits/jhmdb/split_1/test_label.txt \\
      --iou 0.2 0.5 0.75 --json output/frame_map.json
  stclip evaluate frame-map --ground-truth data/jhmdb/JHMDB-GT.pkl \\
      --detections output/inference/jhmdb/predictions.npz --voting track
  stclip evaluate frame-map --ground-truth data/jhmdb/JHMDB-GT.pkl \\
      --detections output/all_classes/inference/jhmdb/predictions.npz \\
      --unseen-label data/label_splits/jhmdb/split_1/test_label.txt
"""
VIDEO_MAP = """\
Video mAP of tubes or of a result csv, in percent.

The boxes of a csv are linked to tubes first: for every class and frame, boxes that overlap a better
one by more than 0.3 are dropped and the best 10 of the others kept; from frame to frame a tube
takes the highest-scoring box that overlaps its last one by at least 0.2, and ends after 5 frames
without one. Its score is the mean of its boxes'. Tubes shorter than 15 frames (or than the video)
or scoring less than 0.01 are dropped. Tubes of a .json are taken as they are.

The evaluated classes are those of --test-label, in the order that the csv's label indices count in;
without it, all classes of the ground truth in its order. Besides --iou, the mean over 0.5, 0.55 ...
0.95 is always given. DATA.md ("Tubes") has the format of the .json files.

examples:
  stclip evaluate video-map --ground-truth data/ucf24/UCF101v2-GT.pkl \\
      --detections output/inference/ucf24/result_ucf24.csv \\
      --test-label data/label_splits/ucf24/split_1/test_label.txt --json output/video_map.json
  stclip evaluate video-map --ground-truth tubes.json --detections found.json --iou 0.5
"""
AVA = """\
AVA mAP of a csv of detections, in percent.

The metric of the AVA challenge: detections match ground truth of their second and class at an
IoU of 0.5, classes without ground truth are left out of the mean, excluded timestamps are dropped
on both sides, and rows of classes that are not evaluated are skipped. Detections in seconds without
ground truth are false positives.

Evaluated are the classes of --label-map (AVA's .pbtxt files have all 80 or the 60 official ones; of
a text file of names, line n is class n), of these the ones whose ids --classes lists, one a line;
without either, the ids 1 to 80. The means of the three groups are given too.

example:
  stclip evaluate ava --ground-truth data/ava/annotations/ava_val_v2.2.csv \\
      --detections output/inference/ava/result_ava.csv \\
      --excluded data/ava/annotations/ava_val_excluded_timestamps_v2.2.csv \\
      --label-map data/label_splits/ava/all_label.txt --json output/ava.json
"""
VOTE = """\
Voting over a video or along tracks: the voted results of a test, from its predictions.npz.

Class scores are averaged before they are multiplied by the detector's, which is what TEST.VOTING
does. --out receives what stclip test writes, with the csv named after the folder; a folder that is
there already is renamed. With --ground-truth the frame mAP is computed too.

example:
  stclip evaluate vote --predictions output/inference/jhmdb/predictions.npz --voting track \\
      --out output/voted/jhmdb --ground-truth data/jhmdb/JHMDB-GT.pkl
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


def _parser() -> Parser:
    parser = Parser(description=__doc__)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    frame = _command(commands, "frame-map", FRAME_MAP, run_frame_map)
    _add_file(
        frame, "--ground-truth",
        "JHMDB-GT.pkl, UCF101v2-GT.pkl, pyannot.pkl (with testlist01.txt in its folder), a "
        "jhmdb_*_gt_min.json, or a .json in our annotations format; AVA's csv goes with the "
        "command ava", required=True,
    )  # fmt: skip
    _add_file(
        frame, "--detections",
        "rows `class/video,frame,x1,y1,x2,y2,label (from 1),score`, plain or gzipped; or a "
        "predictions.npz", required=True,
    )  # fmt: skip
    _add_file(frame, "--test-label", "the evaluated classes, one a line")
    video = _command(commands, "video-map", VIDEO_MAP, run_video_map)
    _add_file(
        video, "--ground-truth",
        "JHMDB-GT.pkl, UCF101v2-GT.pkl, pyannot.pkl (with testlist01.txt in its folder), or a "
        ".json of tubes", required=True,
    )  # fmt: skip
    _add_file(
        video, "--detections", "a .json of tubes, or a result csv, plain or gzipped", required=True
    )
    _add_file(video, "--test-label", "the evaluated classes, one a line")
    _add_file(
        video, "--save-tubes",
        "write the tubes that a csv was linked to, as a .json that --detections takes",
    )  # fmt: skip
    ava = _command(commands, "ava", AVA, run_ava, 0.5)
    _add_file(
        ava, "--ground-truth",
        "AVA's csv: rows `video,second,x1,y1,x2,y2,action id[,person id]`, boxes from 0 to 1",
        required=True,
    )  # fmt: skip
    _add_file(
        ava, "--detections",
        "rows `video,second,x1,y1,x2,y2,action id,score`; both plain or gzipped", required=True,
    )  # fmt: skip
    _add_file(ava, "--excluded", "a csv of rows `video,second` that are left out")
    _add_file(ava, "--classes", "the evaluated action ids, one a line")
    _add_file(ava, "--label-map", "the names: a .pbtxt, or one name a line")
    vote = _command(commands, "vote", VOTE, run_vote)
    _add_file(
        vote, "--predictions",
        "predictions.npz of a test, voted or not: it has the scores before voting",
        required=True, dest="detections",
    )  # fmt: skip
    _add_file(vote, "--out", "the folder for the voted results", required=True)
    _add_file(vote, "--ground-truth", "as for frame-map; without it, no mAP")
    _add_file(vote, "--test-label", "some of the classes, in any order")
    votings = CHOICES["TEST.VOTING"]
    for one, choices in ((frame, votings), (vote, votings[1:])):
        how = one.add_mutually_exclusive_group()
        how.add_argument(
            "--voting", choices=choices, default=choices[0],
            help="average the class scores over all persons of a video, or along the track of each "
            "person, first (predictions.npz only)",
        )  # fmt: skip
        how.add_argument("--single-action", action="store_true", help="the same as --voting video")
        one.add_argument(
            "--voting-window", type=float, metavar="SECONDS",
            default=get_cfg_defaults().TEST.VOTING_WINDOW,
            help="how long a stretch of a track is averaged over, half of it to each side; inf: "
            "all of it",
        )  # fmt: skip
        one.add_argument(
            "--renormalise", action="store_true",
            help="scale each person's scores over the classes of --test-label to sum to 1: what a "
            "test of these classes alone gives, if the classes exclude each other (predictions.npz "
            "only)",
        )  # fmt: skip
    for one in (frame, vote, ava):
        _add_file(
            one, "--unseen-label",
            "generalised zero-shot: these of the classes are the unseen ones; the mean is then "
            "given over them, over the others, and over all, and the harmonic mean of the first "
            "two",
        )  # fmt: skip
    for one in (frame, video, vote):
        _add_file(
            one, "--all-label",
            "all classes of the dataset in its order, if their names were worded differently",
        )  # fmt: skip
        _add_file(
            one, "--videos",
            "evaluate these videos only (one a line, with or without the class folder); all other "
            "videos are left out",
        )  # fmt: skip
        one.add_argument(
            "--official-split", type=int, default=1, metavar="N",
            help="which test list of a ground-truth pickle (from 1; default: 1)",
        )  # fmt: skip
    return parser


def _command(
    commands: Any,
    name: str,
    text: str,
    run: Callable[[argparse.Namespace], Outcome],
    *iou: float,
) -> argparse.ArgumentParser:
    """A subcommand; the first line of its text is its help, and the text ends with examples."""
    description, word, example = text.rpartition("example")
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=text.splitlines()[0].rstrip("."),
        description=description,
        epilog=word + example,
    )
    parser.set_defaults(command=run)
    default = iou or (0.2, 0.5, 0.75)
    parser.add_argument(
        "--iou", type=float, nargs="+", default=list(default), metavar="T",
        help=f"IoU thresholds (default: {' '.join(map(str, default))})",
    )  # fmt: skip
    _add_file(parser, "--json", "write the numbers to this file")
    parser.add_argument("--overwrite", action="store_true", help="the --json may exist already")
    return parser


def _add_file(parser: argparse.ArgumentParser, name: str, text: str, **more: Any) -> None:
    parser.add_argument(name, type=Path, metavar="FILE", help=text, **more)


def run_frame_map(arguments: argparse.Namespace) -> Outcome:
    """``frame-map``: of a result csv, or of the scores before voting."""
    path: Path = arguments.detections
    if _is_archive(path):
        detections, labels = _read_scored(arguments)
        rows = rows_of(_voted(arguments, detections))
        truth = _read_truth(arguments, labels)
        _check_videos(rows, truth, path)
    else:
        for option in ("single_action", "voting", "renormalise"):
            if getattr(arguments, option) not in (False, "none"):
                raise UserError(
                    f"--{option.replace('_', '-')}: {path} is a csv, whose scores are multiplied "
                    "by the detector's already; give the predictions.npz of the same folder"
                )
        if arguments.test_label is None:
            raise UserError(f"--test-label: is needed to name the label numbers in {path}")
        labels = read_label_file(arguments.test_label)
        truth = _read_truth(arguments, labels)
        rows = read_result_csv(path, labels, set(truth.keyframes), arguments.test_label)
    metrics = _evaluate(arguments, truth, rows, labels)
    return metrics, frame_map_table(metrics)


def run_vote(arguments: argparse.Namespace) -> Outcome:
    """``vote``: write the folder of voted results, and evaluate them if there is ground truth."""
    unvoted, labels = _read_scored(arguments)
    rows = rows_of(_voted(arguments, unvoted))
    metrics: dict[str, Any] = {"boxes": len(unvoted)}
    table = f"{arguments.out}: written; no --ground-truth, so no mAP"
    if arguments.ground_truth:
        truth = _read_truth(arguments, labels)
        _check_videos(rows, truth, arguments.detections)
        metrics = {**_evaluate(arguments, truth, rows, labels), **metrics}
        table = frame_map_table(metrics)
    elif arguments.unseen_label or arguments.videos:
        raise UserError("--unseen-label, --videos: mean nothing without --ground-truth")
    texts = {"metrics.json": json.dumps(metrics, indent=2) + "\n"}
    out: Path = arguments.out
    write_results(out.parent, out.name, labels, unvoted, rows, texts=texts)
    return metrics, table


def _voted(arguments: argparse.Namespace, detections: Detections) -> Detections:
    """Predictions after --voting."""
    if not arguments.voting_window > 0:
        raise UserError(f"--voting-window: above 0 expected, found {arguments.voting_window:g}")
    voting = "video" if arguments.single_action else arguments.voting
    try:
        return voted(detections, voting, arguments.voting_window)
    except UserError as error:
        raise UserError(f"--voting {voting}: {arguments.detections}: {error}") from error


def _is_archive(path: Path) -> bool:
    """Whether a file is a zip archive, as .npz files are."""
    with open(path, "rb") as file:
        return file.read(2) == b"PK"


def _read_scored(arguments: argparse.Namespace) -> tuple[Detections, list[str]]:
    """Predictions over the classes of --test-label, before voting."""
    path: Path = arguments.detections
    detections, known = read_predictions(path)
    labels = read_names(arguments.test_label) or list(known)
    check_labels(labels, known, arguments.test_label or path, path)
    try:
        return of_vocabulary(detections, known, labels, arguments.renormalise), labels
    except UserError as error:
        raise UserError(f"--renormalise: {path}: {error}") from error


def _read_truth(arguments: argparse.Namespace, labels: Sequence[str]) -> GroundTruth:
    """The ground truth, which knows all of the labels."""
    refuse_csv(arguments.ground_truth)
    names = read_names(arguments.all_label)
    truth = read_evaluation_truth(arguments.ground_truth, arguments.official_split, names)
    source = arguments.test_label or arguments.detections
    check_labels(labels, truth.labels, source, truth.path)
    return truth


def _check_videos(rows: DetectionRows, truth: GroundTruth, path: Path) -> None:
    """Check that the ground truth knows all videos of predictions."""
    unknown = sorted({key.video for key in rows.keys} - set(truth.keyframes))
    if unknown:
        raise UserError(
            f"{path}: {len(unknown)} of its videos are not in {truth.path}, the first is "
            f"{unknown[0]!r}; give the ground truth of the dataset that was tested"
        )


def _evaluate(
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

        def place(index: int) -> str:
            return f"{annotated[index].video} {annotated[index].frame}"

        check_boxes(boxes, boxes, truth.path, place, fate="cannot be found")
        check_rows(rows, boxes, arguments.detections)
    metrics = frame_map(keyframes, rows, labels, arguments.iou) | rejection(keyframes, rows, labels)
    if not any(metrics["ground_truth_boxes"].values()):
        raise UserError(
            f"{truth.path}: none of its boxes in the {len(videos)} evaluated videos has a label of "
            f"{arguments.test_label or arguments.detections}; are these the right files?"
        )
    if hint := why_zero(metrics, rows, set(annotated)):
        note(f"{arguments.detections}: {hint}")
    return metrics if unseen is None else generalized(metrics, unseen)


def run_video_map(arguments: argparse.Namespace) -> Outcome:
    """``video-map``: of tubes, or of a result csv whose boxes are linked first."""
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
            note(f"{path}: no tube in it{why_no_tube(rows)}")
    if saved is not None:
        write_detected_tubes(saved, found)
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
    return metrics, video_map_table(metrics)


def _boxes(tubes: Mapping[str, Sequence[Tube]]) -> NDArray[np.float32]:
    """All boxes (n, 4) of all tubes."""
    parts = [tube.boxes for some in tubes.values() for tube in some]
    return np.concatenate([np.zeros((0, 4), np.float32), *parts])


def _check_tubes(found: dict[str, list[Tube]], truth: TubeFile, path: Path, fate: str) -> None:
    places = [(video, frame) for video, some in found.items() for t in some for frame in t.frames]

    def place(index: int) -> str:
        return f"{places[index][0]} {places[index][1]}"

    check_boxes(_boxes(found), _boxes(truth.tubes), path, place, fate=fate)


def run_ava(arguments: argparse.Namespace) -> Outcome:
    """``ava``: the metric of the AVA challenge on AVA's own files."""
    classes = _ava_classes(arguments.label_map, arguments.classes)
    names = list(classes.values())
    unseen = read_unseen(arguments.unseen_label, names) if arguments.unseen_label else None
    excluded = read_moments(arguments.excluded) if arguments.excluded else set()
    path: Path = arguments.ground_truth
    truth = read_ava_rows(path, list(classes), scored=False)
    if not len(truth):
        raise UserError(f"{path}: no row of any of the {len(classes)} evaluated classes")
    check_rows(truth, truth.boxes, path, shares=True)
    path = arguments.detections
    rows = read_ava_rows(path, list(classes), scored=True)
    check_rows(rows, rows.boxes, path, shares=True)
    if len(rows) and not set(rows.keys) & set(truth.keys):
        raise UserError(
            f"{path}: none of its {len(rows.keys)} seconds is in "
            f"{arguments.ground_truth}; the first is {rows.keys[0].video} {rows.keys[0].frame}, "
            f"there it is {truth.keys[0].video} {truth.keys[0].frame}"
        )
    metrics = ava_map(truth, rows, classes, excluded, arguments.iou)
    if hint := why_zero(metrics, rows, set(truth.keys), positive=False):
        note(f"{path}: {hint}")
    if unseen is not None:
        metrics = generalized(metrics, unseen)
    lines = [f"mean {group}: {percent(v)}" for group, v in metrics.get("per_group", {}).items()]
    return metrics, "\n".join([frame_map_table(metrics), *lines])


def _ava_classes(label_map: Path | None, listed: Path | None) -> dict[int, str]:
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
