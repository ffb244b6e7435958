"""Datasets in memory, and the json format of our own that any dataset can be put into.

The format is one JSON object::

    {"labels": ["run", {"name": "wave", "group": "pose"}, ...],
     "videos": [{"id": "v1", "path": "videos/v1.mp4", "size": [320, 240], "fps": 25}, ...],
     "keyframes": [{"video": "v1", "timestamp": 0.48, "boxes": [[x1, y1, x2, y2], ...],
                    "labels": [["run"], ...]}, ...]}

labels: the class names; a ``group`` (pose, object or person) may be given. Where ALL_GROUP is set,
    it must say the same.
videos: ``id`` is unique; ``path`` is a video file, a zip file of pictures or a folder of pictures
    (``00001.png`` ...), relative to the folder of the json; ``size`` is [width, height] in
    pixels; ``fps`` is frames a second.
keyframes: ``timestamp`` is seconds since the first frame of the video: of a video file the nearest
    frame is meant, of pictures frame ``round(timestamp * fps) + 1``. ``boxes`` are xyxy in pixels,
    ``labels`` a list of names for each box. Where nothing is known (at test time), the labels of a
    box may be empty, and ``labels`` or both may be left out. ``id`` may be a number or a text that
    a COCO-like detections file calls this keyframe by (``image_id``).
Further fields are ignored.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stclip.data.proposals import Proposals, is_number
from stclip.data.video import Video
from stclip.errors import Report, UserError, fail, reporting
from stclip.files import read_json
from stclip.structures import FrameKey

# File systems take names of 255 bytes; results add a frame number and an ending.
_LONGEST_ID = 200
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True)
class Keyframe:
    """A frame and what is annotated in it.

    Attributes:
        key: its video and 1-based frame.
        boxes: (n, 4) float32 xyxy in pixels, as annotated: not clipped.
        labels: for each box the names of what the person does.
    """

    key: FrameKey
    boxes: NDArray[np.float32]
    labels: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        assert self.boxes.shape == (len(self.labels), 4), f"{self.boxes.shape}, {self.labels}"

    def of_vocabulary(
        self, vocabulary: Collection[str], unseen: Collection[str] = ()
    ) -> "Keyframe":
        """Without the boxes that have other labels only, or an unseen one among them.

        The boxes that stay keep their labels of the vocabulary.
        """
        labels = [tuple(name for name in names if name in vocabulary) for names in self.labels]
        kept = [
            row
            for row, names in enumerate(self.labels)
            if not names or (labels[row] and not any(name in unseen for name in names))
        ]
        return Keyframe(self.key, self.boxes[kept], tuple(labels[row] for row in kept))

    def with_several(self, names: Collection[str]) -> list[tuple[int, list[str]]]:
        """The boxes with more than one label of ``names``: their number from 1, those labels."""
        mine = [sorted(set(names).intersection(labels)) for labels in self.labels]
        return [(number, found) for number, found in enumerate(mine, start=1) if len(found) > 1]


@dataclass(frozen=True)
class AvaNumbers:
    """The numbers of AVA's files: the second of each keyframe, the action id of each class name."""

    seconds: Mapping[FrameKey, int]
    action_ids: Mapping[str, int]


@dataclass(frozen=True)
class DetectionDataset:
    """The keyframes that a run trains on or tests, and where their frames are.

    Attributes:
        name: names the result files: what DATASETS.TEST says, or ``annotations`` for our own
            format.
        videos: by the ``video`` of the frame keys, in the order of the results.
        keyframes: in the order of the videos, then of the frames.
        proposals: detected persons of the keyframes that have some; None if none were read.
        ava: what AVA's own files call keyframes and classes; None for other datasets.
        sources: the files that annotated boxes and proposals come from, for messages; None where
            that is unknown.
    """

    name: str
    videos: Mapping[str, Video]
    keyframes: list[Keyframe]
    proposals: Mapping[FrameKey, Proposals] | None = None
    ava: AvaNumbers | None = None
    sources: tuple[Path | None, Path | None] = (None, None)

    def annotates(self, vocabulary: Collection[str]) -> bool:
        """Whether any box has a label of a vocabulary, so that a metric can be computed."""
        wanted = set(vocabulary)
        return any(wanted & set(names) for frame in self.keyframes for names in frame.labels)


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


def read_annotations(path: str | Path) -> AnnotationFile:
    """Read and check a file in the format that the head of this module describes.

    The videos themselves are not looked at.

    Raises:
        UserError: the file cannot be read, or something in it is not as it should be; the message
            says where.
    """
    return parse_annotations(read_json(path), Path(path))


def parse_annotations(
    content: Any, path: Path, report: Report = fail, empty_boxes: bool = False
) -> AnnotationFile:
    """What ``read_annotations`` makes of the parsed JSON of a file.

    Args:
        content: the JSON.
        path: the file, whose folder the videos' paths are relative to.
        report: gets what is wrong with a label, a video or a keyframe, which is then left out.
        empty_boxes: take boxes with x2 <= x1 or y2 <= y1 as they are.

    Raises:
        UserError: the JSON has not the three lists.
    """
    if not isinstance(content, dict):
        raise UserError(f"{path}: a JSON object with labels, videos and keyframes was expected")
    labels: dict[str, str | None] = {}
    for row, where in _rows(content, "labels", path):
        with reporting(report):
            name = row.get("name") if isinstance(row, dict) else row
            if not isinstance(name, str) or not name.strip() or name in labels:
                raise UserError(f"{where}: {name!r}: a name that stands there once was expected")
            labels[name] = row.get("group") if isinstance(row, dict) else None
    videos: dict[str, VideoEntry] = {}
    for row, where in _rows(content, "videos", path):
        with reporting(report):
            video = _video(row, where, path.parent)
            if video.id in videos:
                raise UserError(f"{where}: id {video.id!r} stands there twice; ids must be unique")
            videos[video.id] = video
    keyframes = []
    for row, where in _rows(content, "keyframes", path):
        with reporting(report):
            entry = _keyframe(row, where, empty_boxes)
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


def _rows(content: dict[str, Any], name: str, path: Path) -> list[tuple[Any, str]]:
    """The rows of one of the lists, each with words for where it is."""
    rows = content.get(name)
    if not isinstance(rows, list):
        raise UserError(f"{path}: {name!r} is missing or not a list; see DATA.md for the format")
    return [(row, f"{path}: {name}[{index}]") for index, row in enumerate(rows)]


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


def _keyframe(row: Any, where: str, empty_boxes: bool) -> KeyframeEntry:
    video, seconds = _text(row, "video", where), row.get("timestamp")
    if not is_number(seconds) or seconds < 0:
        raise UserError(f"{where}: timestamp {seconds!r}: seconds from 0 were expected")
    boxes = row.get("boxes", [])
    if not isinstance(boxes, list):
        raise UserError(f"{where}: boxes {boxes!r:.60}: a list was expected")
    for box in boxes:
        if not (isinstance(box, list) and len(box) == 4 and all(map(is_number, box))):
            raise UserError(f"{where}: box {box!r:.60}: numbers x1, y1, x2, y2 were expected")
        if not empty_boxes and (box[2] <= box[0] or box[3] <= box[1]):
            raise UserError(f"{where}: box {box}: x2 > x1 and y2 > y1 were expected")
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
