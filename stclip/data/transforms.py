"""Pictures to what the image encoders take, but not normalised (method.md section 1).

The pixels stay 8-bit here, so that batches are small; the models scale and normalise them.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from stclip.structures import Needs

Picture = NDArray[np.uint8]
Prepare = Callable[[Picture, int], Tensor]
Resize = Literal["pillow", "torch"]  # of what workers resize
Fit = Literal["crop", "squash"]

# Sides longer than this many crops are resized in part only.
_LONGEST = 64


def preparation(needs: Needs, resize: Resize | Literal["device"] = "pillow") -> Prepare:
    """What makes of a picture and a size the (3, size, size) uint8 that a model needs.

    Or, where the device is to do it, what leaves the picture as it is.
    """
    if needs.clips is not None:
        return clip_picture
    if resize == "device":
        return as_decoded
    return partial(preprocess, resize=resize, fit=needs.fit, interpolation=needs.interpolation)


def preprocess(
    image: Picture,
    size: int,
    resize: Resize = "pillow",
    fit: Fit = "crop",
    interpolation: Literal["bicubic", "bilinear"] = "bicubic",
) -> Tensor:
    """Resize a picture, with antialiasing, to a square.

    Args:
        image: (h, w, 3) uint8 RGB, not empty.
        size: side of the square in pixels.
        resize: with Pillow, as CLIP and the reference do, or with torch, which is faster and rounds
            some values the other way.
        fit: crop: the shorter side becomes ``size``, and the centre is cut out. squash: both do.
        interpolation: of the pixels.

    Returns:
        (3, size, size) uint8.
    """
    height, width = image.shape[:2]
    assert height * width > 0, f"an empty picture: {image.shape}"
    new_width, new_height = _resized(width, height, size, fit)
    left, top = _margin(new_width, size), _margin(new_height, size)
    whole = max(new_width, new_height) <= _LONGEST * size
    if whole and resize == "torch":
        pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None]
        pixels = interpolate(pixels, (new_height, new_width), mode=interpolation, antialias=True)
        return pixels[0, :, top : top + size, left : left + size].contiguous()
    picture, method = Image.fromarray(image), Image.Resampling[interpolation.upper()]
    if whole:
        picture = picture.resize((new_width, new_height), method)
        picture = picture.crop((left, top, left + size, top + size))
    else:
        # A box one pixel thin would become a picture of hundreds of megabytes on its way, so only
        # the part that the crop keeps is made. Its pixels come out a little differently.
        box = (
            left * width / new_width,
            top * height / new_height,
            min((left + size) * width / new_width, width),
            min((top + size) * height / new_height, height),
        )
        picture = picture.resize((size, size), method, box=box)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()


def as_decoded(picture: Picture, size: int) -> Tensor:
    """(h, w, 3) uint8 of a picture that the device resizes (DATALOADER.RESIZE device)."""
    return torch.from_numpy(np.array(picture))


def clip_picture(picture: Picture, size: int) -> Tensor:
    """Resize the shorter side to 256/224 of ``size`` and cut out the centre.

    As X-CLIP's authors do it: bilinear, without antialiasing, and in whole grey levels. Except for
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
    resized = interpolate(pixels, size=(new_height, new_width), mode="bilinear")[0]
    top, left = (new_height - size) // 2, (new_width - size) // 2
    return resized[:, top : top + size, left : left + size].round().to(torch.uint8)


def crop_box(image: Picture, box: NDArray[np.floating]) -> Picture:
    """Cut a box out of a picture.

    Args:
        image: (h, w, 3) uint8.
        box: (4,) xyxy in pixels, each rounded as ``round`` does it; x2 and y2 are exclusive.

    Returns:
        (h', w', 3) uint8, black where the box reaches over the edge of the picture.
    """
    x1, y1, x2, y2 = rounded(box)
    return np.asarray(Image.fromarray(image).crop((x1, y1, x2, y2)))


def patch_boxes(width: int, height: int, size: int, patch: int) -> NDArray[np.float64]:
    """Where the patches of a preprocessed picture lie in the picture itself.

    Args:
        width: of the picture, in pixels.
        height: of the picture, in pixels.
        size: side of the square that ``preprocess`` makes of it.
        patch: side of a patch of that square; what is left over at its end belongs to none.

    Returns:
        (L, 4) xyxy in pixels of the picture, row by row from the top left, as the image encoder
        numbers its patches.
    """
    new_width, new_height = _resized(width, height, size)
    edges = np.arange(size // patch + 1) * patch
    x = (edges + _margin(new_width, size)) * width / new_width
    y = (edges + _margin(new_height, size)) * height / new_height
    corners = [(x[:-1], y[:-1]), (x[1:], y[1:])]
    grids = [np.stack(np.meshgrid(columns, rows), axis=-1) for columns, rows in corners]
    return np.concatenate(grids, axis=-1).reshape(-1, 4)


def frame_boxes(
    boxes: NDArray[np.floating], width: int, height: int, needs: Needs
) -> NDArray[np.float32]:
    """Where boxes lie in the preprocessed picture, over whose edges they may reach.

    Args:
        boxes: (n, 4) xyxy in pixels of the picture itself.
        width: of the picture, in pixels.
        height: of the picture, in pixels.
        needs: of the model: side of the square, and how pictures become square.

    Returns:
        (n, 4) xyxy in pixels of that square.
    """
    size = needs.image_size
    new_width, new_height = _resized(width, height, size, needs.fit)
    scale = np.array([new_width / width, new_height / height] * 2)
    margin = np.array([_margin(new_width, size), _margin(new_height, size)] * 2)
    return np.asarray(boxes * scale - margin, dtype=np.float32)


def rounded(box: NDArray[np.floating]) -> tuple[int, int, int, int]:
    """The whole pixels of a box (4,), halves rounded to even (method.md section 2)."""
    x1, y1, x2, y2 = (round(float(value)) for value in box)
    return x1, y1, x2, y2


def _resized(width: int, height: int, size: int, fit: Fit = "crop") -> tuple[int, int]:
    """The size (width, height) after the shorter side, or both sides, become ``size``."""
    if fit == "squash":
        return size, size
    if width <= height:
        return size, int(size * height / width)
    return int(size * width / height), size


def _margin(length: int, size: int) -> int:
    """Pixels that the centre crop leaves out before it; halves are rounded to even."""
    return round((length - size) / 2.0)
