"""Context tokens: the patches of a window of frames, mixed over time (method.md section 3).

F distinct frames, B keyframes, T frames of a window, L patches of a frame, W vision width.
"""

import torch
from torch import Tensor, nn

from stclip.models.clip import Attention, LayerNorm


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
        x = patches[window.clamp(min=0)]  # (B, T, L, W)
        x = x + self.temporal_embedding[: window.shape[1], None]
        x = x.transpose(1, 2)  # (B, L, T, W)
        keyframes, positions, frames, width = x.shape
        weight = present / present.sum(dim=1, keepdim=True)  # (B, T): a mean over the present
        weight = weight[:, None, :, None].to(x.dtype)
        # The mask costs time, and only short videos need it.
        mask = None if present.all() else present.repeat_interleave(positions, dim=0)
        attended = self.attn.attend(self.ln_1(x).reshape(-1, frames, width), key_mask=mask)
        attended = attended.reshape(keyframes, positions, frames, width)
        # The mean over T commutes with the output projection and is taken first: T times less work.
        return (x * weight).sum(dim=2) + self.attn.out_proj((attended * weight).sum(dim=2))
