"""Turns keyframes of one video into a batch, decoding each frame that they need once."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from stclip.data.frames import Video
from stclip.data.proposals import Proposals
from stclip.data.reading import FrameReader
from stclip.data.transforms import frame_boxes, preparation, rounded
from stclip.data.windows import spread, window
from stclip.errors import UserError
from stclip.structures import ClipBatch, FrameKey, Needs, RawPictures
from stclip.structures.boxes import are_visible, clip


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
    needs: Needs,
    reader: FrameReader | None = None,
    following: Collection[int] = (),
) -> ClipBatch:
    """Read the windows or clips, and the persons, of some keyframes of one video.

    Boxes are clipped to the frame as it was decoded, [0, w - 1] x [0, h - 1]; those that are then
    empty, as numbers or as whole pixels, are dropped.

    Args:
        video: the video of all keyframes.
        keyframes: what to read; the closer together, the more frames they share.
        needs: what the model looks at.
        reader: reads the frames, and remembers some; None for a new one.
        following: frames that the next call with this reader will need, if it is for this video.

    Returns:
        A batch of ``len(keyframes)`` keyframes. Its labels are None unless the keyframes have some.
        Of clips there are no crops, and ``keyframe`` is -1: it need not be a frame of its clip.

    Raises:
        UserError: a frame cannot be read.
    """
    length = len(video)
    centres = [item.key.frame for item in keyframes]
    for frame in centres:
        if not 1 <= frame <= length:
            raise UserError(f"{video.path}: frame {frame} is not there; {length} frames are")
    windows = [shown_frames(needs, centre, length) for centre in centres]
    numbers = needed_frames(needs, centres, length)
    row = {number: index for index, number in enumerate(numbers)}
    if reader is None:
        reader = FrameReader(prepare=preparation(needs))
    frames = reader.frames(video, numbers, needs.image_size)
    owner: list[int] = []
    boxes: list[NDArray[np.float32]] = []
    scores: list[NDArray[np.float32]] = []
    labels: list[NDArray[np.float32]] = []
    placed: list[NDArray[np.float32]] = []
    persons: list[tuple[int, NDArray[np.float32]]] = []
    for index, item in enumerate(keyframes):
        shown = frames.get(item.key.frame)
        size = video.size if shown is None else (shown.width, shown.height)
        clipped, valid = visible_boxes(item.persons.boxes, size)
        owner += [index] * len(valid)
        boxes.append(clipped[valid])
        scores.append(item.persons.scores[valid])
        if needs.frame_boxes:
            placed.append(frame_boxes(clipped[valid], *size, needs))
        persons += [(item.key.frame, clipped[person]) for person in valid]
        if item.labels is not None:
            labels.append(item.labels[valid])
    pixels = torch.stack([frame.pixels for frame in frames.values()])
    raw: tuple[RawPictures, ...] = ()
    side, crops = needs.image_size, []
    if not reader.resizes:
        where = torch.tensor([row[number] for number, _ in persons], dtype=torch.long)
        cut = torch.tensor([rounded(box) for _, box in persons], dtype=torch.long).view(-1, 4)
        raw = (RawPictures(pixels, where, cut, side, needs.fit, needs.interpolation),)
        pixels, side = torch.zeros((len(frames), 3, 0, 0), dtype=torch.uint8), 0
    elif needs.clips:
        side = 0
    else:
        crops = reader.crops(persons)
    reader.keep(following)
    padded = [[row[n] for n in shown] + [-1] * (needs.frames - len(shown)) for shown in windows]
    return ClipBatch(
        frames=pixels,
        window=torch.tensor(padded, dtype=torch.long),
        keyframe=torch.tensor([-1 if needs.clips else row[t] for t in centres], dtype=torch.long),
        crops=(
            torch.stack(crops)
            if crops
            else torch.zeros((len(owner), 3, side, side), dtype=torch.uint8)
        ),
        owner=torch.tensor(owner, dtype=torch.long),
        boxes=torch.from_numpy(np.concatenate(boxes)),
        det_scores=torch.from_numpy(np.concatenate(scores)),
        labels=torch.from_numpy(np.concatenate(labels)) if labels else None,
        keys=tuple(item.key for item in keyframes),
        frame_boxes=torch.from_numpy(np.concatenate(placed)) if placed else None,
        raw=raw,
    )


def shown_frames(needs: Needs, t: int, n: int) -> list[int]:
    """The 1-based frames of the window or clip of keyframe ``t`` of a video of ``n``, ascending.

    A window has less than T where the video is too short. A clip has T frames always: those of a
    whole video, and of one in which a window does not fit, are the middles of T equal parts.
    """
    fits = (needs.frames - 1) * needs.stride < n
    if needs.clips is None or (needs.clips == "window" and fits):
        return window(t, n, needs.frames, needs.stride)
    return spread(n, needs.frames)


def needed_frames(needs: Needs, centres: Iterable[int], n: int) -> list[int]:
    """The frames that some keyframes of a video of ``n`` need, ascending."""
    centres = list(centres)
    needed = {number for t in centres for number in shown_frames(needs, t, n)}
    if needs.clips is None:
        needed.update(centres)  # with a stride these can be in no window
    return sorted(needed)


def visible_boxes(
    boxes: NDArray[np.float32], size: tuple[int, int]
) -> tuple[NDArray[np.float32], list[int]]:
    """Boxes clipped to a frame of that width and height, and which are not empty then."""
    width, height = size
    clipped = clip(boxes, height, width).astype(np.float32)
    sizes = np.array([size]).repeat(len(boxes), axis=0)
    return clipped, np.flatnonzero(are_visible(clipped, sizes)).tolist()
