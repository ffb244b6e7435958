"""Reading a result file (evaluation.md, "Result file"), and saying what is wrong with one."""

from __future__ import annotations

import csv
import difflib
import gzip
import io
import math
import zlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from stclip.errors import UserError
from stclip.evaluation.rows import DetectionRows
from stclip.structures import FrameKey

_COLUMNS = ("video", "frame", "x1", "y1", "x2", "y2", "label", "score")
_NUMBERS = (2, 3, 4, 5, 7)
_BLOCK = 2_000  # rows held as text at a time; larger blocks are slower
_GZIP_MAGIC = b"\x1f\x8b"


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
    parser = _Parser(Path(path), len(labels), videos, label_file)
    with _open_text(Path(path)) as file:
        reader = csv.reader(file)
        number = 1
        while block := list(islice(reader, _BLOCK)):
            parser.add(block, number)
            number += len(block)
    return parser.rows()


class _Parser:
    """Blocks of rows as arrays. Checks are vectorised; only a bad block is searched row by row."""

    def __init__(
        self, path: Path, classes: int, videos: Collection[str] | None, label_file: str | Path
    ) -> None:
        self.path, self.classes, self.videos, self.label_file = path, classes, videos, label_file
        self.spelled: dict[tuple[str, str], int] = {}  # (video, frame) as text -> index in keys
        self.keys: dict[FrameKey, int] = {}
        self.parts: list[tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]] = []

    def add(self, block: list[list[str]], first_number: int) -> None:
        """Parse rows; the first of them is row ``first_number`` of the file."""
        rows = [row for row in block if row]
        if not rows:
            return
        if not self._parse(rows):
            for number, row in enumerate(block, first_number):
                if row and (problem := self._problem(row)):
                    raise UserError(f"{self.path}: row {number}: {problem}")
            raise AssertionError("a block of rows was refused, but none of its rows")

    def rows(self) -> DetectionRows:
        """Everything parsed so far."""
        frame, numbers, label = (
            (np.concatenate(arrays) for arrays in zip(*self.parts, strict=True))
            if self.parts
            else (np.zeros(0, np.int64), np.zeros((0, len(_NUMBERS))), np.zeros(0, np.int64))
        )
        return DetectionRows(tuple(self.keys), frame, numbers[:, :4], label - 1, numbers[:, 4])

    def _parse(self, rows: list[list[str]]) -> bool:
        """Add rows that are all good; False if any is not."""
        if any(len(row) != len(_COLUMNS) for row in rows):
            return False
        columns = list(zip(*rows, strict=True))
        try:
            numbers = np.stack([np.array(columns[i], dtype=np.float64) for i in _NUMBERS], axis=1)
            label = np.array(columns[6], dtype=np.int64)
        except (ValueError, OverflowError):
            return False
        if not np.isfinite(numbers).all() or label.min() < 1 or label.max() > self.classes:
            return False
        for spelled in dict.fromkeys(zip(columns[0], columns[1], strict=True)):
            if spelled not in self.spelled:
                if self._frame_problem(*spelled):
                    return False
                key = FrameKey(spelled[0], int(spelled[1]))
                self.spelled[spelled] = self.keys.setdefault(key, len(self.keys))
        frame = [self.spelled[spelled] for spelled in zip(columns[0], columns[1], strict=True)]
        self.parts.append((np.array(frame, dtype=np.int64), numbers, label))
        return True

    def _problem(self, row: list[str]) -> str | None:
        """What is wrong with a row."""
        if len(row) != len(_COLUMNS):
            return f"{len(row)} columns, expected {len(_COLUMNS)}: {', '.join(_COLUMNS)}"
        for i in _NUMBERS:
            if not _is_finite(row[i]):
                return f"{_COLUMNS[i]} is {row[i]!r}, expected a finite number"
        try:
            label = int(row[6])
        except ValueError:
            return f"label is {row[6]!r}, expected a whole number from 1 to {self.classes}"
        if not 1 <= label <= self.classes:
            return (
                f"label {label} is outside {self.label_file}, which names {self.classes} classes"
                " (labels count from 1)"
            )
        return self._frame_problem(row[0], row[1])

    def _frame_problem(self, video: str, frame: str) -> str | None:
        try:
            below_one = int(frame) < 1
        except ValueError:
            return f"frame is {frame!r}, expected a whole number"
        if below_one:
            return f"frame is {frame!r}, but frames count from 1"
        if self.videos is None or video in self.videos:
            return None
        close = difflib.get_close_matches(video, self.videos, n=1, cutoff=0.85)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        return f"video {video!r} is not in the ground truth{hint}"


def _is_finite(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


@contextmanager
def _open_text(path: Path) -> Iterator[TextIO]:
    """Open a plain or gzipped text file; whatever goes wrong while reading it names the file."""
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
