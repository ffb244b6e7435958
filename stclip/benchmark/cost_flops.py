"""How many floating-point operations ST-CLIP's matrix products take, from sizes alone.

A product of (m, k) and (k, n) counts 2 m k n, as is usual; what is done elementwise counts nothing,
and neither does what a program does beyond the method: padding, recomputation, adding LoRA's update
to a weight. Section numbers are method.md's.

Shape letters: F distinct frames, N persons, A keyframes that have persons, P the most persons of a
keyframe, T frames of a window, L patch tokens, S tokens of a sequence, W vision width, E joint
embedding width, C class names, R vision layers, K interest tokens.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from stclip.models.clip import HEAD_WIDTH
from stclip.models.stclip import STCLIP, ContextPrompt
from stclip.models.xclip import CrossFrameCLIP
from stclip.structures import ClipBatch

# Of the model, in the order in which they are computed.
PARTS = (
    "patches",
    "crops and frames",
    "person tokens",
    "context tokens",
    "other frames",
    "interaction",
    "spotting",
    "prompts",
)


@dataclass(frozen=True)
class Sizes:
    """The sizes of a whole ST-CLIP, trained as it is by default: with LoRA, and messages trained.

    Attributes:
        image_size: side of frames and crops in pixels.
        patch_size: side of a patch in pixels.
        width: W.
        layers: R.
        embed_dim: E.
        lora_rank: of the MLPs of the vision blocks.
        interest_tokens: tokens that prompt a person's text, the person's own included; 0 if all
            tokens of a keyframe prompt the text of all its persons.
        spotting: whether the interest tokens are chosen by attention, and not simply all.
        messages: 1 if frames exchange messages in every block, as in X-CLIP; otherwise 0.
        mixing: whether the patches of a window are mixed to context tokens.
        temporal_depth: blocks of attention over time.
        prompt_layers: after how many of the layers the text is prompted; None: all.
        prompt_depth: blocks of each prompt.
    """

    image_size: int
    patch_size: int
    width: int
    layers: int
    embed_dim: int
    lora_rank: int
    interest_tokens: int = 0
    spotting: bool = False
    messages: int = 0
    mixing: bool = True
    temporal_depth: int = 1
    prompt_layers: int | None = None
    prompt_depth: int = 1

    @property
    def patches(self) -> int:
        """L."""
        return (self.image_size // self.patch_size) ** 2

    @classmethod
    def of(cls, model: STCLIP) -> Sizes:
        """The sizes of a model that has person tokens and prompts."""
        assert model.person_tokens is not None
        assert model.context_prompting is not None
        visual, interest = model.clip.visual, model.interest_tokens
        tokens = 0
        if interest is not None:
            chosen = interest.top_k or len(visual.positional_embedding)
            tokens = chosen + interest.include_person
        context, prompts = model.context_tokens, model.context_prompting.prompts
        first = next(iter(prompts.values()))
        assert isinstance(first, ContextPrompt)
        ranks = [len(p) for name, p in visual.named_parameters() if name.endswith("lora_A")]
        return cls(
            image_size=visual.image_size,
            patch_size=visual.patch_size,
            width=visual.proj.shape[0],
            layers=len(visual.transformer.resblocks),
            embed_dim=model.clip.embed_dim,
            lora_rank=ranks[0] if ranks else 0,
            interest_tokens=tokens,
            spotting=interest is not None and interest.top_k > 0,
            messages=int(isinstance(model.clip, CrossFrameCLIP)),
            mixing=context is not None,
            temporal_depth=1 if context is None else 1 + len(context.deeper),
            prompt_layers=len(prompts),
            prompt_depth=len(first.decoder),
        )


@dataclass(frozen=True)
class Load:
    """What a batch, whose windows are full, holds: F, N, A, P, T; and C."""

    frames: int
    persons: int
    keyframes: int
    most: int
    window: int
    classes: int

    @classmethod
    def of(cls, batch: ClipBatch, classes: int) -> Load:
        """The load of a batch."""
        counts = Counter(batch.owner.tolist())
        return cls(
            frames=len(batch.frames),
            persons=len(batch.owner),
            keyframes=len(counts),
            most=max(counts.values(), default=0),
            window=batch.window.shape[1],
            classes=classes,
        )


class _Sum:
    """Adds products up by part; a training takes up to two more of each for its backward pass."""

    def __init__(self, training: bool) -> None:
        self.training = training
        self.parts = dict.fromkeys(PARTS, 0)

    def add(self, part: str, rows: int, inside: int, columns: int, backward: int) -> None:
        """Products of (rows, inside) and (inside, columns).

        Args:
            part: of the model.
            rows: of the left factor, those of all products together.
            inside: the length that is summed over.
            columns: of the right factor.
            backward: how many of the two factors need a gradient.
        """
        passes = 1 + (backward if self.training else 0)
        self.parts[part] += 2 * rows * inside * columns * passes


def count_flops(sizes: Sizes, load: Load, training: bool = False) -> dict[str, int]:
    """Operations of one batch by part of the model; a training's have the backward pass in them.

    Returns:
        For each of PARTS its operations, whose sum is the cost of the batch. Crops and frames is
        their way through the encoder, one by one.
    """
    total = _Sum(training)
    if load.persons == 0:
        return total.parts
    width, patches = sizes.width, sizes.patches
    pixels = 3 * sizes.patch_size**2
    total.add("patches", (load.frames + load.persons) * patches, pixels, width, 0)

    # Crops and keyframes (section 1). Of the last block only the class token is needed.
    images, tokens = load.persons + load.keyframes, 1 + patches
    for layer in range(sizes.layers):
        last = layer == sizes.layers - 1
        _send(total, "crops and frames", sizes, images, 1, first=layer == 0)
        _block(total, "crops and frames", sizes, images, tokens, last, first=layer == 0)
    total.add("person tokens", load.persons, width, 8 * width, 2)  # W to 4W and back

    if sizes.mixing:
        _context(total, sizes, load)

    # Sections 4 to 6: one sequence a keyframe. With messages the window's other frames run along:
    # through all blocks but the last, and of the one before it only their class tokens are read.
    length = 1 + load.most + patches
    others = load.keyframes * (load.window - 1)
    for layer in range(sizes.layers):
        left = sizes.layers - 1 - layer
        _send(total, "interaction", sizes, load.keyframes, load.window, first=False)
        if sizes.messages and left:
            _block(total, "other frames", sizes, others, tokens, only_class=left == 1)
        if sizes.spotting:  # not differentiated
            entering = length + sizes.messages
            total.add("spotting", load.keyframes * load.most, width, width, 0)
            total.add("spotting", load.keyframes * entering, width, width, 0)
            total.add("spotting", load.keyframes * load.most, width, entering, 0)
        _block(total, "interaction", sizes, load.keyframes, length)
    for _ in range(sizes.layers if sizes.prompt_layers is None else sizes.prompt_layers):
        if sizes.interest_tokens:
            _prompt(total, sizes, load.persons, sizes.interest_tokens, load.classes)
        else:
            _prompt(total, sizes, load.keyframes, length, load.classes)
    total.add("interaction", load.persons, width, sizes.embed_dim, 1)
    total.add("crops and frames", load.keyframes, width, sizes.embed_dim, 1)
    return total.parts


def _block(
    total: _Sum,
    part: str,
    sizes: Sizes,
    sequences: int,
    tokens: int,
    only_class: bool = False,
    first: bool = False,
) -> None:
    """A transformer block with LoRA.

    Args:
        total: what to add to.
        part: of the model.
        sizes: of the model.
        sequences: how many.
        tokens: S, to which a message may come that they attend to.
        only_class: only the output of the class token is computed.
        first: nothing before is trained, so that what comes before its LoRA needs no gradient.
    """
    width, rank = sizes.width, sizes.lora_rank
    keys = tokens + sizes.messages
    asking, asked = sequences * (1 if only_class else keys), sequences * keys
    left = sequences * (1 if only_class else tokens)
    untrained = first and not sizes.messages
    frozen, both = (0, 0) if untrained else (1, 2)
    total.add(part, asked, width, 3 * width, frozen)  # queries, keys and values
    total.add(part, asking, width, keys, both)  # their products
    total.add(part, asking, keys, width, both)  # the weighted sum
    total.add(part, asking, width, width, frozen)  # output projection
    total.add(part, left, width, 4 * width, frozen)
    total.add(part, left, 4 * width, width, 1)
    if total.training and rank:  # otherwise the update is added to the weight once
        total.add(part, left, width, rank, 1 if untrained else 2)
        total.add(part, left, rank, 4 * width, 2)
        total.add(part, left, 4 * width, rank, 2)
        total.add(part, left, rank, width, 2)


def _send(total: _Sum, part: str, sizes: Sizes, videos: int, frames: int, first: bool) -> None:
    """A block's messages: made from the class tokens of each video's frames, then attention."""
    if not sizes.messages:
        return
    width, sent = sizes.width, videos * frames
    total.add(part, sent, width, width, 1 if first else 2)
    total.add(part, sent, width, 3 * width, 2)  # queries, keys and values
    total.add(part, sent, width, frames, 2)
    total.add(part, sent, frames, width, 2)
    total.add(part, sent, width, width, 2)  # output projection


def _context(total: _Sum, sizes: Sizes, load: Load) -> None:
    """Section 3; of the last block only the mean over the frames is computed."""
    part, width, frames = "context tokens", sizes.width, load.window
    tokens, heads = load.keyframes * sizes.patches, sizes.width // HEAD_WIDTH
    for _ in range(sizes.temporal_depth - 1):
        total.add(part, tokens * frames, width, 3 * width, 2)  # queries, keys and values
        total.add(part, tokens * frames, width, frames, 2)
        total.add(part, tokens * frames, frames, width, 2)
        total.add(part, tokens * frames, width, width, 2)  # output projection
    total.add(part, tokens * frames, width, 2 * width, 2)  # queries and keys
    total.add(part, tokens * frames, width, frames, 2)  # their products
    total.add(part, tokens * heads, frames, frames, 1)  # the mean over queries
    total.add(part, tokens * heads, frames, width, 2)  # the weighted sum
    total.add(part, tokens, width, width, 2)  # values of the means
    total.add(part, tokens, width, width, 2)  # output projection
    total.add(part, tokens, frames, width, 1)  # the mean of what was there before


def _prompt(total: _Sum, sizes: Sizes, rows: int, tokens: int, classes: int) -> None:
    """Sections 5 and 6: ``tokens`` visual tokens prompt each of ``rows`` texts of C names."""
    part, width, names = "prompts", sizes.embed_dim, rows * classes
    total.add(part, rows * tokens, sizes.width, width, 2)  # projector
    heads = width // HEAD_WIDTH
    for _ in range(sizes.prompt_depth):
        total.add(part, names, width, width, 2)  # queries
        if 2 * classes * (width + (heads - 1) * tokens) < tokens * width:  # as on a CPU
            total.add(part, names, width, 2 * width, 2)  # queries to keys, what is seen to values
            attending = names * heads
        else:
            total.add(part, rows * tokens, width, 2 * width, 2)  # keys and values
            attending = names
        total.add(part, attending, width, tokens, 2)
        total.add(part, attending, tokens, width, 2)
        total.add(part, names, width, width, 2)  # output projection
        total.add(part, names, width, 8 * width, 2)  # E to 4E and back
