"""From config keys and weights to a model."""

import logging
from collections.abc import Callable, Sequence
from functools import reduce
from operator import getitem
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from yacs.config import CfgNode

from stclip.errors import UserError
from stclip.models import fast
from stclip.models.baselines import BASELINES, Baseline
from stclip.models.clip import CLIP, HEAD_WIDTH
from stclip.models.formats import clip_sizes, with_clips_pixels
from stclip.models.onnx import OnnxModel, OnnxText
from stclip.models.openclip import OpenCLIP
from stclip.models.stclip import STCLIP, InterestTokens
from stclip.models.tokenizer import get_tokenizer, tokenize
from stclip.models.weights import (
    clip_from_state_dict,
    is_xclip,
    load_clip,
    load_towers,
    load_xclip,
    xclip_from_state_dict,
)
from stclip.models.xclip import (
    PIXEL_MEAN,
    PIXEL_STD,
    XCLIP,
    CrossFrameCLIP,
    XCLIPBaseline,
    XCLIPSizes,
    is_new,
)
from stclip.structures import Needs
from stclip.structures.wordings import split_label

logger = logging.getLogger(__name__)

Model = STCLIP | Baseline | XCLIPBaseline

_TEXTS = 512  # read at once: wordings and templates may make thousands


def build_model(
    cfg: CfgNode,
    state: dict[str, Tensor] | None = None,
    activation: str | None = None,
    source: str = "MODEL.WEIGHT",
) -> Model:
    """The model of MODEL.NAME on the CPU in float32, in evaluation mode.

    Args:
        cfg: its MODEL keys. MODEL.FAST is switched for the whole process (``fast.use``).
        state: a state dict of ours, CLIP included: all sizes follow from its shapes, and MODEL.CLIP
            is not read. A baseline takes CLIP alone out of it, without LoRA, which is the CLIP that
            the training started from; xclip takes its own only. None: CLIP from MODEL.CLIP (of
            xclip CLIP or X-CLIP), the rest freshly initialised.
        activation: the activation function of that state dict's CLIP, if its file tells it.
        source: what error messages call the state dict.

    Raises:
        UserError: the state dict is not one of ST-CLIP, lacks or has too many parameters, or its
            sizes or parts contradict each other or the config.
    """
    fast.use(cfg.MODEL.FAST)
    model: Model
    if cfg.MODEL.NAME == "stclip":
        model = _build_stclip(cfg, state, source)
    elif cfg.MODEL.NAME == "xclip":
        model = _build_xclip(cfg, state)
    else:
        model = _build_baseline(cfg, state)
    clip = model.clip
    if isinstance(clip, OpenCLIP):
        tower = f"open_clip's {clip.name}, trained with a temperature of {clip.temperature:.3g},"
    else:
        if state is not None:
            clip.use_activation(_activation_of_weight(cfg, activation))
        model.needs = needs_of(cfg, clip.image_size)
        visual = clip.visual
        layers, patch = len(visual.transformer.resblocks), visual.patch_size
        tower = f"vision {visual.width} wide, {layers} layers, patch {patch}"
    logger.info(
        "model %s: %s at %d px; embedding %d; %.1f M parameters, %.1f M of them trained",
        cfg.MODEL.NAME,
        tower,
        clip.image_size,
        clip.embed_dim,
        sum(p.numel() for p in model.parameters()) / 1e6,
        sum(p.numel() for p in model.parameters() if p.requires_grad) / 1e6,
    )
    return model.eval()


def needs_of(cfg: CfgNode, image_size: int) -> Needs:
    """What the model of MODEL.NAME looks at, whose CLIP takes pictures of that size."""
    temporal, clips = cfg.MODEL.TEMPORAL, cfg.MODEL.XCLIP
    if cfg.MODEL.NAME == "xclip":
        return Needs(image_size, clips.FRAMES, clips.STRIDE, clips.UNIT)
    frames, marked = 1, BASELINES.get(cfg.MODEL.NAME, {}).get("marked", False)
    if cfg.MODEL.NAME == "stclip":
        frames = temporal.FRAMES if temporal.ENABLED else 1
        marked = cfg.MODEL.HEAD.MARKED_WEIGHT > 0
    return Needs(image_size, frames, temporal.STRIDE, frame_boxes=marked)


def device_of(model: nn.Module) -> torch.device:
    """Where a model computes; one without parameters on the CPU."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def encode_labels(
    model: Model | OnnxModel,
    labels: list[str],
    place: Callable[[str], str] | None = None,
    templates: Sequence[str] = (),
) -> Tensor:
    """The model's features of class names (C, E), the names taken exactly as written.

    A name is read in each of its wordings (``structures.wordings``), and these in each template. Of
    several texts the features are averaged: their directions, with their mean length.

    Args:
        model: its text tower.
        labels: the names, with their wordings.
        place: gives the file and line of a name, for messages.
        templates: texts with one {} each, for a wording; () leaves the wordings as they are.

    Raises:
        UserError: a name has more tokens than the text tower has positions.
    """
    clip = model.clip
    length = clip.text_length
    texts: list[str] = []
    counts: list[int] = []
    for name, wordings in map(split_label, labels):
        filled = [t.replace("{}", wording) for wording in wordings for t in templates or ("{}",)]
        texts += filled
        counts.append(len(filled))
        for text in filled:
            count = _count_tokens(clip, text)
            if count > length:
                where = f"{place(name)}: " if place is not None else ""
                raise UserError(
                    f"{where}label {text!r:.60} has {count} tokens with start and end of text, the "
                    f"model reads {length}; shorten it"
                )
    tokens = clip.tokenize(texts) if isinstance(clip, OpenCLIP) else tokenize(texts, length)
    tokens = tokens.to(device_of(clip))
    features = torch.cat([model.encode_vocabulary(part) for part in tokens.split(_TEXTS)])
    if len(texts) == len(labels):
        return features
    return torch.stack([_mean_direction(part) for part in features.split(counts)])


def _count_tokens(clip: CLIP | OpenCLIP | OnnxText, text: str) -> int:
    """Tokens of a text with start and end of text; where it certainly fits perhaps too many."""
    if isinstance(clip, OpenCLIP):
        return clip.count_tokens(text)
    most = len(text.encode(errors="replace")) + 2  # no token has less than a byte
    return most if most <= clip.text_length else len(get_tokenizer().encode(text)) + 2


def _mean_direction(features: Tensor) -> Tensor:
    """The mean of the directions of (n, E) features, with their mean length; one stays as it is."""
    if len(features) == 1:
        return features[0]
    direction = F.normalize(F.normalize(features, dim=1).mean(dim=0), dim=0)
    return direction * features.norm(dim=1).mean()


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


def _build_baseline(cfg: CfgNode, state: dict[str, Tensor] | None) -> Baseline:
    if state is None:
        clip = load_towers(cfg.MODEL.CLIP, cfg.MODEL.CLIP_ACTIVATION)
    else:
        clip = _clip(cfg, state, lora_rank=0)
    return Baseline(
        clip,
        **BASELINES[cfg.MODEL.NAME],
        outside=cfg.MODEL.HEAD.MARKED,
        temperature=cfg.MODEL.HEAD.TEMPERATURE,
    )


def _build_stclip(cfg: CfgNode, state: dict[str, Tensor] | None, source: str) -> STCLIP:
    if state is not None:
        _check_against_config(cfg, state, source)
    clip = _clip(cfg, state, cfg.MODEL.LORA.RANK, source)
    if isinstance(clip, CrossFrameCLIP):
        clip.train_messages = cfg.MODEL.TRAIN_MESSAGES
    model = STCLIP(
        clip,
        frames=cfg.MODEL.TEMPORAL.FRAMES,
        prompt_alpha=cfg.MODEL.PROMPT.ALPHA,
        temperature=cfg.MODEL.HEAD.TEMPERATURE,
        temporal=cfg.MODEL.TEMPORAL.ENABLED,
        mixing=cfg.MODEL.TEMPORAL.BEFORE_XCLIP or not isinstance(clip, CrossFrameCLIP),
        prompt=cfg.MODEL.PROMPT.ENABLED,
        person_tokens=cfg.MODEL.PERSON_TOKENS.ENABLED,
        interest_tokens=_interest_tokens(cfg, clip),
        prompt_init_std=cfg.MODEL.PROMPT.INIT_STD,
        prompt_layers=_prompt_layers(cfg, len(clip.visual.transformer.resblocks)),
        prompt_depth=cfg.MODEL.PROMPT.DEPTH,
        temporal_depth=cfg.MODEL.TEMPORAL.DEPTH,
        temporal_init_std=cfg.MODEL.TEMPORAL.INIT_STD,
        crop_weight=_crop_weight(cfg),
        marked=cfg.MODEL.HEAD.MARKED if cfg.MODEL.HEAD.MARKED_WEIGHT else None,
        marked_weight=cfg.MODEL.HEAD.MARKED_WEIGHT,
    )
    if state is not None:
        load_state(model, state, source)
    return model


def _crop_weight(cfg: CfgNode) -> float:
    weight = float(cfg.MODEL.HEAD.CROP_WEIGHT)
    if weight and not cfg.MODEL.PERSON_TOKENS.ENABLED:
        raise UserError(
            f"MODEL.HEAD.CROP_WEIGHT {weight:g}: needs the crops; set MODEL.PERSON_TOKENS.ENABLED "
            "True, or the weight to 0"
        )
    return weight


def _activation_of_weight(cfg: CfgNode, in_file: str | None) -> str:
    """The activation of MODEL.WEIGHT's CLIP; QuickGELU if the file does not say."""
    key = cfg.MODEL.CLIP_ACTIVATION
    if key == "auto":
        return in_file or "quick_gelu"
    if in_file not in (None, key):
        raise UserError(
            f"MODEL.CLIP_ACTIVATION is {key}, but the file of MODEL.WEIGHT has {in_file}; set the "
            "key to that or to auto, or choose another file"
        )
    return str(key)


def _clip(
    cfg: CfgNode, state: dict[str, Tensor] | None, lora_rank: int, source: str = "MODEL.WEIGHT"
) -> CLIP:
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
    return clip_from_state_dict(clip_state, lora_rank, lora_alpha, source, kind)


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
            "a training with MODEL.NAME xclip; published weights of X-CLIP belong in MODEL.CLIP"
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


def _check_against_config(cfg: CfgNode, state: dict[str, Tensor], source: str) -> None:
    keys = cfg.MODEL
    temporal = keys.TEMPORAL.BEFORE_XCLIP if keys.BACKBONE == "xclip" else keys.TEMPORAL.ENABLED
    parts = keys.PERSON_TOKENS.ENABLED or temporal or keys.PROMPT.ENABLED
    only_clip = all(name.startswith("clip.") for name in state)
    if "clip.visual.proj" not in state or (only_clip and parts):
        raise UserError(
            f"{source}: these are not ST-CLIP's parameters (nothing but CLIP, or no CLIP among "
            "them); weights of CLIP alone belong in MODEL.CLIP"
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


# ---------------------------------------------------------------- X-CLIP from X-CLIP or CLIP
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
    model = XCLIP(XCLIPSizes(**vars(clip_sizes(state, source)), frames=frames))
    fresh = {name: tensor for name, tensor in model.state_dict().items() if is_new(name)}
    model.load_state_dict(state | fresh)
    model.use_activation(clip.activation)
    logger.info(
        "MODEL.CLIP %s: CLIP; the %.1f M parameters that X-CLIP adds to it are freshly initialised",
        source,
        sum(tensor.numel() for tensor in fresh.values()) / 1e6,
    )
    return model.eval()


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
            if not name.startswith(("mit.", "prompts_"))
        }
        state = with_clips_pixels(towers, PIXEL_MEAN, PIXEL_STD)
        logger.info("MODEL.CLIP %s: X-CLIP, with the messages between its frames", source)
    else:
        loaded = load_clip(source, activation=activation)
        shared = loaded.state_dict()
        fresh = CrossFrameCLIP(clip_sizes(shared, source)).state_dict()
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
