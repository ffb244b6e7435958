"""X-CLIP: CLIP for whole videos (Ni et al., "Expanding Language-Image Pretrained Models for General
Video Recognition", ECCV 2022).

The frames of a video run through CLIP's image encoder together, exchanging messages in every block
(cross_frame.py). A small transformer turns the frames' features into the video's
(``MultiframeIntegration``), and the video's patch tokens prompt the class names, in the way in
which ST-CLIP's context tokens do it. ``XCLIP.forward`` shows the steps.

Parameters carry the authors' names, but for those inside the feed-forward part of the prompts.

Shape letters: B videos, T frames, L patch tokens, S tokens of a frame, W width of the image tower,
E joint embedding width, C class names, F pictures, H x W pixels.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stclip.errors import UserError
from stclip.models.clip import HEAD_WIDTH, normalize_pixels
from stclip.models.context_prompting import ContextPrompt, initialise_linear
from stclip.models.cross_frame import CrossFrameBlock, CrossFrameCLIP
from stclip.models.transformer import Block, LayerNorm

# ImageNet's statistics and not CLIP's: what the authors trained with.
PIXEL_MEAN = (0.485, 0.456, 0.406)
PIXEL_STD = (0.229, 0.224, 0.225)


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
    """Stretch the positions of frames to another number of frames, linearly.

    Args:
        positions: (1, T, E).
        frames: how many there are to be.

    Returns:
        (1, frames, E).
    """
    stretched = F.interpolate(positions.transpose(1, 2), size=frames, mode="linear")
    return stretched.transpose(1, 2).contiguous()


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


class XCLIP(CrossFrameCLIP):
    """X-CLIP. The text tower and what surrounds the blocks of the image tower are CLIP's.

    Args:
        image_size: height and width of the frames in pixels.
        patch_size: height and width of a patch in pixels.
        vision_width: W, a multiple of 64.
        vision_layers: blocks of the image tower.
        text_width: width of the text tower, a multiple of 64.
        text_layers: blocks of the text tower.
        embed_dim: E, a multiple of 64.
        frames: T.
        text_length: the most tokens of a text.
        vocab_size: number of token ids.
        mit_layers: blocks of the multi-frame integration.
        prompt_layers: blocks of the prompt.
        prompt_alpha: what the scale of the prompt starts from.
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
        frames: int = 8,
        text_length: int = 77,
        vocab_size: int = 49408,
        mit_layers: int = 1,
        prompt_layers: int = 2,
        prompt_alpha: float = 0.1,
    ) -> None:
        super().__init__(
            image_size=image_size,
            patch_size=patch_size,
            vision_width=vision_width,
            vision_layers=vision_layers,
            text_width=text_width,
            text_layers=text_layers,
            embed_dim=embed_dim,
            text_length=text_length,
            vocab_size=vocab_size,
        )
        self.mit = MultiframeIntegration(embed_dim, frames, mit_layers)
        self.prompts_visual_ln = LayerNorm(vision_width)
        self.prompts_visual_proj = nn.Parameter(torch.empty(vision_width, embed_dim))
        nn.init.xavier_uniform_(self.prompts_visual_proj)
        self.prompts_generator = ContextPrompt(embed_dim, prompt_layers, prompt_alpha)

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
