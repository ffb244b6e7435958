"""Annotations of other programs, as tracks: what ``stclip convert-annotations`` reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Film:
    """A video that annotations belong to.

    Attributes:
        name: its id in the annotations that are written.
        path: a video file, or a folder or zip file of pictures.
        size: width and height in pixels, as shown.
        fps: frames a second; the mean if they vary.
        seconds: (n,) when each picture is shown, since the first one.
        delay: seconds from where players begin to count to the first picture.
    """

    name: str
    path: Path
    size: tuple[int, int]
    fps: float
    seconds: NDArray[np.float64]
    delay: float


@dataclass(frozen=True)
class Track:
    """One person in one video.

    Attributes:
        name: what messages call it.
        frames: (n,) int64, ascending: the pictures that have a box, counted from 0.
        boxes: (n, 4) float64 xyxy in pixels.
        shown: (n,) False where the person is out of sight, from there to the next box.
        actions: for each box what the person does.
        interpolated: whether the pictures between two boxes have one too.
    """

    name: str
    frames: NDArray[np.int64]
    boxes: NDArray[np.float64]
    shown: NDArray[np.bool_]
    actions: tuple[tuple[str, ...], ...]
    interpolated: bool = False

    def visible(self, count: int) -> NDArray[np.int64]:
        """The pictures that show the person, out of the first ``count``; none after the last box.

        Returns:
            Ascending numbers.
        """
        if not self.interpolated:
            return self.frames[self.shown]
        ends = np.minimum([*self.frames[1:], self.frames[-1] + 1], count)
        spans = zip(self.frames, ends, self.shown, strict=True)
        parts = [np.arange(start, end) for start, end, shown in spans if shown]
        return np.concatenate([np.zeros(0, dtype=np.int64), *parts])

    def at(self, frames: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Boxes in some of the pictures that show the person.

        Between two boxes they are interpolated linearly; before the person leaves the last one
        stays, as in CVAT.

        Returns:
            For each of m pictures the row whose actions hold, (m,), and the box, (m, 4).
        """
        rows = np.searchsorted(self.frames, frames, side="right") - 1
        after = np.minimum(rows + 1, len(self.frames) - 1)
        gaps = np.maximum(self.frames[after] - self.frames[rows], 1)
        share = np.where(self.shown[after], (frames - self.frames[rows]) / gaps, 0.0)
        return rows, self.boxes[rows] + share[:, None] * (self.boxes[after] - self.boxes[rows])


@dataclass(frozen=True)
class Annotated:
    """What a file says about one video.

    Attributes:
        where: the file, and what tells its part of it, for messages.
        file: the file.
        names: what the video may be called, with or without an ending; the first that is found.
        folders: where it may be.
        size: width and height in pixels of the pictures that were annotated; None if unknown.
        tracks: gives the tracks, once the video is known.
    """

    where: str
    file: Path
    names: tuple[str, ...]
    folders: tuple[Path, ...]
    size: tuple[int, int] | None
    tracks: Callable[[Film], list[Track]]
