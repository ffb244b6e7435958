"""torch.compile for the blocks of a transformer."""

import os
import shutil

import torch

from stclip.errors import UserError
from stclip.models.transformer import Block, Transformer


def compile_blocks(transformer: Transformer) -> None:
    """Let torch.compile generate code for the blocks of a transformer, at their first use.

    To be called before ``recompute_activations``. Sizes are taken as variable, since no two batches
    have the same numbers of frames and persons.

    Raises:
        UserError: on a machine without CUDA, there is no C++ compiler.
    """
    compilers = (os.environ.get("CXX", "g++"), "clang++")
    if not torch.cuda.is_available() and not any(map(shutil.which, compilers)):
        raise UserError(
            "MODEL.COMPILE: no C++ compiler found, which torch.compile needs on a CPU; install "
            "g++, name one in the environment's CXX, or set the key to False"
        )
    for block in transformer.resblocks:
        assert isinstance(block, Block)
        for name in ("forward", "first"):
            setattr(block, name, torch.compile(getattr(block, name), dynamic=True))
