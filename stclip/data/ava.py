"""AVA v2.2 from its csv files, and its videos in any form (DATA.md, "AVA v2.2").

Annotations, excluded timestamps, label map and person boxes are looked for in ``<DATA_DIR>/ava``
and its ``annotations/``; the videos as ``ava_videos`` describes.
"""

import logging
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stclip.data.annotations import AvaNumbers, DetectionDataset, Keyframe, Request
from stclip.data.ava_files import (
    SLACK,
    Moment,
    Persons,
    read_ava_csv,
    read_box_csv,
    read_label_map,
    read_moments,
    read_videos,
)
from stclip.data.ava_videos import AVA, Grid, find_videos
from stclip.data.checks import look_like_shares
from stclip.data.class_videos import find_file
from stclip.data.fields import rows_of, whole_number
from stclip.data.labels import Part, match_names
from stclip.data.proposals import Proposals, read_coco_detections
from stclip.errors import Report, UserError, fail
from stclip.files import read_json
from stclip.structures import FrameKey

logger = logging.getLogger(__name__)

NAME = "ava"
LABEL_MAP = "ava_action_list_v2.2.pbtxt"
# AVA's names of the parts; videos of each.
_PARTS = {"train": "train", "test": "val"}
_COUNTS = {"train": 235, "test": 64}
# The first that is there is read: SlowFast's, LFB's (the folder is its archive's), AlphAction's.
DETECTIONS = (
    "ava_val_predicted_boxes.csv",
    "ava_detection_val_boxes_and_labels.csv",
    "person_box_67091280_iou90/ava_detection_val_boxes_and_labels.csv",
    "ava_val_det_person_bbox.json",
)
# The annotations in AlphAction's form, which say what the numbers of the images mean.
IMAGES = "ava_val_v2.2_min.json"
# What an image may be called without that: -5KQ66BBWC4,0902 or -5KQ66BBWC4/0902.jpg.
_IMAGE_ID = re.compile(r"(.+)[,/](\d+)(?:\.\w+)?")
_NOBODY: Persons = (np.zeros((0, 4)), (), ())


def build_ava(request: Request) -> DetectionDataset:
    """The keyframes that are asked for, with their videos found on disk.

    For training these are the annotated seconds of the training videos in which no person has an
    unseen label at any time (the paper's own list of videos is not released). For testing they are
    all annotated seconds of the validation videos, and those with detections; there they are false
    positives. Excluded timestamps are left out, and boxes that score less than
    ``box_threshold`` make no keyframe.

    Args:
        request: action id n is the n-th of ALL_LABEL's names, unless a label map says otherwise.
            ``options["AVA"]`` says how seconds and frames are counted.

    Raises:
        UserError: annotations, detections or videos are missing or malformed, or no video is left.
            All missing videos are reported in one message.
    """
    root, part, report = request.data_dir / NAME, request.part, request.report
    grid = _grid(request.options["AVA"]) if "AVA" in request.options else AVA
    names, source = _class_names(root, request.labels.all)
    path, truth = _ground_truth(root, part, names, source, report)
    labels: dict[str, set[str]] = {video: set() for video, _ in truth}
    if part == "train":  # in a test a video without any of the labels shows what is falsely found
        for (video, _), (_, of_boxes, _) in truth.items():
            labels[video].update(*of_boxes)
        labels = _without_unseen(labels, request.labels.unseen, path)
    chosen = request.choose(labels, str(path))
    excluded = _excluded(root, part)
    seconds: dict[str, list[int]] = {video: [] for video in chosen}
    annotated = set()
    for moment in _usable(truth, excluded, grid, path):
        if moment[0] in seconds and (part == "test" or len(truth[moment][0])):
            annotated.add(moment)
            seconds[moment[0]].append(moment[1])
    videos = find_videos(root, seconds, report, grid)
    annotated = {moment for moment in annotated if moment[0] in videos}
    sizes = {name: video.size for name, video in videos.items()}
    proposals = boxes_from = None
    if request.detections is not None:
        boxes_from = _find_boxes(root, request.detections)
        found = read_boxes(boxes_from, root, sizes, request.box_threshold, report, grid)
        usable = _usable(found, excluded, grid)
        proposals = {_key(moment, grid): found[moment] for moment in sorted(usable)}
        if not proposals:
            logger.warning("%s: no detection in any of the %d videos", root, len(videos))
        annotated |= usable
    keyframes = []
    numbers_of: dict[str, dict[str, int]] = {}  # of the persons of each video
    for moment in sorted(annotated):
        boxes, of_boxes, ids = truth.get(moment, _NOBODY)
        known = numbers_of.setdefault(moment[0], {})
        persons = tuple(known.setdefault(id_, len(known) + 1) for id_ in ids)
        keyframes.append(
            Keyframe(
                _key(moment, grid),
                in_pixels(boxes, sizes[moment[0]]),
                of_boxes,
                persons if len(persons) == len(of_boxes) else (),
            )
        )
    numbers = AvaNumbers(
        {_key(moment, grid): moment[1] for moment in annotated},
        {name: id_ for id_, name in names.items()},
    )
    fps = dict.fromkeys(videos, float(grid.fps))
    return DetectionDataset(NAME, videos, keyframes, proposals, numbers, (path, boxes_from), fps)


def _grid(keys: Mapping[str, Any]) -> Grid:
    seconds, start = keys["SECONDS"], keys["START"]
    if len(seconds) != 2 or not start <= seconds[0] <= seconds[1]:
        raise UserError(
            "DATASETS.AVA.SECONDS: the first and the last annotated second expected, not before "
            f"DATASETS.AVA.START {start}; found {seconds}"
        )
    return Grid(seconds[0], seconds[1], start, keys["FPS"])


def _class_names(root: Path, all_names: Sequence[str]) -> tuple[dict[int, str], str]:
    """The class names by action id, as ALL_LABEL words them, and where the ids come from."""
    path = find_file(root, LABEL_MAP)
    if path is None:
        return dict(enumerate(all_names, start=1)), "ALL_LABEL"
    own = dict(sorted(read_label_map(path).items()))
    return dict(zip(own, match_names(list(own.values()), all_names, path), strict=True)), str(path)


def _ground_truth(
    root: Path, part: Part, names: Mapping[int, str], source: str, report: Report
) -> tuple[Path, dict[Moment, Persons]]:
    name = f"ava_{_PARTS[part]}_v2.2.csv"
    path = find_file(root, name)
    if path is None:
        raise UserError(
            f"DATASETS.DATA_DIR {root.parent}: {name} is not in {root} or {root / 'annotations'}; "
            "put it there (see DATA.md)"
        )
    truth = read_ava_csv(path, names, source, report)
    videos = {video for video, _ in truth}
    # A small subset is fine; one that is nearly all of AVA is probably damaged.
    if len(videos) != _COUNTS[part] and 2 * len(videos) > _COUNTS[part]:
        logger.warning("%s: %d videos; AVA v2.2 has %d", path, len(videos), _COUNTS[part])
    other = find_file(root, f"ava_{_PARTS['test' if part == 'train' else 'train']}_v2.2.csv")
    both = sorted(videos & read_videos(other)) if other else []
    if both:
        raise UserError(
            f"{path}: {len(both)} of its videos are in {other} too, the first is {both[0]}; a "
            "video must not be trained on and tested"
        )
    return path, truth


def _excluded(root: Path, part: Part) -> set[Moment]:
    path = find_file(root, f"ava_{_PARTS[part]}_excluded_timestamps_v2.2.csv")
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


def _key(moment: Moment, grid: Grid) -> FrameKey:
    return FrameKey(moment[0], grid.frame_of(moment[1]))


def read_boxes(
    path: Path,
    root: Path,
    sizes: Mapping[str, tuple[int, int]],
    threshold: float,
    report: Report = fail,
    grid: Grid = AVA,
) -> dict[Moment, Proposals]:
    """The detected persons of some videos, in pixels of their pictures.

    Args:
        path: a .csv or .json file.
        root: ``<DATA_DIR>/ava``, where the json's images may be listed.
        sizes: width and height in pixels of each of the videos; rows of others are left out.
        threshold: boxes that score lower are left out.
        report: gets what is wrong with a row, which is then left out.
        grid: how frames are counted.
    """
    if path.suffix == ".json":
        found = _from_json(path, root, sizes, report, grid)
    elif path.suffix == ".csv":
        found = {
            moment: Proposals(in_pixels(boxes, sizes[moment[0]]), scores.astype(np.float32))
            for moment, (boxes, scores) in read_box_csv(path, sizes, threshold, report).items()
        }
    else:
        raise UserError(
            f"DATASETS.DETECTIONS: {path}: AVA's person boxes are a .csv or a .json file (DATA.md)"
        )
    kept = {moment: persons.select(threshold, 0) for moment, persons in found.items()}
    return {moment: persons for moment, persons in kept.items() if len(persons)}


def in_pixels(boxes: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float32]:
    """Boxes (n, 4) xyxy that are parts of a picture's width and height, as its pixels."""
    return (boxes * (*size, *size)).astype(np.float32)


def _find_boxes(root: Path, detections: str) -> Path:
    """The file of person boxes that DATASETS.DETECTIONS names, or the dataset's own."""
    if detections:
        return Path(detections)
    for name in DETECTIONS:
        path = find_file(root, name)
        if path is not None:
            return path
    raise UserError(
        f"DATASETS.DATA_DIR {root.parent}: none of {', '.join(DETECTIONS)} is in {root} or "
        f"{root / 'annotations'}; put one there, name another file in DATASETS.DETECTIONS, or set "
        "TEST.BOXES to ground_truth"
    )


class _ImageIds(dict[Any, FrameKey]):
    """The moment of every image id: of the numbers that are listed, and of texts that say it."""

    def __init__(self, grid: Grid) -> None:
        super().__init__()
        self._grid = grid

    def __missing__(self, image_id: Any) -> FrameKey:
        match = _IMAGE_ID.fullmatch(image_id) if isinstance(image_id, str) else None
        if match is None:
            raise KeyError(image_id)
        return FrameKey(match[1], self._grid.frame_of(int(match[2])))


def _from_json(
    path: Path, root: Path, sizes: Mapping[str, tuple[int, int]], report: Report, grid: Grid
) -> dict[Moment, Proposals]:
    """AlphAction's list of {image_id, bbox (x, y, width, height in pixels), score}."""
    images = find_file(root, IMAGES)
    ids = _ImageIds(grid)
    stated: dict[FrameKey, tuple[float, float]] = {}
    if images is not None:
        for id_, key, size in _images(images, grid):
            ids[id_], stated[key] = key, size
    source = f"{IMAGES}, which is not in {root}," if images is None else f"{images}"
    found: dict[Moment, Proposals] = {}
    rows = read_coco_detections(path, ids, source, report)
    if rows and look_like_shares(np.concatenate([persons.boxes for persons in rows.values()])):
        raise UserError(
            f"{path}: its boxes reach to 1 only; bbox is x, y, width, height in pixels: multiply "
            "shares of the picture by its width and height"
        )
    for key, persons in rows.items():
        if key.video not in sizes:
            continue
        corners = persons.boxes.copy()
        corners[:, 2:] += corners[:, :2]
        # Boxes found in pictures of another size than ours.
        width, height = sizes[key.video]
        own = stated.get(key, (width, height))
        norm = corners / np.array([*own, *own], dtype=np.float64)
        moment = (key.video, grid.second_of(key.frame))
        if norm.min() < -SLACK or norm.max() > 1 + SLACK:
            raise UserError(
                f"{path}: a box of video {moment[0]}, second {moment[1]} lies outside the picture "
                f"of {own[0]:g} x {own[1]:g} pixels; bbox is x, y, width, height in pixels of the "
                f"video's pictures, or of the sizes in {IMAGES}"
            )
        found[moment] = Proposals(in_pixels(norm, (width, height)), persons.scores)
    return found


def _images(path: Path, grid: Grid) -> Iterator[tuple[Any, FrameKey, tuple[float, float]]]:
    """Id, moment, and width and height of every image."""
    for row, where in rows_of(read_json(path), "images", path, "is it AlphAction's file?"):
        try:
            key = FrameKey(str(row["movie"]), grid.frame_of(whole_number(row["timestamp"])))
            size = (whole_number(row["width"]), whole_number(row["height"]))
            if min(size) <= 0:
                raise ValueError
            yield row["id"], key, size
        except (KeyError, TypeError, ValueError):
            raise UserError(
                f"{where}: id, movie, timestamp, width and height were expected, found {row!r:.80}"
            ) from None
