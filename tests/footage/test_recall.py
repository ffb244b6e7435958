"""The shipped detector on real videos, against persons marked by hand.

persons_by_hand.json holds, for 20 frames (counted from 1) of five videos, boxes in pixels: of the
persons who are seen in the enlarged frame, and of regions that are ignored, where too little of
a person is seen to say how far they reach. The numbers are in stclip/assets/nanodet_card.md; called
as a script, this prints them:

    python -m tests.footage.test_recall

Slow, because most of the time goes into decoding the videos up to those frames.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from stclip.data.video import VideoFile
from stclip.footage.detectors import Persons, load_detector
from tests.helpers import shared_path

pytestmark = pytest.mark.slow

MARKS = json.loads((Path(__file__).parent / "persons_by_hand.json").read_text())
Boxes = NDArray[np.floating]


@cache
def detected() -> list[Persons]:
    """What is found in every marked frame, however unsure."""
    folder, detector, found = shared_path("footage"), load_detector(device="cpu", threshold=0.1), []
    for mark in MARKS:
        (frame,) = VideoFile(folder / mark["video"]).read([mark["frame"]])
        found += detector(frame[None])
    return found


def intersections(a: Boxes, b: Boxes) -> Boxes:
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    return (high - low).clip(0).prod(axis=2)


def count(persons: Persons, mark: dict[str, Any], threshold: float) -> tuple[int, int]:
    """How many are found rightly and wrongly: the surest first, each mark once, IoU from 0.5."""
    boxes = persons.boxes[persons.scores >= threshold]
    marked, ignored = (np.reshape(mark[key], (-1, 4)) for key in ("persons", "ignored"))
    areas, others = ((b[:, 2:] - b[:, :2]).prod(axis=1) for b in (boxes, marked))
    both = intersections(boxes, marked)
    iou = both / (areas[:, None] + others - both)
    inside = (intersections(boxes, ignored) / areas[:, None]).max(axis=1, initial=0)
    right = wrong = 0
    for row, covered in zip(iou, inside, strict=True):
        best = int(row.argmax())
        if row[best] >= 0.5:
            iou[:, best] = 0
            right += 1
        elif covered < 0.5:
            wrong += 1
    return right, wrong


def totals(threshold: float) -> tuple[int, int]:
    counts = [count(p, m, threshold) for p, m in zip(detected(), MARKS, strict=True)]
    right, wrong = np.sum(counts, axis=0)
    return int(right), int(wrong)


def test_marks() -> None:
    assert len(MARKS) == 20
    assert sum(len(mark["persons"]) for mark in MARKS) == 72


@pytest.mark.parametrize(
    ("threshold", "recall", "precision"), [(0.3, 0.90, 0.70), (0.4, 0.80, 0.93), (0.5, 0.70, 0.95)]
)
def test_recall_and_precision(threshold: float, recall: float, precision: float) -> None:
    """Measured: 91.7 / 72.5, 83.3 / 96.8 and 73.6 / 98.1 percent."""
    right, wrong = totals(threshold)
    assert right / 72 >= recall
    assert right / (right + wrong) >= precision


def test_all_six_people_are_found() -> None:
    """In two frames of the street video."""
    for mark, persons in zip(MARKS, detected(), strict=True):
        if mark["video"] == "vtest.avi" and mark["frame"] in (300, 600):
            assert count(persons, mark, 0.4) == (6, 0)


if __name__ == "__main__":
    for hundredth in range(10, 65, 5):
        right, wrong = totals(hundredth / 100)
        recall, precision = right / 72, right / (right + wrong)
        balance = 2 * recall * precision / (recall + precision)
        print(f"| {hundredth / 100:.2f} | {right} | {wrong} | {100 * recall:.1f} | ", end="")
        print(f"{100 * precision:.1f} | {100 * balance:.1f} |")
