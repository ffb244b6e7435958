"""The MLP of a vision block with LoRA, and its gradients written out, for training.

It computes what two ``LoRALinear`` layers with QuickGELU between them do, in fewer steps: the
low-rank parts are added in place, or to the weight. For the backward pass it keeps the tensor
between the two layers once; what QuickGELU makes of it, and what the LayerNorm in front of the MLP
gives, are computed anew.

Shape letters: N tokens, W width, R rank.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from stclip.models.lora import LoRALinear
from stclip.models.products import apply_linear, compute_dtype, convolves, input_gradient

GELU_SLOPE = 1.702  # QuickGELU(x) = silu(GELU_SLOPE x) / GELU_SLOPE

Norm = Callable[[Tensor], Tensor]


def lora_mlp(x: Tensor, c_fc: LoRALinear, c_proj: LoRALinear, norm: Norm | None = None) -> Tensor:
    """c_proj(QuickGELU(c_fc(norm(x)))), with gradients of x and of LoRA.

    Args:
        x: (..., W).
        c_fc: the first layer.
        c_proj: the second.
        norm: works on each token for itself, and has nothing that is trained; None leaves it out.

    Returns:
        (..., W).
    """
    out: Tensor = _LoRAMLP.apply(
        x.flatten(0, -2),
        *(norm, compute_dtype(x)),
        *(c_fc.weight, c_fc.bias, c_fc.lora_A, c_fc.lora_B, c_fc.scale),
        *(c_proj.weight, c_proj.bias, c_proj.lora_A, c_proj.lora_B, c_proj.scale),
    )
    return out.view(x.shape)


class _LoRAMLP(torch.autograd.Function):
    """All behind the norm is computed in one dtype; gradients get that of what they belong to."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        norm: Norm | None,
        dtype: torch.dtype,
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
        normed = (x if norm is None else norm(x)).to(dtype)
        # The factors that turn SiLU into QuickGELU cost nothing on a weight that is copied anyway.
        hidden, low_1 = _forward(
            normed, weight_1, bias_1, a_1, b_1, scale_1, GELU_SLOPE, GELU_SLOPE
        )
        activated, inverse = F.silu(hidden), 1 / GELU_SLOPE
        out, low_2 = _forward(activated, weight_2, bias_2, a_2, b_2, scale_2, inverse, 1.0)
        ctx.save_for_backward(x, hidden, low_1, low_2, weight_1, a_1, b_1, weight_2, a_2, b_2)
        ctx.norm, ctx.scales = norm, (scale_1, scale_2 / GELU_SLOPE)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, hidden, low_1, low_2, weight_1, a_1, b_1, weight_2, a_2, b_2 = ctx.saved_tensors
        scale_1, scale_2 = ctx.scales
        for_x, _, _, _, _, for_a_1, for_b_1, _, _, _, for_a_2, for_b_2, _ = ctx.needs_input_grad
        dtype = hidden.dtype
        grad = grad.to(dtype)
        grad_b_2 = _outer(low_2, grad, b_2.dtype, scale_2).T if for_b_2 else None
        grad_low = apply_linear(grad, b_2.T)
        grad_a_2 = _outer(grad_low, F.silu(hidden), a_2.dtype, scale_2) if for_a_2 else None
        # The gradient of SiLU's output times GELU_SLOPE, since the second layer divides by it ...
        grad = _backward(grad, grad_low, weight_2, a_2, b_2, scale_2 * GELU_SLOPE)
        # ... and of its input over GELU_SLOPE, since the first layer multiplies.
        grad = torch.ops.aten.silu_backward.grad_input(grad, hidden, grad_input=grad)
        grad_b_1 = _outer(low_1, grad, b_1.dtype, scale_1).T if for_b_1 else None
        grad_low = apply_linear(grad, b_1.T)
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            normed = (leaf if ctx.norm is None else ctx.norm(leaf)).to(dtype)
        grad_a_1 = _outer(grad_low, normed.detach(), a_1.dtype, scale_1) if for_a_1 else None
        grad_x = None
        if for_x:
            grad_x = _backward(grad, grad_low, weight_1, a_1, b_1, scale_1)
            if normed is not leaf:
                torch.autograd.backward(normed, grad_x)  # only x has a gradient in there
                grad_x = leaf.grad
        first = (grad_x, None, None, None, None, grad_a_1, grad_b_1, None)
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
    low = apply_linear(x, a)
    if _merges(x, weight):
        merged = torch.addmm(weight, b, a, beta=factor, alpha=factor * scale)
        return apply_linear(x, merged, bias_factor * bias), low
    if convolves(x):
        scaled = torch.mul(weight, factor, out=torch.empty_like(weight, dtype=x.dtype))
        out = apply_linear(x, scaled, bias_factor * bias)
    else:
        weight, bias = weight.to(x.dtype), bias.to(x.dtype)
        out = torch.addmm(bias, x, weight.T, beta=bias_factor, alpha=factor)
    return out.addmm_(low, b.T.to(x.dtype), alpha=factor * scale), low


def _backward(
    grad: Tensor, grad_low: Tensor, weight: Tensor, a: Tensor, b: Tensor, scale: float
) -> Tensor:
    """Compute grad W + scale grad_low A, where grad_low is grad B."""
    if _merges(grad, weight):
        return input_gradient(grad, torch.addmm(weight, b, a, alpha=scale))
    return input_gradient(grad, weight).addmm_(grad_low, a.to(grad.dtype), alpha=scale)


def _merges(x: Tensor, weight: Tensor) -> bool:
    """Whether LoRA's part may be added to the weight: 16 bits would not resolve it."""
    return x.dtype == weight.dtype and x.dtype.itemsize >= 4


def _outer(low: Tensor, wide: Tensor, dtype: torch.dtype, scale: float) -> Tensor:
    """Sum scale low' wide over all tokens: (N, R), (N, W) -> (R, W).

    The narrow one first: the other way round took five times as long on a CPU.
    """
    return (low.T @ wide).to(dtype).mul_(scale)
