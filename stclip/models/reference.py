"""The reference's parameter names and ours (method.md section 9).

A reference state dict holds a few tensors that its model never uses; they have no place in ours
and are handed back beside it, so that a file can be turned into the other format and back without
losing a bit.
"""

import re

import torch
from torch import Tensor

from stclip.errors import UserError
from stclip.models.formats import bare_names

StateDict = dict[str, Tensor]

PREFIX = "roi_heads.action.text_feature_generator."

# (ours, the reference's behind PREFIX); {} stands for a layer's number.
_RENAMED = (
    ("person_tokens.norm.", "ln_person."),
    ("person_tokens.adapter.c_fc.", "adapter.0."),
    ("person_tokens.adapter.c_proj.", "adapter.2."),
    ("context_tokens.temporal_embedding", "clipmodel.visual.temporalEmbedding.weight"),
    ("context_tokens.", "clipmodel.visual.temporalModelling.resblocks.0."),
    ("context_prompting.projectors.{}.", "clipmodel.visual.transformer.projector.{}."),
    (
        "context_prompting.prompts.{}.decoder.{}.mlp.c_fc.",
        "clipmodel.visual.transformer.prompts_generator.{}.decoder.{}.mlp.0.",
    ),
    (
        "context_prompting.prompts.{}.decoder.{}.mlp.c_proj.",
        "clipmodel.visual.transformer.prompts_generator.{}.decoder.{}.mlp.3.",
    ),
    ("context_prompting.prompts.{}.", "clipmodel.visual.transformer.prompts_generator.{}."),
    ("clip.", "clipmodel."),
)
_BLOCKS = "clip.visual.transformer.resblocks."
# What the reference cannot be without.
_PARTS = ("person_tokens.", "context_tokens.", "context_prompting.")
# The second half of the temporal block, which the reference builds and never calls.
_UNUSED = re.compile(r"clipmodel\.visual\.temporalModelling\.resblocks\.0\.(ln_2|mlp)\.")


def is_reference(state: StateDict) -> bool:
    """Whether these are the reference's parameter names."""
    return any(name.startswith(PREFIX) for name in bare_names(state))


def from_reference(state: StateDict) -> tuple[StateDict, StateDict]:
    """Our state dict, and what the reference holds and does not use, under the reference's names.

    Raises:
        UserError: a name that is not the reference's.
    """
    ours: StateDict = {}
    unused: StateDict = {}
    for name, tensor in bare_names(state).items():
        if not name.startswith(PREFIX):
            raise UserError(f"{name}: not a parameter of the reference; {PREFIX}... expected")
        bare = name.removeprefix(PREFIX)
        if _UNUSED.match(bare):
            unused[PREFIX + bare] = tensor
        else:
            ours[_rename(bare, {theirs: ours for ours, theirs in _RENAMED})] = tensor
    return ours, unused


def to_reference(state: StateDict, unused: StateDict | None = None) -> StateDict:
    """The reference's state dict, in one process's form (without ``module.``).

    Args:
        state: ours.
        unused: what ``from_reference`` handed back; without it the unused tensors, which the
            reference asks for when it loads, are filled with an identity norm and zeros.

    Raises:
        UserError: the model lacks a part that the reference always has.
    """
    table = dict(_RENAMED)
    if any(".message_" in name for name in state):
        raise UserError(
            "found X-CLIP's image tower: it has no counterpart in the reference; it stays in our "
            "format"
        )
    if any(name.startswith("context_tokens.deeper.") or ".decoder.1." in name for name in state):
        raise UserError(
            "found more than one block over time or in a prompt (MODEL.TEMPORAL.DEPTH, "
            "MODEL.PROMPT.DEPTH): the reference has one; it stays in our format"
        )
    prompts = {name.split(".")[2] for name in state if name.startswith("context_prompting.pr")}
    blocks = {name.split(".")[4] for name in state if name.startswith(_BLOCKS)}
    if prompts and prompts != blocks:
        raise UserError(
            f"found prompts after {len(prompts)} of {len(blocks)} vision blocks "
            "(MODEL.PROMPT.LAYERS): in the reference all prompt; it stays in our format"
        )
    lacking = [name for name in _PARTS if not any(key.startswith(name) for key in state)]
    if lacking:
        raise UserError(
            f"found no parameters {', '.join(f'{name}*' for name in lacking)}: a model with a part "
            "switched off has no counterpart in the reference; it stays in our format"
        )
    theirs = {PREFIX + _rename(name, table): tensor for name, tensor in state.items()}
    if unused is None:
        unused = _neutral(state["context_tokens.ln_1.weight"])
    theirs.update(unused)
    return theirs


def _rename(name: str, table: dict[str, str]) -> str:
    for source, target in table.items():
        pattern = re.escape(source).replace(r"\{\}", r"(\d+)")
        match = re.match(pattern, name)
        if match:
            return target.format(*match.groups()) + name[match.end() :]
    raise UserError(f"{name}: no such parameter in the other format")


def _neutral(like: Tensor) -> StateDict:
    width = len(like)
    block = PREFIX + "clipmodel.visual.temporalModelling.resblocks.0."
    return {
        f"{block}mlp.c_fc.weight": torch.zeros(4 * width, width, dtype=like.dtype),
        f"{block}mlp.c_fc.bias": torch.zeros(4 * width, dtype=like.dtype),
        f"{block}mlp.c_proj.weight": torch.zeros(width, 4 * width, dtype=like.dtype),
        f"{block}mlp.c_proj.bias": torch.zeros(width, dtype=like.dtype),
        f"{block}ln_2.weight": torch.ones(width, dtype=like.dtype),
        f"{block}ln_2.bias": torch.zeros(width, dtype=like.dtype),
    }
