"""Detections in the format that the AVA challenge takes (docs/evaluation.md, "AVA")."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stclip.evaluation.rows import DECIMALS, DetectionRows
from stclip.structures import FrameKey


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


def write_ava_csv(path: Path, rows: DetectionRows, form: AvaForm) -> None:
    """Write ``video, second, x1, y1, x2, y2, action_id, score``: boxes are 0 to 1 of the picture.

    Seconds have 4 digits; boxes and scores 5 decimals. The rows keep their order.
    """
    columns = (rows.frame.tolist(), rows.boxes.tolist(), rows.labels.tolist(), rows.scores.tolist())
    last: tuple[int, list[float]] | None = None
    start: list[str] = []
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        for frame, box, label, score in zip(*columns, strict=True):
            action_id = form.action_ids[label]
            if action_id is None:
                continue
            if last != (frame, box):  # a person has up to 80 rows
                last = (frame, box)
                key = rows.keys[frame]
                norm = (v / size for v, size in zip(box, form.sizes[key.video] * 2, strict=True))
                start = [key.video, f"{form.seconds[key]:04d}"]
                start += [f"{value:.{DECIMALS}f}" for value in norm]
            writer.writerow([*start, action_id, f"{score:.{DECIMALS}f}"])
