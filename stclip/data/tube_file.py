"""Annotated action tubes, and the pickle format of ACT-detector that they are exchanged in.

``JHMDB-GT.pkl`` and ``UCF101v2-GT.pkl`` are in that format: a dict with ``labels``,
``train_videos`` and ``test_videos`` (lists of ``class/video``, one for each official split),
``nframes``, perhaps ``resolution[video]`` = (height, width), and ``gttubes[video]`` = {label index:
[array (n, 5) of frame from 1, x1, y1, x2, y2]}.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from stclip.data.annotations import Keyframe
from stclip.data.selection import Part
from stclip.errors import Report, UserError, fail, reporting
from stclip.structures import FrameKey, Tube
from stclip.structures.boxes import LARGEST

_LAST = 2**31  # no video is as long, and no number that a file counts with is as large


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
    parts: Mapping[Part, Sequence[Sequence[str]]] = field(repr=False)
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

    def keyframes(self, video: str, names: Mapping[str, str]) -> list[Keyframe]:
        """The annotated frames of a video, ascending: those inside its tubes.

        Args:
            video: one of ``tubes``.
            names: what to call each of ``labels``.
        """
        frames: dict[int, tuple[list[Sequence[float]], list[tuple[str, ...]]]] = {}
        for tube in self.tubes[video]:
            label = (names[tube.label],)
            for frame, box in zip(tube.frames.tolist(), tube.boxes.tolist(), strict=True):
                boxes, labels = frames.setdefault(frame, ([], []))
                boxes.append(box)
                labels.append(label)
        return [
            Keyframe(FrameKey(video, frame), np.array(boxes, dtype=np.float32), tuple(labels))
            for frame, (boxes, labels) in sorted(frames.items())
        ]


def parse_act(path: Path, content: Any, report: Report = fail) -> TubeFile:
    """The tubes in a pickle of the format that the head of this module describes.

    Args:
        path: the file, for messages.
        content: what ``load_pickle`` read from it.
        report: gets what is wrong with a video's tubes, which are then left out.

    Raises:
        UserError: it is not in the format.
    """
    try:
        labels = tuple(content["labels"])
        if not all(isinstance(name, str) for name in [*labels, *content["gttubes"]]):
            raise TypeError("labels and videos must be texts")
        if len(set(labels)) < len(labels):
            raise ValueError("a label stands there twice")
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
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{path}: not in the format of JHMDB-GT.pkl ({type(error).__name__}: {error})"
        ) from error
    tubes: dict[str, list[Tube]] = {}
    for video, numbers in entries:
        tubes[video] = []
        with reporting(report):
            tubes[video] = _tubes(numbers, labels, f"{path}: {video}")
    return TubeFile(path, labels, tubes, lengths, parts, sizes)


def whole_number(value: Any) -> int:
    """A number that a file counts with, which ``int`` alone would cut to a whole one.

    Raises:
        TypeError: it is no number.
        ValueError: it is not a whole one.
    """
    try:
        number = int(value)
        whole = number == float(value) and abs(number) < _LAST
    except OverflowError:  # of infinity, or of hundreds of digits
        whole = False
    if not whole:
        raise ValueError(f"{value!r:.60}: a whole number was expected")
    return number


def _tubes(numbers: Any, labels: Sequence[str], where: str) -> list[Tube]:
    """The tubes of a video, from {label index: [rows of a tube, ...]}."""
    try:
        for number in numbers:
            if not 0 <= number < len(labels):
                raise ValueError(f"label {number}: 0 to {len(labels) - 1} were expected")
        return [
            _tube(labels[number], rows, f"tube {place} of {labels[number]}")
            for number in numbers
            for place, rows in enumerate(numbers[number], start=1)
            if len(rows)
        ]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise UserError(
            f"{where}: not in the format of JHMDB-GT.pkl ({type(error).__name__}: {error})"
        ) from error


def _tube(label: str, rows: Any, where: str) -> Tube:
    """A tube from its rows, which may stand in any order."""
    table = np.asarray(rows, dtype=np.float64)
    if table.ndim != 2 or table.shape[1] != 5:
        raise ValueError(f"{where}: rows of shape {table.shape}; (n, 5) was expected")
    whole = (table[:, 0] >= 1) & (table[:, 0] <= _LAST) & (table[:, 0] % 1 == 0)
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
