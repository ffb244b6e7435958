"""Low-rank adaptation (LoRA) of linear layers.

Shape letters: I features in, O features out, R rank.
"""

import math

import torch
from torch import Tensor, nn

from stclip.models.products import Linear, apply_linear, compute_dtype, convolves, prepared


class LoRALinear(nn.Linear):
    """A frozen linear layer plus a trained low-rank one: y = x W' + b + (x A' B') * alpha / rank.

    B starts at zero, so a fresh layer computes exactly what the frozen one does. The frozen weight
    is never changed ("merged"): whatever mode a state dict is loaded in, nothing of it is lost.

    Source: Hu et al., "LoRA", section 4.1; method.md section 4.

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
        self.rank, self.scale = rank, alpha / rank
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
        # What the layer is; models.transformer.MLP computes a pair of them in fewer steps.
        return apply_linear(x, self.merged_weight(), self.bias)

    def merged_weight(self, factor: float = 1.0) -> Tensor:
        """The weight (O, I) of the plain linear layer that computes the same, times ``factor``.

        In the dtype of the weight: under autocast the sum would be rounded to 16 bits, and what
        LoRA adds is smaller than 16 bits resolve.
        """
        scale = factor * self.scale
        with torch.autocast(self.weight.device.type, enabled=False):
            return torch.addmm(self.weight, self.lora_B, self.lora_A, beta=factor, alpha=scale)

    def extra_repr(self) -> str:
        """What print() shows of the layer."""
        return f"{super().extra_repr()}, rank={self.rank}, scale={self.scale:g}"


def linear(
    in_features: int, out_features: int, lora_rank: int = 0, lora_alpha: float = 1.0
) -> nn.Linear:
    """A linear layer, with LoRA if ``lora_rank`` is above 0."""
    if lora_rank == 0:
        return Linear(in_features, out_features)
    return LoRALinear(in_features, out_features, lora_rank, lora_alpha)


def scaled_linear(layer: nn.Linear, x: Tensor, scale: float, bias_scale: float = 1.0) -> Tensor:
    """A layer with W (O, I) and b gives scale * x W' + bias_scale * b: (..., I) -> (..., O)."""
    plain = not isinstance(layer, LoRALinear) and x.device.type == "cpu"
    if plain and not convolves(x):
        rows = x.reshape(-1, x.shape[-1])  # inside the product the scale costs nothing
        out = torch.addmm(layer.bias, rows, layer.weight.T, beta=bias_scale, alpha=scale)
        return out.view(*x.shape[:-1], -1)
    dtype = compute_dtype(x)

    def scaled() -> Tensor:
        if isinstance(layer, LoRALinear):
            return layer.merged_weight(scale).to(dtype)
        return (scale * layer.weight).to(dtype)

    return apply_linear(x, prepared(layer, (scale, dtype), scaled), bias_scale * layer.bias)
