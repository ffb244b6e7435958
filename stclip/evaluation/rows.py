"""Detections as the rows of a result file: one row for each person and class.

Shape letters: N persons, C class names, n rows.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stclip.errors import UserError
from stclip.structures import Detections, FrameKey

DECIMALS = 5  # of boxes and scores in a result file


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
