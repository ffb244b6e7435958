"""The start and the losses of a small CLIP's training."""

import math

import pytest
import torch
from torch.nn import functional as F

from stclip.models.clip import normalize_pixels
from stclip.puppet.pretrain import (
    action_loss,
    contrastive_loss,
    grid_positions,
    line_positions,
    matches,
    prepare,
)
from tests.models.test_clip import tiny_clip


def pictures(count: int = 64, size: int = 48) -> torch.Tensor:
    """Blocks of a few colours with a little noise, so that patches have large and small parts."""
    generator = torch.Generator().manual_seed(0)
    blocks = torch.randint(0, 200, (count, 3, size // 8, size // 8), generator=generator)
    noise = torch.randint(0, 50, (count, 3, size, size), generator=generator)
    return (blocks.repeat_interleave(8, 2).repeat_interleave(8, 3) + noise).to(torch.uint8)


def test_positions_by_hand():
    line = line_positions(3, 4)
    expected = [math.sin(2), math.sin(0.02), math.cos(2), math.cos(0.02)]
    torch.testing.assert_close(line[2], torch.tensor(expected))
    assert line[0].tolist() == [0, 0, 1, 1]
    grid = grid_positions(3, 8)
    assert grid.shape == (9, 8)
    torch.testing.assert_close(grid[5], torch.cat([line[1], line[2]]))  # row 1, column 2
    assert len(grid.unique(dim=0)) == 9


def test_patches_are_whitened():
    clip = tiny_clip((48, 16, 64, 1, 64, 1, 32), vocab_size=10)
    images = pictures()
    prepare(clip, images)
    visual = clip.visual
    side = grid_positions(3, 64)
    tokens = visual.patch_embed(normalize_pixels(images)) + visual.positional_embedding[1:] - side
    rows = tokens.flatten(0, 1)
    # The smallest of the parts are muted, and all are uncorrelated and without a mean.
    covariance = rows.T.cov()
    variance = covariance.diagonal()
    assert (variance > 0.2).all()
    assert (variance < 1.01).all()
    assert variance[-1] == pytest.approx(1 / 1.001, rel=1e-3)  # the largest
    torch.testing.assert_close(covariance, variance.diag(), atol=1e-3, rtol=0)
    torch.testing.assert_close(rows.mean(0), torch.zeros(64), atol=1e-3, rtol=0)
    assert not visual.positional_embedding[0].any()
    torch.testing.assert_close(clip.positional_embedding, 0.1 * line_positions(77, 64))


def test_matches_by_hand():
    shown = torch.tensor([[1, 1, 0], [0, 1, 0], [0, 0, 1]]).bool()  # three pictures
    named = torch.tensor([[1, 1, 0], [0, 1, 0], [0, 0, 1]]).bool()  # three texts
    assert matches(named, shown).int().tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 1]]


def test_contrastive_loss_by_hand():
    logits = torch.tensor([[2.0, 0.0], [1.0, 3.0]])
    apart = torch.eye(2).bool()
    down, across = (
        F.cross_entropy(logits.T, torch.arange(2)),
        F.cross_entropy(logits, torch.arange(2)),
    )
    torch.testing.assert_close(contrastive_loss(logits, apart), (down + across) / 2)
    # Picture 0 matches both texts: the mean of both log probabilities.
    shared = torch.tensor([[True, True], [False, True]])
    log_rows, log_columns = logits.log_softmax(1), logits.log_softmax(0)
    of_texts = -(log_rows[0].mean() + log_rows[1, 1]) / 2
    of_pictures = -(log_columns[0, 0] + log_columns[:, 1].mean()) / 2
    torch.testing.assert_close(contrastive_loss(logits, shared), (of_texts + of_pictures) / 2)


def test_contrastive_loss_is_least_for_equal_logits_of_matches():
    match = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 1]]).bool()
    best = torch.where(match, 20.0, -20.0)
    worse = best.clone()
    worse[0, 1] = -20.0
    assert contrastive_loss(best, match) == pytest.approx(2 / 3 * math.log(2))
    assert contrastive_loss(worse, match) > contrastive_loss(best, match)


def test_action_loss_by_hand():
    classifier = torch.nn.Linear(2, 3)
    torch.nn.init.zeros_(classifier.weight)
    torch.nn.init.zeros_(classifier.bias)
    with torch.no_grad():
        classifier.bias[0] = math.log(2)  # probabilities 1/2, 1/4, 1/4
    shown = torch.tensor([[1, 0, 0], [1, 1, 0]]).bool()
    expected = (math.log(2) + (math.log(2) + math.log(4)) / 2) / 2
    assert action_loss(classifier, torch.randn(2, 2), shown).item() == pytest.approx(expected)
