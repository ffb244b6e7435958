"""X-CLIP: CLIP for whole videos (Ni et al., "Expanding Language-Image Pretrained Models for General
Video Recognition", ECCV 2022).

In every block of its image tower each frame of a video leaves a message, made from its class token;
the messages of a video attend to each other; and each frame's own tokens read what its message has
become. A small transformer turns the frames' features into the video's (``MultiframeIntegration``),
and the video's patch tokens prompt the class names, in the way in which ST-CLIP's context tokens do
it. ``XCLIP.forward`` shows the steps.

Three things are built of it: X-CLIP itself (``XCLIP``), X-CLIP as a baseline (``XCLIPBaseline``),
and CLIP with X-CLIP's image tower for ST-CLIP (``CrossFrameCLIP``).

Parameters carry the authors' names, but for those inside the feed-forward part of the prompts.

Shape letters: B videos, T frames of a video, A keyframes that have persons, U other frames of a
window, F distinct frames, V distinct clips, N persons, L patch tokens, S tokens of a frame, W width
of the image tower, E joint embedding width, C class names, H x W pixels.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stclip.errors import UserError
from stclip.models.clip import (
    CLIP,
    HEAD_WIDTH,
    Attention,
    Block,
    CLIPSizes,
    InteractionBlock,
    LayerNorm,
    VisionTransformer,
    initialise_linear,
    normalize_pixels,
)
from stclip.models.stclip import ContextPrompt, STCLIPOutput, cosine_logits
from stclip.structures import ClipBatch, Needs

# ImageNet's statistics and not CLIP's: what the authors trained with.
PIXEL_MEAN = (0.485, 0.456, 0.406)
PIXEL_STD = (0.229, 0.224, 0.225)

# What the parameters that X-CLIP adds to CLIP have in their names: messages, integration, prompts.
NEW_PARTS = ("message_", "mit.", "prompts_")


def is_new(name: str) -> bool:
    """Whether a parameter of X-CLIP, by its name, is none of CLIP's."""
    return any(part in name for part in NEW_PARTS)


# ---------------------------------------------------------------- pixels and positions
def preprocess_video(frames: Tensor, size: int = 224) -> Tensor:
    """Resize the shorter side to 256/224 of ``size``, cut out the centre, and normalise.

    Resizing is bilinear, without antialiasing. Which frames of a video to take is up to the caller:
    X-CLIP was trained on frames from the middles of T equal parts of the video.

    Args:
        frames: (T, 3, h, w) RGB, uint8 or 0 to 255.
        size: side of the square in pixels, ``XCLIP.image_size``.

    Returns:
        (T, 3, size, size) float32, normalised with ImageNet's mean and deviation.

    Raises:
        UserError: the frames have another shape, or no pixels.
    """
    if frames.ndim != 4 or frames.shape[1] != 3 or 0 in frames.shape:
        raise UserError(
            f"frames: found shape {tuple(frames.shape)}, expected (T, 3, h, w), none of them 0"
        )
    height, width = frames.shape[2:]
    short = size * 256 // 224
    scale = short / min(height, width)
    new_height, new_width = int(height * scale + 0.5), int(width * scale + 0.5)
    resized = F.interpolate(frames.float(), size=(new_height, new_width), mode="bilinear")
    top, left = (new_height - size) // 2, (new_width - size) // 2
    return normalize_video(resized[:, :, top : top + size, left : left + size])


def normalize_video(pixels: Tensor) -> Tensor:
    """Scale pixels to [0, 1] and normalise them with ImageNet's mean and deviation.

    Args:
        pixels: (..., 3, H, W) RGB, uint8 or 0 to 255.

    Returns:
        (..., 3, H, W) float32.
    """
    return normalize_pixels(pixels, PIXEL_MEAN, PIXEL_STD)


def resize_positions(positions: Tensor, frames: int) -> Tensor:
    """Interpolate the positions of frames linearly: (1, T, E) -> (1, frames, E)."""
    stretched = F.interpolate(positions.transpose(1, 2), size=frames, mode="linear")
    return stretched.transpose(1, 2).contiguous()


# ---------------------------------------------------------------- the image tower
class CrossFrameBlock(Block):
    """A block of the image tower, in which the frames of a video exchange messages.

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
        outputs: int | None = None,
        message: Tensor | None = None,
    ) -> Tensor:
        """Let the tokens of frames attend to each other and to their frame's message.

        Args:
            x: (B, S, W), a frame each.
            key_mask: (B, S) bool, False for tokens that none may attend to (padding).
            causal: False; the tokens of a frame have no order.
            outputs: of how many tokens, the first ones, the output is wanted; None: of all.
            message: (B, W), each frame's from ``send``; None: each frame is alone.

        Returns:
            (B, S or outputs, W), without the message.
        """
        assert not causal, "the tokens of a frame have no order"
        entering, key_mask = self._with_message(x, message, key_mask)
        x = x if outputs is None else x[:, :outputs]
        x = x + self.attn(self.ln_1(entering), key_mask, outputs=x.shape[1])
        return x + self.mlp(self.ln_2(x))

    def attention_weights(
        self,
        x: Tensor,
        queries: slice,
        key_mask: Tensor | None = None,
        message: Tensor | None = None,
    ) -> Tensor:
        """What ``forward`` would attend to: (B, S, W) -> (B, Q, S + 1), the message at the end."""
        entering, key_mask = self._with_message(x, message, key_mask)
        return super().attention_weights(entering, queries, key_mask)

    def _with_message(
        self, x: Tensor, message: Tensor | None, key_mask: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """What attention runs on: the tokens and behind them the message, and their key mask."""
        if message is None:
            message = self.send(x[:, :1])[:, 0]
        mask = None if key_mask is None else F.pad(key_mask, (0, 1), value=True)
        return torch.cat([x, message[:, None]], dim=1), mask

    def videos(self, x: Tensor) -> Tensor:
        """Whole videos: (B, T, S, W) -> (B, T, S, W); a frame's first token is its class token."""
        messages = self.send(x[:, :, 0])
        frames = self(x.flatten(0, 1), message=messages.flatten(0, 1))
        return frames.unflatten(0, x.shape[:2])


@dataclass
class WindowBlock:
    """A block that keyframes enter together with the other frames of their windows.

    Attributes:
        block: the block.
        others: (A, U, S, W), of each window the frames that are not its keyframe, as they enter the
            block and, once it was called, as they leave it; anything where a window has fewer.
        present: (A, 1 + U) bool, whether the keyframe (always) and these are there; None: all are.
        left: how many blocks follow.
    """

    block: CrossFrameBlock
    others: Tensor
    present: Tensor | None
    left: int

    def __call__(self, x: Tensor, key_mask: Tensor | None = None) -> Tensor:
        """The keyframes' tokens (A, S', W) -> (A, S', W); ``others`` pass the block too."""
        messages = self._messages(x)
        if self.left and self.others.shape[1]:  # what leaves the last block is not read
            outputs = 1 if self.left == 1 else None  # the last block reads their class tokens only
            flat, received = self.others.flatten(0, 1), messages[:, 1:].flatten(0, 1)
            passed = self.block(flat, outputs=outputs, message=received)
            self.others = passed.unflatten(0, self.others.shape[:2])
        return self.block(x, key_mask, message=messages[:, 0])

    def attention_weights(
        self, x: Tensor, queries: slice, key_mask: Tensor | None = None
    ) -> Tensor:
        """What the keyframes' tokens would attend to, (A, Q, S' + 1)."""
        return self.block.attention_weights(x, queries, key_mask, self._messages(x)[:, 0])

    def _messages(self, x: Tensor) -> Tensor:
        """Those of the keyframes and of the other frames, (A, 1 + U, W)."""
        class_tokens = torch.cat([x[:, :1], self.others[:, :, 0]], dim=1)
        return self.block.send(class_tokens, self.present)


def other_frames(window: Tensor, keyframe: Tensor) -> tuple[Tensor, Tensor | None]:
    """Which frames of the windows are not their keyframes.

    Args:
        window: (A, T) long, rows of frames; -1 where a video is shorter than T.
        keyframe: (A,) long, rows of frames. If one is not in its window, which happens near the
            ends of a video if the window's frames are further than one apart, it takes part
            together with all of them.

    Returns:
        Rows of frames (A, U), 0 where a window has fewer; and (A, 1 + U) bool, whether the keyframe
        (always) and these are there, None if all are: without a mask attention is faster.
    """
    others = window.masked_fill(window == keyframe[:, None], -1)
    order = (others < 0).to(torch.uint8).sort(dim=1, stable=True).indices  # -1 behind
    others = others.gather(1, order)
    others = others[:, : int((others >= 0).sum(dim=1).max())]  # (A, U)
    present = None if (others >= 0).all() else F.pad(others >= 0, (1, 0), value=True)
    return others.clamp(min=0), present


class CrossFrameTower(VisionTransformer):
    """CLIP's image tower with ``CrossFrameBlock``; ``encode`` takes each image for a video.

    In ST-CLIP the persons stand among the tokens of the keyframe, and influence the other frames of
    the window, and these them, through the messages.
    """

    def __init__(self, sizes: CLIPSizes, lora_rank: int = 0, lora_alpha: float = 1.0) -> None:
        super().__init__(sizes, lora_rank, lora_alpha, kind=CrossFrameBlock)

    def blocks(
        self, patches: Tensor, window: Tensor, keyframe: Tensor
    ) -> Iterator[InteractionBlock]:
        """The blocks, each with the other frames of the windows; to be called in their order."""
        rows, present = other_frames(window, keyframe)
        others = self.add_class_token_and_positions(patches)[rows]  # (A, U, S, W)
        for number, block in enumerate(self.transformer.resblocks, start=1):
            assert isinstance(block, CrossFrameBlock)
            left = len(self.transformer.resblocks) - number
            entered = WindowBlock(block, others, present, left)
            yield entered
            others = entered.others


class CrossFrameCLIP(CLIP):
    """CLIP with X-CLIP's image tower.

    Attributes:
        train_messages: whether ``freeze`` leaves the messages to be trained.
    """

    train_messages = True

    @staticmethod
    def image_tower(sizes: CLIPSizes, lora_rank: int, lora_alpha: float) -> VisionTransformer:
        """Make the image tower, ``visual``."""
        return CrossFrameTower(sizes, lora_rank, lora_alpha)

    def freeze(self) -> None:
        """Leave LoRA, and the messages if ``train_messages``, to be trained."""
        super().freeze()
        for name, parameter in self.named_parameters():
            if ".message_" in name:
                parameter.requires_grad_(self.train_messages)


# ---------------------------------------------------------------- X-CLIP itself
class MultiframeIntegration(nn.Module):
    """The features of a video's frames to one: blocks, a residual around them all, the mean.

    Args:
        width: E, a multiple of 64.
        frames: T.
        layers: number of blocks.
    """

    def __init__(self, width: int, frames: int, layers: int = 1) -> None:
        super().__init__()
        self.positional_embedding = nn.Parameter(torch.empty(1, frames, width))
        self.resblocks = nn.ModuleList(Block(width, width // HEAD_WIDTH) for _ in range(layers))
        nn.init.trunc_normal_(self.positional_embedding, std=0.02)
        self.resblocks.apply(initialise_linear)

    def forward(self, features: Tensor) -> Tensor:
        """(B, T, E) -> (B, E)."""
        x = features + self.positional_embedding.to(features.dtype)
        for block in self.resblocks:
            x = block(x)
        return (x + features).mean(dim=1)


@dataclass(frozen=True)
class XCLIPSizes(CLIPSizes):
    """The sizes of an X-CLIP; its weights show all of them. E is a multiple of 64.

    Attributes:
        frames: T.
        mit_layers: blocks of the multi-frame integration.
        prompt_layers: blocks of the prompt.
    """

    frames: int = 8
    mit_layers: int = 1
    prompt_layers: int = 2


class XCLIP(CrossFrameCLIP):
    """X-CLIP. The text tower and what surrounds the blocks of the image tower are CLIP's.

    Args:
        sizes: of its parts.
        prompt_alpha: what the scale of the prompt starts from.
    """

    def __init__(self, sizes: XCLIPSizes, prompt_alpha: float = 0.1) -> None:
        super().__init__(sizes)
        width, embed_dim = sizes.vision_width, sizes.embed_dim
        self.mit = MultiframeIntegration(embed_dim, sizes.frames, sizes.mit_layers)
        self.prompts_visual_ln = LayerNorm(width)
        self.prompts_visual_proj = nn.Parameter(torch.empty(width, embed_dim))
        nn.init.xavier_uniform_(self.prompts_visual_proj)
        self.prompts_generator = ContextPrompt(embed_dim, sizes.prompt_layers, prompt_alpha)

    @property
    def frames(self) -> int:
        """T, the number of frames of a video."""
        return self.mit.positional_embedding.shape[1]

    def encode_frames(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Run the frames of videos through the image tower, each video's together.

        Args:
            frames: (B, T, 3, H, W) float, normalised; any T.

        Returns:
            The features of the frames (B, T, E), and their patch tokens (B, T, L, W).

        Raises:
            UserError: the frames are not normalised floats of the size that the model takes.
        """
        size = (3, self.image_size, self.image_size)
        if frames.ndim != 5 or frames.shape[2:] != size or not frames.is_floating_point():
            raise UserError(
                f"frames: found {frames.dtype} of shape {tuple(frames.shape)}, expected normalised "
                f"floats of shape (B, T, {size[0]}, {size[1]}, {size[2]}): make each video with "
                f"preprocess_video(frames, {size[1]})"
            )
        videos = frames.shape[:2]
        patches = self.visual.patch_embed(frames.flatten(0, 1))
        x = self.visual.add_class_token_and_positions(patches).unflatten(0, videos)  # (B, T, S, W)
        for block in self.visual.transformer.resblocks:
            assert isinstance(block, CrossFrameBlock)
            x = block.videos(x)
        return self.visual.project(self.visual.ln_post(x[:, :, 0])), x[:, :, 1:]

    def encode_image(self, images: Tensor) -> Tensor:
        """Features of pictures, each the only frame of a video: (F, 3, H, W) -> (F, E).

        They lie in the space of ``encode_frames``, before the frames of a video are integrated.
        """
        features, _ = self.encode_frames(images[:, None])
        return features[:, 0]

    def encode_video(self, frames: Tensor) -> Tensor:
        """Video features, not normalised: (B, T, 3, H, W) float, normalised -> (B, E).

        Raises:
            UserError: the videos have another number of frames, or another size, than the model's.
        """
        return self._encode(frames)[0]

    def forward(self, frames: Tensor, tokens: Tensor) -> Tensor:
        """Cosines of videos and the class names that they prompt, times exp(logit_scale).

        Args:
            frames: (B, T, 3, H, W) float, normalised (``preprocess_video``).
            tokens: (C, positions) token ids of the bare class names, from ``tokenize``.

        Returns:
            (B, C) logits.

        Raises:
            UserError: the frames or the tokens have another shape than the model's.
        """
        text = self.encode_text(tokens)
        video_features, text_features = self.prompt(frames, text)
        video_features = F.normalize(video_features, dim=-1)
        text_features = F.normalize(text_features, dim=-1)
        cosines = torch.einsum("be,bce->bc", video_features, text_features)
        return self.logit_scale.exp() * cosines

    def prompt(self, frames: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Encode videos, and let each prompt the class names.

        Args:
            frames: (B, T, 3, H, W) float, normalised.
            text: (C, E) features of the class names, from ``encode_text``.

        Returns:
            Video features (B, E) and text features (B, C, E), neither normalised.

        Raises:
            UserError: the frames have another shape than the model's.
        """
        video_features, patches = self._encode(frames)
        # The projection is linear, so that it may follow the mean over the frames.
        context = self.prompts_visual_ln(patches).mean(dim=1) @ self.prompts_visual_proj
        return video_features, self.prompts_generator(text.expand(len(frames), -1, -1), context)

    def _encode(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Video features (B, E) and patch tokens (B, T, L, W)."""
        if frames.ndim == 5 and frames.shape[1] != self.frames:
            raise UserError(
                f"frames: found {frames.shape[1]} a video, expected {self.frames}: take so many "
                f"from each video, or load the model with frames={frames.shape[1]}"
            )
        features, patches = self.encode_frames(frames)
        return self.mit(features), patches


# ---------------------------------------------------------------- the baseline
class XCLIPBaseline(nn.Module):
    """X-CLIP over clips: whole videos, or windows around the keyframes.

    Nothing of a person but the box goes in, so that all persons of a clip score alike; which frames
    make a clip is the data layer's choice. The logits are X-CLIP's own: cosines times its
    ``logit_scale``. Trained are the image tower and the parts that X-CLIP adds to CLIP; the text
    tower and ``logit_scale`` stay as they are, as in the authors' recipe.

    Args:
        clip: the X-CLIP.
    """

    needs: Needs  # set by build_model

    def __init__(self, clip: XCLIP) -> None:
        super().__init__()
        self.clip = clip
        for name, parameter in clip.named_parameters():
            parameter.requires_grad_(name.startswith("visual.") or is_new(name))

    @property
    def window_length(self) -> int:
        """T, the frames of a clip."""
        return self.clip.frames

    @torch.no_grad()
    def encode_vocabulary(self, tokens: Tensor) -> Tensor:
        """Features of the bare class names: tokens (C, text_length) -> (C, E), unprompted."""
        return self.clip.encode_text(tokens)

    def forward(self, batch: ClipBatch, vocabulary: Tensor) -> STCLIPOutput:
        """Score every person of a batch.

        Args:
            batch: a ragged batch on the model's device. Keyframes whose ``window`` is the same
                share a clip, which is encoded once; those without persons cost nothing. Crops and
                the keyframes themselves are not looked at.
            vocabulary: (C, E) from ``encode_vocabulary``.

        Returns:
            ST-CLIP's output; ``person_features`` are those of the clip, and there is a row of text
            for each clip: (V, C, E).
        """
        if len(batch.owner) == 0:
            return STCLIPOutput.empty(batch, vocabulary)
        window = batch.window[batch.owner]  # (N, T)
        assert bool((window >= 0).all()), "a clip of X-CLIP's has all its T frames"
        clips, clip_of = torch.unique(window, dim=0, return_inverse=True)  # (V, T), (N,)
        frames = normalize_video(batch.frames)[clips]  # (V, T, 3, H, W)
        video_features, text = self.clip.prompt(frames, vocabulary)  # (V, E), (V, C, E)
        rows = torch.arange(len(clips), device=clips.device)
        cosines = cosine_logits(video_features, text, rows, temperature=1)  # (V, C)
        logits = (self.clip.logit_scale.float().exp() * cosines)[clip_of]
        return STCLIPOutput(logits, video_features[clip_of], text, clip_of)
