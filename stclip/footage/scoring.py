"""Scores of tracked persons at moments of a video, from frames that pass once.

Of each frame only what the model looks at is kept, resized, for as long as a window needs it; the
persons of a keyframe are cut out when it passes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stclip.data.chunks import visible_boxes
from stclip.data.transforms import crop_box, frame_boxes, preparation
from stclip.data.windows import window
from stclip.detector import Detector
from stclip.footage.records import Boxes
from stclip.footage.source import Frame
from stclip.models.fast import FixedWeights
from stclip.structures import ClipBatch, FrameKey


@dataclass
class Moment:
    """A keyframe that waits for the frames after it.

    Attributes:
        seconds: when it is shown.
        place: its number among the frames that passed, from 1.
        ids: (n,) tracks of its persons.
        boxes: (n, 4) float32.
        crops: (n, 3, size, size) uint8.
        frame_boxes: (n, 4) float32, ``boxes`` in the resized frame.
    """

    seconds: float
    place: int
    ids: NDArray[np.int64]
    boxes: NDArray[np.float32]
    crops: Tensor
    frame_boxes: NDArray[np.float32]


@dataclass(frozen=True)
class Scored:
    """Class scores of the persons of one moment.

    Attributes:
        seconds: when.
        ids: (n,) tracks.
        scores: (n, C) float32.
    """

    seconds: float
    ids: NDArray[np.int64]
    scores: NDArray[np.float32]


@dataclass(frozen=True)
class Step:
    """What one frame brought.

    Attributes:
        frame: the frame.
        persons: those found in it, with the numbers of their tracks (0: nobody yet).
        scored: moments, of this frame or earlier ones, whose scores are known now.
    """

    frame: Frame
    persons: Boxes
    scored: list[Scored]


class Scorer:
    """Takes frames in order and gives scores of their tracked persons, some frames later.

    Args:
        detector: the model with its vocabulary.
        every: seconds from one scored moment to the next.
        batch: moments that go through the model at once.
        precision: fp32, bf16 or fp16.
    """

    def __init__(
        self, detector: Detector, every: float, batch: int = 4, precision: str = "fp32"
    ) -> None:
        self._detector, self._every, self._batch = detector, every, batch
        self._precision = precision
        self._needs = detector.needs
        self._prepare = preparation(self._needs)
        self._fixed = FixedWeights()  # nothing is trained meanwhile
        self._frames: OrderedDict[int, Tensor] = OrderedDict()
        self._waiting: list[Moment] = []
        self._count = 0
        self._next = -np.inf
        # Frames after a keyframe that its window reaches.
        self._ahead = (self._needs.frames - 1 - self._needs.frames // 2) * self._needs.stride
        self._span = (self._needs.frames - 1) * self._needs.stride + 1

    def push(self, frame: Frame, persons: Boxes, known: bool = False) -> Iterator[Scored]:
        """Take the next frame; yields moments that are complete with it.

        Args:
            frame: the frame.
            persons: with the numbers of their tracks; those without are not scored.
            known: whether this moment's scores are there already, from an interrupted run.
        """
        self._count += 1
        boxes, chosen = self._visible(frame, persons)
        due = frame.seconds >= self._next - 1e-6 and len(chosen) > 0
        if due or self._span > 1:
            self._frames[self._count] = self._prepare(frame.image, self._needs.image_size)
        if due:
            # On the grid of multiples, so that a late person does not shift all that follow.
            self._next = (np.floor(frame.seconds / self._every + 1e-6) + 1) * self._every
            if not known:
                self._waiting.append(self._moment(frame, boxes[chosen], persons.ids[chosen]))
        self._forget()
        if sum(m.place + self._ahead <= self._count for m in self._waiting) >= self._batch:
            yield from self._score()

    def flush(self) -> Iterator[Scored]:
        """The moments that still wait, once no frame follows."""
        while self._waiting:
            yield from self._score()

    def _visible(
        self, frame: Frame, persons: Boxes
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Boxes clipped to the frame, and the rows of tracked persons who are not empty then."""
        height, width = frame.image.shape[:2]
        boxes, visible = visible_boxes(persons.boxes, (width, height))
        rows = [row for row in visible if persons.ids[row] > 0]
        return boxes, np.array(rows, dtype=np.int64)

    def _moment(self, frame: Frame, boxes: NDArray[np.float32], ids: NDArray[np.int64]) -> Moment:
        size = self._needs.image_size
        height, width = frame.image.shape[:2]
        placed = frame_boxes(boxes, width, height, self._needs)
        crops = [self._prepare(crop_box(frame.image, box), size) for box in boxes]
        return Moment(frame.seconds, self._count, ids, boxes, torch.stack(crops), placed)

    def _forget(self) -> None:
        """Drop frames that no window needs any more."""
        waiting = min((moment.place for moment in self._waiting), default=self._count + 1)
        # A window near the end is shifted back by up to its whole length.
        oldest = min(waiting, self._count + 1) - self._span
        while self._frames and next(iter(self._frames)) < oldest:
            self._frames.popitem(last=False)

    def _score(self) -> Iterator[Scored]:
        moments = self._waiting[: self._batch]
        del self._waiting[: self._batch]
        needs = self._needs
        windows = [window(m.place, self._count, needs.frames, needs.stride) for m in moments]
        numbers = sorted({n for shown in windows for n in shown} | {m.place for m in moments})
        row = {number: index for index, number in enumerate(numbers)}
        placed = np.concatenate([moment.frame_boxes for moment in moments])
        batch = ClipBatch(
            frames=torch.stack([self._frames[number] for number in numbers]),
            window=torch.tensor(
                [[row[n] for n in w] + [-1] * (needs.frames - len(w)) for w in windows]
            ),
            keyframe=torch.tensor([row[moment.place] for moment in moments]),
            crops=torch.cat([moment.crops for moment in moments]),
            owner=torch.tensor([i for i, moment in enumerate(moments) for _ in moment.ids]),
            boxes=torch.from_numpy(np.concatenate([moment.boxes for moment in moments])),
            det_scores=torch.ones(sum(len(moment.ids) for moment in moments)),
            labels=None,
            keys=tuple(FrameKey("", moment.place) for moment in moments),
            frame_boxes=torch.from_numpy(placed) if needs.frame_boxes else None,
        )
        with self._fixed:
            scores = self._detector.score_batch(batch, self._precision)
        ends = np.cumsum([len(moment.ids) for moment in moments])
        for moment, found in zip(moments, np.split(scores, ends[:-1]), strict=True):
            yield Scored(moment.seconds, moment.ids, found)
