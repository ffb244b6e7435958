"""Context prompting: visual tokens of every layer rewrite the class names (method.md section 5).

B rows of text (keyframes), S tokens of a layer, C class names, W vision width, E embedding width,
R vision layers.
"""

from functools import partial

import torch
from torch import Tensor, nn

from stclip.models.attention import attend
from stclip.models.products import Linear
from stclip.models.transformer import MLP, LayerNorm


class CrossAttention(nn.Module):
    """Multi-head attention from text to visual tokens; only the output projection has a bias."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = Linear(width, width, bias=False)
        self.k_proj = Linear(width, width, bias=False)
        self.v_proj = Linear(width, width, bias=False)
        self.proj = Linear(width, width)

    def forward(self, query: Tensor, tokens: Tensor, key_mask: Tensor | None = None) -> Tensor:
        """(B, C, E) from queries (B, C, E), tokens (B, S, E), key_mask (B, S), True to attend."""
        q, k, v = (
            projection(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, heads, S, d)
            for projection, x in (
                (self.q_proj, query),
                (self.k_proj, tokens),
                (self.v_proj, tokens),
            )
        )
        mask = None if key_mask is None else key_mask[:, None, None, :]
        out = attend(q, k, v, mask)
        return self.proj(out.transpose(1, 2).flatten(2))  # (B, C, E)


class PromptBlock(nn.Module):
    """Cross-attention and a feed-forward part, each with its residual."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = LayerNorm(width)
        self.cross_attn = CrossAttention(width, heads=width // 64)
        self.norm3 = LayerNorm(width)
        self.mlp = MLP(width)

    def forward(self, text: Tensor, tokens: Tensor, key_mask: Tensor | None = None) -> Tensor:
        """(B, C, E) from text (B, C, E) and normalised tokens (B, S, E)."""
        text = text + self.cross_attn(self.norm1(text), tokens, key_mask)
        return text + self.mlp(self.norm3(text))


class ContextPrompt(nn.Module):
    """One layer's prompt: text + alpha * h, where h still holds its residual text.

    Args:
        width: E, a multiple of 64.
        layers: blocks.
        alpha: initial scale.
        init_std: standard deviation that the weights of the linear layers start with.
    """

    def __init__(
        self, width: int, layers: int = 1, alpha: float = 0.2, init_std: float = 0.02
    ) -> None:
        super().__init__()
        self.norm = LayerNorm(width)
        self.decoder = nn.ModuleList(PromptBlock(width) for _ in range(layers))
        self.alpha = nn.Parameter(torch.full((width,), alpha))
        self.apply(partial(initialise_linear, std=init_std))

    def forward(self, text: Tensor, tokens: Tensor, key_mask: Tensor | None = None) -> Tensor:
        """Prompted text (B, C, E).

        Args:
            text: (B, C, E) text features.
            tokens: (B, S, E) visual tokens in the width of the text.
            key_mask: (B, S) bool, False for padding; None if there is none.
        """
        tokens = self.norm(tokens)
        h = text
        for block in self.decoder:
            h = block(h, tokens, key_mask)
        return text + self.alpha * h


class ContextPrompting(nn.Module):
    """For each of R vision layers a projector and a prompt of its own."""

    def __init__(
        self,
        layers: int,
        width: int,
        embed_dim: int,
        alpha: float = 0.2,
        init_std: float = 0.02,
    ) -> None:
        super().__init__()
        self.projectors = nn.ModuleList(Linear(width, embed_dim) for _ in range(layers))
        self.prompts = nn.ModuleList(
            ContextPrompt(embed_dim, alpha=alpha, init_std=init_std) for _ in range(layers)
        )

    def forward(
        self, layer: int, text: Tensor, tokens: Tensor, key_mask: Tensor | None = None
    ) -> Tensor:
        """Text (B, C, E) prompted by all output tokens (B, S, W) of vision block ``layer``."""
        return self.prompts[layer](text, self.projectors[layer](tokens), key_mask)


def initialise_linear(module: nn.Module, std: float = 0.02) -> None:
    """Start a linear layer with a truncated normal and without bias; to be given to ``apply``."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=std)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
