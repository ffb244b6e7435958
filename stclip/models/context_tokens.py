"""Context tokens: the patches of a window of frames, mixed over time (method.md section 3).

F distinct frames, B keyframes, T frames of a window, L patches of a frame, W vision width, D width
of a head.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

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
        share = present / present.sum(dim=1, keepdim=True)  # of each frame in the mean over time
        window = window.clamp(min=0)
        positions, heads = patches.shape[1], self.attn.heads
        embedding = self.temporal_embedding[: window.shape[1]].to(patches.dtype)  # (T, W)
        # An index would do, but its gradient is summed up more slowly.
        frames = patches.transpose(0, 1).index_select(1, window.flatten())
        normed = self.ln_1(frames.unflatten(1, window.shape) + embedding)  # (L, B, T, W)
        query, key = self._queries_and_keys(patches, window, normed)  # (L * B, heads, T, D)
        with torch.autocast(patches.device.type, enabled=False):
            scores = (query * query.shape[-1] ** -0.5) @ key.contiguous().transpose(-1, -2)
            if not present.all():  # the mask costs time, and only short videos need it
                seen = present.repeat(positions, 1)[:, None, None]  # (L * B, 1, 1, T)
                scores = scores.masked_fill(~seen, -torch.inf)
            # Only the mean over the T queries is wanted. It and the sum of the values commute with
            # the projections: frames are weighted as they are, and what comes of them projected
            # once a head, not once a frame.
            shares = share.to(query.dtype).repeat(positions, 1)[:, None, None]  # (L * B, 1, 1, T)
            weights = (shares @ scores.softmax(dim=-1)).squeeze(2)  # (L * B, heads, T)
            seen_by_head = weights @ normed.flatten(0, 1).to(query.dtype)  # (L * B, heads, W)
        _, _, value = self.attn.in_proj_weight.unflatten(0, (3, heads, -1))  # (heads, D, W)
        _, _, bias = self.attn.in_proj_bias.unflatten(0, (3, -1))
        values = seen_by_head.transpose(0, 1) @ value.transpose(1, 2)  # (heads, L * B, D)
        mean = values.transpose(0, 1).flatten(1) + bias.to(values.dtype)
        mean = mean.unflatten(0, (positions, -1)).transpose(0, 1)  # (B, L, W)
        return self._mean_input(patches, window, share) + self.attn.out_proj(mean)

    def _queries_and_keys(
        self, patches: Tensor, window: Tensor, normed: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Of LayerNorm(frame + embedding), which is (L, B, T, W): two of (L * B, heads, T, D).

        What LayerNorm and projection do to a sum is, but for the deviation that it is divided by,
        the sum of what they do to its parts. So where windows share frames, a frame is projected
        once, not once for every window that it is in.
        """
        norm, rows = self.ln_1, 2 * patches.shape[-1]
        weight, bias = self.attn.in_proj_weight[:rows], self.attn.in_proj_bias[:rows]
        if 2 * len(patches) > window.numel():
            projected = apply_linear(normed, weight, bias)  # (L, B, T, 2W)
        else:
            embedding = self.temporal_embedding[: window.shape[1]]  # (T, W)
            embedding = embedding - embedding.mean(dim=-1, keepdim=True)
            frames = patches - patches.mean(dim=-1, keepdim=True)  # (F, L, W)
            power = (frames * frames).mean(dim=-1)[..., None] + (embedding * embedding).mean(dim=-1)
            variance = power + 2 / frames.shape[-1] * F.linear(frames, embedding)  # (F, L, T)
            slot = torch.arange(window.shape[1], device=window.device)
            inverse = (variance.transpose(0, 1)[:, window, slot] + norm.eps).rsqrt()  # (L, B, T)
            constant = F.linear(norm.bias, weight, bias)  # (2W,)
            weight = weight * norm.weight
            projected = apply_linear(frames, weight).transpose(0, 1)  # (L, F, 2W)
            projected = projected.index_select(1, window.flatten()).unflatten(1, window.shape)
            projected.add_(F.linear(embedding, weight))  # in place: the largest tensor of all
            projected = torch.addcmul(constant, projected, inverse[..., None].to(projected.dtype))
        # (L, B, T, 2, heads, D) -> 2 x (L * B, heads, T, D)
        projected = projected.flatten(0, 1).unflatten(-1, (2, self.attn.heads, -1))
        query, key = projected.permute(2, 0, 3, 1, 4).unbind(0)
        return query, key

    def _mean_input(self, patches: Tensor, window: Tensor, share: Tensor) -> Tensor:
        """The mean over T of frame + embedding: (B, L, W)."""
        share = share.to(patches.dtype)
        by_frame = patches.new_zeros(len(window), len(patches)).scatter_add(1, window, share)
        frames = (by_frame @ patches.flatten(1)).unflatten(1, patches.shape[1:])
        return frames + (share @ self.temporal_embedding[: window.shape[1]])[:, None]
