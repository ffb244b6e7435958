"""Detections and scores of a run, written as they come, so that an interrupted run can continue."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from stclip.data.fields import format_of, read_text
from stclip.errors import UserError
from stclip.files import atomic_path, parse_json
from stclip.footage.records import Boxes
from stclip.footage.scoring import Scored

logger = logging.getLogger(__name__)


@dataclass
class Log:
    """What is known of a run; with a file, what is added is appended to it.

    Attributes:
        boxes: persons of frames by number, as they were before tracking.
        scores: scored moments by seconds.
    """

    boxes: dict[int, Boxes] = field(default_factory=dict)
    scores: dict[float, Scored] = field(default_factory=dict)
    _file: TextIO | None = None

    @classmethod
    def open(cls, path: Path, key: str, resume: bool) -> Log:
        """A log that is appended to.

        Args:
            path: of the file.
            key: what runs must have in common to continue each other.
            resume: take over what the file holds.

        Raises:
            UserError: that is of a run with another key.
        """
        known = cls._read(path, key) if resume and path.exists() else cls()
        # Written anew, since the last line may be cut off.
        with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
            known._file = file
            known._write({"key": key})
            for number, found in known.boxes.items():
                known.add_frame(number, found)
            for moment in known.scores.values():
                known.add_moment(moment)
        known._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 (held open for the run)
        return known

    @staticmethod
    def is_of(path: Path, key: str) -> bool:
        """Whether a file is there, and of a run with this key."""
        return path.exists() and read_text(path).partition("\n")[0] == _first_line(key)

    @classmethod
    def _read(cls, path: Path, key: str) -> Log:
        """What is there of the same run; a line that is damaged ends it.

        Raises:
            UserError: it is of another run.
        """
        found = cls()
        first, *lines = read_text(path).splitlines() or [""]
        if first != _first_line(key):
            raise UserError(
                f"{path}: of a run with another video, model or settings, which cannot be "
                "continued with these; without resume (--resume) it is kept under another name"
            )
        try:
            with format_of("a log of stclip detect", str(path)):
                for line in lines:
                    found._take(parse_json(line, str(path)))
        except UserError:
            logger.info("%s: its end is damaged and is computed again", path)
        return found

    def _take(self, row: dict[str, Any]) -> None:
        if "frame" in row:
            values = np.array(row["boxes"]).reshape(-1, 6)
            boxes, scores = values[:, :4].astype(np.float32), values[:, 4].astype(np.float32)
            self.boxes[row["frame"]] = Boxes(boxes, scores, values[:, 5].astype(np.int64))
        else:
            ids = np.array(row["ids"], dtype=np.int64)
            scores = np.array(row["scores"], dtype=np.float32).reshape(len(ids), -1)
            self.scores[row["seconds"]] = Scored(row["seconds"], ids, scores)

    def add_frame(self, number: int, found: Boxes) -> None:
        """The persons of a frame."""
        rows = zip(found.boxes.tolist(), found.scores.tolist(), found.ids.tolist(), strict=True)
        self._write({"frame": number, "boxes": [[*box, score, i] for box, score, i in rows]})

    def add_moment(self, moment: Scored) -> None:
        """A scored moment."""
        row = {"seconds": moment.seconds, "ids": moment.ids.tolist()}
        self._write({**row, "scores": moment.scores.tolist()})

    def _write(self, row: dict[str, Any]) -> None:
        if self._file is not None:
            self._file.write(json.dumps(row) + "\n")
            self._file.flush()

    def close(self) -> None:
        """Nothing is added any more."""
        if self._file is not None:
            self._file.close()


def _first_line(key: str) -> str:
    return json.dumps({"key": key})
