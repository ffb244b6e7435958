"""What stclip evaluate checks in the files that it is given: labels, videos and boxes."""

import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stclip.data.checks import are_few, are_negligible, guess_format, look_like_shares
from stclip.data.labels import choices, read_label_file, read_video_list
from stclip.errors import UserError
from stclip.evaluation.result_csv import DetectionRows
from stclip.structures.boxes import are_empty

Boxes = NDArray[np.floating]

# Of a box that is a share of its picture; a detector's may reach over the edge a little.
_LARGEST_SHARE = 2.0


def refuse_csv(path: Path) -> None:
    """Ground truth in a csv is AVA's, which has a metric of its own.

    Raises:
        UserError: ``path`` is a csv.
    """
    if path.name.endswith((".csv", ".csv.gz")):
        raise UserError(
            f"--ground-truth {path}: a csv, as AVA has it, goes with the command ava; --help names "
            "the files that this one takes"
        )


def read_names(path: Path | None) -> list[str] | None:
    """A label file; None without one."""
    return read_label_file(path) if path else None


def read_unseen(path: Path, labels: Collection[str]) -> list[str]:
    """The unseen classes, which are some of the evaluated ones.

    Raises:
        UserError: the file cannot be read, a name is not among ``labels``, or all of them are.
    """
    unseen = read_label_file(path)
    check_labels(unseen, labels, path, "the evaluated classes")
    if len(unseen) == len(labels):
        raise UserError(f"{path}: names all {len(labels)} evaluated classes, so that none is seen")
    return unseen


def check_labels(
    names: Sequence[str], known: Collection[str], path: str | Path, source: str | Path
) -> None:
    """Check that each of the names in ``path`` is a class of ``source``."""
    classes = set(known)
    for name in names:
        if name not in classes:
            raise UserError(
                f"{path}: label {name!r} is not a class of {source}; {choices(name, known)}"
            )


def listed_videos(known: Collection[str], source: Path, path: Path) -> set[str]:
    """The videos of ``known`` that a list names, ``video`` or ``class/video``.

    Raises:
        UserError: the list cannot be read, or names none of them.
    """
    names = {name: video for video in known for name in (video, video.rpartition("/")[2])}
    listed = read_video_list(path)
    videos = {names[name] for name in listed if name in names}
    if not videos:
        raise UserError(
            f"{path}: none of its {len(listed)} videos is in {source}; the first it names is "
            f"{listed[0]!r}"
        )
    unknown = [name for name in listed if name not in names]
    if unknown:
        note(
            f"{path}: {len(unknown)} of {len(listed)} videos are left out, they are not in "
            f"{source} (first: {unknown[0]})"
        )
    return videos


def check_boxes(
    found: Boxes,
    truth: Boxes,
    path: Path,
    place: Callable[[int], str],
    shares: bool = False,
    fate: str = "count as misses",
) -> None:
    """Refuse boxes in another format than the ground truth's; note empty ones.

    Args:
        found: (n, 4) the boxes of a file of detections; repeated ones may be left out.
        truth: (m, 4) those of the ground truth.
        path: the file.
        place: words for where box i is.
        shares: boxes are shares of the picture, from 0 to 1, and not pixels.
        fate: what the empty ones do.

    Raises:
        UserError: more than a few are empty, or they are shares of the picture where pixels were
            expected, or the reverse.
    """
    if not len(found) or not len(truth):
        return
    extent = np.ones(2) if shares else truth[:, 2:].max(axis=0)
    if shares and np.abs(found).max() > _LARGEST_SHARE:
        raise UserError(
            f"{path}: boxes reach to {np.abs(found).max():g}; fractions of the picture's width and "
            "height, from 0 to 1, were expected: divide pixels by them"
        )
    if not shares and extent.min() > _LARGEST_SHARE and look_like_shares(found):
        raise UserError(
            f"{path}: boxes reach to {np.abs(found).max():g}, those of the ground truth to "
            f"{extent[0]:g} and {extent[1]:g}: pixels were expected; multiply fractions by the "
            "picture's width and height"
        )
    empty = are_empty(found)
    if not are_few(empty):
        meant = guess_format(found, np.tile(extent, (len(found), 1)))
        hint = f"; they look like {meant}" if meant is not None else ""
        first = int(empty.argmax())
        raise UserError(
            f"{path}: {empty.sum()} of {len(found)} boxes have x2 <= x1 or y2 <= y1 (first: "
            f"{place(first)}, {', '.join(f'{v:g}' for v in found[first])}){hint}; x1, y1, x2, y2 "
            "were expected"
        )
    if not are_negligible(empty):
        note(
            f"{path}: {empty.sum()} of {len(found)} boxes are empty and {fate} (first: "
            f"{place(int(empty.argmax()))})"
        )


def check_rows(rows: DetectionRows, truth: Boxes, path: Path, shares: bool = False) -> None:
    """``check_boxes`` on rows, of which a person has one for each class."""
    new = np.ones(len(rows), dtype=bool)
    same_box = (rows.boxes[1:] == rows.boxes[:-1]).all(axis=1)
    new[1:] = ~same_box | (rows.frame[1:] != rows.frame[:-1])
    first = np.flatnonzero(new)

    def place(index: int) -> str:
        key = rows.keys[rows.frame[first[index]]]
        return f"{key.video} {key.frame}"

    check_boxes(rows.boxes[first], truth, path, place, shares)


def note(text: str) -> None:
    """Print a line for the user on standard error."""
    print(text, file=sys.stderr)
