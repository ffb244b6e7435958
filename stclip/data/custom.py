"""Datasets in our own annotations format, which any dataset can be put into (DATA.md describes it).

Times are seconds since the first frame of a video: of a video file the nearest frame is meant, of
pictures frame ``round(timestamp * fps) + 1``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from stclip.data import findings as kinds
from stclip.data.annotations import DetectionDataset, Keyframe, Request, stop_at_first
from stclip.data.fields import is_box, is_number, rows_of
from stclip.data.findings import Kind
from stclip.data.frames import Video
from stclip.data.labels import choices
from stclip.data.proposals import Proposals, read_coco_detections, read_jsonl_detections
from stclip.data.video import open_video
from stclip.errors import Report, UserError, reporting
from stclip.files import read_json
from stclip.structures import FrameKey

NAME = "annotations"
# File systems take names of 255 bytes; results add a frame number and an ending.
_LONGEST_ID = 200
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_HINTS = 5  # names that look alike are searched for so many labels, which takes long

Reports = Callable[[Kind], Report]


@dataclass(frozen=True)
class VideoEntry:
    """A video of an annotations file: where it lies, (width, height) in pixels, frames a second."""

    id: str
    path: Path
    size: tuple[int, int]
    fps: float


@dataclass(frozen=True)
class KeyframeEntry:
    """A keyframe of an annotations file, its time in seconds not yet turned into a frame."""

    video: str
    timestamp: float
    boxes: NDArray[np.float32]
    labels: tuple[tuple[str, ...], ...]
    id: int | str | None = None


@dataclass(frozen=True)
class AnnotationFile:
    """A whole annotations file, checked.

    Attributes:
        path: the file.
        labels: class names.
        groups: the group of the labels that have one.
        videos: by id, in the order of the file.
        keyframes: in the order of the file.
    """

    path: Path
    labels: tuple[str, ...]
    groups: dict[str, str] = field(repr=False)
    videos: dict[str, VideoEntry] = field(repr=False)
    keyframes: list[KeyframeEntry] = field(repr=False)

    def video_labels(self) -> dict[str, set[str]]:
        """For every video the labels of its boxes."""
        names: dict[str, set[str]] = {video: set() for video in self.videos}
        for entry in self.keyframes:
            names[entry.video].update(*entry.labels)
        return names


def build_custom(request: Request) -> DetectionDataset:
    """The keyframes of the annotations file that ``request.name`` names.

    For training these are the keyframes with boxes. For testing every annotated keyframe, and every
    frame that has detections, so that videos without any ground truth can be scored too.

    Raises:
        UserError: the files are not as they should be, no video is left, a video or frame is
            missing, or ALL_LABEL lacks a label or ALL_GROUP has another group for one.
    """
    detections = request.detections
    if detections == "":
        detections = None
        with reporting(request.reports(kinds.UNREADABLE)):
            raise UserError(
                "DATASETS.DETECTIONS: is empty; name a .jsonl or .json file of person boxes for "
                f"{request.name}, or set TEST.BOXES to ground_truth"
            )
    file = read_annotations(request.name, request.reports)
    video_labels = file.video_labels()
    known = set(request.labels.all)
    unknown = sorted(set().union(*video_labels.values()) - known)
    for name in islice(unknown, _HINTS):
        with reporting(request.reports(kinds.UNKNOWN_LABELS)):
            raise UserError(
                f"{file.path}: label {name!r} is not in ALL_LABEL; {choices(name, known)}"
            )
    groups = request.labels.groups
    for name, group in file.groups.items():
        with reporting(request.reports(kinds.GROUPS)):
            if groups is not None and groups.get(name, group) != group:
                raise UserError(
                    f"{file.path}: label {name!r} has the group {group!r}, but ALL_GROUP says "
                    f"{groups[name]!r}; make the two agree"
                )
    chosen = list(file.videos)
    with reporting(request.reports(kinds.UNREADABLE)):
        chosen = request.choose(video_labels, str(file.path))
    dataset = open_annotations(file, chosen, detections, request.reports)
    if request.part == "test":
        return dataset
    return replace(dataset, keyframes=[k for k in dataset.keyframes if len(k.boxes)])


def open_annotations(
    file: AnnotationFile,
    chosen: Collection[str] | None = None,
    detections: str | None = None,
    reports: Reports = stop_at_first,
) -> DetectionDataset:
    """Open videos of an annotations file and find its keyframes in them.

    Args:
        file: what ``read_annotations`` read.
        chosen: which of its videos; None takes all.
        detections: a .jsonl or COCO-like .json file of person boxes; None reads none.
        reports: for a kind of mistake, what gets it; what is wrong is then left out.

    Raises:
        UserError: videos or frames are missing, of another size than the file says, or annotated
            twice; or the detections cannot be read or do not fit.
    """
    videos: dict[str, Video] = {}
    ids = sorted(file.videos if chosen is None else chosen)
    for id_ in tqdm(ids, desc="opening", unit="video", delay=3, leave=False, disable=None):
        with reporting(reports(kinds.VIDEOS)):
            videos[id_] = _open(file, file.videos[id_])
        with reporting(reports(kinds.MISSING)):
            if id_ in videos and (missing := videos[id_].missing()):
                raise UserError(
                    f"{file.path}: video {id_!r}: {len(missing)} frames are missing, the first is "
                    f"frame {missing[0]} of {videos[id_].path}"
                )
    keyframes: dict[FrameKey, Keyframe] = {}
    image_ids: list[tuple[int | str, FrameKey]] = []
    for entry in file.keyframes:
        key = FrameKey(entry.video, 0)  # frame 0 marks keyframes of videos that are not used
        if entry.video in videos:
            with reporting(reports(kinds.PAST_END)):
                key = _locate(videos[entry.video], file.videos[entry.video], entry.timestamp)
            if key.frame == 0:
                continue
            with reporting(reports(kinds.TWICE)):
                if key in keyframes:
                    raise UserError(
                        f"{file.path}: frame {key.frame} of video {key.video} is annotated twice "
                        f"(the second time at {entry.timestamp} s); put its boxes into one keyframe"
                    )
            keyframes.setdefault(key, Keyframe(key, entry.boxes, entry.labels))
        if entry.id is not None:
            image_ids.append((entry.id, key))
    dataset = DetectionDataset(
        NAME,
        videos,
        [keyframes[key] for key in sorted(keyframes)],
        sources=(file.path, None),
        fps={id_: file.videos[id_].fps for id_ in videos},
    )
    if detections is not None:
        with reporting(reports(kinds.UNREADABLE)):
            proposals = _proposals(
                Path(detections), file, videos, image_ids, reports(kinds.DETECTIONS)
            )
            dataset = dataset.with_proposals(proposals, Path(detections))
    return dataset


def read_annotations(path: str | Path, reports: Reports = stop_at_first) -> AnnotationFile:
    """Read and check a file in our annotations format; the videos themselves are not looked at.

    A label, video or keyframe with a mistake is left out where ``reports`` does not raise it, but
    empty boxes are kept.

    Raises:
        UserError: the file cannot be read, or something in it is not as it should be; the message
            says where.
    """
    path, content = Path(path), read_json(path)
    report = reports(kinds.FORMAT)
    if not isinstance(content, dict):
        raise UserError(f"{path}: a JSON object with labels, videos and keyframes was expected")
    labels: dict[str, str | None] = {}
    for row, where in rows_of(content, "labels", path, "see DATA.md for the format"):
        with reporting(report):
            name = row.get("name") if isinstance(row, dict) else row
            if not isinstance(name, str) or not name.strip() or name in labels:
                raise UserError(f"{where}: {name!r}: a unique name was expected")
            labels[name] = row.get("group") if isinstance(row, dict) else None
    videos: dict[str, VideoEntry] = {}
    for row, where in rows_of(content, "videos", path, "see DATA.md for the format"):
        with reporting(report):
            video = _video(row, where, path.parent)
            if video.id in videos:
                raise UserError(f"{where}: id {video.id!r} occurs twice; ids must be unique")
            videos[video.id] = video
    keyframes = []
    for row, where in rows_of(content, "keyframes", path, "see DATA.md for the format"):
        with reporting(report):
            entry = _keyframe(row, where, reports(kinds.EMPTY))
            if entry.video not in videos:
                raise UserError(
                    f"{where}: video {entry.video!r} is not the id of any of the videos"
                )
            for name in (name for names in entry.labels for name in names):
                if name not in labels:
                    raise UserError(f"{where}: label {name!r} is not among the file's labels")
            keyframes.append(entry)
    groups = {name: group for name, group in labels.items() if group is not None}
    return AnnotationFile(path, tuple(labels), groups, videos, keyframes)


def _video(row: Any, where: str, folder: Path) -> VideoEntry:
    name, path = _text(row, "id", where), _text(row, "path", where)
    if len(name.encode()) > _LONGEST_ID:
        raise UserError(
            f"{where}: id {name!r:.60} has {len(name)} characters; {_LONGEST_ID} bytes at most "
            "were expected, since result files are named by it: give the video a shorter one"
        )
    size, fps = row.get("size"), row.get("fps")
    if not (
        isinstance(size, list) and len(size) == 2 and all(type(n) is int and n > 0 for n in size)
    ):
        raise UserError(f"{where}: size {size!r}: [width, height] in whole pixels was expected")
    if not is_number(fps) or fps <= 0:
        raise UserError(f"{where}: fps {fps!r}: a number above 0 was expected")
    return VideoEntry(name, folder / path, (size[0], size[1]), float(fps))


def _keyframe(row: Any, where: str, if_empty: Report) -> KeyframeEntry:
    video, seconds = _text(row, "video", where), row.get("timestamp")
    if not is_number(seconds) or seconds < 0:
        raise UserError(f"{where}: timestamp {seconds!r}: seconds from 0 were expected")
    boxes = row.get("boxes", [])
    if not isinstance(boxes, list):
        raise UserError(f"{where}: boxes {boxes!r:.60}: a list was expected")
    for box in boxes:
        if not is_box(box):
            raise UserError(f"{where}: box {box!r:.60}: numbers x1, y1, x2, y2 were expected")
        if box[2] <= box[0] or box[3] <= box[1]:
            if_empty(UserError(f"{where}: box {box}: x2 > x1 and y2 > y1 were expected"))
    labels = row.get("labels", [[] for _ in boxes])
    if not isinstance(labels, list) or len(labels) != len(boxes):
        raise UserError(
            f"{where}: labels: a list for each of the {len(boxes)} boxes was expected, found "
            f"{labels!r:.60}"
        )
    for names in labels:
        if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
            raise UserError(f"{where}: labels {names!r:.60}: a list of names was expected")
    key = row.get("id")
    if not (key is None or isinstance(key, str) or type(key) is int):
        raise UserError(f"{where}: id {key!r:.60}: a number or a text was expected")
    array = np.array(boxes, dtype=np.float32).reshape(-1, 4)
    return KeyframeEntry(video, float(seconds), array, tuple(map(tuple, labels)), key)


def _text(row: Any, name: str, where: str) -> str:
    value = row.get(name) if isinstance(row, dict) else None
    if not isinstance(value, str) or not value:
        raise UserError(f"{where}: {name} {value!r:.60}: a text was expected")
    if _CONTROL.search(value):
        raise UserError(
            f"{where}: {name} {value!r:.60}: a text without control characters was expected"
        )
    return value


def _open(file: AnnotationFile, entry: VideoEntry) -> Video:
    """Open a video; a UserError if that cannot be, or its size is not what the file says."""
    try:
        video = open_video(entry.path, entry.id)
        size = video.size
    except UserError as error:
        raise UserError(f"{file.path}: video {entry.id!r}: {error}") from error
    if size != entry.size:
        raise UserError(
            f"{file.path}: video {entry.id!r} has size {list(entry.size)}, but {entry.path} is "
            f"{size[0]} wide and {size[1]} high as shown; write {list(size)} if the boxes are "
            "pixels of that, or fetch the video that they were drawn in"
        )
    return video


def _locate(video: Video, entry: VideoEntry, seconds: float) -> FrameKey:
    """The frame of a video at a time; a UserError if the video is shorter."""
    frame = video.frame_at(seconds, entry.fps)
    if frame > len(video):
        raise UserError(
            f"video {entry.id!r} has {len(video)} frames at {entry.fps:g} a second, so none at "
            f"{seconds} s"
        )
    return FrameKey(entry.id, frame)


def _proposals(
    path: Path,
    file: AnnotationFile,
    videos: Mapping[str, Video],
    image_ids: Collection[tuple[int | str, FrameKey]],
    report: Report,
) -> dict[FrameKey, Proposals]:
    """The detected persons in the opened videos; boxes in others are checked and left out."""
    if path.suffix != ".jsonl":
        keys = dict(image_ids)
        if len(keys) < len(image_ids):
            names = [id_ for id_, _ in image_ids]
            twice = next(id_ for id_ in names if names.count(id_) > 1)
            raise UserError(f"{file.path}: keyframe id {twice!r} occurs twice")
        source = f"{file.path} (the id of its keyframes)"
        found = read_coco_detections(path, keys, source, report)
        return {key: rows for key, rows in found.items() if key.video in videos}

    def locate(name: str, seconds: float | None, frame: int | None) -> FrameKey | None:
        if name not in file.videos:
            raise UserError(f"video {name!r} is unknown; {choices(name, file.videos)}")
        if name not in videos:
            return None
        if seconds is not None:
            return _locate(videos[name], file.videos[name], seconds)
        assert frame is not None
        if frame > len(videos[name]):
            raise UserError(f"video {name!r} has no frame {frame}, only {len(videos[name])}")
        return FrameKey(name, frame)

    return read_jsonl_detections(path, locate, report)
