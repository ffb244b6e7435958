"""Detected persons for AVA, from either of two kinds of files (DATA.md, "AVA's files")."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stclip.data.ava_files import Moment, read_box_csv
from stclip.data.ava_videos import AVA, Grid
from stclip.data.box_formats import look_like_shares
from stclip.data.jhmdb_ground_truth import beside
from stclip.data.proposals import Proposals, read_coco_detections
from stclip.data.tube_file import whole_number
from stclip.errors import Report, UserError, fail
from stclip.files import read_json
from stclip.structures import FrameKey

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
# Boxes of a detector may stick out by this part of the picture; others are of other pictures.
_SLACK = 0.1


def read_boxes(
    root: Path,
    detections: str,
    sizes: Mapping[str, tuple[int, int]],
    threshold: float,
    report: Report = fail,
    grid: Grid = AVA,
) -> dict[Moment, Proposals]:
    """The detected persons of some videos, in pixels of their pictures.

    Args:
        root: ``<DATA_DIR>/ava``.
        detections: a .csv or .json file; ``""`` for the dataset's own.
        sizes: width and height in pixels of each of the videos; rows of others are left out.
        threshold: boxes that score lower are left out.
        report: gets what is wrong with a row, which is then left out.
        grid: how frames are counted.

    Raises:
        UserError: the file is missing or malformed.
    """
    path = find_boxes(root, detections)
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


def find_boxes(root: Path, detections: str) -> Path:
    """The file of person boxes that DATASETS.DETECTIONS names, or the dataset's own.

    Raises:
        UserError: it names none, and the dataset has none.
    """
    if detections:
        return Path(detections)
    for name in DETECTIONS:
        path = beside(root, name)
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
    images = beside(root, IMAGES)
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
        if norm.min() < -_SLACK or norm.max() > 1 + _SLACK:
            raise UserError(
                f"{path}: a box of video {moment[0]}, second {moment[1]} lies outside the picture "
                f"of {own[0]:g} x {own[1]:g} pixels; bbox is x, y, width, height in pixels of the "
                f"video's pictures, or of the sizes in {IMAGES}"
            )
        found[moment] = Proposals(in_pixels(norm, (width, height)), persons.scores)
    return found


def _images(path: Path, grid: Grid) -> Iterator[tuple[Any, FrameKey, tuple[float, float]]]:
    """Id, moment, and width and height of every image."""
    content = read_json(path)
    rows = content.get("images") if isinstance(content, dict) else None
    if not isinstance(rows, list):
        raise UserError(f"{path}: no list 'images' in it")
    for number, row in enumerate(rows):
        try:
            key = FrameKey(str(row["movie"]), grid.frame_of(whole_number(row["timestamp"])))
            size = (whole_number(row["width"]), whole_number(row["height"]))
            if min(size) <= 0:
                raise ValueError
            yield row["id"], key, size
        except (KeyError, TypeError, ValueError):
            raise UserError(
                f"{path}: images[{number}]: id, movie, timestamp, width and height were expected, "
                f"found {row!r:.80}"
            ) from None
