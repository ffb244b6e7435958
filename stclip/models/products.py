"""Linear layers, computed by the library that is fastest for device and precision.

On CPUs PyTorch gives a linear layer in float32 to MKL, which uses AVX-512 on Intel's processors
only, and a convolution to oneDNN, which uses what the processor has. A linear layer is a
convolution of one pixel's size over a picture whose pixels are the rows: on an AMD EPYC with
AVX-512 that took 0.45 of the time (benchmarks/ has the measurement).

Shape letters: N rows, I features in, O features out.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

# Below these the weight, which oneDNN brings into an order of its own first, costs more than it
# gains; in bfloat16 a linear layer is oneDNN's anyway, and few rows suit it better.
_LEAST_ROWS = {torch.float32: 64, torch.bfloat16: 2048}


def apply_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """What ``F.linear`` gives, x W' + b; autocast is heeded.

    Args:
        x: (..., I).
        weight: (O, I).
        bias: (O,).

    Returns:
        (..., O).
    """
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weight, bias = x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
    if not convolves(x):
        return F.linear(x, weight, bias)
    rows = x.reshape(-1, x.shape[-1])
    out: Tensor = _Convolution.apply(rows, weight, bias)
    return out.view(*x.shape[:-1], -1)


class Linear(nn.Linear):
    """A linear layer that computes with ``apply_linear``."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) -> (..., O)."""
        return apply_linear(x, self.weight, self.bias)


class _Convolution(torch.autograd.Function):
    """PyTorch's own keeps its input in every case, which only the weight's gradient needs."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """(N, I), (O, I), (O,) -> (N, O)."""
        ctx.save_for_backward(weight, rows if ctx.needs_input_grad[1] else None)
        return _convolve(rows, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, rows = ctx.saved_tensors
        for_rows, for_weight, for_bias = ctx.needs_input_grad
        return (
            apply_linear(grad, weight.T) if for_rows else None,
            grad.T @ rows if for_weight else None,
            grad.sum(dim=0) if for_bias else None,
        )


def convolves(x: Tensor) -> bool:
    """Whether the convolution is the faster way for (..., I)."""
    least = _LEAST_ROWS.get(x.dtype)
    return (
        least is not None
        and x.device.type == "cpu"
        and x.numel() >= least * x.shape[-1] > 0
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and torch.backends.mkldnn.is_available()
        and bool(torch.backends.mkldnn.enabled)
        and not torch.compiler.is_compiling()
    )


def _convolve(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(N, I) as a picture of N pixels with I channels, the channels of a pixel side by side."""
    picture = rows.contiguous()[None, None].permute(0, 3, 1, 2)  # (1, I, 1, N), channels last
    out = F.conv2d(picture, weight[:, :, None, None], bias)  # (1, O, 1, N), channels last too
    return out.permute(0, 2, 3, 1)[0, 0]
