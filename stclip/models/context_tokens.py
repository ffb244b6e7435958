"""Context tokens: the patches of a window of frames, mixed over time (method.md section 3).

F distinct frames, B keyframes, T frames of a window, L patches of a frame, W vision width, D width
of a head.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stclip.models.attention import softmax_weights
from stclip.models.products import apply_linear
from stclip.models.transformer import Attention, LayerNorm


class TemporalBlock(nn.Module):
    """A pre-norm self-attention with its residual, and without a feed-forward part."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ln_1 = LayerNorm(width)
        self.attn = Attention(width, heads=width // 64)

    def forward(self, x: Tensor, key_mask: Tensor | None = None) -> Tensor:
        """(B, T, W) -> (B, T, W); key_mask (B, T) bool, False for frames that are not there."""
        return x + self.attn(self.ln_1(x), key_mask)


class ContextTokens(nn.Module):
    """Pre-norm self-attention over the T frames at each patch position, then their mean.

    Args:
        width: W, a multiple of 64.
        frames: T.
        depth: blocks of self-attention. The first is this module's own ``ln_1`` and ``attn``.
        init_std: standard deviation that the temporal embedding starts with.
    """

    def __init__(self, width: int, frames: int = 9, depth: int = 1, init_std: float = 1.0) -> None:
        super().__init__()
        self.temporal_embedding = nn.Parameter(torch.empty(frames, width))
        self.ln_1 = LayerNorm(width)
        self.attn = Attention(width, heads=width // 64)
        self.deeper = nn.ModuleList(TemporalBlock(width) for _ in range(depth - 1))
        nn.init.normal_(self.temporal_embedding, std=init_std)

    def forward(self, patches: Tensor, window: Tensor, short: bool = True) -> Tensor:
        """Context tokens of each keyframe.

        Args:
            patches: (F, L, W) patch embeddings without class token and positions.
            window: (B, T) long, rows of ``patches``; -1 where a video is shorter than T.
            short: False: no video is.

        Returns:
            (B, L, W), before the class token and CLIP's positions are added.
        """
        present = window >= 0  # (B, T)
        share = present / present.sum(dim=1, keepdim=True)  # of each frame in the mean over time
        if self.deeper:
            return self._block_by_block(patches, window, present, share)
        window = window.clamp(min=0)
        positions, heads = patches.shape[1], self.attn.heads
        # LayerNorm's scale and shift are put into the projections: three small tensors then have
        # their gradients, and none of the large ones need be float32 for that.
        in_proj = self.attn.in_proj_weight
        weight = in_proj * self.ln_1.weight  # (3W, W)
        bias = F.linear(self.ln_1.bias, in_proj, self.attn.in_proj_bias)  # (3W,)

        embedding = self.temporal_embedding[: window.shape[1]].to(patches.dtype)  # (T, W)
        frames = patches.transpose(0, 1).index_select(1, window.flatten())
        frames = frames.unflatten(1, window.shape) + embedding  # (L, B, T, W)
        with torch.autocast(patches.device.type, enabled=False):
            normed = F.layer_norm(frames, frames.shape[-1:], eps=self.ln_1.eps)
        rows = 2 * frames.shape[-1]  # those of queries and keys
        if projects_frames(len(patches), window.numel()):
            projected = self._project_frames(patches, window, weight[:rows], bias[:rows])
        else:
            projected = apply_linear(normed, weight[:rows], bias[:rows])  # (L, B, T, 2W)
        # (L, B, T, 2, heads, D) -> 2 x (L * B, heads, T, D)
        projected = projected.flatten(0, 1).unflatten(-1, (2, heads, -1))
        query, key = projected.permute(2, 0, 3, 1, 4).unbind(0)

        # The mask costs time, and only short videos need it.
        mask = None if not short else present.repeat(positions, 1)[:, None, None]
        weights = softmax_weights(query, key, mask)  # (L * B, heads, T, T)
        # Only the mean over the T queries is wanted. It and the sum of the values commute with the
        # projections: frames are weighted as they are, and what comes of them projected once a
        # head, not once a frame.
        with torch.autocast(patches.device.type, enabled=False):
            shares = share.to(query.dtype).repeat(positions, 1)[:, None, None]  # (L * B, 1, 1, T)
            seen_by_head = (shares @ weights).squeeze(2) @ normed.flatten(0, 1).to(query.dtype)
        # (L * B, heads, W) -> (heads, L * B, D) -> (L * B, W) -> (B, L, W)
        value = weight[rows:].unflatten(0, (heads, -1))  # (heads, D, W)
        mean = (seen_by_head.transpose(0, 1) @ value.transpose(1, 2)).transpose(0, 1).flatten(1)
        mean = (mean + bias[rows:].to(mean.dtype)).unflatten(0, (positions, -1)).transpose(0, 1)
        return self._mean_input(patches, window, share) + self.attn.out_proj(mean)  # (B, L, W)

    def _block_by_block(
        self, patches: Tensor, window: Tensor, present: Tensor, share: Tensor
    ) -> Tensor:
        """Any number of blocks, in plain operations; see ``forward``."""
        frames = patches.transpose(0, 1)[:, window.clamp(min=0)]  # (L, B, T, W)
        x = frames + self.temporal_embedding[: window.shape[1]].to(patches.dtype)
        x, key_mask = x.flatten(0, 1), present.repeat(len(frames), 1)  # (L * B, T, W), (L * B, T)
        x = x + self.attn(self.ln_1(x), key_mask)
        for block in self.deeper:
            x = block(x, key_mask)
        mean = (share.to(x.dtype).repeat(len(frames), 1)[:, None] @ x)[:, 0]  # (L * B, W)
        return mean.unflatten(0, (len(frames), -1)).transpose(0, 1)

    def _project_frames(
        self, patches: Tensor, window: Tensor, weight: Tensor, bias: Tensor
    ) -> Tensor:
        """Normed frames of windows that share frames, times ``weight``, plus ``bias``.

        What norm and projection do to frame + embedding is, but for the deviation that it is
        divided by, the sum of what they do to its parts. So a frame is projected once, not once for
        every window that it is in.

        Args:
            patches: (F, L, W).
            window: (B, T) long, rows of ``patches``.
            weight: (O, W).
            bias: (O,).

        Returns:
            (L, B, T, O).
        """
        embedding = self.temporal_embedding[: window.shape[1]]  # (T, W)
        embedding = embedding - embedding.mean(dim=-1, keepdim=True)
        frames = patches - patches.mean(dim=-1, keepdim=True)  # (F, L, W)
        power = (frames * frames).mean(dim=-1)[..., None] + (embedding * embedding).mean(dim=-1)
        variance = power + 2 / frames.shape[-1] * F.linear(frames, embedding)  # (F, L, T)
        slot = torch.arange(window.shape[1], device=window.device)
        variance = variance.transpose(0, 1)[:, window, slot]  # (L, B, T)
        projected = apply_linear(frames, weight).transpose(0, 1)  # (L, F, O)
        # An index would do, but its gradient is summed up more slowly.
        projected = projected.index_select(1, window.flatten()).unflatten(1, window.shape)
        projected.add_(F.linear(embedding, weight))  # in place: the largest tensor of all
        inverse = (variance + self.ln_1.eps).rsqrt()[..., None].to(projected.dtype)
        return torch.addcmul(bias.to(projected.dtype), projected, inverse)

    def _mean_input(self, patches: Tensor, window: Tensor, share: Tensor) -> Tensor:
        """The mean over T of frame + embedding: (B, L, W)."""
        share = share.to(patches.dtype)
        by_frame = patches.new_zeros(len(window), len(patches)).scatter_add(1, window, share)
        frames = (by_frame @ patches.flatten(1)).unflatten(1, patches.shape[1:])
        return frames + (share @ self.temporal_embedding[: window.shape[1]])[:, None]


def projects_frames(frames: int, places: int) -> bool:
    """Whether to project F frames is faster than the B * T places that they have in windows.

    A test on a CPU took as long either way with half to two thirds as many frames as places.
    """
    return 2 * frames <= places
