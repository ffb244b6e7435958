"""Context tokens: the patches of a window of frames, mixed over time (method.md section 3).

F distinct frames, B keyframes, T frames of a window, L patches of a frame, W vision width, D width
of a head.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stclip.models.attention import attend
from stclip.models.products import apply_linear
from stclip.models.transformer import Attention, LayerNorm


class ContextTokens(nn.Module):
    """One pre-norm self-attention over the T frames at each patch position, then their mean."""

    def __init__(self, width: int, frames: int = 9) -> None:
        super().__init__()
        self.temporal_embedding = nn.Parameter(torch.empty(frames, width))
        self.ln_1 = LayerNorm(width)
        self.attn = Attention(width, heads=width // 64)
        # The embedding starts small against the patch embeddings that it is added to.
        nn.init.normal_(self.temporal_embedding, std=0.01)

    def forward(self, patches: Tensor, window: Tensor) -> Tensor:
        """Context tokens of each keyframe.

        Args:
            patches: (F, L, W) patch embeddings without class token and positions.
            window: (B, T) long, rows of ``patches``; -1 where a video is shorter than T.

        Returns:
            (B, L, W), before the class token and CLIP's positions are added.
        """
        present = window >= 0  # (B, T)
        weight = (present / present.sum(dim=1, keepdim=True)).to(patches.dtype)  # a mean over time
        keyframes, positions = len(window), patches.shape[1]
        # The mask costs time, and only short videos need it.
        mask = None if present.all() else present.repeat(positions, 1)[:, None, None]
        query, key, value = self._project(patches, window.clamp(min=0))  # (L * B, heads, T, D)
        attended = attend(query, key, value, mask)
        # The mean over T commutes with the output projection and is taken first: T times less work.
        attended = attended.unflatten(0, (positions, keyframes))  # (L, B, heads, T, D)
        mean = torch.einsum("lbhtd,bt->blhd", attended, weight).flatten(2)  # (B, L, W)
        return self._mean_input(patches, window, weight) + self.attn.out_proj(mean)

    def _project(self, patches: Tensor, window: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of LayerNorm(frame + embedding), each (L * B, heads, T, D).

        What LayerNorm and projection do to a sum is, but for the deviation that it is divided by,
        the sum of what they do to its parts. So a frame is projected once, not once for every
        window that it is in.
        """
        norm, slots = self.ln_1, window.shape[1]
        embedding = self.temporal_embedding[:slots]  # (T, W)
        frames = patches - patches.mean(dim=-1, keepdim=True)  # (F, L, W)
        embedding = embedding - embedding.mean(dim=-1, keepdim=True)
        power = (frames * frames).mean(dim=-1)[..., None] + (embedding * embedding).mean(dim=-1)
        variance = power + 2 / frames.shape[-1] * F.linear(frames, embedding)  # (F, L, T)
        slot = torch.arange(slots, device=window.device)
        inverse = (variance.transpose(0, 1)[:, window, slot] + norm.eps).rsqrt()  # (L, B, T)
        weight = self.attn.in_proj_weight * norm.weight  # (3W, W)
        constant = F.linear(norm.bias, self.attn.in_proj_weight, self.attn.in_proj_bias)  # (3W,)
        projected = apply_linear(frames, weight).transpose(0, 1)  # (L, F, 3W)
        # An index would do, but its gradient is summed up more slowly.
        projected = projected.index_select(1, window.flatten()).unflatten(1, window.shape)
        projected.add_(F.linear(embedding, weight))  # in place: it is the largest tensor of all
        projected = torch.addcmul(constant, projected, inverse[..., None].to(projected.dtype))
        # (L, B, T, 3, heads, D) -> 3 x (L * B, heads, T, D)
        heads = projected.flatten(0, 1).unflatten(-1, (3, self.attn.heads, -1))
        query, key, value = heads.permute(2, 0, 3, 1, 4).unbind(0)
        return query, key, value

    def _mean_input(self, patches: Tensor, window: Tensor, weight: Tensor) -> Tensor:
        """The mean over T of frame + embedding: (B, L, W)."""
        share = patches.new_zeros(len(window), len(patches))  # of each frame in each mean
        share = share.scatter_add(1, window.clamp(min=0), weight)
        frames = (share @ patches.flatten(1)).unflatten(1, patches.shape[1:])
        return frames + (weight @ self.temporal_embedding[: window.shape[1]])[:, None]
