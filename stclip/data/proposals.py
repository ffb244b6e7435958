"""Person boxes that a detector found: the files that they come in."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stclip.data.fields import is_box, is_number, read_text
from stclip.errors import Report, UserError, fail, reporting
from stclip.files import parse_json, read_json
from stclip.structures import FrameKey

logger = logging.getLogger(__name__)

# Finds the keyframe of a .jsonl row from (video, seconds or None, frame number or None); None for a
# keyframe that exists and is not used. Raises a UserError that does not name the file.
Locator = Callable[[str, float | None, int | None], FrameKey | None]


@dataclass(frozen=True)
class Proposals:
    """The persons of one keyframe.

    Attributes:
        boxes: (n, 4) float32 xyxy in pixels, not clipped, in the order of the file.
        scores: (n,) float32, the detector's; 1 for annotated boxes.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]

    def __post_init__(self) -> None:
        assert self.boxes.shape == (len(self.scores), 4), f"{self.boxes.shape}, {len(self.scores)}"

    def __len__(self) -> int:
        """The number of boxes."""
        return len(self.scores)

    @classmethod
    def annotated(cls, boxes: NDArray[np.float32]) -> "Proposals":
        """Annotated boxes (n, 4) as if a perfect detector had found them."""
        return cls(boxes, np.ones(len(boxes), dtype=np.float32))

    def select(self, threshold: float, limit: int) -> "Proposals":
        """The first ``limit`` boxes (0: all) that score at least ``threshold``."""
        kept = np.flatnonzero(self.scores >= threshold)
        kept = kept[:limit] if limit else kept
        return Proposals(self.boxes[kept], self.scores[kept])

    def are_best(self, threshold: float, limit: int) -> bool:
        """Whether no box that ``select`` leaves out scores more than one that it takes."""
        scores = self.scores[self.scores >= threshold]
        cut = limit if 0 < limit < len(scores) else len(scores)
        return bool(cut == len(scores) or scores[:cut].min() >= scores[cut:].max())


NO_PROPOSALS = Proposals(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))


def read_coco_detections(
    path: str | Path, image_ids: Mapping[Any, FrameKey], ids_from: str, report: Report = fail
) -> dict[FrameKey, Proposals]:
    """Read a json list of {image_id, bbox (xyxy pixels), score (number or its text)}.

    This is the format of ``jhmdb_faster_RCNN_person.json``; other fields are ignored. The list may
    also be that of ``annotations`` in an object, whose ``categories`` then say which category a
    person is. Rows with a ``category_id`` other than a person's are left out. ``image_ids`` has the
    keyframe of every image id of ``ids_from``.

    Raises:
        UserError: the file cannot be read, a row is malformed or its image id unknown, or no row is
            of a person.
    """
    content = read_json(path)
    rows = content.get("annotations") if isinstance(content, dict) else content
    if not isinstance(rows, list):
        raise UserError(
            f"{path}: a list of {{image_id, bbox, score}} was expected, this is "
            f"a {type(content).__name__}"
        )
    others = _other_categories(path, content, rows)

    def parsed() -> Iterable[tuple[FrameKey, list[float], float]]:
        for number, row in enumerate(rows, start=1):
            where = f"{path}: row {number}"
            if isinstance(row, dict) and row.get("category_id") in others:
                continue
            with reporting(report):
                image_id = _field(row, "image_id", where)
                try:
                    key = image_ids[image_id]
                except (KeyError, TypeError):
                    raise UserError(
                        f"{where}: image_id {image_id!r} is unknown: {ids_from} has no such image; "
                        "do the two files belong together?"
                    ) from None
                yield key, _box(row, "bbox", where), _score(row, where)

    return _grouped(parsed())


def _other_categories(path: str | Path, content: Any, rows: list[Any]) -> list[Any]:
    """The ``category_id`` of all rows that are no persons."""
    ids = [row.get("category_id") for row in rows if isinstance(row, dict)]
    try:
        counts = Counter(id_ for id_ in ids if id_ is not None)
    except TypeError:  # a list, say
        raise UserError(f"{path}: category_id: numbers were expected") from None
    # COCO's own numbers begin with person 1, those of networks with person 0.
    person = next((id_ for id_ in (0, 1) if id_ in counts), None)
    listed = content.get("categories") if isinstance(content, dict) else None
    for row in listed if isinstance(listed, list) else ():
        if isinstance(row, dict) and str(row.get("name")).lower() == "person":
            person = row.get("id")
    if counts and person not in counts:
        shown = ", ".join(str(id_) for id_, _ in counts.most_common(5))
        raise UserError(
            f"{path}: no row is of a person: category_id {'0 or 1' if person is None else person} "
            f"was expected, found {shown}"
        )
    others = [id_ for id_ in counts if id_ != person]
    if others:
        logger.warning(
            "%s: %d of %d rows are left out, they are of %d other categories than person "
            "(category_id %s)",
            path, sum(counts[id_] for id_ in others), len(rows), len(others), person,
        )  # fmt: skip
    return others


def read_jsonl_detections(
    path: str | Path, locate: Locator, report: Report = fail
) -> dict[FrameKey, Proposals]:
    """Read json lines of {video, timestamp (seconds) or frame (from 1), box (xyxy pixels), score}.

    Blank lines are ignored; ``locate`` finds the keyframe of a row.

    Raises:
        UserError: the file cannot be read, or a line is malformed or belongs to no known video.
    """
    text = read_text(path)

    def parsed() -> Iterable[tuple[FrameKey, list[float], float]]:
        for number, line in enumerate(text.split("\n"), start=1):
            with reporting(report):
                row = _line(line, f"{path}: line {number}", locate) if line.strip() else None
                if row is not None:
                    yield row

    return _grouped(parsed())


def _grouped(rows: Iterable[tuple[FrameKey, list[float], float]]) -> dict[FrameKey, Proposals]:
    groups: dict[FrameKey, tuple[list[list[float]], list[float]]] = {}
    for key, box, score in rows:
        boxes, scores = groups.setdefault(key, ([], []))
        boxes.append(box)
        scores.append(score)
    return {
        key: Proposals(np.array(boxes, dtype=np.float32), np.array(scores, dtype=np.float32))
        for key, (boxes, scores) in groups.items()
    }


def _line(text: str, where: str, locate: Locator) -> tuple[FrameKey, list[float], float] | None:
    """A line of a .jsonl file; None for a keyframe that is not used."""
    row = parse_json(text, where)
    video = _field(row, "video", where)
    seconds, frame = row.get("timestamp"), row.get("frame")
    if not isinstance(video, str):
        raise UserError(f"{where}: video {video!r}: a text was expected")
    if (seconds is None) == (frame is None):
        raise UserError(f"{where}: give either timestamp (seconds) or frame (from 1)")
    if seconds is not None and not (is_number(seconds) and seconds >= 0):
        raise UserError(f"{where}: timestamp {seconds!r}: seconds from 0 were expected")
    if frame is not None and not (type(frame) is int and frame >= 1):
        raise UserError(f"{where}: frame {frame!r}: a whole number from 1 was expected")
    box, score = _box(row, "box", where), _score(row, where)
    try:
        key = locate(video, seconds, frame)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    return None if key is None else (key, box, score)


def _field(row: Any, name: str, where: str) -> Any:
    if not isinstance(row, dict):
        raise UserError(f"{where}: a JSON object was expected, found {row!r:.60}")
    if name not in row:
        raise UserError(f"{where}: has no {name!r}; its fields are {', '.join(map(repr, row))}")
    return row[name]


def _box(row: Any, name: str, where: str) -> list[float]:
    box = _field(row, name, where)
    if not is_box(box):
        raise UserError(f"{where}: {name} {box!r:.60}: four numbers x1, y1, x2, y2 were expected")
    return list(box)


def _score(row: Any, where: str) -> float:
    score = _field(row, "score", where)
    value: Any = score
    with suppress(ValueError):
        value = float(score) if isinstance(score, str) else score
    if not is_number(value):
        raise UserError(f"{where}: score {score!r:.60}: a number was expected")
    return float(value)
