"""From config keys and weights to a model."""

import logging

from torch import Tensor
from yacs.config import CfgNode

from stclip.errors import UserError
from stclip.models.stclip import STCLIP
from stclip.models.tokenizer import tokenize
from stclip.models.weights import clip_from_state_dict, load_clip

logger = logging.getLogger(__name__)


def build_model(cfg: CfgNode, state: dict[str, Tensor] | None = None) -> STCLIP:
    """ST-CLIP on the CPU in float32, in evaluation mode.

    Args:
        cfg: its MODEL keys.
        state: a state dict of ours, CLIP included: all sizes follow from its shapes, and MODEL.CLIP
            is not read. None: CLIP from MODEL.CLIP, the rest freshly initialised.

    Raises:
        UserError: the state dict is not one of ST-CLIP, lacks or has too many parameters, or its
            sizes contradict each other or the config.
    """
    rank, alpha = cfg.MODEL.LORA.RANK, cfg.MODEL.LORA.ALPHA
    if state is None:
        clip = load_clip(cfg.MODEL.CLIP, lora_rank=rank, lora_alpha=alpha)
    else:
        _check_against_config(cfg, state)
        clip_state = {k.removeprefix("clip."): v for k, v in state.items() if k.startswith("clip.")}
        clip = clip_from_state_dict(clip_state, lora_rank=rank, lora_alpha=alpha)
    model = STCLIP(
        clip,
        frames=cfg.MODEL.TEMPORAL.FRAMES,
        prompt_alpha=cfg.MODEL.PROMPT.ALPHA,
        temperature=cfg.MODEL.HEAD.TEMPERATURE,
    )
    if state is not None:
        load_state(model, state, "MODEL.WEIGHT")
    visual = clip.visual
    logger.info(
        "model: vision %d wide, %d layers, patch %d at %d px; embedding %d; LoRA rank %d; "
        "%.1f M parameters, %.1f M of them trained",
        visual.proj.shape[0],
        len(visual.transformer.resblocks),
        visual.patch_size,
        visual.image_size,
        clip.embed_dim,
        rank,
        sum(p.numel() for p in model.parameters()) / 1e6,
        sum(p.numel() for p in model.parameters() if p.requires_grad) / 1e6,
    )
    return model.eval()


def encode_labels(model: STCLIP, labels: list[str]) -> Tensor:
    """The model's features of class names (C, E), the names taken exactly as written."""
    tokens = tokenize(labels, model.clip.text_length)
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


def _check_against_config(cfg: CfgNode, state: dict[str, Tensor]) -> None:
    temporal = state.get("context_tokens.temporal_embedding")
    if temporal is None or "clip.visual.proj" not in state:
        raise UserError(
            "MODEL.WEIGHT: these are not ST-CLIP's parameters (no temporal embedding or no CLIP "
            "among them); weights of CLIP alone belong into MODEL.CLIP"
        )
    lora = state.get("clip.visual.transformer.resblocks.0.mlp.c_fc.lora_A")
    found = {
        "MODEL.TEMPORAL.FRAMES": (len(temporal), cfg.MODEL.TEMPORAL.FRAMES),
        "MODEL.LORA.RANK": (0 if lora is None else len(lora), cfg.MODEL.LORA.RANK),
    }
    for key, (in_file, in_config) in found.items():
        if in_file != in_config:
            raise UserError(f"{key} is {in_config}, but the file of MODEL.WEIGHT has {in_file}")
