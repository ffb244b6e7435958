"""Clips for X-CLIP: a fixed number of frames of a whole video, or of a window around a keyframe."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from stclip.data.annotations import DetectionDataset, Keyframe
from stclip.data.chunks import ChunkKeyframe, check_frames, visible_boxes
from stclip.data.reading import FrameReader
from stclip.data.transforms import Picture
from stclip.data.video import Video
from stclip.data.windows import spread, window
from stclip.structures import ClipBatch
from stclip.structures.boxes import area, clip

Unit = Literal["video", "window"]


@dataclass(frozen=True)
class ClipReader:
    """Turns keyframes of one video into a batch whose windows are their clips.

    Attributes:
        unit: "video" makes one clip of a whole video, for all of its keyframes; "window" one of the
            frames around each keyframe.
        length: T, frames of a clip.
        stride: from one frame of a window to the next.
        image_size: side in pixels.
        reader: reads the frames, and remembers some.
    """

    unit: Unit
    length: int
    stride: int
    image_size: int
    reader: FrameReader = field(
        default_factory=lambda: FrameReader(prepare=clip_picture), compare=False
    )

    def frames(self, t: int, n: int) -> list[int]:
        """The T 1-based frames of the clip of keyframe ``t`` of a video of ``n``, ascending.

        Of a whole video, and of one in which a window does not fit, they are the middles of T equal
        parts (``spread``).
        """
        fits = (self.length - 1) * self.stride < n
        if self.unit == "window" and fits:
            return window(t, n, self.length, self.stride)
        return spread(n, self.length)

    def needed(self, centres: Iterable[int], n: int) -> list[int]:
        """The frames that the clips of some keyframes of a video of ``n`` need, ascending."""
        return sorted({number for t in centres for number in self.frames(t, n)})

    def __call__(
        self, video: Video, keyframes: Sequence[ChunkKeyframe], following: Collection[int] = ()
    ) -> ClipBatch:
        """Read clips; every frame is decoded once.

        Boxes are clipped and dropped as ``make_chunk`` does it. There are no crops, and
        ``keyframe`` is -1 throughout: a keyframe need not be a frame of its clip.

        Args:
            video: the video of all keyframes.
            keyframes: what to read.
            following: frames that the next call will need, if it is for this video.

        Raises:
            UserError: a frame cannot be read.
        """
        length = check_frames(video, keyframes)
        windows = [self.frames(item.key.frame, length) for item in keyframes]
        numbers = self.needed((item.key.frame for item in keyframes), length)
        row = {number: index for index, number in enumerate(numbers)}
        frames = self.reader.frames(video, numbers, self.image_size)
        self.reader.keep(following)
        width, height = video.size
        owner: list[int] = []
        boxes: list[NDArray[np.float32]] = []
        scores: list[NDArray[np.float32]] = []
        labels: list[NDArray[np.float32]] = []
        for index, item in enumerate(keyframes):
            clipped, valid = visible_boxes(item.persons, height, width)
            owner += [index] * len(valid)
            boxes.append(clipped[valid])
            scores.append(item.persons.scores[valid])
            if item.labels is not None:
                labels.append(item.labels[valid])
        return ClipBatch(
            frames=torch.stack([frame.pixels for frame in frames.values()]),
            window=torch.tensor([[row[number] for number in shown] for shown in windows]),
            keyframe=torch.full((len(keyframes),), -1),
            crops=torch.zeros((len(owner), 3, 0, 0), dtype=torch.uint8),
            owner=torch.tensor(owner, dtype=torch.long),
            boxes=torch.from_numpy(np.concatenate(boxes)),
            det_scores=torch.from_numpy(np.concatenate(scores)),
            labels=torch.from_numpy(np.concatenate(labels)) if labels else None,
            keys=tuple(item.key for item in keyframes),
        )


def clip_picture(picture: Picture, size: int) -> Tensor:
    """Resize the shorter side to 256/224 of ``size`` and cut out the centre.

    As X-CLIP's authors do it: bilinear, without antialiasing, and in whole grey levels. But for
    that rounding it is what ``stclip.models.xclip.preprocess_video`` does before it normalises.

    Args:
        picture: (h, w, 3) uint8 RGB, not empty.
        size: side of the square in pixels.

    Returns:
        (3, size, size) uint8.
    """
    height, width = picture.shape[:2]
    short = size * 256 // 224
    scale = short / min(height, width)
    new_height, new_width = int(height * scale + 0.5), int(width * scale + 0.5)
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float()
    resized = F.interpolate(pixels, size=(new_height, new_width), mode="bilinear")[0]
    top, left = (new_height - size) // 2, (new_width - size) // 2
    return resized[:, top : top + size, left : left + size].round().to(torch.uint8)


def one_keyframe_a_video(dataset: DetectionDataset) -> list[Keyframe]:
    """Samples for training on whole videos: one of each, whatever its number of keyframes.

    Args:
        dataset: its keyframes have boxes; those of a video lie in a row or not.

    Returns:
        For each video its first keyframe, with the largest box of each different label in the
        video: where its persons do different things, each of these is a target of its own. What
        counts of a box is what lies in the picture: a box outside of it would be dropped later.

    Raises:
        UserError: the size of a video cannot be read.
    """
    first: dict[str, Keyframe] = {}
    sizes: dict[str, tuple[int, int]] = {}
    best: dict[str, dict[tuple[str, ...], tuple[float, NDArray[np.float32]]]] = {}
    for keyframe in dataset.keyframes:
        name = keyframe.key.video
        if name not in first:
            first[name], best[name], sizes[name] = keyframe, {}, dataset.videos[name].size
        width, height = sizes[name]
        areas = area(clip(keyframe.boxes, height, width)).tolist()
        found = best[name]
        for visible, box, names in zip(areas, keyframe.boxes, keyframe.labels, strict=True):
            if names not in found or visible > found[names][0]:
                found[names] = visible, box
    return [
        Keyframe(keyframe.key, np.stack([box for _, box in best[name].values()]), tuple(best[name]))
        for name, keyframe in first.items()
    ]
