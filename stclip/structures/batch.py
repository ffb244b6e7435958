"""The ragged batch that the data layer makes and the models read, and what comes out of them.

Shape letters: F distinct frames, B keyframes, T frames of a window, N persons, C class names,
H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from stclip.structures.raw import RawPictures, join


class FrameKey(NamedTuple):
    """Names a keyframe: the video (``class/video`` on J-HMDB and UCF101-24) and its frame.

    ``frame`` counts from 1, as the file names of frame folders do.
    """

    video: str
    frame: int


@dataclass
class PersonLayout:
    """The positions of the persons of a batch, known before it goes to a device.

    The model needs these numbers to lay out its tensors; taken from tensors on a GPU, each would
    make the host wait for the device. A keyframes have persons.

    Attributes:
        active: (A,) long, the keyframes that have persons, ascending.
        row: (N,) long, rows of ``active``: the keyframe that a person belongs to.
        place: (N,) long, the number of a person among those of its keyframe, from 0.
        most: the most persons of a keyframe, 0 without any.
        padded: whether an active keyframe has fewer than that.
        short: whether a window has frames that are not there.
    """

    active: Tensor
    row: Tensor
    place: Tensor
    most: int
    padded: bool
    short: bool

    @classmethod
    def of(cls, owner: Tensor, window: Tensor) -> PersonLayout:
        """The layout of persons owned by keyframes with these windows; see ``ClipBatch``."""
        active, row, counts = torch.unique_consecutive(
            owner, return_inverse=True, return_counts=True
        )
        first = counts.cumsum(0) - counts
        sizes = counts.tolist()
        return cls(
            active=active,
            row=row,
            place=torch.arange(len(owner), device=owner.device) - first[row],
            most=max(sizes, default=0),
            padded=len(set(sizes)) > 1,
            short=bool((window < 0).any()),
        )


@dataclass
class ClipBatch:
    """Chunks of keyframes laid end to end.

    Attributes:
        frames: (F, 3, H, W) uint8 RGB, resized and cropped; every frame that a window needs, once.
        window: (B, T) long, rows of ``frames``; -1 where the video is shorter than the window
            (always at the end of the row).
        keyframe: (B,) long, rows of ``frames``; -1 where the model looks at the window only.
        crops: (N, 3, H, W) uint8 RGB, the persons' boxes cut out, resized and cropped; (N, 3, 0, 0)
            where the model looks at none.
        owner: (N,) long, ascending: the keyframe that a person belongs to.
        boxes: (N, 4) float32, xyxy in pixels of the original frame.
        det_scores: (N,) float32, the person detector's; 1 for ground truth.
        labels: (N, C) float32 multi-hot over the vocabulary, or None at test time.
        keys: B frame keys.
        frame_boxes: (N, 4) float32, ``boxes`` in pixels of ``frames``, over whose edges they may
            reach; None where the model does not need them.
        raw: what ``to`` makes the frames and crops of, in their order, which are (F, 3, 0, 0) and
            (N, 3, 0, 0) until then; nothing if they are made.
        layout: what follows from ``owner`` and ``window``.
    """

    frames: Tensor
    window: Tensor
    keyframe: Tensor
    crops: Tensor
    owner: Tensor
    boxes: Tensor
    det_scores: Tensor
    labels: Tensor | None
    keys: tuple[FrameKey, ...]
    frame_boxes: Tensor | None = None
    raw: tuple[RawPictures, ...] = ()
    layout: PersonLayout = field(init=False)

    def __post_init__(self) -> None:
        keyframes, persons = len(self.keys), len(self.crops)
        assert len(self.window) == len(self.keyframe) == keyframes, "window, keyframe, keys: B rows"
        assert len(self.owner) == len(self.boxes) == len(self.det_scores) == persons, "N rows each"
        assert self.boxes.shape == (persons, 4), f"boxes: {tuple(self.boxes.shape)}"
        assert self.labels is None or len(self.labels) == persons, "labels: N rows"
        assert self.frame_boxes is None or self.frame_boxes.shape == (persons, 4), "frame_boxes"
        self.layout = PersonLayout.of(self.owner, self.window)

    def __len__(self) -> int:
        """The number of keyframes."""
        return len(self.keys)

    @classmethod
    def cat(cls, batches: Sequence[ClipBatch]) -> ClipBatch:
        """Lay batches end to end; indices are shifted to keep pointing at their frames."""
        assert batches, "no batch to lay end to end"
        windows, keyframes, owners = [], [], []
        frame_offset = keyframe_offset = 0
        for batch in batches:
            windows.append(_shifted(batch.window, frame_offset))
            keyframes.append(_shifted(batch.keyframe, frame_offset))
            owners.append(batch.owner + keyframe_offset)
            frame_offset += len(batch.frames)
            keyframe_offset += len(batch)
        labels = [batch.labels for batch in batches if batch.labels is not None]
        assert len(labels) in (0, len(batches)), "labels: either every batch has them, or none"
        placed = [batch.frame_boxes for batch in batches if batch.frame_boxes is not None]
        assert len(placed) in (0, len(batches)), "frame_boxes: every batch has them, or none"
        return cls(
            frames=torch.cat([batch.frames for batch in batches]),
            window=torch.cat(windows),
            keyframe=torch.cat(keyframes),
            crops=torch.cat([batch.crops for batch in batches]),
            owner=torch.cat(owners),
            boxes=torch.cat([batch.boxes for batch in batches]),
            det_scores=torch.cat([batch.det_scores for batch in batches]),
            labels=torch.cat(labels) if labels else None,
            keys=tuple(key for batch in batches for key in batch.keys),
            frame_boxes=torch.cat(placed) if placed else None,
            raw=join([part for batch in batches for part in batch.raw]),
        )

    def to(self, device: torch.device, non_blocking: bool = False) -> ClipBatch:
        """The same batch with its tensors on ``device``, where raw pictures are resized."""
        moved = self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))
        if moved.raw:
            frames, crops = zip(*(part.resized() for part in moved.raw), strict=True)
            moved.frames, moved.crops, moved.raw = torch.cat(frames), torch.cat(crops), ()
        return moved

    def pin_memory(self) -> ClipBatch:
        """The same batch in page-locked memory; the DataLoader calls this by its name."""
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, function: Callable[[Tensor], Tensor]) -> ClipBatch:
        # A copy, because a new batch would compute its layout again, on the device.
        mapped = copy(self)
        mapped.layout = copy(self.layout)
        for record in (mapped, mapped.layout):
            for name, value in vars(record).items():
                if isinstance(value, Tensor):
                    setattr(record, name, function(value))
        mapped.raw = tuple(part.map(function) for part in self.raw)
        return mapped


def _shifted(rows: Tensor, offset: int) -> Tensor:
    """Row numbers moved on; -1, which is none, stays."""
    return torch.where(rows < 0, rows, rows + offset)


@dataclass
class Detections:
    """Scored persons of some keyframes, on the CPU.

    Attributes:
        keys: B frame keys, keyframes without persons included.
        owner: (N,) long, rows of ``keys``.
        boxes: (N, 4) float32 xyxy pixels.
        det_scores: (N,) float32.
        scores: (N, C) float32 class scores over the vocabulary, NOT multiplied by det_scores.
        seconds: (B,) float64, when the keyframes are shown in their videos; None where unknown.
        persons: (N,) long, numbers from 1 of the persons of each video as the annotations have
            them; None if they say nothing.
    """

    keys: tuple[FrameKey, ...]
    owner: Tensor
    boxes: Tensor
    det_scores: Tensor
    scores: Tensor
    seconds: Tensor | None = None
    persons: Tensor | None = None

    def __post_init__(self) -> None:
        lengths = {len(self.owner), len(self.boxes), len(self.det_scores), len(self.scores)}
        assert len(lengths) == 1, f"owner, boxes, det_scores, scores differ in length: {lengths}"
        assert self.boxes.shape[1:] == (4,), f"boxes: {tuple(self.boxes.shape)}"
        assert self.scores.ndim == 2, f"scores: {tuple(self.scores.shape)}"
        assert self.seconds is None or len(self.seconds) == len(self.keys), "seconds: B rows"
        assert self.persons is None or len(self.persons) == len(self.owner), "persons: N rows"

    def __len__(self) -> int:
        """The number of persons."""
        return len(self.boxes)

    @classmethod
    def cat(cls, parts: Sequence[Detections]) -> Detections:
        """Lay detections end to end, as they come from the model: without seconds and persons."""
        assert parts, "no detections to lay end to end"
        offset, owners = 0, []
        for part in parts:
            owners.append(part.owner + offset)
            offset += len(part.keys)
        return cls(
            keys=tuple(key for part in parts for key in part.keys),
            owner=torch.cat(owners),
            boxes=torch.cat([part.boxes for part in parts]),
            det_scores=torch.cat([part.det_scores for part in parts]),
            scores=torch.cat([part.scores for part in parts]),
        )
