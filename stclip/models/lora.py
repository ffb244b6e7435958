"""Low-rank adaptation (LoRA) of linear layers (method.md section 4).

Shape letters: I features in, O features out, R rank.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LoRALinear(nn.Linear):
    """A frozen linear layer plus a trained low-rank one: y = x W' + b + (alpha / R) x A' B'.

    B starts at zero, so a fresh layer computes exactly what the frozen one does. The frozen weight
    is never changed ("merged"): whatever mode a state dict is loaded in, nothing of it is lost.

    Source: Hu et al., "LoRA", section 4.1.

    Args:
        in_features: I.
        out_features: O.
        rank: R, at least 1.
        alpha: the update is scaled by alpha / rank.
        bias: whether the frozen layer has a bias.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        rank: int,
        alpha: float = 1.0,
        bias: bool = True,
    ) -> None:
        assert rank > 0, f"rank {rank}: use nn.Linear where there is no LoRA"
        self.rank, self.alpha, self.scale = rank, alpha, alpha / rank
        super().__init__(in_features, out_features, bias)
        self.lora_A = nn.Parameter(torch.empty(rank, in_features))
        self.lora_B = nn.Parameter(torch.empty(out_features, rank))
        self.weight.requires_grad_(False)
        if bias:
            self.bias.requires_grad_(False)
        self.reset_lora()

    def reset_lora(self) -> None:
        """Initialise A and B; the sum with the frozen layer is then the frozen layer."""
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        nn.init.zeros_(self.lora_B)

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) -> (..., O)."""
        update = F.linear(F.linear(x, self.lora_A), self.lora_B)
        return F.linear(x, self.weight, self.bias) + self.scale * update

    def extra_repr(self) -> str:
        """What print() shows of the layer."""
        return f"{super().extra_repr()}, rank={self.rank}, scale={self.scale:g}"
