"""ST-CLIP, top to bottom (Huang, Chen, Lai, WACV 2025; method.md sections 2 to 7).

Shape letters: F distinct frames, B keyframes, A keyframes that have persons, T frames of a window,
N persons, P the most persons of a keyframe, L patch tokens, S = 1 + P + L, W vision width, E joint
embedding width, C class names, R vision layers, K interest tokens.

With X-CLIP's image tower (cross_frame.py) in the place of CLIP's, a keyframe and the other frames
of its window exchange messages in every block, and this takes the place of section 3's mixing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stclip.models.clip import CLIP, normalize_pixels
from stclip.models.context_prompting import ContextPrompting
from stclip.models.context_tokens import ContextTokens
from stclip.models.cross_frame import CrossFrameBlock, CrossFrameCLIP, OtherFrames
from stclip.models.interaction import lay_out
from stclip.models.interest_tokens import InterestTokens
from stclip.models.person_tokens import PersonTokens
from stclip.structures import ClipBatch, Needs


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
        classes, embed_dim = vocabulary.shape
        return cls(
            logits=vocabulary.new_zeros(0, classes, dtype=torch.float32),
            person_features=vocabulary.new_zeros(0, embed_dim),
            text_features=vocabulary.new_zeros(0, classes, embed_dim),
            text_row=batch.owner,
        )


class STCLIP(nn.Module):
    """CLIP with person tokens, context tokens, their interaction and context prompting.

    A part that is switched off has no parameters. With all of them off and a CLIP without LoRA, the
    scores are those of CLIP's image features of the keyframes.

    Args:
        clip: the CLIP to build on; all of it is frozen but its LoRA. A ``CrossFrameCLIP`` lets the
            frames of a window run through its blocks together: the persons stand among the tokens
            of the keyframe, and influence the other frames, and these them, through the messages.
            Crops and whole keyframes, which stand for themselves, are encoded as videos of one
            frame, with its own message, because the tower was not trained on frames without one.
        frames: T, the length of the windows.
        prompt_alpha: initial scale of the prompts.
        prompt_init_std: standard deviation that the weights of the prompts start with.
        prompt_layers: the vision layers that prompt, counted from 0; None: all.
        prompt_depth: blocks of each prompt.
        temporal_depth: blocks of attention over time.
        temporal_init_std: standard deviation that the temporal embedding starts with.
        temperature: the cosines are divided by it.
        temporal: False: only the keyframe is looked at; the context tokens are its own patches.
        prompt: False: the text features stay CLIP's.
        person_tokens: False: the crops are not looked at, and the class token's output stands for
            every person's relation token.
        interest_tokens: prompts each person's own text; needs ``prompt`` and ``person_tokens``.
        mix_context: with a ``CrossFrameCLIP``, whether the keyframe's patches are mixed with those
            of its window before the first block too, as a CLIP needs it; needs ``temporal``.
        train_messages: with a ``CrossFrameCLIP``, False: its messages are frozen with the rest.
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
        prompt: bool = True,
        person_tokens: bool = True,
        interest_tokens: InterestTokens | None = None,
        mix_context: bool = False,
        train_messages: bool = True,
        prompt_init_std: float = 0.02,
        prompt_layers: Sequence[int] | None = None,
        prompt_depth: int = 1,
        temporal_depth: int = 1,
        temporal_init_std: float = 1.0,
    ) -> None:
        super().__init__()
        assert interest_tokens is None or (prompt and person_tokens), (
            "interest tokens are persons' and prompt"
        )
        self.clip = clip
        width = clip.visual.proj.shape[0]
        layers = len(clip.visual.transformer.resblocks)
        self.person_tokens = PersonTokens(width) if person_tokens else None
        mixing = temporal and (mix_context or not isinstance(clip, CrossFrameCLIP))
        self.context_tokens = (
            ContextTokens(width, frames, temporal_depth, temporal_init_std) if mixing else None
        )
        prompting = range(layers) if prompt_layers is None else prompt_layers
        self.context_prompting = (
            ContextPrompting(
                prompting, width, clip.embed_dim, prompt_alpha, prompt_init_std, prompt_depth
            )
            if prompt
            else None
        )
        self.interest_tokens = interest_tokens
        self.window_length = frames if temporal else 1  # frames that the model looks at
        self.temperature = temperature
        for name, parameter in clip.named_parameters():
            message = train_messages and ".message_" in name
            parameter.requires_grad_(message or ".lora_" in name)

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
        # Keyframes without persons leave here.
        active, owner = batch.layout.active, batch.layout.row  # (A,), (N,)
        window, keyframe = batch.window[active], batch.keyframe[active]

        # Every distinct frame is cut into patches once; crops and whole keyframes share one pass
        # through the encoder.
        patches = visual.patch_embed(normalize_pixels(batch.frames))  # (F, L, W)
        if self.person_tokens is None:
            persons = None
            frame_features = visual.encode(patches[keyframe])  # (A, W)
        else:
            crop_patches = visual.patch_embed(normalize_pixels(batch.crops))  # (N, L, W)
            encoded = visual.encode(torch.cat([crop_patches, patches[keyframe]]))  # (N + A, W)
            crop_features, frame_features = encoded.split([len(crop_patches), len(active)])

            # Section 2: person tokens.
            persons = self.person_tokens(crop_features)  # (N, W)

        # Section 3: context tokens, with class token, positions and ln_pre.
        if self.context_tokens is None:
            context = patches[keyframe]  # (A, L, W)
        else:
            context = self.context_tokens(patches, window, batch.layout.short)  # (A, L, W)
        context = visual.add_class_token_and_positions(context)  # (A, 1 + L, W)

        # X-CLIP's tower: the other frames of each window run along, and exchange messages with it.
        others = None
        if isinstance(self.clip, CrossFrameCLIP):
            frames = visual.add_class_token_and_positions(patches)  # (F, 1 + L, W)
            seen = window if self.window_length > 1 else keyframe[:, None]
            layers = len(visual.transformer.resblocks)
            others = OtherFrames.of_windows(frames, seen, keyframe, layers)

        # Sections 4 to 6: interaction; after every block its tokens prompt the keyframe's text, or
        # each person's interest tokens that person's text.
        x, layout = lay_out(context, persons, batch.layout)  # (A, S, W)
        text, text_row = vocabulary.expand(len(active), -1, -1), owner  # (A, C, E)
        if self.interest_tokens is not None:
            text = vocabulary.expand(len(owner), -1, -1)  # (N, C, E)
            text_row = torch.arange(len(owner), device=owner.device)
        spotted: list[Tensor] = []
        for layer, block in enumerate(visual.transformer.resblocks):
            message = None
            if others is not None:
                assert isinstance(block, CrossFrameBlock)
                message, others = others.through(block, x[:, 0])  # (A, W)
            if self.interest_tokens is not None:
                spotted.append(self.interest_tokens.spot(block, x, layout, message))  # (N, K)
            if message is None:
                x = block(x, layout.key_mask)
            else:
                x = block(x, layout.key_mask, message=message)
            if self.context_prompting is None:
                continue
            tokens, key_mask = x, layout.key_mask
            if self.interest_tokens is not None:
                tokens, key_mask = self.interest_tokens.gather(x, layout, spotted[-1]), None
            text = self.context_prompting(layer, text, tokens, key_mask)
        relation = visual.project(visual.ln_post(x[layout.row, layout.column]))  # (N, E)
        person_features = relation + visual.project(frame_features)[owner]

        # Section 7: cosine scores.
        logits = cosine_logits(person_features, text, text_row, self.temperature)
        interest_tokens = torch.stack(spotted) if spotted else None  # (R, N, K)
        return STCLIPOutput(logits, person_features, text, text_row, interest_tokens)


def cosine_logits(
    person_features: Tensor, text_features: Tensor, text_row: Tensor, temperature: float
) -> Tensor:
    """Cosines of persons and class names, divided by the temperature (method.md section 7).

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
    # A product and a sum, because autocast would take a matrix product down to 16 bits again.
    return (query[:, None] * names[text_row]).sum(dim=-1) / temperature
