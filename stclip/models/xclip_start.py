"""Where a model that uses X-CLIP starts from: X-CLIP's weights, or CLIP's with new parts."""

import logging

from stclip.errors import UserError
from stclip.models.clip import HEAD_WIDTH
from stclip.models.clip_formats import clip_sizes
from stclip.models.weights import is_xclip, load_clip, load_xclip
from stclip.models.xclip import XCLIP

logger = logging.getLogger(__name__)

# What the parameters that X-CLIP adds to CLIP have in their names.
NEW_PARTS = ("message_", "mit.", "prompts_")


def is_new(name: str) -> bool:
    """Whether a parameter of X-CLIP, by its name, is none of CLIP's: messages, MIT, prompts."""
    return any(part in name for part in NEW_PARTS)


def xclip_from(source: str, frames: int, activation: str = "auto") -> XCLIP:
    """X-CLIP from what MODEL.CLIP holds, on the CPU in float32 and in eval mode.

    Of X-CLIP's own weights all are taken; where they were trained for another number of frames, the
    positions of the frames are interpolated, with a warning. Of CLIP's weights those that the two
    models share are taken, and the new parts are initialised as X-CLIP's authors do it: linear
    layers of the multi-frame integration and of the prompts, and the positions of the frames, with
    a truncated normal (deviation 0.02) and biases of 0; of the messages ``message_fc`` as
    ``nn.Linear``, and ``message_attn`` as ``nn.MultiheadAttention`` start by default; the
    projection of the patches with Xavier's uniform; the scale of the prompts at 0.1. The random
    numbers are those of torch's global generator.

    Args:
        source: a name or file of X-CLIP (``load_xclip``), or of CLIP (``load_clip``).
        frames: T, the number of frames of a video.
        activation: that of ``load_xclip`` or ``load_clip``; the new parts have QuickGELU.

    Raises:
        UserError: the name or the file is unknown, damaged or of neither, the download fails,
            ``frames`` is below 1, or the joint space of CLIP is no multiple of a head's width.
    """
    if is_xclip(source):
        logger.info("MODEL.CLIP %s: X-CLIP, with all its weights", source)
        return load_xclip(source, frames=frames, activation=activation)
    if frames < 1:
        raise UserError(f"frames: found {frames}, expected at least 1")
    clip = load_clip(source, activation=activation)
    if clip.embed_dim % HEAD_WIDTH:
        raise UserError(
            f"{source}: found a joint space of width {clip.embed_dim}, expected a multiple of "
            f"{HEAD_WIDTH} (the width of a head in X-CLIP): choose another CLIP"
        )
    state = clip.state_dict()
    model = XCLIP(**clip_sizes(state, source), frames=frames)
    fresh = {name: tensor for name, tensor in model.state_dict().items() if is_new(name)}
    model.load_state_dict(state | fresh)
    model.use_activation(clip.activation)
    logger.info(
        "MODEL.CLIP %s: CLIP; the %.1f M parameters that X-CLIP adds to it are freshly initialised",
        source,
        sum(tensor.numel() for tensor in fresh.values()) / 1e6,
    )
    return model.eval()
