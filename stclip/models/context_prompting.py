"""Context prompting: visual tokens of every layer rewrite the class names (method.md section 5).

B rows of text (keyframes), S tokens of a layer, C class names, W vision width, E embedding width,
R vision layers.
"""

from collections.abc import Iterable
from functools import partial

import torch
from torch import Tensor, nn

from stclip.models.attention import attend
from stclip.models.products import Linear, cast
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
        mask = None if key_mask is None else key_mask[:, None, None, :]
        few = query.device.type == "cpu"  # a GPU has no fast kernel for heads as wide as the text
        if few and projects_names(query.shape[1], tokens.shape[1], self.heads, query.shape[2]):
            out = self._project_names(query, tokens, mask)
        else:
            q, k, v = (
                projection(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, heads, S, d)
                for projection, x in (
                    (self.q_proj, query),
                    (self.k_proj, tokens),
                    (self.v_proj, tokens),
                )
            )
            out = attend(q, k, v, mask).transpose(1, 2).flatten(2)
        return self.proj(out)  # (B, C, E)

    def _project_names(self, query: Tensor, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """The same, in fewer steps if there are few names.

        q (t K')' is (q K) t', and the weighted sum of t V' that of t, times V': what is projected
        for every head is the names, and not the tokens.
        """
        size = query.shape[:2]
        names = self.q_proj(query).unflatten(-1, (self.heads, -1))  # (B, C, heads, d)
        keys = cast(self.k_proj.weight, names.dtype).unflatten(0, (self.heads, -1))
        values = cast(self.v_proj.weight, names.dtype).unflatten(0, (self.heads, -1))
        names = names.permute(2, 0, 1, 3).flatten(1, 2) @ keys  # (heads, B * C, E)
        names = names.unflatten(1, size).transpose(0, 1).flatten(1, 2)  # (B, heads * C, E)
        # attend divides by the root of E, and not of d.
        names, tokens = (self.heads**0.5 * names)[:, None], tokens[:, None]
        seen = attend(names, tokens, tokens, mask)[:, 0].unflatten(1, (self.heads, -1))
        out = seen.transpose(0, 1).flatten(1, 2) @ values.transpose(1, 2)  # (heads, B * C, d)
        return out.unflatten(1, size).permute(1, 2, 0, 3).flatten(2)


def projects_names(names: int, tokens: int, heads: int, width: int) -> bool:
    """Whether to project C names for every head is faster than to project S tokens once.

    It is up to half of where it would take as many operations, because its products are narrow
    (measured on a CPU).
    """
    return 2 * names * (width + (heads - 1) * tokens) < tokens * width


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
    """For each of some vision layers a projector and a prompt of its own.

    Args:
        layers: the vision layers that prompt, counted from 0.
        width: W.
        embed_dim: E.
        alpha: initial scale of the prompts.
        init_std: standard deviation that their weights start with.
        depth: blocks of each prompt.
    """

    def __init__(
        self,
        layers: Iterable[int],
        width: int,
        embed_dim: int,
        alpha: float = 0.2,
        init_std: float = 0.02,
        depth: int = 1,
    ) -> None:
        super().__init__()
        names = [str(layer) for layer in layers]
        self.projectors = nn.ModuleDict({name: Linear(width, embed_dim) for name in names})
        self.prompts = nn.ModuleDict(
            {name: ContextPrompt(embed_dim, depth, alpha, init_std) for name in names}
        )

    def forward(
        self, layer: int, text: Tensor, tokens: Tensor, key_mask: Tensor | None = None
    ) -> Tensor:
        """Text (B, C, E) prompted by all output tokens (B, S, W) of vision block ``layer``.

        The text comes back as it is if that layer does not prompt.
        """
        name = str(layer)
        if name not in self.prompts:
            return text
        return self.prompts[name](text, self.projectors[name](tokens), key_mask)


def initialise_linear(module: nn.Module, std: float = 0.02) -> None:
    """Start a linear layer with a truncated normal and without bias; to be given to ``apply``."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=std)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
