"""X-CLIP's image tower for ST-CLIP, from X-CLIP's weights or from CLIP's (MODEL.BACKBONE xclip).

ch colours, W width of the tower, L patch tokens, p x p pixels of a patch.
"""

import logging

import torch
from torch import Tensor

from stclip.models import clip as of_clip
from stclip.models import xclip as of_xclip
from stclip.models.clip import CLIP
from stclip.models.clip_formats import clip_sizes
from stclip.models.cross_frame import CrossFrameCLIP
from stclip.models.weights import clip_from_state_dict, is_xclip, load_clip, load_xclip

logger = logging.getLogger(__name__)

# What X-CLIP has behind its two towers, and ST-CLIP does without.
_BEHIND = ("mit.", "prompts_")


def cross_frame_clip(
    source: str, lora_rank: int = 0, lora_alpha: float = 1.0, activation: str = "auto"
) -> CrossFrameCLIP:
    """Both towers of X-CLIP, on the CPU in float32 and in eval mode; the pixels as CLIP's.

    Of X-CLIP's weights those of the towers are taken, with ImageNet's pixel statistics, which they
    were trained with, worked into them. Of CLIP's all are taken, and ``message_fc`` and
    ``message_attn`` start as ``nn.Linear`` and ``nn.MultiheadAttention`` do by default, with random
    numbers of torch's global generator.

    Args:
        source: a name or file of X-CLIP (``load_xclip``), or of CLIP (``load_clip``).
        lora_rank: rank of LoRA on the MLPs of the image tower; 0 leaves it out.
        lora_alpha: LoRA's scale times its rank.
        activation: that of ``load_xclip`` or ``load_clip``.

    Raises:
        UserError: the name or the file is unknown, damaged or of neither, or the download fails.
    """
    if is_xclip(source):
        loaded: CLIP = load_xclip(source, activation=activation)
        towers = {
            name: tensor
            for name, tensor in loaded.state_dict().items()
            if not name.startswith(_BEHIND)
        }
        state = with_clips_pixels(towers)
        logger.info("MODEL.CLIP %s: X-CLIP, with the messages between its frames", source)
    else:
        loaded = load_clip(source, activation=activation)
        shared = loaded.state_dict()
        fresh = CrossFrameCLIP(**clip_sizes(shared, source)).state_dict()
        state = fresh | shared
        logger.info(
            "MODEL.CLIP %s: CLIP; the %.1f M parameters of the messages between frames are "
            "freshly initialised",
            source,
            sum(tensor.numel() for name, tensor in fresh.items() if name not in shared) / 1e6,
        )
    model = clip_from_state_dict(state, lora_rank, lora_alpha, source, kind=CrossFrameCLIP)
    assert isinstance(model, CrossFrameCLIP)
    model.use_activation(loaded.activation)
    return model


def with_clips_pixels(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights that make of pixels normalised by CLIP what X-CLIP's make of ImageNet's.

    The scales go into the patch convolution. The shift is the same for every patch, so it goes
    into the positions of the patches.

    Args:
        state: X-CLIP's weights, in the names of ``XCLIP``.

    Returns:
        The same, with another ``visual.conv1.weight`` and ``visual.positional_embedding``.
    """
    weight = state["visual.conv1.weight"]  # (W, ch, p, p)
    means = weight.new_tensor([of_clip.PIXEL_MEAN, of_xclip.PIXEL_MEAN])
    deviations = weight.new_tensor([of_clip.PIXEL_STD, of_xclip.PIXEL_STD])
    scale = deviations[0] / deviations[1]  # (ch,)
    shift = (means[0] - means[1]) / deviations[1]  # (ch,)
    positions = state["visual.positional_embedding"].clone()  # (1 + L, W)
    positions[1:] += torch.einsum("wcij,c->w", weight, shift)
    moved = {
        "visual.conv1.weight": weight * scale[:, None, None],
        "visual.positional_embedding": positions,
    }
    return state | moved
