"""CLIP with a vision transformer (Radford et al. 2021; method.md section 1).

Parameters carry OpenAI's names, so that their state dicts load without a map.

Shape letters: F images, B sequences, S tokens of a sequence, L patch tokens, W width of a tower,
D width of a head, E joint embedding width, C texts, T text positions, H x W pixels.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stclip.errors import UserError
from stclip.models import fast
from stclip.models.lora import LoRALinear

HEAD_WIDTH = 64
PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class CLIPSizes:
    """The sizes of a CLIP; its weights show all of them.

    Attributes:
        image_size: height and width of the images in pixels.
        patch_size: height and width of a patch in pixels; L = (image_size // patch_size) ** 2.
        vision_width: W of the image tower, a multiple of 64 (the width of a head).
        vision_layers: blocks of the image tower.
        text_width: W of the text tower, a multiple of 64.
        text_layers: blocks of the text tower.
        embed_dim: E.
        text_length: the most tokens of a text.
        vocab_size: number of token ids.
    """

    image_size: int
    patch_size: int
    vision_width: int
    vision_layers: int
    text_width: int
    text_layers: int
    embed_dim: int
    text_length: int = 77
    vocab_size: int = 49408


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
    channels = zip(scaled.unbind(-3), mean, std, strict=True)
    return torch.stack([(one - centre) / spread for one, centre, spread in channels], dim=-3)


class LayerNorm(nn.LayerNorm):
    """Layer normalisation that computes in float32 (at least) and returns the input's dtype."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., W) -> (..., W)."""
        return fast.layer_norm(x, self.weight, self.bias, self.eps)


class Linear(nn.Linear):
    """A linear layer."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) -> (..., O)."""
        return fast.linear(x, self.weight, self.bias)


class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x), the approximation of GELU that OpenAI trained with."""

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise."""
        return fast.quick_gelu(x)


# The activation functions that CLIPs were trained with: OpenAI's, and most of open_clip's.
ACTIVATIONS: dict[str, type[nn.Module]] = {"quick_gelu": QuickGELU, "gelu": nn.GELU}


class Attention(nn.Module):
    """Multi-head self-attention with the parameter names of nn.MultiheadAttention.

    Args:
        width: W, a multiple of ``heads``.
        heads: number of heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        assert width % heads == 0, f"width {width} is no multiple of {heads} heads"
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(
        self,
        x: Tensor,
        key_mask: Tensor | None = None,
        causal: bool = False,
        outputs: int | None = None,
    ) -> Tensor:
        """Let every token attend to all tokens of its sequence.

        Args:
            x: (B, S, W).
            key_mask: (B, S) bool, False for tokens that none may attend to (padding); at least one
                of a row must be True.
            causal: whether a token sees only itself and those before it.
            outputs: of how many tokens, the first ones, the output is wanted; None: of all.

        Returns:
            (B, S or outputs, W). What comes out at padding has no meaning.
        """
        qkv = fast.linear(x, self.in_proj_weight, self.in_proj_bias)
        # (B, S, 3W) -> (B, S, 3, heads, D) -> 3 x (B, heads, S, D)
        query, key, value = qkv.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        mask = None if key_mask is None else key_mask[:, None, None]  # (B, 1, 1, S)
        if mask is not None and causal:  # attend takes only one of the two
            length = x.shape[1]
            mask = mask & torch.ones(length, length, dtype=torch.bool, device=x.device).tril()
            mask, causal = mask[:, :, :outputs], False
        if outputs is not None:  # a slice of all would be copied in the backward pass
            query = query[:, :, :outputs]
        out = fast.attend(query, key, value, mask, causal)  # (B, heads, S or outputs, D)
        return self.out_proj(out.transpose(1, 2).flatten(2))

    def weights(self, x: Tensor, queries: slice, key_mask: Tensor | None = None) -> Tensor:
        """How much some tokens attend to each token of their sequence, the mean over the heads.

        Args:
            x: (B, S, W), the input.
            queries: which Q of the S tokens ask.
            key_mask: (B, S) bool, False for tokens that none may attend to.

        Returns:
            (B, Q, S) float32; rows sum to 1.
        """
        width = x.shape[-1]
        weight, bias = self.in_proj_weight, self.in_proj_bias
        query = fast.linear(x[:, queries], weight[:width], bias[:width])
        key = fast.linear(x, weight[width : 2 * width], bias[width : 2 * width])
        query = query.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, heads, Q, D)
        key = key.unflatten(-1, (self.heads, -1)).permute(0, 2, 3, 1)  # (B, heads, D, S)
        scores = (query @ key).float() * query.shape[-1] ** -0.5  # (B, heads, Q, S)
        if key_mask is not None:
            scores = scores.masked_fill(~key_mask[:, None, None], -torch.inf)
        return scores.softmax(dim=-1).mean(dim=1)


class MLP(nn.Module):
    """Linear(W, 4W), QuickGELU, Linear(4W, W); with LoRA on both if ``lora_rank`` is above 0.

    ``gelu`` may be replaced by another one of ``ACTIVATIONS``.
    """

    def __init__(self, width: int, lora_rank: int = 0, lora_alpha: float = 1.0) -> None:
        super().__init__()

        def linear(inside: int, outside: int) -> nn.Linear:
            if lora_rank == 0:
                return Linear(inside, outside)
            return LoRALinear(inside, outside, lora_rank, lora_alpha)

        self.c_fc = linear(width, 4 * width)
        self.gelu: nn.Module = QuickGELU()
        self.c_proj = linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """c_proj(gelu(c_fc(x))): (..., W) -> (..., W)."""
        return fast.mlp(x, self.c_fc, self.gelu, self.c_proj)


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, width: int, heads: int, lora_rank: int = 0, lora_alpha: float = 1.0) -> None:
        super().__init__()
        self.ln_1 = LayerNorm(width)
        self.attn = Attention(width, heads)
        self.ln_2 = LayerNorm(width)
        self.mlp = MLP(width, lora_rank, lora_alpha)

    def forward(
        self,
        x: Tensor,
        key_mask: Tensor | None = None,
        causal: bool = False,
        outputs: int | None = None,
    ) -> Tensor:
        """(B, S, W) -> (B, S or outputs, W); the arguments are Attention's."""
        wanted = x if outputs is None else x[:, :outputs]
        x = wanted + self.attn(self.ln_1(x), key_mask, causal, outputs)
        return x + self.mlp(self.ln_2(x))

    def attention_weights(
        self, x: Tensor, queries: slice, key_mask: Tensor | None = None
    ) -> Tensor:
        """What ``forward`` would attend to: (B, S, W) -> (B, Q, S); see ``Attention.weights``."""
        return self.attn.weights(self.ln_1(x), queries, key_mask)


class Transformer(nn.Module):
    """A stack of blocks, ``resblocks``."""

    def __init__(
        self,
        width: int,
        layers: int,
        heads: int,
        lora_rank: int = 0,
        lora_alpha: float = 1.0,
        kind: type[Block] = Block,
    ) -> None:
        super().__init__()
        blocks = [kind(width, heads, lora_rank, lora_alpha) for _ in range(layers)]
        self.resblocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor, causal: bool = False) -> Tensor:
        """(B, S, W) -> (B, S, W); causal: whether a token sees only itself and those before it."""
        for block in self.resblocks:
            x = block(x, causal=causal)
        return x

    def first_token(self, x: Tensor) -> Tensor:
        """The first token of what ``forward`` gives: (B, S, W) -> (B, W)."""
        *blocks, last = self.resblocks
        for block in blocks:
            x = block(x)
        return last(x, outputs=1)[:, 0]


class InteractionBlock(Protocol):
    """What ``VisionTransformer.blocks`` gives for each layer; a ``Block`` is one."""

    def __call__(self, x: Tensor, key_mask: Tensor | None = None) -> Tensor:
        """(B, S, W) -> (B, S, W); key_mask (B, S) bool, False for padding."""

    def attention_weights(
        self, x: Tensor, queries: slice, key_mask: Tensor | None = None
    ) -> Tensor:
        """How much Q of the tokens attend to each, (B, Q, S); see ``Attention.weights``."""


class VisionTransformer(nn.Module):
    """CLIP's image tower, in steps that can be taken apart.

    ``forward`` is ``project(encode(patch_embed(images)))``.

    Args:
        sizes: of the CLIP.
        lora_rank: rank of LoRA on the MLPs; 0 leaves it out.
        lora_alpha: LoRA's scale times its rank.
        kind: of the blocks.
    """

    def __init__(
        self,
        sizes: CLIPSizes,
        lora_rank: int = 0,
        lora_alpha: float = 1.0,
        kind: type[Block] = Block,
    ) -> None:
        super().__init__()
        self.image_size, self.patch_size = sizes.image_size, sizes.patch_size
        self.width = width = sizes.vision_width
        scale = width**-0.5
        tokens = 1 + (sizes.image_size // sizes.patch_size) ** 2
        self.conv1 = nn.Conv2d(3, width, sizes.patch_size, stride=sizes.patch_size, bias=False)
        self.class_embedding = _normal(width, std=scale)
        self.positional_embedding = _normal(tokens, width, std=scale)
        self.ln_pre = LayerNorm(width)
        self.transformer = Transformer(
            width, sizes.vision_layers, width // HEAD_WIDTH, lora_rank, lora_alpha, kind
        )
        self.ln_post = LayerNorm(width)
        self.proj = _normal(width, sizes.embed_dim, std=scale)

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
        return self.conv1(images).flatten(2).transpose(1, 2)

    def add_class_token_and_positions(self, patches: Tensor) -> Tensor:
        """Make the first block's input: (B, L, W) -> (B, 1 + L, W), ln_pre included."""
        class_token = self.class_embedding.to(patches.dtype).expand(len(patches), 1, -1)
        tokens = torch.cat([class_token, patches], dim=1)
        return self.ln_pre(tokens + self.positional_embedding.to(patches.dtype))

    def blocks(
        self, patches: Tensor, window: Tensor, keyframe: Tensor
    ) -> Iterator[InteractionBlock]:
        """The blocks that the tokens of keyframes run through, one after the other.

        CLIP's see the keyframe alone. A tower whose blocks see other frames too finds them here.

        Args:
            patches: (F, L, W), all frames of the batch.
            window: (A, T) long, rows of ``patches``; -1 where a video is shorter than T.
            keyframe: (A,) long, rows of ``patches``.
        """
        for block in self.transformer.resblocks:
            assert isinstance(block, Block)
            yield block

    def encode(self, patches: Tensor) -> Tensor:
        """Run patch tokens (B, L, W) through all blocks -> ln_post(class token), (B, W)."""
        x = self.add_class_token_and_positions(patches)
        return self.ln_post(self.transformer.first_token(x))

    def project(self, x: Tensor) -> Tensor:
        """Take what ln_post gives to the joint space: (..., W) -> (..., E)."""
        return x @ self.proj

    def forward(self, images: Tensor) -> Tensor:
        """Image features, not normalised: (F, 3, H, W) float, normalised -> (F, E)."""
        return self.project(self.encode(self.patch_embed(images)))


class CLIP(nn.Module):
    """Both towers of CLIP. The text tower's parameters lie at the top level, as OpenAI's do.

    Args:
        sizes: of the towers.
        lora_rank: rank of LoRA on the MLPs of the image tower; 0 leaves it out.
        lora_alpha: LoRA's scale times its rank.
    """

    def __init__(self, sizes: CLIPSizes, lora_rank: int = 0, lora_alpha: float = 1.0) -> None:
        super().__init__()
        width = sizes.text_width
        self.visual = self.image_tower(sizes, lora_rank, lora_alpha)
        embedding = _normal(sizes.vocab_size, width, std=0.02)
        self.token_embedding = nn.Embedding.from_pretrained(embedding, freeze=False)
        self.positional_embedding = _normal(sizes.text_length, width, std=0.01)
        self.transformer = Transformer(width, sizes.text_layers, width // HEAD_WIDTH)
        self.ln_final = LayerNorm(width)
        self.text_projection = _normal(width, sizes.embed_dim, std=width**-0.5)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.activation = "quick_gelu"

    @staticmethod
    def image_tower(sizes: CLIPSizes, lora_rank: int, lora_alpha: float) -> VisionTransformer:
        """Make the image tower, ``visual``."""
        return VisionTransformer(sizes, lora_rank, lora_alpha)

    def use_activation(self, name: str) -> None:
        """Compute the MLPs of both towers with one of ``ACTIVATIONS``; at first it is quick_gelu.

        No weight shows which one they were trained with.
        """
        self.activation = name
        for tower in (self.visual.transformer, self.transformer):
            for block in tower.resblocks:
                assert isinstance(block, Block)
                block.mlp.gelu = ACTIVATIONS[name]()

    def freeze(self) -> None:
        """Leave only LoRA to be trained."""
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(".lora_" in name)

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
        return self.encode_all_positions(tokens[:, : int(end.max()) + 1])

    def encode_all_positions(self, tokens: Tensor) -> Tensor:
        """``encode_text`` of (C, T) tokens, at least one text, none of them cut or checked."""
        x = self.token_embedding(tokens) + self.positional_embedding[: tokens.shape[1]]
        x = self.transformer(x, causal=True)
        rows, end = torch.arange(len(tokens), device=tokens.device), tokens.argmax(dim=-1)
        return self.ln_final(x[rows, end]) @ self.text_projection

    def forward(self, images: Tensor, tokens: Tensor) -> Tensor:
        """Cosines of images and texts, times exp(logit_scale): (B, 3, H, W), (C, T) -> (B, C)."""
        image_features = F.normalize(self.encode_image(images), dim=-1)
        text_features = F.normalize(self.encode_text(tokens), dim=-1)
        return self.logit_scale.exp() * image_features @ text_features.T


def initialise_linear(module: nn.Module, std: float = 0.02) -> None:
    """Start a linear layer with a truncated normal and without bias; for ``nn.Module.apply``."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=std)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _normal(*shape: int, std: float) -> nn.Parameter:
    values = torch.empty(shape)
    if not values.is_meta:  # there is nothing to draw, and trying imports torch's whole compiler
        values.normal_(std=std)
    return nn.Parameter(values)
