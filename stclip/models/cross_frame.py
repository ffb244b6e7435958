"""CLIP whose image tower looks at several frames at once, X-CLIP's (Ni et al., ECCV 2022).

In every block each frame of a video leaves a message, made from its class token; the messages of a
video attend to each other; and each frame's own tokens read what its message has become. XCLIP
(xclip.py) classifies videos with it, and STCLIP (stclip.py) can take it in CLIP's place.

Parameters carry the authors' names.

Shape letters: B videos, T frames of a video, A keyframes that have persons, U other frames of a
window, F distinct frames, S tokens of a frame, W width, D width of a head.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stclip.models.clip import CLIP, HEAD_WIDTH
from stclip.models.transformer import Attention, Block, LayerNorm


class CrossFrameBlock(Block):
    """A block of the image tower, in which the frames of a video tell each other what they show.

    Called like any block it takes every sequence for the only frame of a video. Such a frame reads
    a message too, its own, because the tower was never trained on frames without one.
    """

    def __init__(self, width: int, heads: int, lora_rank: int = 0, lora_alpha: float = 1.0) -> None:
        super().__init__(width, heads, lora_rank, lora_alpha)
        self.message_fc = nn.Linear(width, width)
        self.message_ln = LayerNorm(width)
        self.message_attn = Attention(width, heads)

    def send(self, class_tokens: Tensor, present: Tensor | None = None) -> Tensor:
        """The messages of each video's frames, after they have seen each other.

        Args:
            class_tokens: (B, T, W), those that enter the block.
            present: (B, T) bool, False for frames that a video does not have; None: it has all.

        Returns:
            (B, T, W). They have no positions: another order of the frames gives the same messages.
        """
        message = self.message_fc(class_tokens)
        return message + self.message_attn(self.message_ln(message), present)

    def forward(
        self,
        x: Tensor,
        key_mask: Tensor | None = None,
        causal: bool = False,
        message: Tensor | None = None,
    ) -> Tensor:
        """Let the tokens of frames attend to each other and to their frame's message.

        Args:
            x: (B, S, W), a frame each.
            key_mask: (B, S) bool, False for tokens that none may attend to (padding).
            causal: False; the tokens of a frame have no order.
            message: (B, W), each frame's from ``send``; None: each frame is alone.

        Returns:
            (B, S, W); the message, once read, is gone.
        """
        assert not causal, "the tokens of a frame have no order"
        if message is None:
            message = self.send(x[:, :1])[:, 0]
        entering, key_mask = with_message(x, message, key_mask)
        x = x + self.attn(self.ln_1(entering), key_mask)[:, :-1]
        return x + self.mlp(x, self.ln_2)

    def first(self, x: Tensor, message: Tensor | None = None) -> Tensor:
        """What ``forward`` gives for the first token alone: (B, S, W), (B, W) -> (B, 1, W)."""
        if message is None:
            message = self.send(x[:, :1])[:, 0]
        token = x[:, :1] + self.attn.first(self.ln_1(with_message(x, message)[0]))
        return token + self.mlp(token, self.ln_2)

    def videos(self, x: Tensor) -> Tensor:
        """Whole videos: (B, T, S, W) -> (B, T, S, W); a frame's first token is its class token."""
        messages = self.send(x[:, :, 0])
        frames = self.forward(x.flatten(0, 1), message=messages.flatten(0, 1))
        return frames.unflatten(0, x.shape[:2])


def with_message(
    x: Tensor, message: Tensor, key_mask: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """What a block's attention runs on: the tokens of frames, and behind them the message.

    Args:
        x: (B, S, W).
        message: (B, W).
        key_mask: (B, S) bool, False for padding.

    Returns:
        (B, S + 1, W), and the mask for it.
    """
    mask = None if key_mask is None else F.pad(key_mask, (0, 1), value=True)
    return torch.cat([x, message[:, None]], dim=1), mask


class CrossFrameCLIP(CLIP):
    """CLIP with ``CrossFrameBlock`` in its image tower; each of ``encode_image``'s is alone.

    Args:
        image_size, patch_size, vision_width, vision_layers, text_width, text_layers, embed_dim,
        text_length, vocab_size, lora_rank, lora_alpha: those of ``CLIP``.
    """

    def __init__(
        self,
        image_size: int,
        patch_size: int,
        vision_width: int,
        vision_layers: int,
        text_width: int,
        text_layers: int,
        embed_dim: int,
        text_length: int = 77,
        vocab_size: int = 49408,
        lora_rank: int = 0,
        lora_alpha: float = 1.0,
    ) -> None:
        super().__init__(
            image_size=image_size,
            patch_size=patch_size,
            vision_width=vision_width,
            vision_layers=0,  # the blocks below take their place
            text_width=text_width,
            text_layers=text_layers,
            embed_dim=embed_dim,
            text_length=text_length,
            vocab_size=vocab_size,
        )
        heads = vision_width // HEAD_WIDTH
        self.visual.transformer.resblocks = nn.ModuleList(
            CrossFrameBlock(vision_width, heads, lora_rank, lora_alpha)
            for _ in range(vision_layers)
        )


@dataclass(frozen=True)
class OtherFrames:
    """The frames around the keyframes, between two blocks.

    Attributes:
        tokens: (A, U, S, W), of each window the frames that are not its keyframe; anything where
            a window has fewer.
        present: (A, 1 + U) bool, whether the keyframe (always) and these are there; None: all are.
        blocks: how many blocks are to come.
    """

    tokens: Tensor
    present: Tensor | None
    blocks: int

    @classmethod
    def of_windows(
        cls, frames: Tensor, window: Tensor, keyframe: Tensor, blocks: int
    ) -> OtherFrames:
        """Take the frames of the windows, as they enter the first block.

        Args:
            frames: (F, S, W), the tokens of all frames.
            window: (A, T) long, rows of ``frames``; -1 where a video is shorter than T.
            keyframe: (A,) long, rows of ``frames``. If one is not in its window, which happens near
                the ends of a video if the window's frames are further than one apart, it takes part
                beside all of them.
            blocks: of the tower.
        """
        others = window.masked_fill(window == keyframe[:, None], -1)
        order = (others < 0).to(torch.uint8).sort(dim=1, stable=True).indices  # -1 behind
        others = others.gather(1, order)
        others = others[:, : int((others >= 0).sum(dim=1).max())]  # (A, U)
        # Without a mask attention takes its faster path.
        present = None if (others >= 0).all() else F.pad(others >= 0, (1, 0), value=True)
        return cls(frames[others.clamp(min=0)], present, blocks)

    def through(self, block: CrossFrameBlock, class_tokens: Tensor) -> tuple[Tensor, OtherFrames]:
        """Exchange messages with the keyframes, and pass the block.

        Args:
            block: the next one.
            class_tokens: (A, W), the keyframes', as they enter the block.

        Returns:
            The message that each keyframe is to read (A, W), and the frames behind the block.
        """
        both = torch.cat([class_tokens[:, None], self.tokens[:, :, 0]], dim=1)  # (A, 1 + U, W)
        messages = block.send(both, self.present)
        left, tokens = self.blocks - 1, self.tokens
        if left and tokens.shape[1]:  # what the last block makes of them nobody reads
            flat, received = tokens.flatten(0, 1), messages[:, 1:].flatten(0, 1)
            # All that the last block reads of them is their class tokens.
            pass_on = block.forward if left > 1 else block.first
            tokens = pass_on(flat, message=received).unflatten(0, tokens.shape[:2])
        return messages[:, 0], replace(self, tokens=tokens, blocks=left)
