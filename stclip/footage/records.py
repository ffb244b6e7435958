"""The records that pass from step to step, and what a finished video consists of."""

from __future__ import annotations

import colorsys
from array import array
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

FORMAT = "stclip-footage/1"


def colour_of(track: int) -> tuple[int, int, int]:
    """RGB of a person in pictures and on the page; neighbouring numbers differ."""
    red, green, blue = colorsys.hsv_to_rgb(track * 0.381966 % 1, 0.75, 0.95)
    return round(red * 255), round(green * 255), round(blue * 255)


class Boxes(NamedTuple):
    """Persons of one frame.

    Attributes:
        boxes: (n, 4) float32, xyxy in pixels.
        scores: (n,) float32, the detector's.
        ids: (n,) int64, the number of the person's track, from 1; 0 for nobody yet.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    ids: NDArray[np.int64]

    @classmethod
    def untracked(cls, boxes: NDArray[np.float32], scores: NDArray[np.float32]) -> Boxes:
        """Detections that no tracker has seen."""
        return cls(boxes, scores, np.zeros(len(boxes), dtype=np.int64))

    def towards(self, later: Boxes, share: float) -> Boxes:
        """The tracked persons of both frames, ``share`` of the way from this one to ``later``."""
        ids, here, there = np.intersect1d(self.ids, later.ids, return_indices=True)
        here, there, ids = here[ids > 0], there[ids > 0], ids[ids > 0]
        boxes = (1 - share) * self.boxes[here] + share * later.boxes[there]
        scores = (1 - share) * self.scores[here] + share * later.scores[there]
        return Boxes(boxes.astype(np.float32), scores.astype(np.float32), ids)


class Event(NamedTuple):
    """One person does one thing for some time.

    Attributes:
        track: the person's number.
        action: its name.
        start: seconds.
        end: seconds.
        score: the mean voted score in between, 0 to 1.
    """

    track: int
    action: str
    start: float
    end: float
    score: float


@dataclass
class Track:
    """One person, from the first frame to the last in which it was seen.

    Boxes are kept as plain numbers, 56 bytes each, so that hours of them fit into memory.

    Attributes:
        id: its number, from 1.
        rows: seconds, frame, x1, y1, x2, y2, detector score of every frame, one after the other.
        score_times: seconds of the moments that were scored, S of them.
        scores: class scores of these moments, S * C numbers.
        events: what the person does; filled in at the end.
    """

    id: int
    rows: array[float] = field(default_factory=lambda: array("d"))
    score_times: array[float] = field(default_factory=lambda: array("d"))
    scores: array[float] = field(default_factory=lambda: array("f"))
    events: list[Event] = field(default_factory=list)

    def add_box(self, seconds: float, frame: int, box: NDArray[np.float32], score: float) -> None:
        """The box of one frame."""
        self.rows.extend((seconds, frame, *box.tolist(), score))

    def add_scores(self, seconds: float, scores: NDArray[np.float32]) -> None:
        """(C,) class scores of one moment."""
        self.score_times.append(seconds)
        self.scores.extend(scores.tolist())

    @property
    def boxes(self) -> NDArray[np.float64]:
        """(n, 7): seconds, frame, x1, y1, x2, y2, detector score."""
        return np.array(self.rows).reshape(-1, 7)

    def timeline(self) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """Seconds (S,) and class scores (S, C) of the moments that were scored."""
        times = np.array(self.score_times)
        scores = np.array(self.scores, dtype=np.float32)
        return times, scores.reshape(len(times), -1) if len(times) else scores.reshape(0, 0)


@dataclass
class Footage:
    """All that is known of one video, as far as it was gone through.

    Attributes:
        name: of the video; what its folder is called.
        video: facts: path, size [w, h], fps, frames, duration, damaged, dropped.
        actions: names that are reported.
        none_of: names that are scored and never reported.
        model: what scored.
        settings: all numbers that events follow from.
        tracks: persons by number.
        complete: whether the video was gone through to its end.
    """

    name: str
    video: dict[str, Any]
    actions: list[str]
    none_of: list[str]
    model: dict[str, Any]
    settings: dict[str, Any]
    tracks: dict[int, Track] = field(default_factory=dict)
    complete: bool = False

    @property
    def labels(self) -> list[str]:
        """All C names that are scored, in the order of the scores."""
        return [*self.actions, *self.none_of]

    @property
    def events(self) -> list[Event]:
        """The events of all persons, by start."""
        found = [event for track in self.tracks.values() for event in track.events]
        return sorted(found, key=lambda event: (event.start, event.track, event.action))

    def track(self, number: int) -> Track:
        """The track of a number, which is new if it was not there."""
        return self.tracks.setdefault(number, Track(number))
