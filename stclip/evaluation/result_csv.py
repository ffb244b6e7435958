"""Rows of result files: one for each person and class. Writing them, and reading ours and AVA's.

The formats are in docs/evaluation.md, "Result files" and "AVA". Both have the columns ``video,
frame, x1, y1, x2, y2, label, score``; AVA's boxes are fractions of the picture, its frames are
seconds, and its ground truth has no score.

Shape letters: N persons, C class names, n rows.
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
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TextIO, TypeVar

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from stclip.errors import UserError
from stclip.files import check_regular
from stclip.structures import Detections, FrameKey
from stclip.structures.boxes import LARGEST

DECIMALS = 5  # of boxes and scores in a result file

_BOX = ("x1", "y1", "x2", "y2")
_BLOCK = 10_000  # rows converted to Python objects at a time
_NAME = 128  # characters of a video's name that the fast reader has room for
_GZIP_MAGIC = b"\x1f\x8b"

_Scalar = TypeVar("_Scalar", bound=np.generic)


@dataclass(frozen=True)
class DetectionRows:
    """Rows of a result file.

    Attributes:
        keys: the distinct frames that the rows are in.
        frame: (n,) int64, rows of ``keys``.
        boxes: (n, 4) float64 xyxy pixels.
        labels: (n,) int64, 0-based in the vocabulary.
        scores: (n,) float64, class score times detector score.
    """

    keys: tuple[FrameKey, ...]
    frame: NDArray[np.int64]
    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    scores: NDArray[np.float64]

    def __post_init__(self) -> None:
        lengths = {len(self.frame), len(self.boxes), len(self.labels), len(self.scores)}
        assert len(lengths) == 1, f"frame, boxes, labels, scores differ in length: {lengths}"
        assert self.boxes.shape[1:] == (4,), f"boxes: {self.boxes.shape}"

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.scores)

    def entries(self) -> Iterator[tuple[int, list[float], int, float]]:
        """Frame (a row of ``keys``), box, label and score of each row."""
        for start in range(0, len(self), _BLOCK):  # all rows as Python objects take gigabytes
            part = slice(start, start + _BLOCK)
            yield from zip(
                self.frame[part].tolist(),
                self.boxes[part].tolist(),
                self.labels[part].tolist(),
                self.scores[part].tolist(),
                strict=True,
            )

    def of_videos(self, videos: Collection[str]) -> DetectionRows:
        """Only the rows whose video is one of ``videos``."""
        return self._in(np.array([key.video in videos for key in self.keys], dtype=bool))

    def without(self, frames: Collection[tuple[str, int]]) -> DetectionRows:
        """Without the rows in some frames."""
        return self._in(np.array([key not in frames for key in self.keys], dtype=bool))

    def _in(self, wanted: NDArray[np.bool_]) -> DetectionRows:
        """The rows in some of ``keys``."""
        if wanted.all():
            return self
        keep = wanted[self.frame]
        return DetectionRows(
            self.keys, self.frame[keep], self.boxes[keep], self.labels[keep], self.scores[keep]
        )


def rows_of(detections: Detections, action_thresh: float = 0.0) -> DetectionRows:
    """The rows that a result file of ``detections`` has, with the numbers that it prints.

    Rows are in the order of the persons, and of the vocabulary for each person. A row whose score
    is not above ``action_thresh`` is left out. Boxes and scores are rounded to the 5 decimals of
    the file, so that a metric is the same number whether computed before writing or after reading.

    Raises:
        UserError: a score or a box is not finite.
    """
    scores = (detections.scores.float() * detections.det_scores.float()[:, None]).numpy()
    boxes, owner = detections.boxes.float().numpy(), detections.owner.numpy()
    broken = ~(np.isfinite(scores).all(axis=1) & np.isfinite(boxes).all(axis=1))
    if broken.any():
        key = detections.keys[owner[int(np.flatnonzero(broken)[0])]]
        raise UserError(
            f"{int(broken.sum())} of {len(broken)} detections have a score or a box that is not a "
            f"finite number, the first in {key.video} frame {key.frame}: did training diverge?"
            " Test an earlier checkpoint, or use MODEL.PRECISION fp32"
        )
    person, label = np.nonzero(scores > action_thresh)
    return DetectionRows(
        keys=detections.keys,
        frame=owner[person].astype(np.int64),
        boxes=_round(boxes)[person],
        labels=label.astype(np.int64),
        scores=_round(scores)[person, label],
    )


def _round(values: NDArray[np.float32]) -> NDArray[np.float64]:
    # A float32 times 1e5 is exact in float64, so this equals float(f"{value:.5f}") bit for bit.
    # Adding zero turns -0.0 into 0.0, which is never printed with a sign.
    rounded = np.rint(values.astype(np.float64) * 10**DECIMALS) / 10**DECIMALS + 0.0
    return np.asarray(rounded, dtype=np.float64)


@dataclass(frozen=True)
class AvaForm:
    """What AVA calls the things that rows are about.

    Attributes:
        seconds: the second of each keyframe.
        sizes: width and height in pixels of each video.
        action_ids: for each class of the vocabulary its id, from 1; None for a class that is none
            of AVA's, whose rows are left out.
    """

    seconds: Mapping[FrameKey, int]
    sizes: Mapping[str, tuple[int, int]]
    action_ids: Sequence[int | None]


def write_result_csv(path: Path, rows: DetectionRows, ava: AvaForm | None = None) -> None:
    """Write rows in their order; numbers have 5 decimals, frames and seconds 4 digits.

    The columns are ``video, frame, x1, y1, x2, y2, label (from 1), score``; with ``ava`` they are
    ``video, second, x1, y1, x2, y2, action id, score`` with boxes from 0 to 1, the form that AVA's
    challenge takes.
    """
    ids = range(1, int(rows.labels.max(initial=0)) + 2) if ava is None else ava.action_ids
    last: tuple[int, list[float]] | None = None
    start: list[str] = []
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)  # its \r\n line ends and quoting are part of the format
        for frame, box, label, score in rows.entries():
            number = ids[label]
            if number is None:
                continue
            if last != (frame, box):  # a person has a row for each class
                last = (frame, box)
                start = _start(rows.keys[frame], box, ava)
            writer.writerow([*start, number, f"{score:.{DECIMALS}f}"])


def _start(key: FrameKey, box: Sequence[float], ava: AvaForm | None) -> list[str]:
    """The columns that the rows of one person have in common."""
    number = key.frame
    if ava is not None:
        number = ava.seconds[key]
        box = [value / size for value, size in zip(box, ava.sizes[key.video] * 2, strict=True)]
    return [key.video, f"{number:04d}", *(f"{value:.{DECIMALS}f}" for value in box)]


def read_result_csv(
    path: str | Path,
    labels: Sequence[str],
    videos: Collection[str] | None = None,
    label_file: str | Path = "the label file",
) -> DetectionRows:
    """Read a result file, plain or gzipped (recognised by content).

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
    """Read ground truth or detections of AVA, plain or gzipped (recognised by content).

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
    """Reads blocks of lines with numpy's reader, or row by row where that refuses one.

    numpy's reader is four times as fast and accepts nothing that the other refuses. But it does
    not take some numbers that Python knows, and its errors do not name row and column.

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
