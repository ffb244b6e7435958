"""Reading result files: ours and AVA's, and what is wrong with one.

The formats are in docs/evaluation.md, "Result files" and "AVA".

Both have the columns ``video, frame, x1, y1, x2, y2, label, score``; AVA's boxes are fractions of
the picture, its frames are seconds, and its ground truth has no score.
"""

from __future__ import annotations

import csv
import difflib
import gzip
import io
import math
import warnings
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TextIO, TypeVar

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from stclip.errors import UserError
from stclip.evaluation.rows import DetectionRows
from stclip.files import check_regular
from stclip.structures import FrameKey
from stclip.structures.boxes import LARGEST

_BOX = ("x1", "y1", "x2", "y2")
_BLOCK = 10_000  # lines held as text at a time
_NAME = 128  # characters of a video's name that the fast reader has room for
_GZIP_MAGIC = b"\x1f\x8b"

_Scalar = TypeVar("_Scalar", bound=np.generic)


def read_result_csv(
    path: str | Path,
    labels: Sequence[str],
    videos: Collection[str] | None = None,
    label_file: str | Path = "the label file",
) -> DetectionRows:
    """Read a result file, plain or gzipped (told apart by content).

    Args:
        path: rows ``video, frame, x1, y1, x2, y2, label (1-based), score``; blank lines are
            skipped.
        labels: the vocabulary that the label indices count in.
        videos: if given, the videos that rows may be in.
        label_file: where ``labels`` come from, for messages.

    Raises:
        UserError: the file cannot be read, or a row has another number of columns, something that
            is not a finite number, a frame below 1, a label index outside the vocabulary, or an
            unknown video. The message names file and row.
    """
    parser = _Parser(
        Path(path),
        ("video", "frame", *_BOX, "label", "score"),
        {number: number - 1 for number in range(1, len(labels) + 1)},
        f"{label_file}, which names {len(labels)} classes (labels count from 1)",
        videos,
    )
    return parser.read()


def read_ava_rows(path: str | Path, classes: Sequence[int], scored: bool) -> DetectionRows:
    """Read ground truth or detections of AVA, plain or gzipped (told apart by content).

    Args:
        path: rows ``video, second, x1, y1, x2, y2, action id``, then the score of detections. The
            boxes are fractions of width and height. What follows these columns (the person id of
            ground truth) is not looked at, and blank lines are skipped.
        classes: action ids; rows with others are skipped.
        scored: whether the file holds detections.

    Returns:
        Rows whose label is the place of their action id in ``classes``, and whose frames are
        seconds. The score of ground truth is 1.

    Raises:
        UserError: the file cannot be read, or a row lacks a column, or has something there that is
            not a finite number. The message names file and row.
    """
    columns = ("video", "second", *_BOX, "action id", *(["score"] if scored else []))
    places = {number: place for place, number in enumerate(classes)}
    return _Parser(Path(path), columns, places, first=0).read()


class _Parser:
    """Reads blocks of lines: numpy's reader takes them, or else they are looked at row by row.

    numpy's reader is three times as fast, and takes nothing that the other would not; but it
    refuses some numbers that Python knows, and does not say what is wrong in the words of a user.

    Args:
        path: the file.
        columns: the columns' names: video, frame, box, label, and perhaps a score.
        labels: the index of every label number.
        known: where the label numbers come from; None skips rows with other numbers.
        videos: if given, the videos that rows may be in.
        first: the lowest frame that there can be.
    """

    def __init__(
        self,
        path: Path,
        columns: tuple[str, ...],
        labels: Mapping[int, int],
        known: str | None = None,
        videos: Collection[str] | None = None,
        first: int = 1,
    ) -> None:
        self.path, self.columns, self.videos, self.first = path, columns, videos, first
        self.labels, self.known = labels, known
        self.scored = len(columns) == 8
        self.table = np.full(max(labels, default=0) + 1, -1, dtype=np.int64)
        self.table[list(labels)] = list(labels.values())
        self.keys: dict[FrameKey, int] = {}
        self.frame: list[NDArray[np.int64]] = []
        self.boxes: list[NDArray[np.float64]] = []
        self.label: list[NDArray[np.int64]] = []
        self.scores: list[NDArray[np.float64]] = []

    def read(self) -> DetectionRows:
        """All rows of the file."""
        number = 1
        with (
            _open_text(self.path) as file,
            tqdm(desc=self.path.name, unit="row", unit_scale=True, disable=None) as bar,
        ):
            while lines := list(islice(file, _BLOCK)):
                if not self._add_fast(lines):
                    self._add_one_by_one(lines, number)
                number += len(lines)
                bar.update(len(lines))
        return DetectionRows(
            tuple(self.keys),
            _join(self.frame, np.zeros(0, np.int64)),
            _join(self.boxes, np.zeros((0, 4))),
            _join(self.label, np.zeros(0, np.int64)),
            _join(self.scores, np.zeros(0)),
        )

    def _add_fast(self, lines: list[str]) -> bool:
        """Add lines that are all good; False, and nothing is added, if any may not be."""
        # loadtxt crashes the process on some other characters in the place of a number (2.4.6).
        if not all(map(str.isascii, lines)):
            return False
        kind: list[tuple[str, str] | tuple[str, str, int]]
        kind = [("video", f"U{_NAME}"), ("frame", "i8"), ("box", "f8", 4), ("label", "i8")]
        kind += [("score", "f8")] if self.scored else []
        used = None if self.known is not None else range(len(self.columns))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # old versions of numpy only warn of 1.0 as a label
                rows = np.loadtxt(
                    lines, np.dtype(kind), delimiter=",", comments=None, quotechar='"', ndmin=1,
                    usecols=used,
                )  # fmt: skip
        except (ValueError, OverflowError, Warning):
            return False
        index = self._indices(rows["label"])
        scores = rows["score"] if self.scored else np.ones(len(rows))
        if not ((np.abs(rows["box"]) <= LARGEST).all() and np.isfinite(scores).all()):
            return False
        if self.known is not None and (index < 0).any():
            return False
        frame = self._frames(rows["video"], rows["frame"])
        if frame is None:
            return False
        kept = index >= 0
        self._append(frame[kept], rows["box"][kept], index[kept], scores[kept])
        return True

    def _indices(self, label: NDArray[np.int64]) -> NDArray[np.int64]:
        """The index of each label number, -1 for numbers that are not known."""
        inside = (label >= 0) & (label < len(self.table))
        return np.where(inside, self.table[np.where(inside, label, 0)], -1)

    def _frames(
        self, video: NDArray[np.str_], frame: NDArray[np.int64]
    ) -> NDArray[np.int64] | None:
        """Rows of ``keys``; None if a frame is not right. Neighbours are mostly of one frame."""
        changes = np.flatnonzero((video[1:] != video[:-1]) | (frame[1:] != frame[:-1])) + 1
        first = np.concatenate([np.zeros(1, np.int64), changes])
        found = []
        for name, number in zip(video[first].tolist(), frame[first].tolist(), strict=True):
            if len(name) == _NAME:
                return None
            key = FrameKey(self._video(name), number)
            if key not in self.keys and self._frame_problem(*key):
                return None
            found.append(self.keys.setdefault(key, len(self.keys)))
        return np.repeat(np.array(found), np.diff(first, append=len(frame)))

    def _video(self, text: str) -> str:
        """A video's name, without the spaces that some writers put around it."""
        return text if self.videos is not None and text in self.videos else text.strip()

    def _add_one_by_one(self, lines: list[str], first_number: int) -> None:
        """Add lines, the first of which is row ``first_number``, or say what is wrong with one."""
        frames, boxes, labels, scores = [], [], [], []
        for number, row in enumerate(csv.reader(lines), first_number):
            if not row:
                continue
            if problem := self._problem(row):
                raise UserError(f"{self.path}: row {number}: {problem}")
            index = self.labels.get(int(row[6]))
            if index is None:
                continue
            key = FrameKey(self._video(row[0]), int(row[1]))
            frames.append(self.keys.setdefault(key, len(self.keys)))
            boxes.append([float(text) for text in row[2:6]])
            labels.append(index)
            scores.append(float(row[7]) if self.scored else 1.0)
        self._append(
            np.array(frames, dtype=np.int64),
            np.array(boxes, dtype=np.float64).reshape(-1, 4),
            np.array(labels, dtype=np.int64),
            np.array(scores, dtype=np.float64),
        )

    def _append(
        self,
        frame: NDArray[np.int64],
        boxes: NDArray[np.float64],
        label: NDArray[np.int64],
        scores: NDArray[np.float64],
    ) -> None:
        self.frame.append(frame)
        self.boxes.append(boxes)
        self.label.append(label)
        self.scores.append(scores)

    def _problem(self, row: list[str]) -> str | None:
        """What is wrong with a row."""
        count = len(self.columns)
        if len(row) < count or (len(row) > count and self.known is not None):
            return f"{len(row)} columns, expected {count}: {', '.join(self.columns)}"
        for name, text in zip(self.columns, row, strict=False):
            if name in _BOX and not abs(_number(text)) <= LARGEST:
                return f"{name} is {text!r:.60}, expected a finite number, at most {LARGEST:.0f}"
            if name == "score" and not math.isfinite(_number(text)):
                return f"{name} is {text!r:.60}, expected a finite number"
        label = _whole(row[6])
        if label is None:
            return f"{self.columns[6]} is {row[6]!r:.60}, expected a whole number"
        if self.known is not None and label not in self.labels:
            return f"{self.columns[6]} {label} is outside {self.known}"
        frame = _whole(row[1])
        if frame is None:
            return f"{self.columns[1]} is {row[1]!r:.60}, expected a whole number"
        return self._frame_problem(self._video(row[0]), frame)

    def _frame_problem(self, video: str, frame: int) -> str | None:
        if frame < self.first:
            return f"{self.columns[1]} is {frame}, but {self.columns[1]}s count from {self.first}"
        if frame > LARGEST:
            return f"{self.columns[1]} is {frame:.3g}, which no video has"
        if self.videos is None or video in self.videos:
            return None
        close = difflib.get_close_matches(video, self.videos, n=1, cutoff=0.85)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        return f"video {video!r} is not in the ground truth{hint}"


def _join(parts: list[NDArray[_Scalar]], empty: NDArray[_Scalar]) -> NDArray[_Scalar]:
    """The parts end to end; the list is emptied, since a large file has them in memory twice."""
    joined = np.concatenate([empty, *parts])
    parts.clear()
    return joined


def _whole(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None


def _number(text: str) -> float:
    """The number that a text says, NaN if it is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


@contextmanager
def _open_text(path: Path) -> Iterator[TextIO]:
    """Open a plain or gzipped text file; whatever goes wrong while reading it names the file."""
    check_regular(path)
    try:
        with open(path, "rb") as raw:
            zipped = raw.peek(2)[:2] == _GZIP_MAGIC
            with (
                gzip.open(raw) if zipped else raw as binary,
                io.TextIOWrapper(binary, encoding="utf-8-sig", newline="") as text,
            ):
                yield text
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise UserError(f"{path}: damaged gzip file ({error}); fetch or write it again") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a UTF-8 text file ({error}); expected a csv") from error
    except csv.Error as error:
        raise UserError(f"{path}: not a csv file ({error})") from error
