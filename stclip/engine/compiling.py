"""What is wrapped around the blocks of a transformer: torch.compile, activation checkpointing."""

import os
import shutil
from functools import partial

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from stclip.errors import UserError
from stclip.models.clip import CLIP, Block
from stclip.models.openclip import OpenCLIP


def compile_blocks(clip: CLIP | OpenCLIP) -> None:
    """Let torch.compile generate code for the blocks of an image tower, at their first use.

    To be called before ``recompute_activations``. Sizes are taken as variable, since no two batches
    have the same numbers of frames and persons.

    Raises:
        UserError: on a machine without CUDA, there is no C++ compiler; or the tower is one of
            open_clip's own.
    """
    if isinstance(clip, OpenCLIP):
        raise UserError(
            f"MODEL.COMPILE: False expected with open_clip's own {clip.name}, found True"
        )
    compilers = (os.environ.get("CXX", "g++"), "clang++")
    if not torch.cuda.is_available() and not any(map(shutil.which, compilers)):
        raise UserError(
            "MODEL.COMPILE: no C++ compiler found, which torch.compile needs on a CPU; install "
            "g++, name one in the environment's CXX, or set the key to False"
        )
    for block in clip.visual.transformer.resblocks:
        assert isinstance(block, Block)
        block.forward = torch.compile(block.forward, dynamic=True)  # type: ignore[method-assign]


def recompute_activations(model: nn.Module, kinds: tuple[type[nn.Module], ...]) -> None:
    """Let the modules of some kinds keep only their input for the backward pass.

    Each then runs a second time in the backward pass; results and gradients are the same, as
    nothing in them is drawn at random.
    """
    for block in model.modules():
        if isinstance(block, kinds):
            again = partial(
                checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False
            )
            block.forward = again
