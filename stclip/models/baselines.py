"""What CLIP knows without any training: baselines that ST-CLIP is compared with.

N persons, A keyframes that have persons, C class names, E joint embedding width.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from stclip.models.clip import CLIP, normalize_pixels
from stclip.models.marked import Outside, mark
from stclip.models.openclip import OpenCLIP
from stclip.models.stclip import STCLIPOutput, cosine_logits
from stclip.structures import ClipBatch, Needs

# MODEL.NAME, and the arguments that make that baseline.
BASELINES = {
    "frame": {"frame": True, "crop": False},
    "crop": {"frame": False, "crop": True},
    "frame_crop": {"frame": True, "crop": True},
    "marked": {"frame": False, "crop": False, "marked": True},
    "frame_marked": {"frame": True, "crop": False, "marked": True},
    "frame_crop_marked": {"frame": True, "crop": True, "marked": True},
}


class Baseline(nn.Module):
    """CLIP's image features of pictures of a person against CLIP's text features.

    Keyframes and crops are preprocessed as ST-CLIP's are, and the class names are the bare ones. Of
    several, the UNNORMALISED projected features are added, because ST-CLIP adds those of the
    interaction and of the keyframe so (method.md section 4): whatever it gains over this baseline
    then comes from what it computes and not from another way to add.

    Args:
        clip: a CLIP without LoRA, or one of open_clip's; all of it is frozen.
        frame: whether the keyframe's feature counts.
        crop: whether the feature of the person's crop counts.
        marked: whether that of the keyframe counts in which the person is marked; one must.
        outside: what is done outside of the person's box to mark the person, see ``mark``.
        temperature: the cosines are divided by it.
    """

    def __init__(
        self,
        clip: CLIP | OpenCLIP,
        *,
        frame: bool,
        crop: bool,
        marked: bool = False,
        outside: Outside = "blur",
        temperature: float = 0.07,
    ) -> None:
        super().__init__()
        assert frame or crop or marked, "a baseline must see the person somewhere"
        self.clip = clip.requires_grad_(False)
        if isinstance(clip, OpenCLIP):
            needs, self._normalize = clip.needs, clip.normalize
        else:
            needs, self._normalize = Needs(clip.image_size), normalize_pixels
        self.needs = replace(needs, frame_boxes=marked)
        self.frame, self.crop = frame, crop
        self.marked = outside if marked else None
        self.temperature = temperature

    @property
    def window_length(self) -> int:
        """Frames of a window that the model looks at: the keyframe."""
        return 1

    @torch.no_grad()
    def encode_vocabulary(self, tokens: Tensor) -> Tensor:
        """CLIP's features of the class names: tokens (C, text_length) -> (C, E)."""
        return self.clip.encode_text(tokens)

    def forward(self, batch: ClipBatch, vocabulary: Tensor) -> STCLIPOutput:
        """Compare every person of a batch with every class name.

        Args:
            batch: a ragged batch on the model's device; each keyframe that has persons is encoded
                once, however many they are.
            vocabulary: (C, E) from ``encode_vocabulary``.

        Returns:
            ST-CLIP's output, with one row of text for all persons: nothing prompts it.
        """
        if len(batch.crops) == 0:
            return STCLIPOutput.empty(batch, vocabulary)
        features: list[Tensor] = []
        if self.frame:
            active, owner = batch.layout.active, batch.layout.row  # (A,), (N,)
            frames = self._normalize(batch.frames[batch.keyframe[active]])
            features.append(self.clip.encode_image(frames)[owner])  # (N, E)
        if self.crop:
            features.append(self.clip.encode_image(self._normalize(batch.crops)))  # (N, E)
        if self.marked is not None:
            pictures = self._normalize(mark(batch, self.marked))
            features.append(self.clip.encode_image(pictures))  # (N, E)
        person_features = torch.stack(features).sum(dim=0)
        text, text_row = vocabulary[None], torch.zeros_like(batch.owner)
        logits = cosine_logits(person_features, text, text_row, self.temperature)
        return STCLIPOutput(logits, person_features, text, text_row)
