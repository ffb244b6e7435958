"""X-CLIP as a baseline: every person of a keyframe gets the scores of a video clip.

Shape letters: F distinct frames, V distinct clips, T frames of a clip, B keyframes, N persons,
C class names, E joint embedding width.
"""

import torch
from torch import Tensor, nn

from stclip.models.stclip import STCLIPOutput, cosine_logits
from stclip.models.xclip import XCLIP, normalize_video
from stclip.models.xclip_start import is_new
from stclip.structures import ClipBatch, Needs


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
