"""Linear layers, computed by the library that is fastest for device and precision.

On CPUs PyTorch gives a linear layer in float32 to MKL, which uses AVX-512 on Intel's processors
only, and a convolution to oneDNN, which uses what the processor has. A linear layer is a
convolution of one pixel's size over a picture whose pixels are the rows: on an AMD EPYC with
AVX-512 that took 0.45 of the time (benchmarks/ has the measurement).

Shape letters: N rows, I features in, O features out.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextvars import ContextVar, Token
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.grad import conv2d_weight

# Below these the weight, which oneDNN brings into an order of its own first, costs more than it
# gains. In bfloat16 a linear layer is oneDNN's too, with the weight in the order that it has.
_LEAST_ROWS = {torch.float32: 64, torch.bfloat16: 1024}


def apply_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """What ``F.linear`` gives, x W' + b; autocast is heeded.

    Args:
        x: (..., I).
        weight: (O, I).
        bias: (O,).

    Returns:
        (..., O).
    """
    if torch.compiler.is_compiling():
        return F.linear(x, weight, bias)
    dtype = compute_dtype(x)
    rows = x.reshape(-1, x.shape[-1]).to(dtype)
    if torch.is_grad_enabled() and (convolves(rows) or weight.dtype != dtype):
        out: Tensor = _Linear.apply(rows, weight, bias)
    else:
        out = _product(rows, cast(weight, dtype), None if bias is None else cast(bias, dtype))
    return out.view(*x.shape[:-1], len(weight))


class Linear(nn.Linear):
    """A linear layer that computes with ``apply_linear``."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) -> (..., O)."""
        return apply_linear(x, self.weight, self.bias)


class _Linear(torch.autograd.Function):
    """Keeps the weight as it is, not what it was cast to, and the input only if it is needed.

    PyTorch's own convolution keeps both.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """(N, I), (O, I), (O,) -> (N, O), in the dtype of the rows."""
        ctx.save_for_backward(weight, rows if ctx.needs_input_grad[1] else None)
        dtype = rows.dtype
        return _product(rows, weight.to(dtype), None if bias is None else bias.to(dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, rows = ctx.saved_tensors
        for_rows, for_weight, for_bias = ctx.needs_input_grad
        return (
            input_gradient(grad, weight) if for_rows else None,
            _weight_gradient(grad, rows).to(weight.dtype) if for_weight else None,
            grad.sum(dim=0).to(weight.dtype) if for_bias else None,
        )


def input_gradient(grad: Tensor, weight: Tensor) -> Tensor:
    """Compute grad W, the gradient of a linear layer's input: (N, O), (O, I) -> (N, I)."""
    weight = weight.to(grad.dtype)
    if grad.dtype == torch.float32 and convolves(grad):
        return _convolve(grad, weight.T, None)
    return grad @ weight  # in 16 bits turning the weight round takes what the convolution gains


def _weight_gradient(grad: Tensor, rows: Tensor) -> Tensor:
    """Compute grad' rows: (N, O), (N, I) -> (O, I)."""
    if rows.dtype != torch.float32 or not convolves(rows):
        return grad.T @ rows
    shape = grad.shape[1], rows.shape[1], 1, 1
    return conv2d_weight(_picture(rows), shape, _picture(grad))[:, :, 0, 0]


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


def _product(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(N, I), (O, I), (O,) of one dtype -> (N, O)."""
    return (_convolve if convolves(rows) else F.linear)(rows, weight, bias)


def _convolve(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    out = F.conv2d(_picture(rows), weight[:, :, None, None], bias)  # (1, O, 1, N), channels last
    return out.permute(0, 2, 3, 1)[0, 0]


def _picture(rows: Tensor) -> Tensor:
    """(N, I) as a picture of N pixels, the I channels of a pixel side by side: (1, I, 1, N)."""
    return rows.contiguous()[None, None].permute(0, 3, 1, 2)


# What was prepared of an owner, the owner with it: an id may not go to another one meanwhile.
_Prepared = dict[tuple[int, Hashable], tuple[object, Tensor]]


class FixedWeights:
    """While it is entered, and no gradients are taken, weights are prepared once and then kept.

    Preparing is to cast them, and to add LoRA to them. They must not change from the first time
    that it is entered to the last; it can be left and entered again.
    """

    def __init__(self) -> None:
        self._prepared: _Prepared = {}
        self._outer: list[Token[_Prepared | None]] = []

    def __enter__(self) -> None:
        self._outer.append(_FIXED.set(self._prepared))

    def __exit__(self, *error: object) -> None:
        _FIXED.reset(self._outer.pop())


_FIXED: ContextVar[_Prepared | None] = ContextVar("fixed weights", default=None)


def prepared(owner: object, kind: Hashable, make: Callable[[], Tensor]) -> Tensor:
    """What ``make`` gives; within ``FixedWeights`` what it gave the first time.

    Args:
        owner: the module or the parameter that it is made of.
        kind: what is made of it.
        make: makes it.
    """
    if torch.compiler.is_compiling() or torch.is_grad_enabled():
        return make()
    fixed = _FIXED.get()
    if fixed is None:
        return make()
    key = id(owner), kind
    if key not in fixed:
        fixed[key] = owner, make()
    return fixed[key][1]


def cast(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """The weight in a dtype, ``prepared`` if it is a parameter."""
    if weight.dtype == dtype or not isinstance(weight, nn.Parameter):
        return weight.to(dtype)
    return prepared(weight, dtype, lambda: weight.to(dtype))


def compute_dtype(x: Tensor) -> torch.dtype:
    """What products with x are computed in: its own dtype, or autocast's."""
    if torch.is_autocast_enabled(x.device.type):
        return torch.get_autocast_dtype(x.device.type)
    return x.dtype
