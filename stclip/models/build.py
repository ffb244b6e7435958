"""From config keys and weights to a model."""

import logging
from collections.abc import Callable, Sequence
from functools import reduce
from operator import getitem
from typing import Any

from torch import Tensor
from yacs.config import CfgNode

from stclip.errors import UserError
from stclip.models.baselines import BASELINES, Baseline
from stclip.models.clip import CLIP
from stclip.models.cross_frame import CrossFrameCLIP
from stclip.models.interest_tokens import InterestTokens
from stclip.models.stclip import STCLIP
from stclip.models.tokenizer import get_tokenizer, tokenize
from stclip.models.weights import (
    clip_from_state_dict,
    is_xclip,
    load_clip,
    xclip_from_state_dict,
)
from stclip.models.xclip_backbone import cross_frame_clip
from stclip.models.xclip_baseline import XCLIPBaseline
from stclip.models.xclip_start import xclip_from
from stclip.structures import Needs

logger = logging.getLogger(__name__)

Model = STCLIP | Baseline | XCLIPBaseline


def build_model(
    cfg: CfgNode, state: dict[str, Tensor] | None = None, activation: str | None = None
) -> Model:
    """The model of MODEL.NAME on the CPU in float32, in evaluation mode.

    Args:
        cfg: its MODEL keys.
        state: a state dict of ours, CLIP included: all sizes follow from its shapes, and MODEL.CLIP
            is not read. A baseline takes CLIP alone out of it, without LoRA, which is the CLIP that
            the training started from; xclip takes its own only. None: CLIP from MODEL.CLIP (of
            xclip CLIP or X-CLIP), the rest freshly initialised.
        activation: the activation function of that state dict's CLIP, if its file tells it.

    Raises:
        UserError: the state dict is not one of ST-CLIP, lacks or has too many parameters, or its
            sizes or parts contradict each other or the config.
    """
    model: Model
    if cfg.MODEL.NAME == "stclip":
        model = _build_stclip(cfg, state)
    elif cfg.MODEL.NAME == "xclip":
        model = _build_xclip(cfg, state)
    else:
        clip = _clip(cfg, state, lora_rank=0)
        temperature = cfg.MODEL.HEAD.TEMPERATURE
        model = Baseline(clip, **BASELINES[cfg.MODEL.NAME], temperature=temperature)
    if state is not None:
        model.clip.use_activation(_activation_of_weight(cfg, activation))
    visual = model.clip.visual
    model.needs = needs_of(cfg, visual.image_size)
    logger.info(
        "model %s: vision %d wide, %d layers, patch %d at %d px; embedding %d; "
        "%.1f M parameters, %.1f M of them trained",
        cfg.MODEL.NAME,
        visual.proj.shape[0],
        len(visual.transformer.resblocks),
        visual.patch_size,
        visual.image_size,
        model.clip.embed_dim,
        sum(p.numel() for p in model.parameters()) / 1e6,
        sum(p.numel() for p in model.parameters() if p.requires_grad) / 1e6,
    )
    return model.eval()


def needs_of(cfg: CfgNode, image_size: int) -> Needs:
    """What the model of MODEL.NAME looks at, whose CLIP takes pictures of that size."""
    temporal, clips = cfg.MODEL.TEMPORAL, cfg.MODEL.XCLIP
    if cfg.MODEL.NAME == "xclip":
        return Needs(image_size, clips.FRAMES, clips.STRIDE, clips.UNIT)
    over_time = cfg.MODEL.NAME == "stclip" and temporal.ENABLED
    return Needs(image_size, temporal.FRAMES if over_time else 1, temporal.STRIDE)


def encode_labels(
    model: Model, labels: list[str], place: Callable[[str], str] | None = None
) -> Tensor:
    """The model's features of class names (C, E), the names taken exactly as written.

    Args:
        model: its text tower.
        labels: the names.
        place: words for where a name stands, for messages.

    Raises:
        UserError: a name has more tokens than the text tower has positions.
    """
    length = model.clip.text_length
    for name in labels:
        if len(name.encode(errors="replace")) + 2 <= length:  # no token has less than a byte
            continue
        count = len(get_tokenizer().encode(name)) + 2
        if count > length:
            where = f"{place(name)}: " if place is not None else ""
            raise UserError(
                f"{where}label {name!r:.60} has {count} tokens with start and end of text, the "
                f"model reads {length}; shorten it"
            )
    tokens = tokenize(labels, length)
    return model.encode_vocabulary(tokens.to(model.clip.text_projection.device))


def load_state(model: STCLIP, state: dict[str, Tensor], source: str) -> None:
    """Load every parameter or none.

    Raises:
        UserError: names are missing or unknown, or shapes differ; the first of each is named.
    """
    expected = model.state_dict()
    missing = [name for name in expected if name not in state]
    unknown = [name for name in state if name not in expected]
    if missing or unknown:
        parts = [
            f"{len(names)} {word} (first: {names[0]})"
            for names, word in ((missing, "missing"), (unknown, "unknown"))
            if names
        ]
        raise UserError(f"{source}: parameters do not fit ST-CLIP: {', '.join(parts)}")
    for name, tensor in expected.items():
        if state[name].shape != tensor.shape:
            raise UserError(
                f"{source}: {name} has shape {tuple(state[name].shape)}, the model's is "
                f"{tuple(tensor.shape)}: the weights are of other sizes"
            )
    model.load_state_dict(state)


def config_of_state(state: dict[str, Tensor]) -> dict[str, Any]:
    """What a state dict of ST-CLIP says about the config: {key under MODEL: value}."""

    def holds(part: str) -> bool:
        return any(name.startswith(part) for name in state)

    found: dict[str, Any] = {
        "BACKBONE": "xclip" if _has_messages(state) else "clip",
        "PERSON_TOKENS.ENABLED": holds("person_tokens."),
        "PROMPT.ENABLED": holds("context_prompting."),
    }
    if found["BACKBONE"] == "clip":
        found["TEMPORAL.ENABLED"] = holds("context_tokens.")
    else:  # the messages are the same, whether or not there are other frames
        found["TEMPORAL.BEFORE_XCLIP"] = holds("context_tokens.")
    temporal = state.get("context_tokens.temporal_embedding")
    if temporal is not None:
        found["TEMPORAL.FRAMES"] = len(temporal)
        found["TEMPORAL.DEPTH"] = 1 + len(_numbers(state, "context_tokens.deeper."))
    prompting = _numbers(state, "context_prompting.prompts.")
    if prompting:
        layers = len(_numbers(state, "clip.visual.transformer.resblocks."))
        found["PROMPT.LAYERS"] = _layer_names(prompting, layers)
        first = f"context_prompting.prompts.{prompting[0]}.decoder."
        found["PROMPT.DEPTH"] = len(_numbers(state, first))
    lora = state.get("clip.visual.transformer.resblocks.0.mlp.c_fc.lora_A")
    return found | {"LORA.RANK": 0 if lora is None else len(lora)}


def _numbers(state: dict[str, Tensor], prefix: str) -> list[int]:
    """The numbers that follow a prefix in the names of a state dict, ascending."""
    rest = (name.removeprefix(prefix) for name in state if name.startswith(prefix))
    return sorted({int(word) for name in rest if (word := name.partition(".")[0]).isdigit()})


def _layer_names(prompting: Sequence[int], layers: int) -> tuple[int, ...]:
    """Vision layers, counted from 0, as MODEL.PROMPT.LAYERS says them."""
    return () if list(prompting) == list(range(layers)) else tuple(n + 1 for n in prompting)


def _prompt_layers(cfg: CfgNode, layers: int) -> list[int]:
    """The vision layers that prompt, counted from 0."""
    chosen = cfg.MODEL.PROMPT.LAYERS
    if any(not 1 <= number <= layers for number in chosen):
        raise UserError(
            f"MODEL.PROMPT.LAYERS: numbers from 1 to {layers} expected, which is what this CLIP "
            f"has, found {chosen}; () takes all"
        )
    return sorted({number - 1 for number in chosen}) or list(range(layers))


def _build_stclip(cfg: CfgNode, state: dict[str, Tensor] | None) -> STCLIP:
    if state is not None:
        _check_against_config(cfg, state)
    clip = _clip(cfg, state, cfg.MODEL.LORA.RANK)
    model = STCLIP(
        clip,
        frames=cfg.MODEL.TEMPORAL.FRAMES,
        prompt_alpha=cfg.MODEL.PROMPT.ALPHA,
        temperature=cfg.MODEL.HEAD.TEMPERATURE,
        temporal=cfg.MODEL.TEMPORAL.ENABLED,
        prompt=cfg.MODEL.PROMPT.ENABLED,
        person_tokens=cfg.MODEL.PERSON_TOKENS.ENABLED,
        interest_tokens=_interest_tokens(cfg, clip),
        mix_context=cfg.MODEL.TEMPORAL.BEFORE_XCLIP,
        train_messages=cfg.MODEL.TRAIN_MESSAGES,
        prompt_init_std=cfg.MODEL.PROMPT.INIT_STD,
        prompt_layers=_prompt_layers(cfg, len(clip.visual.transformer.resblocks)),
        prompt_depth=cfg.MODEL.PROMPT.DEPTH,
        temporal_depth=cfg.MODEL.TEMPORAL.DEPTH,
        temporal_init_std=cfg.MODEL.TEMPORAL.INIT_STD,
    )
    if state is not None:
        load_state(model, state, "MODEL.WEIGHT")
    return model


def _activation_of_weight(cfg: CfgNode, in_file: str | None) -> str:
    """The activation of MODEL.WEIGHT's CLIP; files that do not tell it are of QuickGELU."""
    key = cfg.MODEL.CLIP_ACTIVATION
    if key == "auto":
        return in_file or "quick_gelu"
    if in_file not in (None, key):
        raise UserError(
            f"MODEL.CLIP_ACTIVATION is {key}, but the file of MODEL.WEIGHT has {in_file}; set the "
            "key to that or to auto, or choose another file"
        )
    return str(key)


def _clip(cfg: CfgNode, state: dict[str, Tensor] | None, lora_rank: int) -> CLIP:
    """CLIP from a state dict of ST-CLIP or from MODEL.CLIP; without LoRA if the rank is 0."""
    lora_alpha, activation = cfg.MODEL.LORA.ALPHA, cfg.MODEL.CLIP_ACTIVATION
    cross_frame = cfg.MODEL.NAME == "stclip" and cfg.MODEL.BACKBONE == "xclip"
    if state is None and cross_frame:
        if not cfg.MODEL.TRAIN_MESSAGES and not is_xclip(cfg.MODEL.CLIP):
            raise UserError(
                f"MODEL.TRAIN_MESSAGES: True expected with MODEL.CLIP {cfg.MODEL.CLIP}, which has "
                "no messages between frames, so that they have to be learned; found False"
            )
        return cross_frame_clip(cfg.MODEL.CLIP, lora_rank, lora_alpha, activation)
    if state is None:
        return load_clip(cfg.MODEL.CLIP, "cpu", lora_rank, lora_alpha, activation)
    if not cross_frame and _has_messages(state):
        raise UserError(
            f"MODEL.NAME {cfg.MODEL.NAME}: needs CLIP, but the file of MODEL.WEIGHT has X-CLIP's "
            'image tower; set MODEL.WEIGHT "" and name a CLIP in MODEL.CLIP'
        )
    clip_state = {
        name.removeprefix("clip."): tensor
        for name, tensor in state.items()
        if name.startswith("clip.") and (lora_rank or ".lora_" not in name)
    }
    kind = CrossFrameCLIP if cross_frame else CLIP
    return clip_from_state_dict(clip_state, lora_rank, lora_alpha, "MODEL.WEIGHT", kind)


def _has_messages(state: dict[str, Tensor]) -> bool:
    """Whether these weights have X-CLIP's image tower."""
    return "clip.visual.transformer.resblocks.0.message_fc.weight" in state


def _build_xclip(cfg: CfgNode, state: dict[str, Tensor] | None) -> XCLIPBaseline:
    frames = cfg.MODEL.XCLIP.FRAMES
    if state is None:
        return XCLIPBaseline(xclip_from(cfg.MODEL.CLIP, frames, cfg.MODEL.CLIP_ACTIVATION))
    others = [name for name in state if not name.startswith("clip.")]
    if others or "clip.mit.positional_embedding" not in state:
        raise UserError(
            "MODEL.WEIGHT: these are not the parameters of the X-CLIP baseline (found "
            f"{others[0] if others else 'no clip.mit.positional_embedding'}); give a checkpoint of "
            "a training with MODEL.NAME xclip; published weights of X-CLIP belong into MODEL.CLIP"
        )
    clip_state = {name.removeprefix("clip."): tensor for name, tensor in state.items()}
    clip = xclip_from_state_dict(clip_state, source="MODEL.WEIGHT")
    if clip.frames != frames:
        raise UserError(
            f"MODEL.XCLIP.FRAMES is {frames}, but the file of MODEL.WEIGHT has {clip.frames}; "
            "set the key to that, or choose another file"
        )
    return XCLIPBaseline(clip)


def _interest_tokens(cfg: CfgNode, clip: CLIP) -> InterestTokens | None:
    keys = cfg.MODEL.INTEREST_TOKENS
    if not keys.ENABLED:
        return None
    tokens = len(clip.visual.positional_embedding)  # class token and patches
    if tokens < keys.TOP_K:
        raise UserError(
            f"MODEL.INTEREST_TOKENS.TOP_K: at most the {tokens} class and patch tokens of this "
            f"CLIP expected, found {keys.TOP_K}; 0 takes all"
        )
    return InterestTokens(top_k=keys.TOP_K, include_person=keys.INCLUDE_PERSON)


def _check_against_config(cfg: CfgNode, state: dict[str, Tensor]) -> None:
    keys = cfg.MODEL
    temporal = keys.TEMPORAL.BEFORE_XCLIP if keys.BACKBONE == "xclip" else keys.TEMPORAL.ENABLED
    parts = keys.PERSON_TOKENS.ENABLED or temporal or keys.PROMPT.ENABLED
    only_clip = all(name.startswith("clip.") for name in state)
    if "clip.visual.proj" not in state or (only_clip and parts):
        raise UserError(
            "MODEL.WEIGHT: these are not ST-CLIP's parameters (nothing but CLIP, or no CLIP among "
            "them); weights of CLIP alone belong into MODEL.CLIP"
        )
    for key, in_file in config_of_state(state).items():
        in_config = reduce(getitem, key.split("."), keys)
        if key == "PROMPT.LAYERS":
            layers = len(_numbers(state, "clip.visual.transformer.resblocks."))
            in_config = _layer_names(_prompt_layers(cfg, layers), layers)
        if in_file != in_config:
            raise UserError(
                f"MODEL.{key} is {in_config}, but the file of MODEL.WEIGHT has {in_file}; "
                "set the key to that, or choose another file"
            )
