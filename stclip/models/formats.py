"""The formats in which people hold weights of CLIP and X-CLIP, all brought to our names.

Only tensors and their names are looked at here; weights.py reads the files. Known formats of CLIP,
whose names here are OpenAI's:

- OpenAI's own, which open_clip's ``CLIP`` shares;
- open_clip's ``CustomTextCLIP``: the text tower under ``text.``;
- Hugging Face's ``CLIPModel``: other names, query, key and value apart, projections transposed;
- ours for a small vocabulary: OpenAI's names, but only some rows of the token embedding, with
  ``token_embedding.ids`` (their ids) and ``vocab_size`` (how many there should be).

Of X-CLIP, whose names here are those of ``XCLIP``:

- the authors' own, which differs from ours inside the prompts (``mlp.0`` and ``mlp.3``);
- Hugging Face's ``XCLIPModel``. Its configs leave the large models at 8 heads in the multi-frame
  integration and in the prompts, where they were trained with 12; here the number of heads follows
  from the width.

Shape letters: W width of a tower, E joint embedding width, L patch tokens.
"""

import logging
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from stclip.errors import UserError
from stclip.models.clip import HEAD_WIDTH, PIXEL_MEAN, PIXEL_STD, CLIPSizes
from stclip.models.tensor_files import check_tensors, shorten
from stclip.models.xclip import XCLIPSizes

logger = logging.getLogger(__name__)

# Numbers that OpenAI stored beside the weights; the shapes of the weights say the same.
_NOT_WEIGHTS = {"input_resolution", "context_length", "vocab_size"}
# The ids of the rows of a token embedding that holds some of them only.
_IDS = "token_embedding.ids"
# Index tables that older versions of transformers saved.
_HUGGING_FACE_NOT_WEIGHTS = {
    "text_model.embeddings.position_ids",
    "vision_model.embeddings.position_ids",
}
# Where training programs put a state dict, and the moving average of one; the first is taken.
_PLAIN_KEYS = ("state_dict", "model", "model_state_dict")
_EMA_KEYS = ("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema")
STATE_KEYS = (*_PLAIN_KEYS, *_EMA_KEYS)
_INNER_KEYS = (*_PLAIN_KEYS, "module", "shadow")  # where an average keeps its weights
_WRAPPERS = ("module.", "_orig_mod.")
_EXPECTED = (
    "expected CLIP with a vision transformer in OpenAI's, open_clip's or Hugging Face's names"
)

# (pattern, replacement) of Hugging Face's names; the first that matches is taken.
_HUGGING_FACE_NAMES = [
    (r"vision_model\.embeddings\.class_embedding", r"visual.class_embedding"),
    (r"vision_model\.embeddings\.patch_embedding\.weight", r"visual.conv1.weight"),
    (r"vision_model\.embeddings\.position_embedding\.weight", r"visual.positional_embedding"),
    (r"vision_model\.pre_layrnorm\.", r"visual.ln_pre."),
    (r"vision_model\.post_layernorm\.", r"visual.ln_post."),
    (r"vision_model\.encoder\.layers\.", r"visual.transformer.resblocks."),
    (r"visual_projection\.weight", r"visual.proj"),
    (r"text_model\.embeddings\.token_embedding\.", r"token_embedding."),
    (r"text_model\.embeddings\.position_embedding\.weight", r"positional_embedding"),
    (r"text_model\.final_layer_norm\.", r"ln_final."),
    (r"text_model\.encoder\.layers\.", r"transformer.resblocks."),
    (r"text_projection\.weight", r"text_projection"),
]
_HUGGING_FACE_BLOCK_NAMES = [
    (".layer_norm1.", ".ln_1."),
    (".layer_norm2.", ".ln_2."),
    (".mlp.fc1.", ".mlp.c_fc."),
    (".mlp.fc2.", ".mlp.c_proj."),
    (".self_attn.", ".attn."),
]
XCLIP_EXPECTED = "expected X-CLIP in its authors' or Hugging Face's names"
POSITIONS = "mit.positional_embedding"
# (pattern, replacement) of Hugging Face's names that CLIP does not have.
_HUGGING_FACE_XCLIP_NAMES = [
    (r"^vision_model\.pre_layernorm\.", "visual.ln_pre."),
    (r"^mit\.position_embedding$", POSITIONS),
    (r"^mit\.encoder\.layers\.", "mit.resblocks."),
    (r"^prompts_generator\.layernorm\.", "prompts_generator.norm."),
    (r"^prompts_visual_layernorm\.", "prompts_visual_ln."),
    (r"^prompts_visual_projection$", "prompts_visual_proj"),
]
_PUBLISHED_XCLIP_NAMES = [
    (r"^(prompts_generator\.decoder\.\d+\.mlp)\.0\.", r"\1.c_fc."),
    (r"^(prompts_generator\.decoder\.\d+\.mlp)\.3\.", r"\1.c_proj."),
]


def unwrap(contents: Any, source: str, expected: str = _EXPECTED) -> dict[str, Tensor]:
    """The state dict in what a file holds, without the wrappings of training programs.

    Args:
        contents: see ``find_state``.
        source: what error messages call it.
        expected: what error messages say they expected.

    Raises:
        UserError: there is no state dict in it.
    """
    return bare_names(find_state(contents, source, expected))


def find_state(contents: Any, source: str, expected: str = _EXPECTED) -> dict[str, Tensor]:
    """The state dict in what a file holds, under the names that it has there.

    Of a file that holds a moving average of the weights (EMA) too, the average is taken, which is
    what its authors evaluate; where only some weights were averaged, the others are the plain ones.
    A line in the log says so.

    Args:
        contents: a state dict, or a dict that holds one under one of ``STATE_KEYS``.
        source: what error messages call it.
        expected: what error messages say they expected.

    Raises:
        UserError: there is no state dict in it, or one with other things than plain tensors.
    """
    plain = contents
    for key in _PLAIN_KEYS:
        if isinstance(plain, Mapping) and isinstance(plain.get(key), Mapping):
            plain = plain[key]
    averages = contents if isinstance(contents, Mapping) else {}
    entry = next((key for key in _EMA_KEYS if _inner_state(averages.get(key)) is not None), "")
    average = _inner_state(averages.get(entry))
    if average is not None:
        if plain is contents or not all(isinstance(name, str) for name in plain):
            plain = average
        else:
            ours, theirs = bare_names(plain), bare_names(average)
            plain = ours | theirs if theirs.keys() <= ours.keys() else average
        logger.info("%s: taking the moving average of the weights (%s)", source, entry)
    if not isinstance(plain, Mapping):
        raise UserError(f"{source}: found a {type(plain).__name__}; {expected}")
    state = {name: value for name, value in plain.items() if name != "n_averaged"}
    others = [
        str(n) for n, v in state.items() if not (isinstance(v, Tensor) and isinstance(n, str))
    ]
    if others or not state:
        found = f"other things than tensors ({shorten(others)})" if others else "nothing"
        raise UserError(f"{source}: found {found}; {expected}")
    check_tensors(state, source)
    return {
        name: tensor.reshape(()) if name.endswith("logit_scale") and tensor.numel() == 1 else tensor
        for name, tensor in state.items()
    }


def bare_names(state: Mapping[str, Any]) -> dict[str, Any]:
    """A state dict without the prefixes of parallel (module.) and compiled (_orig_mod.) models."""
    state = dict(state)
    while state and any(all(name.startswith(p) for name in state) for p in _WRAPPERS):
        state = {name.partition(".")[2]: value for name, value in state.items()}
    return {name.replace("._orig_mod.", "."): value for name, value in state.items()}


def _inner_state(value: Any) -> Mapping[str, Tensor] | None:
    """The state dict that an entry is or holds; None if it does neither."""
    for _ in range(3):
        if not isinstance(value, Mapping):
            return None
        pairs = value.items()
        if value and all(isinstance(n, str) and isinstance(v, Tensor) for n, v in pairs):
            return value
        value = next((value[key] for key in _INNER_KEYS if key in value), None)
    return None


def openai_names(state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Bring a state dict of any known format to OpenAI's names, in float32.

    Args:
        state: {name: tensor}.
        source: what error messages call it.

    Returns:
        {name: float32 tensor}.

    Raises:
        UserError: these are not the weights of a CLIP with a vision transformer.
    """
    _reject_other_than_clip(state, source)
    state = all_tokens(state, source)
    if is_hugging_face(state):
        state = from_hugging_face(state, source)
    elif "text.token_embedding.weight" in state:
        state = {name.removeprefix("text."): tensor for name, tensor in state.items()}
    state = {name: tensor for name, tensor in state.items() if name not in _NOT_WEIGHTS}
    return as_floats(state, source)


def with_clips_pixels(
    state: Mapping[str, Tensor], mean: Sequence[float], std: Sequence[float]
) -> dict[str, Tensor]:
    """Weights that make of pixels normalised by CLIP what others make of pixels normalised so.

    The scales go into the patch convolution. The shift is the same for every patch, so it goes
    into the positions of the patches.

    Args:
        state: the others, in the names of ``CLIP``.
        mean: of each channel, as in ``normalize_pixels``.
        std: of each channel.

    Returns:
        The same, with another ``visual.conv1.weight`` and ``visual.positional_embedding``.
    """
    weight = state["visual.conv1.weight"]  # (W, ch, p, p)
    means = weight.new_tensor([PIXEL_MEAN, tuple(mean)])
    deviations = weight.new_tensor([PIXEL_STD, tuple(std)])
    scale = deviations[0] / deviations[1]  # (ch,)
    shift = (means[0] - means[1]) / deviations[1]  # (ch,)
    positions = state["visual.positional_embedding"].clone()  # (1 + L, W)
    positions[1:] += torch.einsum("wcij,c->w", weight, shift)
    moved = {
        "visual.conv1.weight": weight * scale[:, None, None],
        "visual.positional_embedding": positions,
    }
    return {**state, **moved}


def as_floats(
    state: Mapping[str, Tensor], source: str, expected: str = _EXPECTED
) -> dict[str, Tensor]:
    """The tensors in float32; those of whole numbers are a UserError."""
    check_floats(state, source, expected)
    return {name: tensor.to(torch.float32) for name, tensor in state.items()}


def check_floats(state: Mapping[str, Tensor], source: str, expected: str) -> None:
    """Refuse weights of whole numbers or truth values, which would be taken for floats.

    Raises:
        UserError: it names the first few of them.
    """
    odd = [name for name, tensor in state.items() if not tensor.is_floating_point()]
    if odd:
        kinds = ", ".join(sorted({str(state[name].dtype) for name in odd}))
        raise UserError(
            f"{source}: found tensors of whole numbers ({shorten(odd)}) as {kinds}; {expected}"
        )


def name_tokens(state: Mapping[str, Tensor], ids: Tensor, count: int) -> dict[str, Tensor]:
    """Tell for a token embedding with some rows only which they are.

    Args:
        state: weights in OpenAI's names.
        ids: (n,) the tokens of the n rows.
        count: how many tokens there are altogether.

    Returns:
        The weights and the two tensors that ``all_tokens`` needs.
    """
    named = {_IDS: ids.to(torch.int32), "vocab_size": torch.tensor(count, dtype=torch.int32)}
    return {**state, **named}


def all_tokens(state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Complete a token embedding of some rows: all other tokens get the mean of these.

    So every text can be encoded; words that the model has never read say nothing.

    Args:
        state: {name: tensor}; without ``token_embedding.ids`` it is returned as it is.
        source: what error messages call it.

    Raises:
        UserError: the ids do not fit the rows of the token embedding.
    """
    state = dict(state)
    if _IDS not in state:
        return state
    ids = state.pop(_IDS).long()
    rows, size = state.get("token_embedding.weight"), state.get("vocab_size")
    if rows is None or size is None or rows.ndim != 2 or ids.shape != rows.shape[:1]:
        raise UserError(
            f"{source}: found {_IDS} with {len(ids)} ids, expected as many rows in "
            "token_embedding.weight, and vocab_size beside them: is the file damaged?"
        )
    count = int(size)
    if ids.numel() == 0 or ids.min() < 0 or ids.max() >= count:
        raise UserError(f"{source}: found {_IDS} that are not all from 0 to {count - 1}")
    embedding = rows.to(torch.float32).mean(dim=0).repeat(count, 1)
    embedding[ids] = rows.to(torch.float32)
    state["token_embedding.weight"] = embedding
    return state


def is_hugging_face(state: Iterable[str]) -> bool:
    """Whether the names are Hugging Face's."""
    return any(name.startswith(("vision_model.", "text_model.")) for name in state)


def clip_sizes(
    state: Mapping[str, Tensor], source: str = "state dict", expected: str = _EXPECTED
) -> CLIPSizes:
    """The sizes of a CLIP, from the shapes of its weights in OpenAI's names.

    Args:
        state: the weights; other tensors among them do no harm.
        source: what error messages call it.
        expected: what error messages say they expected.

    Returns:
        All sizes. (The number of heads cannot be seen; it is width // 64 in OpenAI's models.)

    Raises:
        UserError: tensors that show the sizes are missing, or do not fit a vision transformer.
    """
    needed = {
        "visual.conv1.weight": 4,
        "visual.positional_embedding": 2,
        "positional_embedding": 2,
        "token_embedding.weight": 2,
        "text_projection": 2,
    }
    missing = [name for name in needed if name not in state]
    if missing:
        raise UserError(f"{source}: found no {shorten(missing)}; {expected}")
    for name, dimensions in needed.items():
        if state[name].ndim != dimensions:
            shape = tuple(state[name].shape)
            raise UserError(f"{source}: found {name} of shape {shape}, expected {dimensions}-D")
    vision_width, _, _, patch_size = state["visual.conv1.weight"].shape
    tokens = state["visual.positional_embedding"].shape[0]
    side = math.isqrt(tokens - 1)
    if side * side != tokens - 1:
        raise UserError(
            f"{source}: found visual.positional_embedding with {tokens} positions, expected one "
            "for the class token and a square of patches"
        )
    text_length, text_width = state["positional_embedding"].shape
    for name, width in (("image", vision_width), ("text", text_width)):
        if width % HEAD_WIDTH:
            raise UserError(
                f"{source}: found an {name} tower of width {width}, expected a multiple of "
                f"{HEAD_WIDTH} (the width of a head in OpenAI's models)"
            )
    return CLIPSizes(
        image_size=side * patch_size,
        patch_size=patch_size,
        vision_width=vision_width,
        vision_layers=count_blocks(state, "visual.transformer.resblocks."),
        text_width=text_width,
        text_layers=count_blocks(state, "transformer.resblocks."),
        embed_dim=state["text_projection"].shape[1],
        text_length=text_length,
        vocab_size=state["token_embedding.weight"].shape[0],
    )


def _reject_other_than_clip(state: Mapping[str, Tensor], source: str) -> None:
    """Name the models that people are likely to mistake for CLIP."""
    if any(name.startswith("roi_heads.") for name in state):
        found, remedy = "an ST-CLIP checkpoint", "give it as MODEL.WEIGHT"
    elif any(name.startswith(("mit.", "prompts_generator.")) for name in state):
        found, remedy = "X-CLIP", "give it to stclip.load_xclip, or take CLIP's own"
    elif any(name.startswith("visual.layer1.") for name in state):
        found, remedy = "CLIP with a ResNet", "take one of the ViT models"
    elif "visual.conv1.weight" in state or is_hugging_face(state):
        return
    else:
        found, remedy = f"tensors named {shorten(state)}", "check that this is the right file"
    raise UserError(f"{source}: found {found}; {_EXPECTED}: {remedy}")


def from_hugging_face(state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """OpenAI's names for Hugging Face's; names that are neither in CLIP stay as they are.

    Raises:
        UserError: of a query, key and value, not all three are there.
    """
    renamed = {}
    for name, tensor in state.items():
        if name in _HUGGING_FACE_NOT_WEIGHTS:
            continue
        for pattern, replacement in _HUGGING_FACE_NAMES:
            new, matches = re.subn("^" + pattern, replacement, name)
            if matches:
                break
        if ".resblocks." in new:
            for old_part, new_part in _HUGGING_FACE_BLOCK_NAMES:
                new = new.replace(old_part, new_part)
        # Hugging Face's projections are linear layers (E, W); OpenAI's multiply from the right.
        transposed = new in ("visual.proj", "text_projection") and tensor.ndim == 2
        renamed[new] = tensor.T.contiguous() if transposed else tensor
    queries = [name for name in renamed if ".resblocks." in name and "attn.q_proj." in name]
    for name in queries:
        parts = [name.replace(".q_proj.", f".{part}_proj.") for part in "qkv"]
        missing = [part for part in parts if part not in renamed]
        if missing:
            raise UserError(f"{source}: found no {shorten(missing)}, expected it beside {name}")
        fused = name.replace("attn.q_proj.", "attn.in_proj_")
        renamed[fused] = torch.cat([renamed.pop(part) for part in parts])
    return renamed


def count_blocks(state: Iterable[str], prefix: str) -> int:
    """How many blocks the names that begin with ``prefix`` and a number tell of."""
    numbers = (name[len(prefix) :].split(".")[0] for name in state if name.startswith(prefix))
    return 1 + max((int(number) for number in numbers if number.isdigit()), default=-1)


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
    _reject_other_than_xclip(state, source)
    if is_hugging_face(state):
        state = from_hugging_face(_rename(state, _HUGGING_FACE_XCLIP_NAMES), source)
    return as_floats(_rename(state, _PUBLISHED_XCLIP_NAMES), source, XCLIP_EXPECTED)


def xclip_sizes(state: Mapping[str, Tensor], source: str = "state dict") -> XCLIPSizes:
    """The sizes of an X-CLIP, from the shapes of its weights in the names of ``XCLIP``.

    Args:
        state: the weights; other tensors among them do no harm.
        source: what error messages call it.

    Raises:
        UserError: tensors that show the sizes are missing, or do not fit.
    """
    sizes = clip_sizes(state, source, XCLIP_EXPECTED)
    if POSITIONS not in state:
        raise UserError(f"{source}: found no {POSITIONS}; {XCLIP_EXPECTED}")
    shape, embed_dim = tuple(state[POSITIONS].shape), sizes.embed_dim
    if len(shape) != 3 or shape[0] != 1 or shape[1] == 0 or shape[2] != embed_dim:
        raise UserError(
            f"{source}: found {POSITIONS} of shape {shape}, expected (1, frames, {embed_dim})"
        )
    if embed_dim % HEAD_WIDTH:
        raise UserError(
            f"{source}: found a joint space of width {embed_dim}, expected a multiple of "
            f"{HEAD_WIDTH} (the width of a head in X-CLIP)"
        )
    return XCLIPSizes(
        **vars(sizes),
        frames=shape[1],
        mit_layers=count_blocks(state, "mit.resblocks."),
        prompt_layers=count_blocks(state, "prompts_generator.decoder."),
    )


def _reject_other_than_xclip(state: Mapping[str, Tensor], source: str) -> None:
    """Name the models that people are likely to mistake for X-CLIP."""
    if any(name.startswith("roi_heads.") for name in state):
        found, remedy = "an ST-CLIP checkpoint", "give it to stclip.load"
    elif any(name.startswith("mit.") for name in state):
        return
    elif "visual.conv1.weight" in state or is_hugging_face(state):
        found, remedy = "CLIP", "give it to stclip.load_clip"
    else:
        found, remedy = f"tensors named {shorten(state)}", "check that this is the right file"
    raise UserError(f"{source}: found {found}; {XCLIP_EXPECTED}: {remedy}")


def _rename(state: Mapping[str, Tensor], names: list[tuple[str, str]]) -> dict[str, Tensor]:
    renamed = {}
    for name, tensor in state.items():
        for pattern, replacement in names:
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor
    return renamed
