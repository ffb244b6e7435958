"""AVA's own files (DATA.md, "AVA's files"): annotations, excluded seconds, label map, boxes.

Boxes are normalised here: xyxy, 0 to 1 of the picture's width and height.
"""

import csv
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stclip.data.fields import read_text
from stclip.errors import Report, UserError, fail, reporting
from stclip.files import check_regular
from stclip.structures.boxes import LARGEST

# A video and one of its seconds.
Moment = tuple[str, int]
# Boxes (n, 4), the class names of each, and the person id of each, if the file has any.
Persons = tuple[NDArray[np.float64], tuple[tuple[str, ...], ...], tuple[str, ...]]
# A detector's box may reach over the edge by this part of the picture; it is clipped later.
SLACK = 0.1
_LAST_SECOND = 10**8  # some years
_ITEM = re.compile(r"\{([^{}]*)\}")
_NAME = re.compile(r"""\bname:\s*(?:"([^"\n]*)"|'([^'\n]*)')""")
_ID = re.compile(r"\b(?:label_)?id:\s*(\d+)")
_COMMENT = re.compile(r"^\s*#.*$", re.MULTILINE)
_DIGITS = 6  # of a class's number


def read_ava_csv(
    path: str | Path, names: Mapping[int, str], map_path: str | Path, report: Report = fail
) -> dict[Moment, Persons]:
    """Read ``video_id, second, x1, y1, x2, y2, action_id[, person_id]``: a row for each label.

    Rows of one moment with the same box, and person where it is given, are one person. A row of
    video and second alone is a moment without persons.

    Args:
        path: the file.
        names: the class names by action id.
        map_path: where they come from, for messages.
        report: gets what is wrong with a row, which is then left out.

    Raises:
        UserError: the file cannot be read, or a row is malformed, its box is not within [0, 1] or
            its class is not among the names.
    """
    rows: dict[Moment, dict[tuple[float | str, ...], dict[str, None]]] = {}
    for where, row in _rows(Path(path)):
        with reporting(report):
            moment, person, name = _label(row, names, map_path, where)
            persons = rows.setdefault(moment, {})
            if name is not None:
                persons.setdefault(person, {})[name] = None
    return {
        moment: (
            np.array([key[:4] for key in persons], dtype=np.float64).reshape(-1, 4),
            tuple(map(tuple, persons.values())),
            tuple(str(key[4]) for key in persons if len(key) > 4),
        )
        for moment, persons in rows.items()
    }


def _label(
    row: list[str], names: Mapping[int, str], map_path: str | Path, where: str
) -> tuple[Moment, tuple[float | str, ...], str | None]:
    """The moment of a row, the person (box, and id if there is one) and the class, if any."""
    if len(row) not in (2, 7, 8):
        raise UserError(
            f"{where}: {len(row)} columns; video_id, second, x1, y1, x2, y2, action_id and "
            "perhaps person_id were expected"
        )
    moment = (row[0], _second(row[1], where))
    if len(row) == 2:
        return moment, (), None
    box = _box(row[2:6], where, slack=0.0)
    try:
        return moment, (*box, *row[7:]), names[int(row[6])]
    except (KeyError, ValueError):
        raise UserError(
            f"{where}: action_id {row[6]!r} is not in {map_path}, which has {len(names)} "
            "classes; do the two files belong together?"
        ) from None


def read_moments(path: str | Path) -> set[Moment]:
    """The excluded timestamps: ``video_id, second`` a row; a UserError if they are not."""
    found = set()
    for where, row in _rows(Path(path)):
        if len(row) != 2:
            raise UserError(f"{where}: {len(row)} columns; video_id and second were expected")
        found.add((row[0], _second(row[1], where)))
    return found


def read_videos(path: str | Path) -> set[str]:
    """The videos of a csv whose first column names them."""
    return {row[0] for _, row in _rows(Path(path))}


def read_label_map(path: str | Path) -> dict[int, str]:
    """The class names by action id of a ``.pbtxt``: ``name:`` and ``id:`` or ``label_id:`` an item.

    Raises:
        UserError: the file cannot be read or is cut short, has no such items, or an id twice.
    """
    text = read_text(path)
    names: dict[int, str] = {}
    for number, item in enumerate(_ITEM.findall(text), start=1):
        name, id_ = _NAME.search(item), _ID.search(item)
        if name is None or id_ is None:
            raise UserError(f"{path}: item {number}: name and id or label_id were expected")
        if len(id_[1]) > _DIGITS:
            raise UserError(
                f"{path}: item {number}: id {id_[1]:.20}: at most {_DIGITS} digits were expected"
            )
        if int(id_[1]) in names:
            raise UserError(f"{path}: item {number}: id {id_[1]} occurs twice")
        names[int(id_[1])] = name[1] or name[2]
    rest = _ITEM.sub("", _COMMENT.sub("", text))
    if "{" in rest or "}" in rest:
        raise UserError(
            f"{path}: after its {len(names)} items there is a part of another; is the file cut "
            "short? Fetch it again"
        )
    if not names:
        raise UserError(f'{path}: no item {{ name: "..." id: ... }} in it; is it a label map?')
    return names


def read_box_csv(
    path: str | Path, videos: Collection[str], threshold: float, report: Report = fail
) -> dict[Moment, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Read person boxes: ``video, second, x1, y1, x2, y2, label, score`` (SlowFast's and LFB's).

    The label is not looked at and may be empty. A box that stands there for several labels counts
    once, with its highest score. Rows of other videos, and those that score less, are left out.

    Returns:
        For each moment the boxes (n, 4) and the scores (n,), in the order of the file.

    Raises:
        UserError: the file cannot be read, or a row is malformed or not within [0, 1].
    """
    rows: dict[Moment, dict[tuple[float, ...], float]] = {}
    for where, row in _rows(Path(path)):
        with reporting(report):
            if len(row) != 8:
                raise UserError(
                    f"{where}: {len(row)} columns; video, second, x1, y1, x2, y2, label (or "
                    "nothing) and score were expected"
                )
            score = _number(row[7], "score", where)
            box = _box(row[2:6], where, SLACK)
            moment = (row[0], _second(row[1], where))
            if score >= threshold and row[0] in videos:
                persons = rows.setdefault(moment, {})
                persons[box] = max(score, persons.get(box, score))
    return {
        moment: (np.array(list(persons)), np.array(list(persons.values())))
        for moment, persons in rows.items()
    }


def _rows(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Where a row stands, and its columns without spaces around them; blank lines are skipped."""
    check_regular(path)
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            for number, row in enumerate(csv.reader(file), start=1):
                if row:
                    yield f"{path}: row {number}", [column.strip() for column in row]
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not a csv file in UTF-8 ({error})") from error


def _second(text: str, where: str) -> int:
    try:
        second = int(text)
    except ValueError:
        raise UserError(f"{where}: second {text!r:.60}: a whole number was expected") from None
    if not 0 <= second < _LAST_SECOND:
        raise UserError(f"{where}: second {text:.60}: no video has such a second")
    return second


def _number(text: str, name: str, where: str) -> float:
    try:
        value = float(text)
        if not abs(value) <= LARGEST:
            raise ValueError
    except ValueError:
        raise UserError(f"{where}: {name} {text!r}: a number was expected") from None
    return value


def _box(columns: list[str], where: str, slack: float) -> tuple[float, ...]:
    x1, y1, x2, y2 = (_number(text, "box", where) for text in columns)
    if not (-slack <= x1 <= x2 <= 1 + slack and -slack <= y1 <= y2 <= 1 + slack):
        raise UserError(
            f"{where}: box {', '.join(columns)}: x1 <= x2 and y1 <= y2 within [0, 1] were expected "
            "(parts of the picture's width and height)"
        )
    return x1, y1, x2, y2
