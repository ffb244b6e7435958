"""What a model looks at, declared by the model and served by the data layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Needs:
    """The pictures that a model needs of each keyframe.

    Attributes:
        image_size: side of frames and crops in pixels.
        frames: T, frames of a window or clip.
        stride: from one frame of a window to the next.
        clips: None for windows around keyframes, the keyframe itself and a crop of each person.
            "window" and "video" for clips alone, resized as X-CLIP's authors do it: one of the
            frames around each keyframe, or one of a whole video for all of its keyframes.
        frame_boxes: whether also the persons' boxes in the keyframes as they are resized.
        fit: how frames and crops become square: the shorter side is resized and the centre cut out
            (crop), or both sides are resized, each by its own factor (squash). Not of clips.
        interpolation: how they are resized, with antialiasing. Not of clips.
    """

    image_size: int
    frames: int = 1
    stride: int = 1
    clips: Literal["window", "video"] | None = None
    frame_boxes: bool = False
    fit: Literal["crop", "squash"] = "crop"
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
