"""The MLP of a vision block with LoRA, and its gradients written out, for training.

It computes what two ``LoRALinear`` layers with QuickGELU between them do, in fewer steps: the
low-rank parts are added in place, and QuickGELU's output, one of the two largest tensors of a
block, is computed anew for the backward pass and not kept.

Shape letters: N tokens, W width, R rank.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from stclip.models.lora import LoRALinear
from stclip.models.products import apply_linear

GELU_SLOPE = 1.702  # QuickGELU(x) = silu(GELU_SLOPE x) / GELU_SLOPE


def lora_mlp(x: Tensor, c_fc: LoRALinear, c_proj: LoRALinear) -> Tensor:
    """c_proj(QuickGELU(c_fc(x))): (..., W) -> (..., W), with gradients of x and of LoRA."""
    dtype = x.dtype
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
    out: Tensor = _LoRAMLP.apply(
        x.flatten(0, -2).to(dtype),
        *(c_fc.weight, c_fc.bias, c_fc.lora_A, c_fc.lora_B, c_fc.scale),
        *(c_proj.weight, c_proj.bias, c_proj.lora_A, c_proj.lora_B, c_proj.scale),
    )
    return out.view(x.shape)


class _LoRAMLP(torch.autograd.Function):
    """All is computed in the dtype of x; the gradients of LoRA get that of its parameters."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight_1: Tensor,
        bias_1: Tensor,
        a_1: Tensor,
        b_1: Tensor,
        scale_1: float,
        weight_2: Tensor,
        bias_2: Tensor,
        a_2: Tensor,
        b_2: Tensor,
        scale_2: float,
    ) -> Tensor:
        """(N, W) -> (N, W); weights, biases, LoRA's A and B, and its scale, of both layers."""
        # The factors that turn SiLU into QuickGELU cost nothing inside a matrix product.
        hidden, low_1 = _forward(x, weight_1, bias_1, a_1, b_1, scale_1, GELU_SLOPE, GELU_SLOPE)
        activated, inverse = F.silu(hidden), 1 / GELU_SLOPE
        out, low_2 = _forward(activated, weight_2, bias_2, a_2, b_2, scale_2, inverse, 1.0)
        ctx.save_for_backward(x, hidden, low_1, low_2, weight_1, a_1, b_1, weight_2, a_2, b_2)
        ctx.scales = scale_1, scale_2 / GELU_SLOPE
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, hidden, low_1, low_2, weight_1, a_1, b_1, weight_2, a_2, b_2 = ctx.saved_tensors
        scale_1, scale_2 = ctx.scales
        wanted = ctx.needs_input_grad
        grad = grad.to(x.dtype)
        grad_b_2 = _outer(low_2, grad, b_2.dtype, scale_2).T if wanted[9] else None
        grad_low = grad @ b_2.to(x.dtype)
        grad_a_2 = _outer(grad_low, F.silu(hidden), a_2.dtype, scale_2) if wanted[8] else None
        # The gradient of SiLU's output times GELU_SLOPE, since the second layer divides by it ...
        grad = _backward(grad, grad_low, weight_2, a_2, b_2, scale_2 * GELU_SLOPE)
        # ... and of its input over GELU_SLOPE, since the first layer multiplies.
        grad = torch.ops.aten.silu_backward.grad_input(grad, hidden, grad_input=grad)
        grad_b_1 = _outer(low_1, grad, b_1.dtype, scale_1).T if wanted[4] else None
        grad_low = grad @ b_1.to(x.dtype)
        grad_a_1 = _outer(grad_low, x, a_1.dtype, scale_1) if wanted[3] else None
        grad_x = _backward(grad, grad_low, weight_1, a_1, b_1, scale_1) if wanted[0] else None
        first = (grad_x, None, None, grad_a_1, grad_b_1, None)
        return (*first, None, None, grad_a_2, grad_b_2, None)


def _forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    a: Tensor,
    b: Tensor,
    scale: float,
    factor: float,
    bias_factor: float,
) -> tuple[Tensor, Tensor]:
    """Compute factor (x W' + scale x A' B') + bias_factor bias, and x A' (N, R)."""
    low = F.linear(x, a.to(x.dtype))
    if _merges(x, weight):
        merged = torch.addmm(weight, b, a, beta=factor, alpha=factor * scale)
        return apply_linear(x, merged, bias_factor * bias), low
    weight, bias, b = (each.to(x.dtype) for each in (weight, bias, b))
    out = torch.addmm(bias, x, weight.T, beta=bias_factor, alpha=factor)
    return out.addmm_(low, b.T, alpha=factor * scale), low


def _backward(
    grad: Tensor, grad_low: Tensor, weight: Tensor, a: Tensor, b: Tensor, scale: float
) -> Tensor:
    """Compute grad W + scale grad_low A, where grad_low is grad B."""
    if _merges(grad, weight):
        return apply_linear(grad, torch.addmm(weight.T, a.T, b.T, alpha=scale))
    return (grad @ weight.to(grad.dtype)).addmm_(grad_low, a.to(grad.dtype), alpha=scale)


def _merges(x: Tensor, weight: Tensor) -> bool:
    """Whether LoRA's part may be added to the weight: 16 bits would not resolve it."""
    return x.dtype == weight.dtype and x.dtype.itemsize >= 4


def _outer(low: Tensor, wide: Tensor, dtype: torch.dtype, scale: float) -> Tensor:
    """Sum scale low' wide over all tokens: (N, R), (N, W) -> (R, W).

    The narrow one first: the other way round took five times as long on a CPU.
    """
    return (low.T @ wide).to(dtype).mul_(scale)
