"""Builds the AVA v2.2 dataset from its csv files and its videos in any form (DATA.md, "AVA v2.2").

Annotations, excluded timestamps, label map and person boxes are looked for in ``<DATA_DIR>/ava``
and its ``annotations/``; the videos as ``ava_videos`` describes.
"""

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from stclip.data.annotations import AvaNumbers, DetectionDataset, Keyframe
from stclip.data.ava_boxes import find_boxes, in_pixels, read_boxes
from stclip.data.ava_files import (
    AvaTruth,
    Moment,
    read_ava_csv,
    read_label_map,
    read_moments,
    read_videos,
)
from stclip.data.ava_videos import AVA, Grid, find_videos
from stclip.data.jhmdb_ground_truth import beside, spelt
from stclip.data.selection import Part, Selection
from stclip.errors import Report, UserError, fail
from stclip.structures import FrameKey

logger = logging.getLogger(__name__)

NAME = "ava"
LABEL_MAP = "ava_action_list_v2.2.pbtxt"
# AVA's names of the parts; videos of each.
_PARTS = {"train": "train", "test": "val"}
_COUNTS = {"train": 235, "test": 64}


def build_ava(
    data_dir: str | Path,
    selection: Selection,
    all_names: Sequence[str],
    detections: str | None,
    *,
    unseen: Collection[str] = (),
    box_threshold: float = 0.0,
    grid: Grid = AVA,
    report: Report = fail,
) -> DetectionDataset:
    """The keyframes that a selection asks for, with their videos found on disk.

    For training these are the annotated seconds of the training videos in which no person has an
    unseen label at any time (the paper's own list of videos is not released). For testing they are
    all annotated seconds of the validation videos, and those with detections; there they are false
    positives. Excluded timestamps are left out.

    Args:
        data_dir: the folder that holds ``ava/``.
        selection: the part and which of its videos.
        all_names: ALL_LABEL's names; the class with action id n is the n-th, unless a label map
            says otherwise.
        detections: a .csv or .json file of person boxes, ``""`` for the dataset's own; None reads
            none.
        unseen: the labels that no training video may hold.
        box_threshold: boxes that the detector scored lower make no keyframe.
        grid: how seconds and frames are counted.
        report: gets what is wrong with a row or with the videos, which are then left out.

    Raises:
        UserError: annotations, detections or videos are missing or malformed, or no video is left.
            All missing videos are reported in one message.
    """
    root = Path(data_dir) / NAME
    part = selection.part
    names, source = _class_names(root, all_names)
    truth = _ground_truth(root, part, names, source, report)
    labels = truth.video_labels()
    if part == "train":
        labels = _without_unseen(labels, unseen, truth.path)
    else:  # a video without any of the labels still shows what is falsely found
        labels = {video: set() for video in labels}
    chosen = selection.choose(labels, str(truth.path))
    excluded = _excluded(root, part)
    seconds: dict[str, list[int]] = {video: [] for video in chosen}
    annotated = set()
    for moment in _usable(truth.boxes, excluded, grid, truth.path):
        if moment[0] in seconds and (part == "test" or len(truth.boxes[moment])):
            annotated.add(moment)
            seconds[moment[0]].append(moment[1])
    videos = find_videos(root, seconds, report, grid)
    annotated = {moment for moment in annotated if moment[0] in videos}
    sizes = {name: video.size for name, video in videos.items()}
    proposals = None
    if detections is not None:
        found = read_boxes(root, detections, sizes, box_threshold, report, grid)
        usable = _usable(found, excluded, grid)
        proposals = {_key(moment, grid): found[moment] for moment in sorted(usable)}
        if not proposals:
            logger.warning("%s: no detection in any of the %d videos", root, len(videos))
        annotated |= usable
    keyframes = [_keyframe(moment, truth, sizes, grid) for moment in sorted(annotated)]
    numbers = AvaNumbers(
        {_key(moment, grid): moment[1] for moment in annotated},
        {name: id_ for id_, name in names.items()},
    )
    boxes_from = None if detections is None else find_boxes(root, detections)
    return DetectionDataset(
        NAME, videos, keyframes, proposals, numbers, sources=(truth.path, boxes_from)
    )


def _class_names(root: Path, all_names: Sequence[str]) -> tuple[dict[int, str], str]:
    """The class names by action id, in ALL_LABEL's spelling, and where the ids come from."""
    path = beside(root, LABEL_MAP)
    if path is None:
        return dict(enumerate(all_names, start=1)), "ALL_LABEL"
    own = dict(sorted(read_label_map(path).items()))
    return dict(zip(own, spelt(list(own.values()), all_names, path), strict=True)), str(path)


def _ground_truth(
    root: Path, part: Part, names: Mapping[int, str], source: str, report: Report
) -> AvaTruth:
    name = f"ava_{_PARTS[part]}_v2.2.csv"
    path = beside(root, name)
    if path is None:
        raise UserError(
            f"DATASETS.DATA_DIR {root.parent}: {name} is not in {root} or {root / 'annotations'}; "
            "put it there (see DATA.md)"
        )
    truth = read_ava_csv(path, names, source, report)
    videos = {video for video, _ in truth.boxes}
    # A small subset is none of our business, a nearly whole AVA is a damaged one.
    if len(videos) != _COUNTS[part] and 2 * len(videos) > _COUNTS[part]:
        logger.warning("%s: %d videos; AVA v2.2 has %d", path, len(videos), _COUNTS[part])
    other = beside(root, f"ava_{_PARTS['test' if part == 'train' else 'train']}_v2.2.csv")
    both = sorted(videos & read_videos(other)) if other else []
    if both:
        raise UserError(
            f"{path}: {len(both)} of its videos are in {other} too, the first is {both[0]}; a "
            "video must not be trained on and tested"
        )
    return truth


def _excluded(root: Path, part: Part) -> set[Moment]:
    path = beside(root, f"ava_{_PARTS[part]}_excluded_timestamps_v2.2.csv")
    return set() if path is None else read_moments(path)


def _usable(
    moments: Iterable[Moment], excluded: set[Moment], grid: Grid, path: Path | None = None
) -> set[Moment]:
    """Without the excluded ones and those outside of the annotated seconds.

    A file of ground truth gets a warning, and is refused if nothing is left.
    """
    wanted = set(moments) - excluded
    inside = {moment for moment in wanted if grid.first <= moment[1] <= grid.last}
    if path is None or len(inside) == len(wanted):
        return inside
    outside = [second for _, second in wanted - inside]
    text = (
        f"{path}: {len(outside)} of {len(wanted)} seconds are outside of {grid.first} to "
        f"{grid.last} (they are from {min(outside)} to {max(outside)}) and left out; "
        "DATASETS.AVA.SECONDS says which are annotated, DATASETS.AVA.START and FPS which frame "
        "shows them"
    )
    if not inside:
        raise UserError(text)
    logger.warning("%s", text)
    return inside


def _without_unseen(
    labels: Mapping[str, set[str]], unseen: Collection[str], path: Path
) -> dict[str, set[str]]:
    kept = {video: names for video, names in labels.items() if names.isdisjoint(unseen)}
    if not kept:
        raise UserError(
            f"TRAIN_LABEL: each of the {len(labels)} videos of {path} has a label that is only in "
            "TEST_LABEL, so that none is left to train on; change the labels of one of the two"
        )
    logger.info(
        "%s: %d of %d videos hold one of the %d unseen labels and are left out of training",
        path, len(labels) - len(kept), len(labels), len(unseen),
    )  # fmt: skip
    return kept


def _keyframe(
    moment: Moment, truth: AvaTruth, sizes: Mapping[str, tuple[int, int]], grid: Grid
) -> Keyframe:
    boxes = in_pixels(truth.boxes.get(moment, np.zeros((0, 4))), sizes[moment[0]])
    return Keyframe(_key(moment, grid), boxes, truth.labels.get(moment, ()))


def _key(moment: Moment, grid: Grid) -> FrameKey:
    return FrameKey(moment[0], grid.frame_of(moment[1]))
