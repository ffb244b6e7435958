"""Annotated and detected action tubes, and the two formats of files of them (DATA.md).

``JHMDB-GT.pkl`` and ``UCF101v2-GT.pkl`` are in the format of ACT-detector; a json format of our own
is for ground truth (an object) and for detected tubes (a list). Frames count from 1 and ascend;
boxes are in pixels.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from stclip.data.annotations import GroundTruth, Keyframe, Rows, keyframes_of
from stclip.data.fields import LAST_FRAME, format_of, is_box, is_number, whole_number
from stclip.data.labels import Part, choices
from stclip.errors import Report, UserError, fail, reporting
from stclip.files import read_json, write_json
from stclip.structures import Tube
from stclip.structures.boxes import LARGEST


@dataclass(frozen=True)
class TubeFile:
    """The tubes of a whole dataset.

    Attributes:
        path: the file.
        labels: the class names, in the order that the file numbers them in.
        tubes: for every ``class/video`` its tubes, labelled with these names.
        lengths: for every ``class/video`` the frames that it has according to the file.
        parts: for ``train`` and ``test`` the videos of each official split; a part that the file
            says nothing about is not there.
        sizes: width and height of the videos of which the file says that.
    """

    path: Path
    labels: tuple[str, ...]
    tubes: dict[str, list[Tube]] = field(repr=False)
    lengths: dict[str, int] = field(repr=False)
    parts: Mapping[Part, Sequence[Sequence[str]]] = field(default_factory=dict, repr=False)
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict, repr=False)

    def videos(self, part: Part, official_split: int = 1) -> Sequence[str]:
        """The videos of one part of an official split, which counts from 1.

        Raises:
            UserError: the file has no such part or split, or a video is in both of its parts.
        """
        if part not in self.parts:
            raise UserError(
                f"{self.path}: does not say which videos are the {part} videos; put the list "
                f"{part}list01.txt (class/video a line) into {self.path.parent}"
            )
        lists = self.parts[part]
        if not 1 <= official_split <= len(lists):
            raise UserError(
                f"{self.path}: has the official splits 1 to {len(lists)}, not {official_split}"
            )
        videos = lists[official_split - 1]
        other = self.parts.get("test" if part == "train" else "train", ())
        same_split = set().union(*other[official_split - 1 : official_split])
        both = sorted(same_split.intersection(videos))
        if both:
            raise UserError(
                f"{self.path}: {len(both)} videos are train and test videos at once, the first is "
                f"{both[0]}; take them out of one of the two lists"
            )
        return videos

    def ground_truth(self, videos: Iterable[str], names: Mapping[str, str]) -> GroundTruth:
        """The annotated frames of some videos: those inside their tubes.

        Args:
            videos: some of ``tubes``.
            names: what to call each of ``labels``.
        """
        keyframes = {video: self._keyframes(video, names) for video in videos}
        labels = tuple(names.values())
        return GroundTruth(self.path, labels, keyframes, self.lengths, self.sizes)

    def _keyframes(self, video: str, names: Mapping[str, str]) -> list[Keyframe]:
        frames: dict[int, Rows] = {}
        persons: dict[int, list[int]] = {}
        for number, tube in enumerate(self.tubes[video], start=1):
            label = (names[tube.label],)
            for frame, box in zip(tube.frames.tolist(), tube.boxes.tolist(), strict=True):
                boxes, labels = frames.setdefault(frame, ([], []))
                boxes.append(box)
                labels.append(label)
                persons.setdefault(frame, []).append(number)
        return keyframes_of(video, frames, persons)


def parse_act(path: Path, content: Any, report: Report = fail) -> TubeFile:
    """The tubes in a pickle of ACT-detector's format, of which ``load_pickle`` read the content.

    Raises:
        UserError: it is not in the format.
    """
    with format_of("JHMDB-GT.pkl", f"{path}"):
        labels = tuple(content["labels"])
        if not all(isinstance(name, str) for name in [*labels, *content["gttubes"]]):
            raise TypeError("labels and videos must be texts")
        if len(set(labels)) < len(labels):
            raise ValueError("a label occurs twice")
        parts: dict[Part, Any] = {
            "train": content["train_videos"],
            "test": content["test_videos"],
        }
        entries = list(content["gttubes"].items())
        lengths = {video: whole_number(content["nframes"][video]) for video, _ in entries}
        sizes = {
            video: (whole_number(width), whole_number(height))
            for video, (height, width) in content.get("resolution", {}).items()
        }
        listed = {video for lists in parts.values() for video in lists[0]}
        if listed - lengths.keys():
            raise KeyError(min(listed - lengths.keys()))
    tubes: dict[str, list[Tube]] = {}
    for video, numbers in entries:
        tubes[video] = []
        with reporting(report), format_of("JHMDB-GT.pkl", f"{path}: {video}"):
            tubes[video] = _act_tubes(numbers, labels)
    return TubeFile(path, labels, tubes, lengths, parts, sizes)


def _act_tubes(numbers: Any, labels: Sequence[str]) -> list[Tube]:
    """The tubes of a video, from {label index: [rows of a tube, ...]}."""
    for number in numbers:
        if not 0 <= number < len(labels):
            raise ValueError(f"label {number}: 0 to {len(labels) - 1} were expected")
    return [
        _act_tube(labels[number], rows, f"tube {place} of {labels[number]}")
        for number in numbers
        for place, rows in enumerate(numbers[number], start=1)
        if len(rows)
    ]


def _act_tube(label: str, rows: Any, where: str) -> Tube:
    """A tube from its rows, which may stand in any order."""
    table = np.asarray(rows, dtype=np.float64)
    if table.ndim != 2 or table.shape[1] != 5:
        raise ValueError(f"{where}: rows of shape {table.shape}; (n, 5) was expected")
    whole = (table[:, 0] >= 1) & (table[:, 0] <= LAST_FRAME) & (table[:, 0] % 1 == 0)
    wrong = table[~whole | ~(np.abs(table) <= LARGEST).all(axis=1)]
    if len(wrong):
        raise ValueError(
            f"{where}: frame and box {wrong[0].tolist()}: whole frames from 1 and finite numbers "
            "were expected"
        )
    table = table[np.argsort(table[:, 0])]
    frames = table[:, 0].astype(np.int64)
    twice = frames[1:][np.diff(frames) == 0]
    if len(twice):
        raise ValueError(f"{where}: two boxes in frame {twice[0]}")
    return Tube(label, frames, table[:, 1:].astype(np.float32))


def read_detected_tubes(
    path: str | Path, labels: Collection[str], videos: Collection[str]
) -> dict[str, list[Tube]]:
    """Read a list of detected tubes: {video: its tubes in the order of the file}.

    Raises:
        UserError: the file cannot be read, or a tube is malformed or of none of the labels or
            videos.
    """
    path = Path(path)
    rows = read_json(path)
    if not isinstance(rows, list):
        raise UserError(f"{path}: a list of tubes was expected (see DATA.md, 'Tubes')")
    tubes: dict[str, list[Tube]] = {}
    labels = set(labels)
    for index, row in enumerate(rows):
        where = f"{path}: tube {index + 1}"
        video, tube = _tube(row, where, labels, scored=True)
        if video not in videos:
            raise UserError(
                f"{where}: video {video!r} is not in the ground truth; {choices(video, videos)}"
            )
        tubes.setdefault(video, []).append(tube)
    return tubes


def write_detected_tubes(path: str | Path, tubes: Mapping[str, Sequence[Tube]]) -> None:
    """Write a list that ``read_detected_tubes`` reads, whole or not at all."""
    rows = [
        {
            "video": video,
            "label": tube.label,
            "score": tube.score,
            "boxes": [
                [frame, *(round(value, 5) for value in box)]
                for frame, box in zip(tube.frames.tolist(), tube.boxes.tolist(), strict=True)
            ],
        }
        for video, some in tubes.items()
        for tube in some
    ]
    write_json(path, rows)


def read_tube_json(path: Path) -> TubeFile:
    """Read ground truth in our own format; a UserError if the file is not in it."""
    content = read_json(path)
    rows = content.get("ground_truth") if isinstance(content, dict) else None
    labels = content.get("labels") if isinstance(content, dict) else None
    if not isinstance(rows, list) or not isinstance(labels, list):
        raise UserError(
            f"{path}: lists 'labels' and 'ground_truth' were expected: a file of tubes (see "
            "DATA.md, 'Tubes'); other annotations do not say which boxes are the same person's"
        )
    if not all(isinstance(name, str) for name in labels) or len(set(labels)) < len(labels):
        raise UserError(f"{path}: labels: unique names were expected")
    lengths = content.get("nframes", {})
    if not isinstance(lengths, dict) or not all(type(n) is int and n > 0 for n in lengths.values()):
        raise UserError(f"{path}: nframes: a number of frames for each video was expected")
    tubes: dict[str, list[Tube]] = {video: [] for video in lengths}
    known = set(labels)
    for index, row in enumerate(rows):
        video, tube = _tube(row, f"{path}: ground_truth[{index}]", known, scored=False)
        tubes.setdefault(video, []).append(tube)
    return TubeFile(path, tuple(labels), tubes, lengths)


def _tube(row: Any, where: str, labels: Collection[str], scored: bool) -> tuple[str, Tube]:
    """The video of a tube, and the tube."""
    row = row if isinstance(row, dict) else {}
    video, label, score = (row.get(name) for name in ("video", "label", "score"))
    if not isinstance(video, str) or not video:
        raise UserError(f"{where}: video {video!r:.60}: a name was expected")
    if not isinstance(label, str) or label not in labels:
        raise UserError(f"{where}: label {label!r:.60} is unknown; {choices(str(label), labels)}")
    if scored and not is_number(score):
        raise UserError(f"{where}: score {score!r:.60}: a number was expected")
    boxes = row.get("boxes")
    rows = boxes if isinstance(boxes, list) else []
    for box in rows:
        if not is_box(box, 5):
            raise UserError(f"{where}: box {box!r:.80}: numbers frame, x1, y1, x2, y2 expected")
    table = np.array(rows, dtype=np.float64).reshape(-1, 5)
    frames = table[:, 0].astype(np.int64)
    if (
        not len(rows)
        or frames[0] < 1
        or (np.diff(frames) < 1).any()
        or (frames != table[:, 0]).any()
    ):
        raise UserError(
            f"{where}: boxes: at least one, with whole frame numbers from 1 that ascend, expected"
        )
    boxes = table[:, 1:].astype(np.float32)
    return video, Tube(label, frames, boxes, float(score) if scored else 1.0)
