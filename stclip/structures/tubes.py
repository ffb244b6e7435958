"""Tubes: one person's boxes over time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Tube:
    """One person of one video doing one thing.

    Attributes:
        label: the class name.
        frames: (n,) int64, ascending, from 1; frames in between may be left out.
        boxes: (n, 4) float32 xyxy pixels, one for each of the frames.
        score: of a detected tube; 1 for ground truth.
    """

    label: str
    frames: NDArray[np.int64]
    boxes: NDArray[np.float32]
    score: float = 1.0

    def __post_init__(self) -> None:
        assert len(self.frames), "a tube has a frame"
        assert self.boxes.shape == (len(self.frames), 4), f"{self.boxes.shape}, {len(self.frames)}"
        assert (np.diff(self.frames) > 0).all(), "frames ascend"

    @property
    def first(self) -> int:
        """The frame that the tube begins in."""
        return int(self.frames[0])

    @property
    def last(self) -> int:
        """The frame that the tube ends in."""
        return int(self.frames[-1])
