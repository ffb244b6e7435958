"""CLIP with a vision transformer (Radford et al. 2021; method.md section 1).

Parameters carry OpenAI's names, so that their state dicts load without a map.

Shape letters: F images, B sequences, S tokens of a sequence, L patch tokens, W width of a tower,
D width of a head, E joint embedding width, C texts, T text positions, H x W pixels.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stclip.errors import UserError
from stclip.models.products import apply_linear
from stclip.models.transformer import Block, LayerNorm, QuickGELU, Transformer

HEAD_WIDTH = 64
# The activation functions that CLIPs were trained with: OpenAI's, and most of open_clip's.
ACTIVATIONS: dict[str, type[nn.Module]] = {"quick_gelu": QuickGELU, "gelu": nn.GELU}
PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)


def normalize_pixels(
    pixels: Tensor,
    mean: tuple[float, float, float] = PIXEL_MEAN,
    std: tuple[float, float, float] = PIXEL_STD,
) -> Tensor:
    """Scale pixels to [0, 1] and normalise them with a mean and deviation, by default CLIP's.

    Args:
        pixels: (..., 3, H, W) RGB, uint8 or 0 to 255.
        mean: of each channel.
        std: of each channel.

    Returns:
        (..., 3, H, W) float32.
    """
    assert pixels.shape[-3] == 3, f"pixels: (..., 3, H, W) expected, not {tuple(pixels.shape)}"
    scaled = pixels.to(torch.float32) / 255
    # By channel with plain numbers: a tensor of constants would have to be copied to the device.
    for channel, (centre, spread) in enumerate(zip(mean, std, strict=True)):
        scaled.select(-3, channel).sub_(centre).div_(spread)
    return scaled


class VisionTransformer(nn.Module):
    """CLIP's image tower, in steps that can be taken apart.

    ``forward`` is ``project(encode(patch_embed(images)))``.

    Args:
        image_size: height and width of the images in pixels.
        patch_size: height and width of a patch in pixels; L = (image_size // patch_size) ** 2.
        width: W, a multiple of 64 (the width of a head).
        layers: number of blocks.
        embed_dim: E.
        lora_rank: rank of LoRA on the MLPs; 0 leaves it out.
        lora_alpha: LoRA's scale times its rank.
    """

    def __init__(
        self,
        image_size: int,
        patch_size: int,
        width: int,
        layers: int,
        embed_dim: int,
        lora_rank: int = 0,
        lora_alpha: float = 1.0,
    ) -> None:
        super().__init__()
        self.image_size, self.patch_size = image_size, patch_size
        scale = width**-0.5
        tokens = 1 + (image_size // patch_size) ** 2
        self.conv1 = nn.Conv2d(3, width, patch_size, stride=patch_size, bias=False)
        self.class_embedding = _normal(width, std=scale)
        self.positional_embedding = _normal(tokens, width, std=scale)
        self.ln_pre = LayerNorm(width)
        self.transformer = Transformer(width, layers, width // HEAD_WIDTH, lora_rank, lora_alpha)
        self.ln_post = LayerNorm(width)
        self.proj = _normal(width, embed_dim, std=scale)

    def patch_embed(self, images: Tensor) -> Tensor:
        """Cut images into patches: (F, 3, H, W) float, normalised -> (F, L, W).

        Raises:
            UserError: the images are not normalised floats of the size that the model takes.
        """
        size = (3, self.image_size, self.image_size)
        if images.ndim != 4 or tuple(images.shape[1:]) != size or not images.is_floating_point():
            raise UserError(
                f"images: found {images.dtype} of shape {tuple(images.shape)}, expected normalised "
                f"floats of shape (F, {size[0]}, {size[1]}, {size[2]}): resize and crop them to "
                f"{size[1]} pixels and pass them through normalize_pixels"
            )
        side, patch = self.image_size // self.patch_size, self.patch_size
        images = images[..., : side * patch, : side * patch]  # a convolution leaves the rest out
        # (F, 3, h, p, w, p) -> (F, h, w, 3, p, p) -> (F, L, 3pp): a linear layer on what lies in a
        # patch is what the convolution is, in half the time on a CPU.
        pixels = images.unflatten(-1, (side, patch)).unflatten(-3, (side, patch))
        pixels = pixels.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
        return apply_linear(pixels, self.conv1.weight.flatten(1))

    def add_class_token_and_positions(self, patches: Tensor) -> Tensor:
        """Make the first block's input: (B, L, W) -> (B, 1 + L, W), ln_pre included."""
        class_token = self.class_embedding.to(patches.dtype).expand(len(patches), 1, -1)
        tokens = torch.cat([class_token, patches], dim=1)
        return self.ln_pre(tokens + self.positional_embedding.to(patches.dtype))

    def encode(self, patches: Tensor) -> Tensor:
        """Run patch tokens (B, L, W) through all blocks -> ln_post(class token), (B, W)."""
        class_token = self.transformer.first(self.add_class_token_and_positions(patches))
        return self.ln_post(class_token)

    def project(self, x: Tensor) -> Tensor:
        """Take what ln_post gives to the joint space: (..., W) -> (..., E)."""
        return x @ self.proj

    def forward(self, images: Tensor) -> Tensor:
        """Image features, not normalised: (F, 3, H, W) float, normalised -> (F, E)."""
        return self.project(self.encode(self.patch_embed(images)))


class CLIP(nn.Module):
    """Both towers of CLIP. The text tower's parameters lie at the top level, as OpenAI's do.

    Args:
        image_size: height and width of the images in pixels.
        patch_size: height and width of a patch in pixels.
        vision_width: W of the image tower, a multiple of 64.
        vision_layers: blocks of the image tower.
        text_width: W of the text tower, a multiple of 64.
        text_layers: blocks of the text tower.
        embed_dim: E.
        text_length: the most tokens of a text.
        vocab_size: number of token ids.
        lora_rank: rank of LoRA on the MLPs of the image tower; 0 leaves it out.
        lora_alpha: LoRA's scale times its rank.
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
        super().__init__()
        self.visual = VisionTransformer(
            image_size=image_size,
            patch_size=patch_size,
            width=vision_width,
            layers=vision_layers,
            embed_dim=embed_dim,
            lora_rank=lora_rank,
            lora_alpha=lora_alpha,
        )
        embedding = _normal(vocab_size, text_width, std=0.02)
        self.token_embedding = nn.Embedding.from_pretrained(embedding, freeze=False)
        self.positional_embedding = _normal(text_length, text_width, std=0.01)
        self.transformer = Transformer(text_width, text_layers, text_width // HEAD_WIDTH)
        self.ln_final = LayerNorm(text_width)
        self.text_projection = _normal(text_width, embed_dim, std=text_width**-0.5)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.activation = "quick_gelu"

    def use_activation(self, name: str) -> None:
        """Compute the MLPs of both towers with one of ``ACTIVATIONS``; at first it is quick_gelu.

        No weight shows which one they were trained with.
        """
        self.activation = name
        for tower in (self.visual.transformer, self.transformer):
            for block in tower.resblocks:
                assert isinstance(block, Block)
                block.mlp.gelu = ACTIVATIONS[name]()

    @property
    def image_size(self) -> int:
        """Height and width of the images in pixels."""
        return self.visual.image_size

    @property
    def embed_dim(self) -> int:
        """E, the width of the joint space."""
        return self.text_projection.shape[1]

    @property
    def text_length(self) -> int:
        """The most tokens of a text."""
        return self.positional_embedding.shape[0]

    def encode_image(self, images: Tensor) -> Tensor:
        """Image features, not normalised: (B, 3, H, W) float, normalised -> (B, E).

        Raises:
            UserError: the images are not normalised floats of the size that the model takes.
        """
        return self.visual(images)

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Text features, not normalised: (C, T) token ids from ``tokenize`` -> (C, E).

        Raises:
            UserError: the tokens have another shape, or more positions than the model has.
        """
        if tokens.ndim != 2 or tokens.shape[1] > self.text_length:
            raise UserError(
                f"tokens: found shape {tuple(tokens.shape)}, expected (C, T) with T at most "
                f"{self.text_length}: make them with tokenize(texts, {self.text_length})"
            )
        if len(tokens) == 0:
            return self.text_projection.new_zeros(0, self.embed_dim)
        end = tokens.argmax(dim=-1)  # end-of-text has the largest id
        # No token sees a later one, so what follows the last end-of-text need not be computed.
        tokens = tokens[:, : int(end.max()) + 1]
        x = self.token_embedding(tokens) + self.positional_embedding[: tokens.shape[1]]
        x = self.transformer(x, causal=True)
        rows = torch.arange(len(tokens), device=tokens.device)
        return self.ln_final(x[rows, end]) @ self.text_projection

    def forward(self, images: Tensor, tokens: Tensor) -> Tensor:
        """Cosines of images and texts, times exp(logit_scale): (B, 3, H, W), (C, T) -> (B, C)."""
        image_features = F.normalize(self.encode_image(images), dim=-1)
        text_features = F.normalize(self.encode_text(tokens), dim=-1)
        return self.logit_scale.exp() * image_features @ text_features.T


def _normal(*shape: int, std: float) -> nn.Parameter:
    values = torch.empty(shape)
    if not values.is_meta:  # there is nothing to draw, and trying imports torch's whole compiler
        values.normal_(std=std)
    return nn.Parameter(values)
