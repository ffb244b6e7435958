"""Everything that is there for speed alone, behind the names of plain operations.

Each function says in its first line what it computes, and computes just that. With the switch on
(``use``, MODEL.FAST) it does so in the way that is fastest for device and precision; with the
switch off it is the formula, in PyTorch's own operations. Results differ by rounding only.

A trick that gains less than 2 % of a test or of a step of training does not stay here.

Shape letters: N rows, I features in, O features out, B sequences, S tokens of a sequence, T frames,
W width, D width of a head, R rank.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.grad import conv2d_weight

from stclip.models.lora import LoRALinear

if TYPE_CHECKING:
    from stclip.models.clip import Attention

# ---------------------------------------------------------------- the switch
_on = True  # of the whole process, because gradients may be computed by threads of their own


def use(on: bool) -> None:
    """Turn everything in this module on or off, for the whole process."""
    global _on
    _on = on


@contextmanager
def switched(on: bool) -> Iterator[None]:
    """``use`` while the context is entered."""
    before = _on
    use(on)
    try:
        yield
    finally:
        use(before)


# ---------------------------------------------------------------- linear layers
# On CPUs PyTorch gives a linear layer in float32 to MKL, which uses AVX-512 on Intel's processors
# only, and a convolution to oneDNN, which uses what the processor has. A linear layer is one over a
# picture whose pixels are the rows: on an AMD EPYC with AVX-512 that took 0.45 of the time. With
# AMX, which is Intel's, it was as fast in float32 and took 1.4 of the time in bfloat16: there the
# operation that torch.compile takes for a linear layer adds bias and silu before it writes the
# products out, which takes 0.8 of the time of F.linear and F.silu_.
# With fewer rows than these, bringing the weight into oneDNN's own order costs more than it gains;
# in bfloat16 a linear layer is oneDNN's too, with the weight in the order that it has.
_LEAST_ROWS = {torch.float32: 64, torch.bfloat16: 1024}


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """X W' + b, as ``F.linear``, under autocast too: (..., I), (O, I), (O,) -> (..., O)."""
    if not _on or torch.compiler.is_compiling():
        return F.linear(x, weight, bias)
    dtype = _dtype(x)
    rows = x.reshape(-1, x.shape[-1]).to(dtype)
    if torch.is_grad_enabled() and (convolves(rows) or weight.dtype != dtype):
        out: Tensor = _Linear.apply(rows, weight, bias)
    else:
        out = _product(rows, _cast(weight, dtype), None if bias is None else _cast(bias, dtype))
    return out.view(*x.shape[:-1], len(weight))


def _dtype(x: Tensor) -> torch.dtype:
    """What products with x are computed in: its own dtype, or autocast's."""
    autocast = torch.is_autocast_enabled(x.device.type)
    return torch.get_autocast_dtype(x.device.type) if autocast else x.dtype


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
            _input_gradient(grad, weight) if for_rows else None,
            _weight_gradient(grad, rows).to(weight.dtype) if for_weight else None,
            grad.sum(dim=0).to(weight.dtype) if for_bias else None,
        )


def _input_gradient(grad: Tensor, weight: Tensor) -> Tensor:
    """Compute grad W, the gradient of a linear layer's input: (N, O), (O, I) -> (N, I)."""
    weight = weight.to(grad.dtype)
    if grad.dtype == torch.float32 and convolves(grad):
        return _convolve(grad, weight.T, None)
    return grad @ weight  # in 16 bits transposing the weight takes what the convolution gains


def _weight_gradient(grad: Tensor, rows: Tensor) -> Tensor:
    """Compute grad' rows: (N, O), (N, I) -> (O, I)."""
    if rows.dtype != torch.float32 or not convolves(rows):
        return grad.T @ rows
    shape = grad.shape[1], rows.shape[1], 1, 1
    return conv2d_weight(_picture(rows), shape, _picture(grad))[:, :, 0, 0]


def convolves(x: Tensor) -> bool:
    """Whether a linear layer of (..., I) is computed as a convolution."""
    least = _LEAST_ROWS.get(x.dtype)
    return (
        _on
        and least is not None
        and x.device.type == "cpu"
        and x.numel() >= least * x.shape[-1] > 0
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and not has_amx()
        and torch.backends.mkldnn.is_available()
        and bool(torch.backends.mkldnn.enabled)
        and not torch.compiler.is_compiling()
    )


def has_amx() -> bool:
    """Whether this is a processor whose matrix unit works in 16 bits."""
    return bool(getattr(torch.cpu, "_is_amx_tile_supported", bool)())


def _product(rows: Tensor, weight: Tensor, bias: Tensor | None, silu: bool = False) -> Tensor:
    """(N, I), (O, I), (O,) of one dtype -> (N, O), of which it takes ``F.silu`` if asked to."""
    if convolves(rows):
        out = _convolve(rows, weight, bias)
    elif fuses(rows):
        name, values = ("swish", [1.0]) if silu else ("none", [])
        fused: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, name, values, "")
        return fused
    else:
        out = F.linear(rows, weight, bias)
    return F.silu(out, inplace=True) if silu else out


def fuses(rows: Tensor) -> bool:
    """Whether oneDNN's linear layer is called by itself; it has no gradient."""
    return (
        _on
        and rows.device.type == "cpu"
        and rows.dtype == torch.bfloat16
        and len(rows) > 0
        and has_amx()
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and bool(torch.backends.mkldnn.enabled)
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and torch.ops.mkldnn._is_mkldnn_bf16_supported()  # the user may have limited oneDNN
    )


def _convolve(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    out = F.conv2d(_picture(rows), weight[:, :, None, None], bias)  # (1, O, 1, N), channels last
    return out.permute(0, 2, 3, 1)[0, 0]


def _picture(rows: Tensor) -> Tensor:
    """(N, I) as a picture of N pixels with I channels, in channels-last order: (1, I, 1, N)."""
    return rows.contiguous()[None, None].permute(0, 3, 1, 2)


# ---------------------------------------------------------------- attention
def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    causal: bool = False,
) -> Tensor:
    """softmax(Q K' / sqrt(D)) V: (..., Q, D), twice (..., S, D) -> (..., Q, D).

    On CPUs PyTorch's own function is slow in bfloat16: two matrix products with a softmax between
    them (its sums are float32) took 0.6 of its time forward, 0.4 with the backward. With AMX its
    forward alone is faster: 0.4 to 0.8 of the time of the products.

    ``mask``: bool, broadcast to (..., Q, S), False where a query must not look. ``causal``: a query
    sees only keys up to its own place; not together with a mask.
    """
    slow = query.device.type == "cpu" and query.dtype == torch.bfloat16
    if not _on or not slow or (has_amx() and not torch.is_grad_enabled()):
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal)
    with torch.autocast("cpu", enabled=False):
        if causal:
            size = query.shape[-2], key.shape[-2]
            mask = torch.ones(size, dtype=torch.bool, device=query.device).tril()
        return _softmax_weights(query, key, mask) @ value


def _softmax_weights(query: Tensor, key: Tensor, mask: Tensor | None) -> Tensor:
    """softmax(Q K' / sqrt(D)), (..., Q, S), in the dtype of the query."""
    # Autocast would turn the weights into float32 and back.
    with torch.autocast(query.device.type, enabled=False):
        # Contiguous first: the product takes a transposed view as it is, but copies keys that lie
        # among queries and values, and to copy them transposed takes many times as long.
        scores = (query * query.shape[-1] ** -0.5) @ key.contiguous().transpose(-1, -2)
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        return scores.softmax(dim=-1)


def mean_attention(
    attention: Attention, x: Tensor, share: Tensor, key_mask: Tensor | None = None
) -> Tensor:
    """sum_t share_t attention(x)_t, the mean of what the tokens of a sequence get.

    The mean commutes with what is linear in attention: the weights are averaged over the queries
    first, and value and output projection then work on one token, not on T of them. That is half of
    the operations.

    Returns (B, W) for the input x (B, T, W), the share of each token in the mean (B, T), and a
    key_mask (B, T), which is False for tokens that are not there.
    """
    if not _on:
        return (share.to(x.dtype)[:, None] @ attention(x, key_mask))[:, 0]
    width, heads = x.shape[-1], attention.heads
    weight, bias = attention.in_proj_weight, attention.in_proj_bias
    projected = linear(x, weight[: 2 * width], bias[: 2 * width]).unflatten(-1, (2, heads, -1))
    query, key = projected.permute(2, 0, 3, 1, 4).unbind(0)  # 2 x (B, heads, T, D)
    mask = None if key_mask is None else key_mask[:, None, None]
    weights = _softmax_weights(query, key, mask)  # (B, heads, T, T)
    with torch.autocast(x.device.type, enabled=False):
        shares = share.to(query.dtype)[:, None, None]  # (B, 1, 1, T)
        seen = (shares @ weights).squeeze(2) @ x.to(query.dtype)  # (B, heads, W)
    value = weight[2 * width :].unflatten(0, (heads, -1))  # (heads, D, W)
    mean = seen.transpose(0, 1) @ value.transpose(1, 2)  # (heads, B, D)
    mean = mean.transpose(0, 1).flatten(1)  # (B, W)
    return attention.out_proj(mean + bias[2 * width :].to(mean.dtype))


def cross_attention(
    query: Tensor,
    tokens: Tensor,
    k_proj: nn.Linear,
    v_proj: nn.Linear,
    heads: int,
    mask: Tensor | None = None,
) -> Tensor:
    """Multi-head ``attend`` from (B, Q, W) to (B, S, W), projected without bias: -> (B, Q, W).

    For few queries, q (t Wk')' is computed as (q Wk) t', and the weighted sum of t Wv' likewise:
    for every head the queries are projected then, and not the tokens. ``mask`` is that of attend.
    """
    size, length, width = query.shape[:2], tokens.shape[1], query.shape[2]
    # Where it takes half of the operations, because its products are narrow; on CPUs only, because
    # GPUs have no fast kernel for heads as wide as the tokens.
    few = 2 * size[1] * (width + (heads - 1) * length) < length * width
    if not (_on and few and query.device.type == "cpu"):
        query, key, value = (
            x.unflatten(-1, (heads, -1)).transpose(1, 2)
            for x in (query, k_proj(tokens), v_proj(tokens))
        )
        return attend(query, key, value, mask).transpose(1, 2).flatten(2)
    query = query.unflatten(-1, (heads, -1))  # (B, Q, heads, D)
    keys = _cast(k_proj.weight, query.dtype).unflatten(0, (heads, -1))  # (heads, D, W)
    values = _cast(v_proj.weight, query.dtype).unflatten(0, (heads, -1))
    query = query.permute(2, 0, 1, 3).flatten(1, 2) @ keys  # (heads, B * Q, W)
    query = query.unflatten(1, size).transpose(0, 1).flatten(1, 2)  # (B, heads * Q, W)
    query, tokens = (heads**0.5 * query)[:, None], tokens[:, None]  # attend divides by sqrt(W)
    seen = attend(query, tokens, tokens, mask)[:, 0].unflatten(1, (heads, -1))
    out = seen.transpose(0, 1).flatten(1, 2) @ values.transpose(1, 2)  # (heads, B * Q, D)
    return out.unflatten(1, size).permute(1, 2, 0, 3).flatten(2)


# ---------------------------------------------------------------- LayerNorm, QuickGELU
def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """LayerNorm over the last dimension, computed in float32 at least, in the dtype of x."""
    shape = x.shape[-1:]
    # Kernels of 16 bits compute in float32 too, and no float32 copy of x is made and kept; but the
    # CPU's sums up the gradient of the weight in bfloat16.
    learns = weight.requires_grad and torch.is_grad_enabled()
    if _on and x.dtype.itemsize == 2 and weight.dtype == torch.float32 and not learns:
        if x.device.type == "cpu" and x.dtype == torch.bfloat16:
            return F.layer_norm(x, shape, weight, bias, eps)
        if x.device.type == "cuda":
            with torch.autocast("cuda", enabled=False):
                return F.layer_norm(x, shape, _cast(weight, x.dtype), _cast(bias, x.dtype), eps)
    dtype = torch.promote_types(x.dtype, torch.float32)
    return F.layer_norm(x.to(dtype), shape, weight.to(dtype), bias.to(dtype), eps).to(x.dtype)


_SLOPE = 1.702


def quick_gelu(x: Tensor) -> Tensor:
    """X sigmoid(1.702 x), elementwise."""
    if not _on:
        return x * torch.sigmoid(_SLOPE * x)
    # silu(1.702 x) / 1.702 keeps one tensor for the backward pass, where the product keeps two.
    return F.silu(_SLOPE * x).div_(_SLOPE)


# ---------------------------------------------------------------- MLPs
def mlp(x: Tensor, c_fc: nn.Linear, gelu: nn.Module, c_proj: nn.Linear) -> Tensor:
    """c_proj(gelu(c_fc(x))): (..., W) -> (..., W); gelu is QuickGELU or nn.GELU.

    Without gradients LoRA is added to the weights; with gradients, ``_LoRAMLP`` computes the pair.
    """
    # QuickGELU is silu with a factor before and one behind it, which cost nothing in a weight.
    slope = 1.0 if isinstance(gelu, nn.GELU) else _SLOPE
    if _on and not torch.is_grad_enabled():
        rows = x.flatten(0, -2).to(_dtype(x))
        hidden = _product(rows, *_merged(c_fc, slope, slope, x), silu=slope != 1.0)
        hidden = F.gelu(hidden) if slope == 1.0 else hidden
        return _product(hidden, *_merged(c_proj, 1 / slope, 1.0, x)).view(x.shape)
    if _on and isinstance(c_fc, LoRALinear) and isinstance(c_proj, LoRALinear):
        first = (c_fc.weight, c_fc.bias, c_fc.lora_A, c_fc.lora_B, c_fc.scale)
        second = (c_proj.weight, c_proj.bias, c_proj.lora_A, c_proj.lora_B, c_proj.scale)
        rows = x.flatten(0, -2).to(_dtype(x))
        out: Tensor = _LoRAMLP.apply(rows, slope, *first, *second)
        return out.view(x.shape)
    return c_proj(gelu(c_fc(x)))


def _merged(
    layer: nn.Linear, factor: float, bias_factor: float, x: Tensor
) -> tuple[Tensor, Tensor]:
    """Weight and bias of a layer, times their factors, LoRA added, as products with x take them."""
    dtype = _dtype(x)

    def weight() -> Tensor:
        if not isinstance(layer, LoRALinear):
            return (factor * layer.weight).to(dtype)
        scale = factor * layer.scale
        with torch.autocast(x.device.type, enabled=False):  # 16 bits would not resolve the sum
            a, b = layer.lora_A, layer.lora_B
            return torch.addmm(layer.weight, b, a, beta=factor, alpha=scale).to(dtype)

    bias = _prepared(layer.bias, (bias_factor, dtype), lambda: (bias_factor * layer.bias).to(dtype))
    return _prepared(layer, (factor, dtype), weight), bias


class _LoRAMLP(torch.autograd.Function):
    """The MLP of a vision block with LoRA on frozen layers, its gradients written out.

    It keeps the tensor between the layers once; the activation's output is recomputed.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        slope: float,
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
        """(N, W) -> (N, W); of both layers weight, bias, LoRA's A and B, and its scale."""
        hidden, low_1 = _lora_forward(x, weight_1, bias_1, a_1, b_1, scale_1, slope, slope)
        activated = F.silu(hidden) if slope != 1.0 else F.gelu(hidden)
        out, low_2 = _lora_forward(activated, weight_2, bias_2, a_2, b_2, scale_2, 1 / slope, 1.0)
        ctx.save_for_backward(x, hidden, low_1, low_2, weight_1, a_1, b_1, weight_2, a_2, b_2)
        ctx.slope, ctx.scales = slope, (scale_1, scale_2)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, hidden, low_1, low_2, weight_1, a_1, b_1, weight_2, a_2, b_2 = ctx.saved_tensors
        slope, (scale_1, scale_2) = ctx.slope, ctx.scales
        for_x, _, _, _, for_a_1, for_b_1, _, _, _, for_a_2, for_b_2, _ = ctx.needs_input_grad
        quick = slope != 1.0
        grad_b_2 = _outer(low_2, grad, b_2.dtype, scale_2 / slope).T if for_b_2 else None
        low = linear(grad, b_2.T)
        grad_a_2 = None
        if for_a_2:
            activated = F.silu(hidden) if quick else F.gelu(hidden)
            grad_a_2 = _outer(low, activated, a_2.dtype, scale_2 / slope)
        # The gradient of the activation times the slope, since the second layer divides by it ...
        grad = _lora_backward(grad, low, weight_2, a_2, b_2, scale_2)
        # ... and of its input over the slope, since the first layer multiplies.
        if quick:
            grad = torch.ops.aten.silu_backward.grad_input(grad, hidden, grad_input=grad)
        else:
            grad = torch.ops.aten.gelu_backward(grad, hidden)
        grad_b_1 = _outer(low_1, grad, b_1.dtype, scale_1).T if for_b_1 else None
        low = linear(grad, b_1.T)
        grad_a_1 = _outer(low, x, a_1.dtype, scale_1) if for_a_1 else None
        grad_x = _lora_backward(grad, low, weight_1, a_1, b_1, scale_1) if for_x else None
        first = (grad_x, None, None, None, grad_a_1, grad_b_1, None)
        return (*first, None, None, grad_a_2, grad_b_2, None)


def _lora_forward(
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
    low = linear(x, a)
    if x.dtype == weight.dtype and x.dtype.itemsize >= 4:  # 16 bits would not resolve the sum
        merged = torch.addmm(weight, b, a, beta=factor, alpha=factor * scale)
        return linear(x, merged, bias_factor * bias), low
    if convolves(x):
        scaled = torch.mul(weight, factor, out=torch.empty_like(weight, dtype=x.dtype))
        out = linear(x, scaled, bias_factor * bias)
    else:
        weight, bias = weight.to(x.dtype), bias.to(x.dtype)
        out = torch.addmm(bias, x, weight.T, beta=bias_factor, alpha=factor)
    return out.addmm_(low, b.T.to(x.dtype), alpha=factor * scale), low


def _lora_backward(
    grad: Tensor, low: Tensor, weight: Tensor, a: Tensor, b: Tensor, scale: float
) -> Tensor:
    """Compute grad W + scale low A, where low is grad B."""
    if grad.dtype == weight.dtype and grad.dtype.itemsize >= 4:
        return _input_gradient(grad, torch.addmm(weight, b, a, alpha=scale))
    return _input_gradient(grad, weight).addmm_(low, a.to(grad.dtype), alpha=scale)


def _outer(low: Tensor, wide: Tensor, dtype: torch.dtype, scale: float) -> Tensor:
    """Sum scale low' wide over all rows: (N, R), (N, W) -> (R, W).

    The narrow one first: the other way round took five times as long on a CPU.
    """
    return (low.T @ wide).to(dtype).mul_(scale)


# ---------------------------------------------------------------- weights that do not change
# What was prepared of an owner, the owner with it, so that its id goes to no other meanwhile.
_Kept = dict[tuple[int, Hashable], tuple[object, Tensor]]


class FixedWeights:
    """While it is entered, and no gradients are taken, weights are cast, and LoRA added, only once.

    They must not change from the first time that it is entered to the last. For one thread only.
    """

    def __init__(self) -> None:
        self._kept: _Kept = {}
        self._outer: list[Token[_Kept | None]] = []

    def __enter__(self) -> None:
        self._outer.append(_FIXED.set(self._kept))

    def __exit__(self, *error: object) -> None:
        _FIXED.reset(self._outer.pop())


_FIXED: ContextVar[_Kept | None] = ContextVar("fixed weights", default=None)


def _prepared(owner: object, kind: Hashable, make: Callable[[], Tensor]) -> Tensor:
    """What ``make`` makes of a module or parameter; in ``FixedWeights`` what it made at first."""
    fixed = None if torch.compiler.is_compiling() or torch.is_grad_enabled() else _FIXED.get()
    if fixed is None:
        return make()
    key = id(owner), kind
    if key not in fixed:
        fixed[key] = owner, make()
    return fixed[key][1]


def _cast(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """The weight in a dtype, ``_prepared`` if it is a parameter."""
    if weight.dtype == dtype or not isinstance(weight, nn.Parameter):
        return weight.to(dtype)
    return _prepared(weight, dtype, lambda: weight.to(dtype))
