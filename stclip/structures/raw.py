"""Pictures that are resized where the model is, not where they were read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

# So many values of a picture are resized at once; as floats they take 268 MB.
_AT_ONCE = 2**26


@dataclass(frozen=True)
class RawPictures:
    """Frames of one size as they were decoded, and which parts of them are crops.

    Attributes:
        pictures: (F, h, w, 3) uint8 RGB.
        row: (N,) long, the row of ``pictures`` that a crop is part of.
        box: (N, 4) long, xyxy in whole pixels, within the picture; x2 and y2 are exclusive.
        size: S, the side in pixels that frames and crops shall have.
        fit: how they become square; see ``Needs``.
        interpolation: see ``Needs``.
    """

    pictures: Tensor
    row: Tensor
    box: Tensor
    size: int
    fit: Literal["crop", "squash"] = "crop"
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"

    def map(self, function: Callable[[Tensor], Tensor]) -> RawPictures:
        """The same after a function of each tensor."""
        return replace(
            self,
            pictures=function(self.pictures),
            row=function(self.row),
            box=function(self.box),
        )

    def resized(self) -> tuple[Tensor, Tensor]:
        """Frames (F, 3, S, S) and crops (N, 3, S, S), uint8, made on the device of the pictures.

        They are what Pillow makes of the same pictures, but for values close to the middle of two
        whole ones, of which a few in 100,000 are rounded the other way; with ``bilinear`` some
        percent, by 1 or 2; with ``squash`` up to a ninth, as Pillow 13 then sometimes takes the
        rows first.
        """
        _, height, width, _ = self.pictures.shape
        whole = torch.tensor([[0, 0, width, height]]).to(self.pictures.device, non_blocking=True)
        step = max(_AT_ONCE // (3 * height * width), 1)
        frames = [self._resample(part, whole) for part in torch.split(self.pictures, step)]
        crops = [
            self._resample(self.pictures[rows], boxes)
            for rows, boxes in zip(
                torch.split(self.row, step), torch.split(self.box, step), strict=True
            )
            if len(rows)
        ]
        nothing = self.pictures.new_empty((0, 3, self.size, self.size))
        return torch.cat([nothing, *frames]), torch.cat([nothing, *crops])

    def _resample(self, pictures: Tensor, boxes: Tensor) -> Tensor:
        """(n, 3, S, S) uint8 of a box in each of (n, h, w, 3), or of one box for all of them.

        Each row of the result is a weighted sum of the picture's, and each column too: two matrix
        products. As Pillow does it, columns come first and are rounded to whole grey levels.
        """
        count, height, width, _ = pictures.shape
        sides = boxes[:, 2:] - boxes[:, :2]  # (b, 2), b is 1 or n
        short = sides.min(dim=1, keepdim=True).values
        square = torch.full_like(sides, self.size)
        full = square if self.fit == "squash" else sides * self.size // short
        margin = ((full - self.size) / 2).round()  # halves to even
        # Autocast would compute the products in 16 bits.
        with torch.autocast(pictures.device.type, enabled=False):
            x, y = (
                self._weights(
                    boxes[:, axis], sides[:, axis], full[:, axis], margin[:, axis], length
                )
                for axis, length in ((0, width), (1, height))
            )  # (b, S, w), (b, S, h)
            values = pictures.permute(0, 3, 1, 2).float().reshape(len(boxes), -1, width)
            values = _whole(values @ x.mT).view(count, 3, height, self.size)
            return _whole(y[:, None] @ values).to(torch.uint8)

    def _weights(
        self, start: Tensor, side: Tensor, full: Tensor, margin: Tensor, length: int
    ) -> Tensor:
        """What each pixel of a picture's line counts for each that is kept of the resized box.

        Args:
            start: (b,) of the box in the line.
            side: (b,) of the box.
            full: (b,) what the box would be resized to.
            margin: (b,) pixels of that before those that are kept.
            length: n, of the picture's line.

        Returns:
            (b, S, n) float32; each row's sum is 1.
        """
        start, side, full, margin = (v.double()[:, None, None] for v in (start, side, full, margin))
        kept = torch.arange(self.size, device=start.device, dtype=torch.float64)[:, None]
        pixel = torch.arange(length, device=start.device, dtype=torch.float64)
        scale = side / full
        stretch = scale.clamp(min=1)  # antialiasing: a smaller picture's pixels see more
        reach = (2 if self.interpolation == "bicubic" else 1) * stretch
        centre = (margin + kept + 0.5) * scale  # within the box
        first = start + (centre - reach + 0.5).floor().clamp(min=0)
        end = start + (centre + reach + 0.5).floor().minimum(side)
        distance = ((pixel - start - centre + 0.5) / stretch).abs()
        if self.interpolation == "bicubic":  # Keys' cubic with a = -1/2
            near = (1.5 * distance - 2.5) * distance**2 + 1
            far = ((2.5 - 0.5 * distance) * distance - 4) * distance + 2
            weight = torch.where(distance < 1, near, torch.where(distance < 2, far, 0))
        else:
            weight = (1 - distance).clamp(min=0)
        weight = weight * ((pixel >= first) & (pixel < end))
        return (weight / weight.sum(dim=-1, keepdim=True)).float()


def join(raw: Sequence[RawPictures]) -> tuple[RawPictures, ...]:
    """The same pictures in the same order, neighbours of one size together."""
    joined: list[list[RawPictures]] = []
    for part in raw:
        if joined and joined[-1][0].pictures.shape[1:] == part.pictures.shape[1:]:
            joined[-1].append(part)
        else:
            joined.append([part])
    return tuple(_cat(parts) for parts in joined)


def _cat(parts: Sequence[RawPictures]) -> RawPictures:
    before, rows = 0, []
    for part in parts:
        rows.append(part.row + before)
        before += len(part.pictures)
    return replace(
        parts[0],
        pictures=torch.cat([part.pictures for part in parts]),
        row=torch.cat(rows),
        box=torch.cat([part.box for part in parts]),
    )


def _whole(values: Tensor) -> Tensor:
    """Rounded to grey levels, halves upwards as Pillow does it."""
    return (values + 0.5).floor_().clamp_(0, 255)
