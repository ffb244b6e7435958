"""A person shown in the whole frame: what lies outside of the person's box is blurred or masked.

Not in the paper. Blurring all but an object is the visual prompt of FGVP ("Fine-Grained Visual
Prompting", Yang et al., NeurIPS 2023), which does it along the outline of a segmented object.

N persons, A keyframes that have persons, S side of the frames in pixels.
"""

from typing import Literal

import torch
from torch import Tensor

from stclip.models.clip import PIXEL_MEAN
from stclip.structures import ClipBatch

Outside = Literal["blur", "mask"]

BLUR = 0.2  # standard deviation of the blur, as a share of S


def mark(batch: ClipBatch, outside: Outside) -> Tensor:
    """Each person's keyframe, changed outside of the person's box.

    The edge is hard: a pixel that the box touches stays as it is. Of a person who stands outside of
    what the square shows of a wide frame nothing can be seen; the keyframe stays as it is.

    Args:
        batch: with ``frame_boxes``.
        outside: what lies there is blurred, or masked with CLIP's mean colour.

    Returns:
        (N, 3, S, S) uint8, on the batch's device.
    """
    assert batch.frame_boxes is not None, "Needs.frame_boxes was False"
    frames = batch.frames[batch.keyframe[batch.layout.active]]  # (A, 3, S, S)
    x1, y1, x2, y2 = batch.frame_boxes[..., None].unbind(1)  # (N, 1)
    pixel = torch.arange(frames.shape[-1], device=frames.device)
    columns = (pixel + 1 > x1) & (pixel < x2)  # (N, S)
    rows = (pixel + 1 > y1) & (pixel < y2)  # (N, S)
    unseen = ~(columns.any(dim=1) & rows.any(dim=1))  # (N,)
    inside = (rows[:, :, None] & columns[:, None]) | unseen[:, None, None]  # (N, S, S)
    changed = blurred(frames) if outside == "blur" else masked(frames)  # (A, 3, S, S)
    person = batch.layout.row
    return torch.where(inside[:, None], frames[person], changed[person])


def blurred(frames: Tensor) -> Tensor:
    """Frames (A, 3, S, S) uint8 with a Gaussian blur; beyond their edges nothing is added."""
    side = frames.shape[-1]
    place = torch.arange(side, device=frames.device) / (BLUR * side)
    weights = torch.softmax(-(place[:, None] - place).square() / 2, dim=1)  # (S, S)
    # A blur this wide is cheaper as two products of matrices than as a convolution. In 16 bits they
    # would round to other grey levels.
    with torch.autocast(frames.device.type, enabled=False):
        mixed = weights @ frames.float() @ weights.T
    return mixed.round().to(torch.uint8)


def masked(frames: Tensor) -> Tensor:
    """As many pictures (A, 3, S, S) uint8 of CLIP's mean colour: about zero once normalised."""
    colour = torch.empty_like(frames)
    for channel, mean in enumerate(PIXEL_MEAN):  # a tensor of them would have to be copied
        colour[:, channel] = round(255 * mean)
    return colour
