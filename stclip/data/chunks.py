"""Turns keyframes of one video into a batch, decoding each frame that they need once."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from stclip.data.proposals import Proposals
from stclip.data.reading import FrameReader
from stclip.data.video import Video
from stclip.data.windows import window
from stclip.errors import UserError
from stclip.structures import ClipBatch, FrameKey
from stclip.structures.boxes import clip

Visible = NDArray[np.bool_]


@dataclass(frozen=True)
class ChunkKeyframe:
    """A keyframe that is to go into a batch.

    Attributes:
        key: its video and 1-based frame.
        persons: its boxes, as they stand in the file.
        labels: (n, C) float32 multi-hot, or None at test time.
    """

    key: FrameKey
    persons: Proposals
    labels: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        assert self.labels is None or len(self.labels) == len(self.persons), "labels: n rows"


def make_chunk(
    video: Video,
    keyframes: Sequence[ChunkKeyframe],
    window_length: int,
    image_size: int,
    window_stride: int = 1,
    reader: FrameReader | None = None,
    following: Collection[int] = (),
) -> ClipBatch:
    """Read the windows and persons of some keyframes of one video.

    Boxes are clipped to the frame as it was decoded, [0, w - 1] x [0, h - 1]; those that are then
    empty, as numbers or as whole pixels, are dropped.

    Args:
        video: the video of all keyframes.
        keyframes: what to read; the closer together, the more frames they share.
        window_length: T, frames of a window.
        image_size: side in pixels of the preprocessed frames and crops.
        window_stride: from one frame of a window to the next, in frames.
        reader: reads the frames, and remembers some; None for a new one.
        following: frames that the next call with this reader will need, if it is for this video.

    Returns:
        A batch of ``len(keyframes)`` keyframes. Its labels are None unless the keyframes have some.

    Raises:
        UserError: a frame cannot be read.
    """
    length = check_frames(video, keyframes)
    centres = [item.key.frame for item in keyframes]
    windows = [window(centre, length, window_length, window_stride) for centre in centres]
    numbers = needed_frames(centres, length, window_length, window_stride)
    row = {number: index for index, number in enumerate(numbers)}
    reader = FrameReader() if reader is None else reader
    frames = reader.frames(video, numbers, image_size)
    owner: list[int] = []
    kept: list[tuple[NDArray[np.float32], NDArray[np.float32]]] = []
    persons: list[tuple[int, NDArray[np.float32]]] = []
    labels: list[NDArray[np.float32]] = []
    for index, item in enumerate(keyframes):
        frame = frames[item.key.frame]
        boxes, valid = visible_boxes(item.persons, frame.height, frame.width)
        kept.append((boxes[valid], item.persons.scores[valid]))
        persons += [(item.key.frame, boxes[person]) for person in valid]
        owner += [index] * len(valid)
        if item.labels is not None:
            labels.append(item.labels[valid])
    crops = reader.crops(persons)
    reader.keep(following)
    square = (3, image_size, image_size)
    padded = [[row[n] for n in shown] + [-1] * (window_length - len(shown)) for shown in windows]
    return ClipBatch(
        frames=torch.stack([frame.pixels for frame in frames.values()]),
        window=torch.tensor(padded, dtype=torch.long),
        keyframe=torch.tensor([row[item.key.frame] for item in keyframes], dtype=torch.long),
        crops=torch.stack(crops) if crops else torch.zeros((0, *square), dtype=torch.uint8),
        owner=torch.tensor(owner, dtype=torch.long),
        boxes=torch.from_numpy(np.concatenate([boxes for boxes, _ in kept])),
        det_scores=torch.from_numpy(np.concatenate([scores for _, scores in kept])),
        labels=torch.from_numpy(np.concatenate(labels)) if labels else None,
        keys=tuple(item.key for item in keyframes),
    )


def needed_frames(
    centres: Iterable[int], length: int, window_length: int, window_stride: int
) -> list[int]:
    """The frames that keyframes need, ascending.

    Args:
        centres: the keyframes' numbers.
        length: frames of the video.
        window_length: T, frames of a window.
        window_stride: from one frame of a window to the next, in frames.
    """
    needed = set(centres)  # with a stride these can be in no window
    for centre in tuple(needed):
        needed.update(window(centre, length, window_length, window_stride))
    return sorted(needed)


def check_frames(video: Video, keyframes: Sequence[ChunkKeyframe]) -> int:
    """The number of frames of a video; a UserError where a keyframe is none of them."""
    length = len(video)
    for frame in (item.key.frame for item in keyframes):
        if not 1 <= frame <= length:
            raise UserError(f"{video.path}: frame {frame} is not there; {length} frames are")
    return length


def visible_boxes(
    persons: Proposals, height: int, width: int
) -> tuple[NDArray[np.float32], list[int]]:
    """Persons' boxes clipped to a frame of that size, and which of them are not empty then."""
    boxes = clip(persons.boxes, height, width).astype(np.float32)
    sizes = np.array([[width, height]]).repeat(len(boxes), axis=0)
    return boxes, np.flatnonzero(are_visible(boxes, sizes)).tolist()


def are_visible(boxes: NDArray[np.float32], sizes: NDArray[np.integer | np.floating]) -> Visible:
    """Which boxes (n, 4) are not empty in their pictures, as numbers and as whole pixels.

    Args:
        boxes: xyxy in pixels.
        sizes: (n, 2) width and height of each one's picture.
    """
    limit = np.concatenate([sizes, sizes], axis=1) - 1
    clipped = np.clip(boxes, 0, limit).astype(np.float32)
    whole = np.rint(clipped)  # halves to even, as ``rounded`` does it
    seen = (clipped[:, 2:] > clipped[:, :2]) & (whole[:, 2:] > whole[:, :2])
    return np.asarray(seen.all(axis=1))
