"""Optimizer and learning rate of method.md section 8."""

import math
from bisect import bisect_right
from collections.abc import Sequence

import torch
from torch import nn


def build_optimizer(
    model: nn.Module, base_lr: float, momentum: float, weight_decay: float
) -> torch.optim.SGD:
    """SGD over what is trained; frozen parameters get no state."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.optim.SGD(trained, lr=base_lr, momentum=momentum, weight_decay=weight_decay)


def learning_rate(
    iteration: int,
    *,
    base_lr: float,
    schedule: str,
    max_iter: int,
    steps: Sequence[int] = (),
    gamma: float = 0.1,
    warmup_iters: int = 0,
    warmup_factor: float = 0.25,
) -> float:
    """The learning rate of an iteration, counted from 0; a function of nothing else.

    Args:
        iteration: 0 to max_iter - 1.
        base_lr: the rate after warm-up and before any decay.
        schedule: "step" multiplies by gamma at each of ``steps``; "cosine" falls along half a
            period to zero at max_iter.
        max_iter: the length of the training.
        steps: ascending iterations.
        gamma: factor of a step.
        warmup_iters: the rate grows linearly during these; 0 for none.
        warmup_factor: what it starts from, as a part of base_lr.
    """
    if schedule == "cosine":
        factor = 0.5 * (1 + math.cos(math.pi * iteration / max_iter))
    else:
        factor = gamma ** bisect_right(sorted(steps), iteration)
    if iteration < warmup_iters:
        progress = iteration / warmup_iters
        factor *= warmup_factor * (1 - progress) + progress
    return base_lr * factor
