"""ST-CLIP, top to bottom (Huang, Chen, Lai, WACV 2025; method.md sections 2 to 5 and 7).

Shape letters: F distinct frames, B keyframes, A keyframes that have persons, T frames of a window,
N persons, P the most persons of a keyframe, L patch tokens, S = 1 + P + L, W vision width, E joint
embedding width, C class names.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stclip.models.clip import CLIP, normalize_pixels
from stclip.models.context_prompting import ContextPrompting
from stclip.models.context_tokens import ContextTokens
from stclip.models.interaction import lay_out
from stclip.models.person_tokens import PersonTokens
from stclip.structures import ClipBatch


@dataclass
class STCLIPOutput:
    """What a forward gives for N persons.

    Attributes:
        logits: (N, C) float32, cosines divided by the temperature.
        person_features: (N, E), relation token + frame feature, not normalised.
        text_features: (A, C, E), prompted by each keyframe that has persons, not normalised.
        text_row: (N,) long, the row of ``text_features`` that a person is compared with.
    """

    logits: Tensor
    person_features: Tensor
    text_features: Tensor
    text_row: Tensor


class STCLIP(nn.Module):
    """CLIP with person tokens, context tokens, their interaction and context prompting.

    Args:
        clip: the CLIP to build on; all of it is frozen but its LoRA.
        frames: T, the length of the windows.
        prompt_alpha: initial scale of the prompts.
        temperature: the cosines are divided by it.
    """

    def __init__(
        self,
        clip: CLIP,
        frames: int = 9,
        prompt_alpha: float = 0.2,
        temperature: float = 0.07,
    ) -> None:
        super().__init__()
        self.clip = clip
        width = clip.visual.proj.shape[0]
        layers = len(clip.visual.transformer.resblocks)
        self.person_tokens = PersonTokens(width)
        self.context_tokens = ContextTokens(width, frames)
        self.context_prompting = ContextPrompting(layers, width, clip.embed_dim, prompt_alpha)
        self.temperature = temperature
        for name, parameter in clip.named_parameters():
            parameter.requires_grad_(".lora_" in name)

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
            embed_dim = vocabulary.shape[1]
            return STCLIPOutput(
                logits=vocabulary.new_zeros(0, len(vocabulary), dtype=torch.float32),
                person_features=vocabulary.new_zeros(0, embed_dim),
                text_features=vocabulary.new_zeros(0, len(vocabulary), embed_dim),
                text_row=batch.owner,
            )
        # Keyframes without persons leave here.
        active, owner = torch.unique_consecutive(batch.owner, return_inverse=True)  # (A,), (N,)
        window, keyframe = batch.window[active], batch.keyframe[active]

        # Every distinct frame is cut into patches once; crops and whole keyframes share one pass
        # through the encoder.
        patches = visual.patch_embed(normalize_pixels(batch.frames))  # (F, L, W)
        crop_patches = visual.patch_embed(normalize_pixels(batch.crops))  # (N, L, W)
        encoded = visual.encode(torch.cat([crop_patches, patches[keyframe]]))  # (N + A, W)
        crop_features, frame_features = encoded.split([len(crop_patches), len(active)])

        # Section 2: person tokens.
        persons = self.person_tokens(crop_features)  # (N, W)

        # Section 3: context tokens, with class token, positions and ln_pre.
        context = self.context_tokens(patches, window)  # (A, L, W)
        context = visual.add_class_token_and_positions(context)  # (A, 1 + L, W)

        # Sections 4 and 5: interaction; after every block its tokens prompt the keyframe's text.
        x, layout = lay_out(context, persons, owner)  # (A, S, W)
        text = vocabulary.expand(len(active), -1, -1)  # (A, C, E)
        for layer, block in enumerate(visual.transformer.resblocks):
            x = block(x, layout.key_mask)
            text = self.context_prompting(layer, text, x, layout.key_mask)
        relation = visual.project(visual.ln_post(x[layout.row, layout.column]))  # (N, E)
        person_features = relation + visual.project(frame_features)[owner]

        # Section 7: cosine scores, in float32 because the temperature magnifies rounding 14 times.
        query = F.normalize(person_features.float(), dim=-1)
        names = F.normalize(text.float(), dim=-1)
        # A product and a sum, because autocast would take a matrix product down to 16 bits again.
        logits = (query[:, None] * names[owner]).sum(dim=-1) / self.temperature
        return STCLIPOutput(logits, person_features, text, owner)
