"""ST-CLIP (Huang, Chen, Lai, WACV 2025): sections 2 to 7 of docs/method.md, in this order.

Shape letters, with the sizes for ViT-B/16:

    F  distinct frames of a batch             L  patch tokens of a frame (196)
    B  keyframes of a batch                   S  tokens of the interaction, 1 + P + L
    A  keyframes that have persons            W  width of the image tower (768)
    T  frames of a window (9)                 E  width of the joint embedding space (512)
    N  persons of a batch                     R  blocks of the image tower (12)
    P  the most persons of a keyframe         C  class names
    K  interest tokens of a person (20)

Sequences of keyframes with fewer than P persons are padded; a key mask is False at padding.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stclip.models.clip import (
    CLIP,
    HEAD_WIDTH,
    MLP,
    Attention,
    InteractionBlock,
    LayerNorm,
    Linear,
    initialise_linear,
    normalize_pixels,
)
from stclip.models.fast import cross_attention, mean_attention
from stclip.models.marked import Outside, mark
from stclip.structures import ClipBatch, Needs, PersonLayout


# ---------------------------------------------------------------- section 2: person tokens
class PersonTokens(nn.Module):
    """p = f + Adapter(LayerNorm(f)) for the CLIP feature f of a person's crop."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = LayerNorm(width)
        self.adapter = MLP(width)

    def forward(self, crop_features: Tensor) -> Tensor:
        """Person tokens (N, W) from ln_post(class token) of the crops (N, W), not projected."""
        return crop_features + self.adapter(self.norm(crop_features))


# ---------------------------------------------------------------- section 3: context tokens
class TemporalBlock(nn.Module):
    """A pre-norm self-attention over time, whose residual is added outside; no MLP follows."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ln_1 = LayerNorm(width)
        self.attn = Attention(width, width // HEAD_WIDTH)


class ContextTokens(TemporalBlock):
    """At each patch position the T frames of a window attend to each other; then their mean.

    Args:
        width: W, a multiple of 64.
        frames: T.
        depth: blocks of self-attention; the first is this module itself.
        init_std: standard deviation that the temporal embedding starts with.
    """

    def __init__(self, width: int, frames: int = 9, depth: int = 1, init_std: float = 1.0) -> None:
        super().__init__(width)
        self.temporal_embedding = nn.Parameter(torch.empty(frames, width))
        self.deeper = nn.ModuleList(TemporalBlock(width) for _ in range(depth - 1))
        nn.init.normal_(self.temporal_embedding, std=init_std)

    def forward(self, patches: Tensor, window: Tensor, short: bool = True) -> Tensor:
        """Context tokens of each keyframe.

        Args:
            patches: (F, L, W) patch embeddings without class token and positions.
            window: (A, T) long, rows of ``patches``; -1 where a video is shorter than T.
            short: whether a video may be shorter than T.

        Returns:
            (A, L, W), before the class token and CLIP's positions are added.
        """
        keyframes, length = window.shape
        x = patches.transpose(0, 1)[:, window.clamp(min=0)]  # (L, A, T, W)
        x = x + self.temporal_embedding[:length].to(x.dtype)
        x = x.flatten(0, 1)  # (L * A, T, W)
        present = (window >= 0).repeat(len(x) // keyframes, 1)  # (L * A, T)
        key_mask = present if short else None

        *blocks, last = cast(list[TemporalBlock], [self, *self.deeper])
        for block in blocks:
            x = x + block.attn(block.ln_1(x), key_mask)
        # The mean over T of x + attn(ln_1(x)), term by term; each frame has its share in it.
        share = present / present.sum(dim=1, keepdim=True)  # (L * A, T)
        mean = (share.to(x.dtype)[:, None] @ x)[:, 0]  # (L * A, W)
        mean = mean + mean_attention(last.attn, last.ln_1(x), share, key_mask)
        return mean.unflatten(0, (-1, keyframes)).transpose(0, 1)


# ---------------------------------------------------------------- section 4: interaction
@dataclass
class InteractionLayout:
    """The position of each person in the padded sequences [class, person_1..person_P, context].

    Attributes:
        row: (N,) long, the sequence of each person.
        column: (N,) long, its position in the sequence.
        persons: P.
        key_mask: (A, S) bool, False for padding; None if nothing is padded.
    """

    row: Tensor
    column: Tensor
    persons: int
    key_mask: Tensor | None


def lay_out(
    context: Tensor, persons: Tensor | None, layout: PersonLayout
) -> tuple[Tensor, InteractionLayout]:
    """Put the persons of each keyframe between its class token and its context tokens.

    Args:
        context: (A, 1 + L, W), class token first, after ln_pre.
        persons: (N, W) person tokens; they get no positional embedding. None puts nothing there,
            and the class token is used for every person.
        layout: of the persons; its active keyframes are the rows of ``context``.

    Returns:
        The sequences (A, S, W), with zeros where a keyframe has fewer than P persons, and their
        layout.
    """
    row, most = layout.row, layout.most
    if persons is None:
        return context, InteractionLayout(row, torch.zeros_like(row), persons=0, key_mask=None)
    padded = persons.new_zeros(len(context), most, persons.shape[1])  # (A, P, W)
    padded = padded.index_put((row, layout.place), persons)
    x = torch.cat([context[:, :1], padded.to(context.dtype), context[:, 1:]], dim=1)  # (A, S, W)
    key_mask = None
    if layout.padded:  # without a mask attention is faster
        key_mask = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        key_mask[:, 1 : 1 + most] = False
        # A number in place of this tensor would make the host wait for a GPU.
        key_mask.index_put_((row, 1 + layout.place), key_mask.new_ones(()))
    return x, InteractionLayout(row, 1 + layout.place, persons=most, key_mask=key_mask)


# ---------------------------------------------------------------- section 5: context prompting
class CrossAttention(nn.Module):
    """Multi-head attention from text to visual tokens; only the output layer has a bias."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = Linear(width, width, bias=False)
        self.k_proj = Linear(width, width, bias=False)
        self.v_proj = Linear(width, width, bias=False)
        self.proj = Linear(width, width)

    def forward(self, text: Tensor, tokens: Tensor, key_mask: Tensor | None = None) -> Tensor:
        """(A, C, E) from text (A, C, E) and tokens (A, S, E)."""
        query = self.q_proj(text)
        mask = None if key_mask is None else key_mask[:, None, None]  # (A, 1, 1, S)
        return self.proj(cross_attention(query, tokens, self.k_proj, self.v_proj, self.heads, mask))


class PromptBlock(nn.Module):
    """Cross-attention and an MLP, each with its residual."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = LayerNorm(width)
        self.cross_attn = CrossAttention(width, width // HEAD_WIDTH)
        self.norm3 = LayerNorm(width)
        self.mlp = MLP(width)

    def forward(self, h: Tensor, v: Tensor, key_mask: Tensor | None = None) -> Tensor:
        """(A, C, E) from text (A, C, E) and normalised tokens (A, S, E)."""
        h = h + self.cross_attn(self.norm1(h), v, key_mask)
        return h + self.mlp(self.norm3(h))


class ContextPrompt(nn.Module):
    """One layer's prompt, text + alpha * h; note that h still contains the text it started from.

    Args:
        width: E, a multiple of 64.
        depth: prompt blocks.
        alpha: initial scale.
        init_std: standard deviation that the weights of the linear layers start with.
    """

    def __init__(
        self, width: int, depth: int = 1, alpha: float = 0.2, init_std: float = 0.02
    ) -> None:
        super().__init__()
        self.norm = LayerNorm(width)
        self.decoder = nn.ModuleList(PromptBlock(width) for _ in range(depth))
        self.alpha = nn.Parameter(torch.full((width,), alpha))
        self.apply(partial(initialise_linear, std=init_std))

    def forward(self, text: Tensor, tokens: Tensor, key_mask: Tensor | None = None) -> Tensor:
        """Prompted text (A, C, E) from text (A, C, E) and projected tokens (A, S, E).

        key_mask: (A, S) bool, False for padding; None if there is none.
        """
        v = self.norm(tokens)
        h = text
        for block in self.decoder:
            h = block(h, v, key_mask)
        return text + self.alpha * h


class ContextPrompting(nn.Module):
    """For each of some blocks of the image tower a projector and a prompt of its own.

    Args:
        layers: the blocks after which the text is prompted, counted from 0.
        width: W.
        embed_dim: E.
        alpha, init_std, depth: of each ``ContextPrompt``.
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
        """Text (A, C, E) prompted by the output tokens (A, S, W) of block ``layer``, or as is."""
        name = str(layer)
        if name not in self.prompts:
            return text
        return self.prompts[name](text, self.projectors[name](tokens), key_mask)


# ---------------------------------------------------------------- section 6: interest tokens
@dataclass(frozen=True)
class InterestTokens:
    """Chooses, for each person, the tokens that prompt the person's own text; no parameters.

    Attributes:
        top_k: K, at most 1 + L; 0 takes all class and patch tokens.
        include_person: whether the person's own token prompts too.
    """

    top_k: int = 0
    include_person: bool = False

    @torch.no_grad()  # the choice of tokens has no gradient; their values do
    def spot(self, block: InteractionBlock, x: Tensor, layout: InteractionLayout) -> Tensor:
        """The class and patch tokens that each person attends to most.

        Args:
            block: the block that ``x`` is about to enter.
            x: (A, S, W), its input.
            layout: where the persons stand in ``x``.

        Returns:
            (N, K) long, most attended first: 0 is the class token, 1 + l is patch l.
        """
        persons = layout.persons
        context = x.shape[1] - persons  # 1 + L
        assert self.top_k <= context, f"{self.top_k} interest tokens of {context} tokens"
        if self.top_k == 0:
            return torch.arange(context, device=x.device).expand(len(layout.row), -1)
        weights = block.attention_weights(x, slice(1, 1 + persons), layout.key_mask)  # (A, P, S)
        weights = weights[layout.row, layout.column - 1]  # (N, S)
        patches = weights[:, 1 + persons : context + persons]
        candidates = torch.cat([weights[:, :1], patches], dim=1)  # (N, 1 + L)
        return candidates.topk(self.top_k, dim=1).indices

    def gather(self, x: Tensor, layout: InteractionLayout, spotted: Tensor) -> Tensor:
        """Each person's interest tokens, from the output x (A, S, W) of the block and ``spotted``.

        Returns:
            (N, K, W), or (N, 1 + K, W) with the person's own token in front; nothing is padded.
        """
        columns = torch.where(spotted > 0, spotted + layout.persons, spotted)  # behind persons
        if self.include_person:
            columns = torch.cat([layout.column[:, None], columns], dim=1)
        return x[layout.row[:, None], columns]


# ---------------------------------------------------------------- section 7: scores
def cosine_logits(
    person_features: Tensor, text_features: Tensor, text_row: Tensor, temperature: float
) -> Tensor:
    """Cosines of persons and class names, divided by the temperature.

    Args:
        person_features: (N, E).
        text_features: (rows, C, E).
        text_row: (N,) long, the row of ``text_features`` that a person is compared with.
        temperature: the divisor.

    Returns:
        (N, C), in float32 because the temperature magnifies rounding 14 times.
    """
    query = F.normalize(person_features.float(), dim=-1)
    names = F.normalize(text_features.float(), dim=-1)
    # A product and a sum, because autocast would compute a matrix product in 16 bits again.
    return (query[:, None] * names[text_row]).sum(dim=-1) / temperature


@dataclass
class STCLIPOutput:
    """What a forward gives for N persons.

    Attributes:
        logits: (N, C) float32, cosines divided by the temperature.
        person_features: (N, E), relation token + frame feature, not normalised.
        text_features: not normalised, a row for each text that differs: (A, C, E), prompted by each
            keyframe that has persons; (N, C, E) with interest tokens; (1, C, E) of a baseline.
        text_row: (N,) long, the row of ``text_features`` that a person is compared with.
        interest_tokens: (R, N, K) long, what ``InterestTokens.spot`` found in each layer; None
            without it.
    """

    logits: Tensor
    person_features: Tensor
    text_features: Tensor
    text_row: Tensor
    interest_tokens: Tensor | None = None

    @classmethod
    def empty(cls, batch: ClipBatch, vocabulary: Tensor) -> STCLIPOutput:
        """The output for a batch without persons."""
        text = vocabulary.expand(0, -1, -1)  # (0, C, E)
        logits = vocabulary.new_zeros(0, len(vocabulary), dtype=torch.float32)
        return cls(logits, vocabulary[:0], text, text_row=batch.owner)


# ---------------------------------------------------------------- all of it
class STCLIP(nn.Module):
    """CLIP with person tokens, context tokens, their interaction and context prompting.

    A part that is switched off has no parameters. With all of them off and a CLIP without LoRA, the
    scores are those of CLIP's image features of the keyframes.

    Args:
        clip: the CLIP to build on; ``CLIP.freeze`` defines which of its parameters are trained.
        frames: T, the length of the windows.
        temperature: the cosines are divided by it.
        temporal: False: only the keyframe is looked at; the context tokens are its own patches.
        mixing: False: the context tokens are the keyframe's own patches, though the image tower
            may look at the window.
        prompt: False: the text features stay CLIP's.
        person_tokens: False: the crops are not looked at, and the class token's output stands for
            every person's relation token.
        interest_tokens: prompts each person's own text; needs ``prompt`` and ``person_tokens``.
        prompt_alpha, prompt_init_std, prompt_layers, prompt_depth: of ``ContextPrompting``; by
            default all layers prompt.
        temporal_depth, temporal_init_std: of ``ContextTokens``.
        crop_weight: of the crop's feature in a person's; not in the paper, needs ``person_tokens``.
        marked: how the person is marked in one more keyframe (see ``mark``), whose feature counts
            with ``marked_weight`` in a person's; None: in none. Not in the paper.
    """

    needs: Needs  # set by build_model

    def __init__(
        self,
        clip: CLIP,
        frames: int = 9,
        prompt_alpha: float = 0.2,
        temperature: float = 0.07,
        *,
        temporal: bool = True,
        mixing: bool = True,
        prompt: bool = True,
        person_tokens: bool = True,
        interest_tokens: InterestTokens | None = None,
        prompt_init_std: float = 0.02,
        prompt_layers: Sequence[int] | None = None,
        prompt_depth: int = 1,
        temporal_depth: int = 1,
        temporal_init_std: float = 1.0,
        crop_weight: float = 0.0,
        marked: Outside | None = None,
        marked_weight: float = 1.0,
    ) -> None:
        super().__init__()
        assert person_tokens or not (interest_tokens or crop_weight), "they need person_tokens"
        assert prompt or not interest_tokens, "interest_tokens needs prompt"
        self.clip = clip
        clip.freeze()
        width, layers = clip.visual.width, len(clip.visual.transformer.resblocks)
        self.person_tokens = PersonTokens(width) if person_tokens else None
        self.context_tokens = self.context_prompting = None
        if temporal and mixing:
            self.context_tokens = ContextTokens(width, frames, temporal_depth, temporal_init_std)
        if prompt:
            prompting = range(layers) if prompt_layers is None else prompt_layers
            self.context_prompting = ContextPrompting(
                prompting, width, clip.embed_dim, prompt_alpha, prompt_init_std, prompt_depth
            )
        self.interest_tokens = interest_tokens
        self.window_length = frames if temporal else 1  # frames that the model looks at
        self.temperature = temperature
        self.crop_weight = crop_weight
        self.marked, self.marked_weight = marked, marked_weight

    @torch.no_grad()
    def encode_vocabulary(self, tokens: Tensor) -> Tensor:
        """CLIP's features of the class names: tokens (C, text_length) -> (C, E), unprompted.

        The text tower is frozen, so once per vocabulary is enough, in training too.
        """
        return self.clip.encode_text(tokens)

    def forward(self, batch: ClipBatch, vocabulary: Tensor) -> STCLIPOutput:
        """Compare every person of a batch with every class name.

        Args:
            batch: a ragged batch on the model's device; keyframes without persons cost nothing.
            vocabulary: (C, E) from ``encode_vocabulary``.
        """
        visual = self.clip.visual
        if len(batch.crops) == 0:
            return STCLIPOutput.empty(batch, vocabulary)
        # Only keyframes with persons go further.
        active, owner = batch.layout.active, batch.layout.row  # (A,), (N,)
        keyframe = batch.keyframe[active]  # (A,)
        window = batch.window[active] if self.window_length > 1 else keyframe[:, None]  # (A, T)

        # Section 1: every distinct frame is cut into patches once; crops, whole keyframes and those
        # with a person marked go through the encoder together.
        patches = visual.patch_embed(normalize_pixels(batch.frames))  # (F, L, W)
        context = patches[keyframe]  # (A, L, W)
        pictures = [] if self.person_tokens is None else [batch.crops]  # (N, 3, H, W) each
        if self.marked is not None:
            pictures.append(mark(batch, self.marked))
        images = [visual.patch_embed(normalize_pixels(pixels)) for pixels in pictures]
        encoded = visual.encode(torch.cat([context, *images]))  # (A + N, W), marked: A + 2 N
        frame_features, *others = encoded.split([len(active), *map(len, pictures)])  # (N, W) each

        # Section 2: person tokens.
        persons = None
        if self.person_tokens is not None:
            persons = self.person_tokens(others[0])  # (N, W)

        # Section 3: context tokens, with class token, positions and ln_pre.
        if self.context_tokens is not None:
            context = self.context_tokens(patches, window, batch.layout.short)  # (A, L, W)
        context = visual.add_class_token_and_positions(context)  # (A, 1 + L, W)

        # Sections 4 to 6: interaction. After every block its tokens prompt the keyframe's text, or
        # each person's interest tokens that person's text.
        x, layout = lay_out(context, persons, batch.layout)  # (A, S, W)
        text, text_row = vocabulary.expand(len(active), -1, -1), owner  # (A, C, E)
        if self.interest_tokens is not None:
            text = vocabulary.expand(len(owner), -1, -1)  # (N, C, E)
            text_row = torch.arange(len(owner), device=owner.device)
        spotted: list[Tensor] = []
        for layer, block in enumerate(visual.blocks(patches, window, keyframe)):
            if self.interest_tokens is not None:
                spotted.append(self.interest_tokens.spot(block, x, layout))  # (N, K)
            x = block(x, layout.key_mask)  # (A, S, W)
            if self.context_prompting is None:
                continue
            tokens, key_mask = x, layout.key_mask
            if self.interest_tokens is not None:
                tokens, key_mask = self.interest_tokens.gather(x, layout, spotted[-1]), None
            text = self.context_prompting(layer, text, tokens, key_mask)
        relation = visual.project(visual.ln_post(x[layout.row, layout.column]))  # (N, E)
        person_features = relation + visual.project(frame_features)[owner]  # (N, E)
        if self.crop_weight:
            person_features = person_features + self.crop_weight * visual.project(others[0])
        if self.marked is not None:
            person_features = person_features + self.marked_weight * visual.project(others[-1])

        # Section 7: scores.
        logits = cosine_logits(person_features, text, text_row, self.temperature)  # (N, C)
        interest_tokens = torch.stack(spotted) if spotted else None  # (R, N, K)
        return STCLIPOutput(logits, person_features, text, text_row, interest_tokens)
