"""NanoDet-g: a one-stage detector of COCO's 80 classes, small enough for a CPU.

The network is described by its configuration (RangiLyu/nanodet, config/nanodet-g.yml) and by the
graph that its published weights were distributed in; this is written from those two. Batch
normalisation is folded into the convolutions, as in the graph. Boxes are predicted as in
Generalized Focal Loss (Li et al. 2020): the distance from a cell's centre to each side of the box
is the mean of a distribution over 0, 1, ..., 10 strides.

Shapes:
    B images
    H, W height and width of the images, multiples of 32
    K classes: 80, person is 0
    R bins of a distance: 11
    P cells: those of stride 8, then 16, then 32, each row by row; HW/64 + HW/256 + HW/1024
"""

from collections import OrderedDict
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

CLASSES, PERSON = 80, 0
STRIDES = (8, 16, 32)
BINS = 11
# Of channels in the order blue, green, red, values 0 to 255.
MEAN, STD = (103.53, 116.28, 123.675), (57.375, 57.12, 58.395)

_NEGATIVE_SLOPE = 0.1


class ConvReLU(nn.Conv2d):
    """A convolution that keeps the size (divided by its stride), and a leaky ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__(inputs, outputs, kernel_size=3, stride=stride, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / stride, W / stride)."""
        return functional.leaky_relu_(super().forward(x), _NEGATIVE_SLOPE)


class Unit(nn.Module):
    """Two convolutions, the first to half the channels; both outputs are kept."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = ConvReLU(channels, channels // 2)
        self.conv = ConvReLU(channels // 2, channels // 2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> the same shape."""
        reduced = self.reduce(x)
        return torch.cat([self.conv(reduced), reduced], dim=1)


class Stage(nn.Module):
    """Units of one resolution; what enters them is kept beside what leaves them.

    The idea of cross stage partial networks (Wang et al. 2020).
    """

    def __init__(self, inputs: int, channels: int, units: int, stride: int) -> None:
        super().__init__()
        self.first = ConvReLU(inputs, channels, stride)
        self.units = nn.Sequential(*[Unit(channels) for _ in range(units)])
        self.last = ConvReLU(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, 2 channels, H / stride, W / stride)."""
        first = self.first(x)
        return torch.cat([self.last(self.units(first)), first], dim=1)


class Backbone(nn.Module):
    """Features of strides 8, 16 and 32."""

    channels = (128, 256, 512)

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvReLU(3, 32, stride=2)
        self.stages = nn.ModuleList(
            [
                Stage(32, 32, units=1, stride=1),
                Stage(64, 64, units=2, stride=2),
                Stage(128, 128, units=2, stride=2),
                Stage(256, 256, units=3, stride=2),
            ]
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> (B, 128, H/8, W/8), (B, 256, H/16, W/16), (B, 512, H/32, W/32)."""
        x = functional.max_pool2d(self.stem(images), kernel_size=3, stride=2, padding=1)
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features[1:]


class PAN(nn.Module):
    """Mixes the resolutions, to the finest and back, by sums (Liu et al. 2018)."""

    def __init__(self, inputs: tuple[int, ...], channels: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList([nn.Conv2d(n, channels, kernel_size=1) for n in inputs])

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """From fine to coarse, (B, inputs of each, h, w) -> (B, channels, h, w) each."""
        levels = [conv(x) for conv, x in zip(self.lateral, features, strict=True)]
        for fine, coarse in reversed(list(pairwise(range(len(levels))))):
            levels[fine] = levels[fine] + _resize_to(levels[fine], levels[coarse])
        for fine, coarse in pairwise(range(len(levels))):
            levels[coarse] = levels[coarse] + _resize_to(levels[coarse], levels[fine])
        return levels


class Head(nn.Module):
    """Class scores and distances of every cell; each resolution has its own weights."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            [
                nn.Sequential(
                    OrderedDict(
                        hidden=ConvReLU(channels, channels),
                        output=nn.Conv2d(channels, CLASSES + 4 * BINS, kernel_size=1),
                    )
                )
                for _ in STRIDES
            ]
        )

    def forward(self, features: list[Tensor]) -> tuple[Tensor, Tensor]:
        """(B, channels, h, w) each -> class logits (B, P, K), distance logits (B, P, 4 R)."""
        cells = [
            level(x).flatten(2).transpose(1, 2)  # (B, K + 4 R, h, w) -> (B, hw, K + 4 R)
            for level, x in zip(self.levels, features, strict=True)
        ]
        logits, distances = torch.cat(cells, dim=1).split([CLASSES, 4 * BINS], dim=2)
        return logits, distances


class NanoDet(nn.Module):
    """NanoDet-g."""

    def __init__(self, channels: int = 128) -> None:
        super().__init__()
        self.backbone = Backbone()
        self.neck = PAN(self.backbone.channels, channels)
        self.head = Head(channels)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Look for everything everywhere.

        Args:
            images: (B, 3, H, W), channels blue, green, red, normalised by MEAN and STD. It was
                trained with 416 x 416.

        Returns:
            scores (B, P, K) from 0 to 1, each class by itself; and the logits of the distances
            (B, P, 4 R) that ``decode_boxes`` takes.
        """
        logits, distances = self.head(self.neck(self.backbone(images)))
        return logits.sigmoid(), distances


def decode_boxes(distances: Tensor, height: int, width: int) -> Tensor:
    """Boxes from the logits of their distances.

    Args:
        distances: (B, P, 4 R), for left, top, right, bottom in this order.
        height: H of the images.
        width: W of the images.

    Returns:
        (B, P, 4) xyxy in pixels of the images; may reach beyond them.
    """
    centres, strides = cells(height, width, distances.device)
    bins = torch.arange(BINS, dtype=distances.dtype, device=distances.device)
    expected = distances.unflatten(2, (4, BINS)).softmax(dim=3) @ bins  # (B, P, 4)
    sides = expected * strides[:, None]
    return torch.cat([centres - sides[..., :2], centres + sides[..., 2:]], dim=2)


def cells(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Centres (P, 2) as x and y, and strides (P,) of all cells, in pixels of the images."""
    centres, strides = [], []
    for stride in STRIDES:
        x = (torch.arange(width // stride, device=device) + 0.5) * stride
        y = (torch.arange(height // stride, device=device) + 0.5) * stride
        centres.append(torch.cartesian_prod(y, x).flip(1))
        strides.append(torch.full((len(x) * len(y),), float(stride), device=device))
    return torch.cat(centres), torch.cat(strides)


def _resize_to(like: Tensor, x: Tensor) -> Tensor:
    return functional.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=False)
