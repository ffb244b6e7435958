"""The formats in which people hold X-CLIP weights, all brought to the parameter names of ``XCLIP``.

Only tensors and their names are looked at here; weights.py reads the files. Known formats:

- the authors' own, which differs from ours inside the prompts (``mlp.0`` and ``mlp.3``);
- Hugging Face's ``XCLIPModel``: other names, query, key and value apart, projections transposed.

Hugging Face's configs leave the large models at 8 heads in the multi-frame integration and in the
prompts, where they were trained with 12. The number of heads follows from the width here.
"""

import re
from collections.abc import Mapping

from torch import Tensor

from stclip.errors import UserError
from stclip.models.clip import HEAD_WIDTH
from stclip.models.clip_formats import (
    as_floats,
    clip_sizes,
    count_blocks,
    from_hugging_face,
    is_hugging_face,
    shorten,
)

EXPECTED = "expected X-CLIP in its authors' or Hugging Face's names"
POSITIONS = "mit.positional_embedding"

# (pattern, replacement) of Hugging Face's names that CLIP does not have.
_HUGGING_FACE_NAMES = [
    (r"^vision_model\.pre_layernorm\.", "visual.ln_pre."),
    (r"^mit\.position_embedding$", POSITIONS),
    (r"^mit\.encoder\.layers\.", "mit.resblocks."),
    (r"^prompts_generator\.layernorm\.", "prompts_generator.norm."),
    (r"^prompts_visual_layernorm\.", "prompts_visual_ln."),
    (r"^prompts_visual_projection$", "prompts_visual_proj"),
]
_PUBLISHED_NAMES = [
    (r"^(prompts_generator\.decoder\.\d+\.mlp)\.0\.", r"\1.c_fc."),
    (r"^(prompts_generator\.decoder\.\d+\.mlp)\.3\.", r"\1.c_proj."),
]


def xclip_names(state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Bring a state dict of any known format to the names of ``XCLIP``, in float32.

    Args:
        state: {name: tensor}.
        source: what error messages call it.

    Returns:
        {name: float32 tensor}.

    Raises:
        UserError: these are not the weights of an X-CLIP.
    """
    _reject_others(state, source)
    if is_hugging_face(state):
        state = from_hugging_face(_rename(state, _HUGGING_FACE_NAMES), source)
    return as_floats(_rename(state, _PUBLISHED_NAMES), source, EXPECTED)


def xclip_sizes(state: Mapping[str, Tensor], source: str = "state dict") -> dict[str, int]:
    """The sizes of an X-CLIP, from the shapes of its weights in the names of ``XCLIP``.

    Args:
        state: the weights; other tensors among them do no harm.
        source: what error messages call it.

    Returns:
        The arguments of ``XCLIP``, but for prompt_alpha: those of ``clip_sizes``, and frames,
        mit_layers, prompt_layers.

    Raises:
        UserError: tensors that show the sizes are missing, or do not fit.
    """
    sizes = clip_sizes(state, source, EXPECTED)
    if POSITIONS not in state:
        raise UserError(f"{source}: found no {POSITIONS}; {EXPECTED}")
    shape, embed_dim = tuple(state[POSITIONS].shape), sizes["embed_dim"]
    if len(shape) != 3 or shape[0] != 1 or shape[1] == 0 or shape[2] != embed_dim:
        raise UserError(
            f"{source}: found {POSITIONS} of shape {shape}, expected (1, frames, {embed_dim})"
        )
    if embed_dim % HEAD_WIDTH:
        raise UserError(
            f"{source}: found a joint space of width {embed_dim}, expected a multiple of "
            f"{HEAD_WIDTH} (the width of a head in X-CLIP)"
        )
    return {
        **sizes,
        "frames": shape[1],
        "mit_layers": count_blocks(state, "mit.resblocks."),
        "prompt_layers": count_blocks(state, "prompts_generator.decoder."),
    }


def _reject_others(state: Mapping[str, Tensor], source: str) -> None:
    """Name the models that people are likely to mistake for X-CLIP."""
    if any(name.startswith("roi_heads.") for name in state):
        found, remedy = "an ST-CLIP checkpoint", "give it to stclip.load"
    elif any(name.startswith("mit.") for name in state):
        return
    elif "visual.conv1.weight" in state or is_hugging_face(state):
        found, remedy = "CLIP", "give it to stclip.load_clip"
    else:
        found, remedy = f"tensors named {shorten(state)}", "check that this is the right file"
    raise UserError(f"{source}: found {found}; {EXPECTED}: {remedy}")


def _rename(state: Mapping[str, Tensor], names: list[tuple[str, str]]) -> dict[str, Tensor]:
    renamed = {}
    for name, tensor in state.items():
        for pattern, replacement in names:
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor
    return renamed
