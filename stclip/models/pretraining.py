"""What a small CLIP needs to learn to learn soon: a good start, and a loss that shares texts.

Shape letters: N pictures, B pairs of a picture and a text, A actions, L patch tokens, W width, S
side of a picture in pixels.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stclip.models.clip import CLIP, normalize_pixels


@torch.no_grad()
def prepare(clip: CLIP, pictures: Tensor) -> None:
    """Start both towers where they learn soon: whitened patches and sine-cosine positions.

    A transformer of this size that starts from noise sees nothing but the average colour of a
    picture for tens of thousands of samples. Here the patch convolution gives the W largest
    principal components of the patches, each with variance 1, so that small differences (a hand, a
    ball) are as loud as the background; and the positions are told from the start. The mean patch,
    which a convolution without bias cannot subtract, is subtracted from the positions.

    Args:
        clip: is changed in place.
        pictures: (N, 3, S, S) uint8, some hundreds of those to learn from.
    """
    visual = clip.visual
    size, width = visual.patch_size, visual.conv1.out_channels
    patches = F.unfold(normalize_pixels(pictures), size, stride=size)  # (N, 3 size**2, L)
    patches = patches.transpose(1, 2).flatten(0, 1)
    mean = patches.mean(dim=0)
    variance, directions = torch.linalg.eigh((patches - mean).T.cov())  # ascending
    variance, directions = variance[-width:], directions[:, -width:]
    # The smallest of them are noise, which must not be blown up.
    weight = (directions / (variance + 1e-3 * variance.max()).sqrt()).T
    visual.conv1.weight.copy_(weight.view_as(visual.conv1.weight))
    visual.positional_embedding.zero_()  # the class token's stays so
    side = visual.image_size // size
    visual.positional_embedding[1:] = grid_positions(side, width) - weight @ mean
    clip.positional_embedding.copy_(0.1 * line_positions(*clip.positional_embedding.shape))


def line_positions(length: int, width: int) -> Tensor:
    """Sines and cosines of wave lengths from 2 pi to 10,000 * 2 pi: (length, width)."""
    rates = 10_000.0 ** (-torch.arange(width // 2) / (width // 2))
    angles = torch.arange(length)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def grid_positions(side: int, width: int) -> Tensor:
    """Positions in a square, row by row: (side**2, width); half tells the row, half the column."""
    line = line_positions(side, width // 2)
    return torch.cat([line.repeat_interleave(side, dim=0), line.repeat(side, 1)], dim=1)


def matches(named: Tensor, shown: Tensor) -> Tensor:
    """Which texts are true of which pictures, as far as actions go.

    Args:
        named: (B, A) bool, the actions that each text names.
        shown: (B, A) bool, the actions that each picture shows.

    Returns:
        (B, B) bool, pictures by texts: whether all that the text names is shown.
    """
    absent = (~shown).float() @ named.float().T
    return absent == 0


def contrastive_loss(logits: Tensor, match: Tensor) -> Tensor:
    """CLIP's loss where several texts may be true of a picture, and the other way round.

    Cross-entropy in both directions, with all matches equally likely. With one match each (the
    diagonal) it is CLIP's own loss.

    Args:
        logits: (B, B), pictures by texts.
        match: (B, B) bool; every row and column has a match.

    Returns:
        The loss, a scalar.
    """
    weight = match.float()
    of_texts = -(F.log_softmax(logits, 1) * weight).sum(1) / weight.sum(1)
    of_pictures = -(F.log_softmax(logits, 0) * weight).sum(0) / weight.sum(0)
    return (of_texts.mean() + of_pictures.mean()) / 2


def action_loss(classifier: nn.Linear, features: Tensor, shown: Tensor) -> Tensor:
    """Cross-entropy of what a linear classifier reads from picture features, texts aside.

    Args:
        classifier: (E) to (A).
        features: (B, E).
        shown: (B, A) bool, the actions that each picture shows, at least one.

    Returns:
        The loss, a scalar.
    """
    weight = shown.float()
    return F.cross_entropy(classifier(features), weight / weight.sum(1, keepdim=True))
