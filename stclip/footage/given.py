"""Where the persons of a frame come from: a detector, or a file of boxes."""

from __future__ import annotations

import csv
import json
import math
from bisect import bisect_left
from collections import defaultdict
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from stclip.errors import UserError
from stclip.files import check_regular, parse_json
from stclip.footage.detectors import PersonDetector
from stclip.footage.records import Boxes
from stclip.footage.results import read_result
from stclip.footage.source import Frame

# Rows of a file: seconds or None, frame or None, track or 0, box and score.
_Row = tuple[float | None, int | None, int, tuple[float, float, float, float], float]


class Finder(Protocol):
    """Gives the persons of frames that come in order."""

    has_tracks: bool

    def __call__(self, frame: Frame) -> Boxes:
        """The persons of a frame; with the numbers of their tracks where ``has_tracks``."""


class Detected:
    """The persons that a detector finds."""

    has_tracks = False

    def __init__(self, detector: PersonDetector, threshold: float) -> None:
        self._detector, self._threshold = detector, threshold

    def __call__(self, frame: Frame) -> Boxes:
        """One frame at a time: later ones may not be there yet."""
        ((boxes, scores),) = self._detector(frame.image[None])
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
    check_regular(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--boxes {path}: cannot be read: {error}") from error
    kind = path.suffix.lower()
    if kind == ".json":
        return _of_result(path)
    if kind == ".jsonl":
        return _of_lines(path, text)
    if kind in (".txt", ".csv"):
        return _of_mot(path, text)
    raise UserError(
        f"--boxes {path}: a .jsonl of persons, a .txt in MOT's format or a result.json expected"
    )


def _of_result(path: Path) -> list[_Row]:
    footage = read_result(path)
    return [
        (None, int(frame), track.id, (x1, y1, x2, y2), score)
        for track in footage.tracks.values()
        for _, frame, x1, y1, x2, y2, score in track.boxes.tolist()
    ]


def _of_lines(path: Path, text: str) -> list[_Row]:
    rows: list[_Row] = []
    videos: set[str] = set()
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        where = f"--boxes {path}: line {number}"
        row = parse_json(line, where)
        if not isinstance(row, dict):
            raise UserError(f"{where}: an object expected, found {type(row).__name__}")
        videos.add(str(row.get("video", "")))
        seconds, frame = row.get("timestamp"), row.get("frame")
        if (seconds is None) == (frame is None):
            raise UserError(f"{where}: either timestamp (seconds) or frame (from 1) expected")
        if seconds is not None and not _is_number(seconds):
            raise UserError(f"{where}: timestamp: a number expected, found {seconds!r:.40}")
        if frame is not None and (type(frame) is not int or frame < 1):
            raise UserError(f"{where}: frame: a whole number from 1 expected, found {frame!r:.40}")
        rows.append(
            (seconds, frame, 0, _box(row.get("box"), where), _score(row.get("score", 1.0), where))
        )
    if len(videos) > 1:
        raise UserError(
            f"--boxes {path}: boxes of several videos ({', '.join(sorted(videos)[:3])}, ...); "
            "write those of this one into a file of their own"
        )
    return rows


def _of_mot(path: Path, text: str) -> list[_Row]:
    """frame, id, left, top, width, height, confidence, ...; an id of -1 is nobody's."""
    rows: list[_Row] = []
    for number, values in enumerate(csv.reader(text.splitlines()), start=1):
        if not values or not any(value.strip() for value in values):
            continue
        where = f"--boxes {path}: line {number}"
        try:
            frame, track, x, y, width, height, *rest = (float(value) for value in values)
        except ValueError as error:
            raise UserError(
                f"{where}: frame, id, left, top, width, height, confidence expected ({error})"
            ) from error
        if frame < 1 or frame % 1 or track % 1:
            raise UserError(f"{where}: whole numbers expected as frame (from 1) and id")
        score = rest[0] if rest else 1.0
        if score == 0 and len(rest) >= 2:
            continue  # ground truth that is not to be counted
        box = _box([x, y, x + width, y + height], where)
        rows.append((None, int(frame), max(int(track), 0), box, _score(score, where)))
    return rows


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _box(value: Any, where: str) -> tuple[float, float, float, float]:
    if not isinstance(value, list) or len(value) != 4 or not all(map(_is_number, value)):
        raise UserError(f"{where}: a box x1, y1, x2, y2 expected, found {json.dumps(value)[:60]}")
    x1, y1, x2, y2 = map(float, value)
    if x2 <= x1 or y2 <= y1:
        raise UserError(
            f"{where}: an empty box {[x1, y1, x2, y2]}; x1, y1, x2, y2 in pixels expected: is it "
            "x, y, width, height?"
        )
    return x1, y1, x2, y2


def _score(value: Any, where: str) -> float:
    if not _is_number(value):
        raise UserError(f"{where}: a number as score expected, found {value!r:.40}")
    return float(value)
