"""Where the persons of a frame come from: a detector, or a file of boxes."""

from __future__ import annotations

import csv
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from stclip.data.fields import format_of, is_box, read_text, whole_number
from stclip.data.proposals import read_jsonl_detections
from stclip.errors import UserError
from stclip.footage.records import Boxes
from stclip.footage.results import read_result
from stclip.footage.source import Frame
from stclip.structures import FrameKey

# Rows of a file: seconds or None, frame or None, track or 0, box and score.
_Row = tuple[float | None, int | None, int, tuple[float, float, float, float], float]


# From frames (n, h, w, 3) uint8 RGB to boxes (k, 4) and scores (k,) of each.
FindPersons = Callable[
    [NDArray[np.uint8]], Sequence[tuple[NDArray[np.float32], NDArray[np.float32]]]
]


class Finder(Protocol):
    """Gives the persons of frames that come in order."""

    has_tracks: bool

    def __call__(self, frame: Frame) -> Boxes:
        """The persons of a frame; with the numbers of their tracks where ``has_tracks``."""


class Detected:
    """The persons that a detector finds, or any function like one.

    Args:
        detector: from frames (n, h, w, 3) uint8 RGB to boxes (k, 4) and scores (k,) of each.
        threshold: boxes with lower scores are not used.
    """

    has_tracks = False

    def __init__(self, detector: FindPersons, threshold: float) -> None:
        self._detector, self._threshold = detector, threshold

    def __call__(self, frame: Frame) -> Boxes:
        """One frame at a time: later ones may not be there yet."""
        ((found, likely),) = self._detector(frame.image[None])
        boxes, scores = np.asarray(found, np.float32), np.asarray(likely, np.float32)
        if boxes.shape != (*scores.shape, 4) or scores.ndim != 1:
            raise UserError(
                f"detector: boxes (k, 4) and scores (k,) of a frame expected, found {boxes.shape} "
                f"and {scores.shape}"
            )
        kept = scores >= self._threshold
        return Boxes.untracked(boxes[kept], scores[kept])


class Given:
    """Boxes of a file: those of a frame's number, or of a time that is nearest to the frame's.

    Args:
        rows: of the file.
        fps: frames a second of the video; a time belongs to a frame at most half of that away.
        threshold: boxes with lower scores are not used.
    """

    def __init__(self, rows: list[_Row], fps: float, threshold: float) -> None:
        rows = [row for row in rows if row[4] >= threshold]
        self.has_tracks = bool(rows) and all(row[2] > 0 for row in rows)
        self._frames: dict[int, list[_Row]] = defaultdict(list)
        for row in rows:
            if row[1] is not None:
                self._frames[row[1]].append(row)
        self._timed = sorted((row for row in rows if row[1] is None), key=lambda row: row[0] or 0)
        self._times = [row[0] or 0.0 for row in self._timed]
        self._half = 0.5 / fps

    def __call__(self, frame: Frame) -> Boxes:
        """The boxes of a frame."""
        low = bisect_left(self._times, frame.seconds - self._half)
        high = bisect_left(self._times, frame.seconds + self._half)
        rows = [*self._frames.get(frame.number, ()), *self._timed[low:high]]
        return Boxes(
            np.array([row[3] for row in rows], dtype=np.float32).reshape(-1, 4),
            np.array([row[4] for row in rows], dtype=np.float32),
            np.array([row[2] for row in rows], dtype=np.int64),
        )


def read_boxes(path: str | Path) -> list[_Row]:
    """The boxes of one video: persons.jsonl, MOT's gt.txt or det.txt, or our result.json.

    Raises:
        UserError: the file is missing, of none of these formats, or a row is malformed.
    """
    path = Path(path)
    readers = {".json": _of_result, ".jsonl": _of_lines, ".txt": _of_mot, ".csv": _of_mot}
    if path.suffix.lower() not in readers:
        raise UserError(
            f"--boxes {path}: a .jsonl of persons, a .txt in MOT's format or a result.json expected"
        )
    rows = readers[path.suffix.lower()](path)
    empty = [row for row in rows if row[3][2] <= row[3][0] or row[3][3] <= row[3][1]]
    if empty:
        raise UserError(
            f"--boxes {path}: {len(empty)} of {len(rows)} boxes are empty, the first is "
            f"{list(empty[0][3])}; x1, y1, x2, y2 in pixels expected: are they x, y, width, height?"
        )
    return rows


def _of_result(path: Path) -> list[_Row]:
    footage = read_result(path)
    return [
        (None, int(frame), track.id, (x1, y1, x2, y2), score)
        for track in footage.tracks.values()
        for _, frame, x1, y1, x2, y2, score in track.boxes.tolist()
    ]


def _of_lines(path: Path) -> list[_Row]:
    """The format of detected persons that training and testing read as well (DATA.md)."""
    places: dict[tuple[float | None, int | None], int] = {}

    def locate(video: str, seconds: float | None, frame: int | None) -> FrameKey:
        return FrameKey(video, places.setdefault((seconds, frame), len(places)))

    found = read_jsonl_detections(path, locate)
    videos = sorted({key.video for key in found})
    if len(videos) > 1:
        raise UserError(
            f"--boxes {path}: boxes of {len(videos)} videos ({videos[0]}, {videos[1]} ...); write "
            "those of this one into a file of their own"
        )
    where = list(places)
    return [
        (*where[key.frame], 0, (x1, y1, x2, y2), score)
        for key, persons in found.items()
        for (x1, y1, x2, y2), score in zip(
            persons.boxes.tolist(), persons.scores.tolist(), strict=True
        )
    ]


def _of_mot(path: Path) -> list[_Row]:
    """frame, id, left, top, width, height, confidence, ...; an id of -1 is nobody's."""
    rows: list[_Row] = []
    for number, values in enumerate(csv.reader(read_text(path).splitlines()), start=1):
        if not values or not any(value.strip() for value in values):
            continue
        with format_of("MOT (frame, id, left, top, width, height, confidence)", f"{path}:{number}"):
            frame, track, x, y, width, height, *rest = map(float, values)
            frame, track = whole_number(frame), whole_number(track)
            if not is_box([x, y, width, height]) or frame < 1:
                raise ValueError("numbers of pixels, and frames from 1, were expected")
            score = rest[0] if rest else 1.0
            if score != 0 or len(rest) < 2:  # 0: ground truth that is not to be counted
                box = (x, y, x + width, y + height)
                rows.append((None, frame, max(track, 0), box, score))
    return rows
