"""Tubes to evaluate with: ground truth in any of the formats that have tubes, and detected ones.

Beside the pickles of J-HMDB and UCF101-24 there is a json format of our own. Ground truth is one
object, where ``nframes`` may be left out, and detected tubes are a list::

    {"labels": ["run", "wave"], "nframes": {"v1": 40},
     "ground_truth": [{"video": "v1", "label": "run", "boxes": [[frame, x1, y1, x2, y2], ...]}]}
    [{"video": "v1", "label": "run", "score": 0.9, "boxes": [[frame, x1, y1, x2, y2], ...]}]

Frames count from 1 and ascend; boxes are in pixels.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from stclip.data.labels import choices
from stclip.data.proposals import is_number
from stclip.data.ucf24_ground_truth import read_tube_file, worded
from stclip.errors import UserError
from stclip.files import read_json, write_json
from stclip.structures import Tube


@dataclass(frozen=True)
class TubeTruth:
    """What detected tubes are compared with.

    Attributes:
        path: the file.
        labels: the class names that the file knows, in its order.
        tubes: for every video its tubes; videos without any are keys too.
        lengths: the frames of the videos of which the file says that.
    """

    path: Path
    labels: tuple[str, ...]
    tubes: dict[str, list[Tube]] = field(repr=False)
    lengths: dict[str, int] = field(repr=False)


def read_tube_truth(
    path: str | Path, official_split: int = 1, all_names: Sequence[str] | None = None
) -> TubeTruth:
    """Read the tubes of all test videos.

    Args:
        path: ``JHMDB-GT.pkl``, ``UCF101v2-GT.pkl``, ``pyannot.pkl`` with its lists of videos, or a
            .json as the head of this module describes it.
        official_split: which of the pickle's test lists, from 1; a .json has no such lists.
        all_names: ALL_LABEL's names, for class names worded differently than in the pickle.

    Raises:
        UserError: the file cannot be read, has no tubes, or is in none of the formats.
    """
    path = Path(path)
    if path.suffix == ".json":
        return _from_json(path)
    file = read_tube_file(path)
    names = worded(file, all_names)
    tubes = {
        video: [Tube(names[tube.label], tube.frames, tube.boxes) for tube in file.tubes[video]]
        for video in file.videos("test", official_split)
    }
    return TubeTruth(path, tuple(names.values()), tubes, file.lengths)


def read_detected_tubes(
    path: str | Path, labels: Collection[str], videos: Collection[str]
) -> dict[str, list[Tube]]:
    """Read a list of detected tubes.

    Args:
        path: a .json as the head of this module describes it.
        labels: the class names that there are; a tube of any other is an error.
        videos: the videos that there are, likewise.

    Returns:
        {video: its tubes in the order of the file}.

    Raises:
        UserError: the file cannot be read, or a tube is malformed or of an unknown class or video.
    """
    path = Path(path)
    rows = read_json(path)
    if not isinstance(rows, list):
        raise UserError(f"{path}: a list of tubes was expected (see DATA.md, 'Tubes')")
    tubes: dict[str, list[Tube]] = {}
    labels = set(labels)
    for index, row in enumerate(rows):
        where = f"{path}: tube {index + 1}"
        video, tube = _tube(row, where, labels, scored=True)
        if video not in videos:
            raise UserError(
                f"{where}: video {video!r} is not in the ground truth; {choices(video, videos)}"
            )
        tubes.setdefault(video, []).append(tube)
    return tubes


def write_detected_tubes(path: str | Path, tubes: Mapping[str, Sequence[Tube]]) -> None:
    """Write a list that ``read_detected_tubes`` reads, whole or not at all."""
    rows = [
        {
            "video": video,
            "label": tube.label,
            "score": tube.score,
            "boxes": [
                [frame, *(round(value, 5) for value in box)]
                for frame, box in zip(tube.frames.tolist(), tube.boxes.tolist(), strict=True)
            ],
        }
        for video, some in tubes.items()
        for tube in some
    ]
    write_json(path, rows)


def _from_json(path: Path) -> TubeTruth:
    content = read_json(path)
    rows = content.get("ground_truth") if isinstance(content, dict) else None
    labels = content.get("labels") if isinstance(content, dict) else None
    if not isinstance(rows, list) or not isinstance(labels, list):
        raise UserError(
            f"{path}: lists 'labels' and 'ground_truth' were expected: a file of tubes (see "
            "DATA.md, 'Tubes'); other annotations do not say which boxes are the same person's"
        )
    if not all(isinstance(name, str) for name in labels) or len(set(labels)) < len(labels):
        raise UserError(f"{path}: labels: names that stand there once were expected")
    lengths = content.get("nframes", {})
    if not isinstance(lengths, dict) or not all(type(n) is int and n > 0 for n in lengths.values()):
        raise UserError(f"{path}: nframes: a number of frames for each video was expected")
    tubes: dict[str, list[Tube]] = {video: [] for video in lengths}
    known = set(labels)
    for index, row in enumerate(rows):
        video, tube = _tube(row, f"{path}: ground_truth[{index}]", known, scored=False)
        tubes.setdefault(video, []).append(tube)
    return TubeTruth(path, tuple(labels), tubes, lengths)


def _tube(row: Any, where: str, labels: Collection[str], scored: bool) -> tuple[str, Tube]:
    """The video of a tube, and the tube."""
    row = row if isinstance(row, dict) else {}
    video, label, score = (row.get(name) for name in ("video", "label", "score"))
    if not isinstance(video, str) or not video:
        raise UserError(f"{where}: video {video!r:.60}: a name was expected")
    if not isinstance(label, str) or label not in labels:
        raise UserError(f"{where}: label {label!r:.60} is unknown; {choices(str(label), labels)}")
    if scored and not is_number(score):
        raise UserError(f"{where}: score {score!r:.60}: a number was expected")
    boxes = row.get("boxes")
    rows = boxes if isinstance(boxes, list) else []
    for box in rows:
        if not (isinstance(box, list) and len(box) == 5 and all(map(is_number, box))):
            raise UserError(f"{where}: box {box!r:.80}: numbers frame, x1, y1, x2, y2 expected")
    table = np.array(rows, dtype=np.float64).reshape(-1, 5)
    frames = table[:, 0].astype(np.int64)
    if (
        not len(rows)
        or frames[0] < 1
        or (np.diff(frames) < 1).any()
        or (frames != table[:, 0]).any()
    ):
        raise UserError(
            f"{where}: boxes: at least one, with whole frame numbers from 1 that ascend, expected"
        )
    boxes = table[:, 1:].astype(np.float32)
    return video, Tube(label, frames, boxes, float(score) if scored else 1.0)
