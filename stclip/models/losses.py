"""Losses of method.md section 8. N persons, C class names."""

import torch.nn.functional as F
from torch import Tensor


def softmax_focal_loss(logits: Tensor, labels: Tensor, gamma: float = 2.0) -> Tensor:
    """Sum over persons of -(1 - p_y)^gamma log p_y, for exclusive classes.

    Args:
        logits: (N, C); computed in float32 whatever the dtype.
        labels: (N, C), one 1 in each row.
        gamma: 0 gives the cross-entropy.

    Returns:
        A scalar; the caller divides by the number of boxes of the whole batch. 0 without persons.
    """
    log_p = F.log_softmax(logits.float(), dim=1)
    log_p_y = (log_p * labels).sum(dim=1)  # (N,)
    return -((1 - log_p_y.exp()) ** gamma * log_p_y).sum()


class FocalCriterion:
    """The training loss for exclusive classes (J-HMDB, UCF101-24): one part, ``action``."""

    def __init__(self, gamma: float = 2.0) -> None:
        self.gamma = gamma

    def __call__(self, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Sums over persons, by part, from logits (N, C) and labels (N, C)."""
        return {"action": softmax_focal_loss(logits, labels, self.gamma)}
