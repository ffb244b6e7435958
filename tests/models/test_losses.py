import math

import pytest
import torch
from torch.nn import functional as F

from stclip.models.losses import FocalCriterion, softmax_focal_loss


def test_hand_computed() -> None:
    logits = torch.tensor([[0.0, 0.0], [math.log(3.0), 0.0]])
    labels = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    expected = 0.25 * math.log(2) + 0.25**2 * -math.log(0.75)
    assert softmax_focal_loss(logits, labels).item() == pytest.approx(expected, rel=1e-6)


def test_gamma_zero_is_cross_entropy() -> None:
    logits, target = torch.randn(6, 5), torch.randint(5, (6,))
    expected = F.cross_entropy(logits, target, reduction="sum")
    loss = softmax_focal_loss(logits, F.one_hot(target, 5), gamma=0)
    torch.testing.assert_close(loss, expected)


def test_confident_answers_neither_overflow_nor_give_nan_gradients() -> None:
    logits = torch.tensor([[500.0, -500.0], [-500.0, 500.0]], requires_grad=True)
    loss = softmax_focal_loss(logits, torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    loss.backward()
    assert loss.item() == pytest.approx(1000)
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_no_persons_cost_nothing() -> None:
    parts = FocalCriterion()(torch.zeros(0, 3), torch.zeros(0, 3))
    assert parts["action"].item() == 0
