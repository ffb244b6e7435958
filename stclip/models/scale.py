"""Trained weights moved back towards those that the training started from (WiSE-FT)."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def scale_training(model: nn.Module, start: nn.Module, share: float) -> None:
    """Let the training have gone ``share`` of its way, in a straight line (docs/beyond.md).

    Args:
        model: trained; changed in place.
        start: the same model before its training.
        share: 1 leaves the model as it is, 0 makes it ``start``.
    """
    begun = dict(start.named_parameters())
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            first = begun[name].to(parameter)
            parameter.copy_(first + share * (parameter - first))
