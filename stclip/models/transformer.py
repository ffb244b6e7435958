"""The transformer that CLIP's towers are made of (method.md section 1).

Parameters carry OpenAI's names, so that their state dicts load without a map.

Shape letters: B sequences, S tokens of a sequence, W width, D width of a head.
"""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from stclip.models.attention import attend
from stclip.models.lora import LoRALinear, linear, scaled_linear
from stclip.models.lora_mlp import GELU_SLOPE, lora_mlp
from stclip.models.products import Linear, apply_linear, cast


class LayerNorm(nn.LayerNorm):
    """Layer normalisation that computes in float32 (at least) and returns the input's dtype."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., W) -> (..., W)."""
        learns = self.weight.requires_grad and torch.is_grad_enabled()
        mixed = x.dtype.itemsize == 2 and self.weight.dtype == torch.float32
        # Kernels of 16 bits compute in float32 too, and no float32 copy of x is made and kept; but
        # the CPU's sums up the gradient of the weight in bfloat16.
        if mixed and x.device.type == "cpu" and x.dtype == torch.bfloat16 and not learns:
            return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)
        if mixed and x.device.type == "cuda" and not learns:
            weight, bias = cast(self.weight, x.dtype), cast(self.bias, x.dtype)
            with torch.autocast("cuda", enabled=False):
                return F.layer_norm(x, self.normalized_shape, weight, bias, self.eps)
        dtype = torch.promote_types(x.dtype, torch.float32)
        weight, bias = self.weight.to(dtype), self.bias.to(dtype)
        return F.layer_norm(x.to(dtype), self.normalized_shape, weight, bias, self.eps).to(x.dtype)


class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x), the approximation of GELU that OpenAI trained with."""

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise."""
        # The same as silu(1.702 x) / 1.702, which keeps one tensor for the backward pass where the
        # product keeps two.
        return F.silu(GELU_SLOPE * x).div_(GELU_SLOPE)


class Attention(nn.Module):
    """Multi-head self-attention with the parameter names of nn.MultiheadAttention.

    Args:
        width: W, a multiple of ``heads``.
        heads: number of heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        assert width % heads == 0, f"width {width} is no multiple of {heads} heads"
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, x: Tensor, key_mask: Tensor | None = None, causal: bool = False) -> Tensor:
        """Let every token attend to all tokens of its sequence.

        Args:
            x: (B, S, W).
            key_mask: (B, S) bool, False for tokens that none may attend to (padding); at least one
                of a row must be True.
            causal: whether a token sees only itself and those before it.

        Returns:
            (B, S, W). What comes out at padding has no meaning.
        """
        qkv = apply_linear(x, self.in_proj_weight, self.in_proj_bias)
        # (B, S, 3W) -> (B, S, 3, heads, D) -> 3 x (B, heads, S, D)
        query, key, value = qkv.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        mask = None if key_mask is None else key_mask[:, None, None, :]
        if mask is not None and causal:  # the function below takes only one of the two
            length = x.shape[1]
            mask = mask & torch.ones(length, length, dtype=torch.bool, device=x.device).tril()
            causal = False
        out = attend(query, key, value, mask, causal)
        return self.out_proj(out.transpose(1, 2).flatten(2))  # (B, heads, S, D) -> (B, S, W)

    def first(self, x: Tensor) -> Tensor:
        """What ``forward`` gives for the first token alone: (B, S, W) -> (B, 1, W)."""
        width = x.shape[-1]
        weight, bias = self.in_proj_weight, self.in_proj_bias
        query = apply_linear(x[:, :1], weight[:width], bias[:width])
        key_value = apply_linear(x, weight[width:], bias[width:])
        query = query.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, heads, 1, D)
        # (B, S, 2W) -> (B, S, 2, heads, D) -> 2 x (B, heads, S, D)
        key, value = key_value.unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        out = attend(query, key, value)
        return self.out_proj(out.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """Linear(W, 4W), QuickGELU, Linear(4W, W); with LoRA on both if ``lora_rank`` is above 0.

    Another activation may be put into ``gelu``: it is then computed as it is written here.
    """

    def __init__(self, width: int, lora_rank: int = 0, lora_alpha: float = 1.0) -> None:
        super().__init__()
        self.c_fc = linear(width, 4 * width, lora_rank, lora_alpha)
        self.gelu: nn.Module = QuickGELU()
        self.c_proj = linear(4 * width, width, lora_rank, lora_alpha)

    def forward(self, x: Tensor, norm: LayerNorm | None = None) -> Tensor:
        """(..., W) -> (..., W), the norm first if there is one."""
        if not isinstance(self.gelu, QuickGELU):  # what follows knows QuickGELU only
            return self.c_proj(self.gelu(self.c_fc(x if norm is None else norm(x))))
        if torch.is_grad_enabled():
            if isinstance(self.c_fc, LoRALinear) and isinstance(self.c_proj, LoRALinear):
                if norm is not None and norm.weight.requires_grad:
                    x, norm = norm(x), None
                return lora_mlp(x, self.c_fc, self.c_proj, norm)
            return self.c_proj(self.gelu(self.c_fc(x if norm is None else norm(x))))
        x = x if norm is None else norm(x)
        # The factors that turn SiLU into QuickGELU cost nothing inside a matrix product.
        hidden = scaled_linear(self.c_fc, x, scale=GELU_SLOPE, bias_scale=GELU_SLOPE)
        return scaled_linear(self.c_proj, F.silu(hidden, inplace=True), scale=1 / GELU_SLOPE)


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, width: int, heads: int, lora_rank: int = 0, lora_alpha: float = 1.0) -> None:
        super().__init__()
        self.ln_1 = LayerNorm(width)
        self.attn = Attention(width, heads)
        self.ln_2 = LayerNorm(width)
        self.mlp = MLP(width, lora_rank, lora_alpha)

    def forward(self, x: Tensor, key_mask: Tensor | None = None, causal: bool = False) -> Tensor:
        """(B, S, W) -> (B, S, W); the arguments are Attention's."""
        x = x + self.attn(self.ln_1(x), key_mask, causal)
        return x + self.mlp(x, self.ln_2)

    def first(self, x: Tensor) -> Tensor:
        """What ``forward`` gives for the first token alone, at a sixth of the cost.

        (B, S, W) -> (B, 1, W); the first token attends to all.
        """
        token = x[:, :1] + self.attn.first(self.ln_1(x))
        return token + self.mlp(token, self.ln_2)


class Transformer(nn.Module):
    """A stack of blocks, ``resblocks``."""

    def __init__(
        self,
        width: int,
        layers: int,
        heads: int,
        lora_rank: int = 0,
        lora_alpha: float = 1.0,
    ) -> None:
        super().__init__()
        blocks = [Block(width, heads, lora_rank, lora_alpha) for _ in range(layers)]
        self.resblocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor, key_mask: Tensor | None = None, causal: bool = False) -> Tensor:
        """(B, S, W) -> (B, S, W); the arguments are Attention's."""
        for block in self.resblocks:
            x = block(x, key_mask, causal)
        return x

    def first(self, x: Tensor) -> Tensor:
        """What ``forward`` gives for the first token alone: (B, S, W) -> (B, W)."""
        *blocks, last = self.resblocks
        for block in blocks:
            x = block(x)
        assert isinstance(last, Block)
        return last.first(x)[:, 0]


def recompute_activations(model: nn.Module, kinds: tuple[type[nn.Module], ...]) -> None:
    """Let the modules of some kinds keep only their input for the backward pass.

    Each then runs a second time in the backward pass; results and gradients are the same, as
    nothing in them is drawn at random. ``Block.first``, one block of many, keeps what it needs.
    """
    for block in model.modules():
        if isinstance(block, kinds):
            again = partial(
                checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False
            )
            block.forward = again
