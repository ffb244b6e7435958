"""What several tests share."""

import importlib.util
import json
import math
import os
import zlib
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from stclip.data.windows import window
from stclip.models.clip import CLIP, CLIPSizes
from stclip.models.stclip import STCLIP
from stclip.structures import ClipBatch, FrameKey

REPOSITORY = Path(__file__).resolve().parents[1]
GOLDEN = REPOSITORY / "tests" / "golden"


def shared_path(relative: str) -> Path:
    """A path under the folder of conformance data; skips the test where that folder is absent.

    The folder is $STCLIP_SHARED, by default ``shared`` beside the repository.
    """
    root = Path(os.environ.get("STCLIP_SHARED", REPOSITORY.parent / "shared"))
    path = root / relative
    if not path.exists():
        pytest.skip(f"needs the conformance data: {path} is not there (set STCLIP_SHARED)")
    return path


def children(pid: int) -> list[int]:
    """The processes that a process has started and that have not been waited for."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


# Of a CLIP that is small enough for any test.
SMALL_SIZES = {
    "image_size": 32,
    "patch_size": 16,
    "vision_width": 64,
    "vision_layers": 2,
    "text_width": 64,
    "text_layers": 1,
    "embed_dim": 64,
}


def tiny_model(seed: int = 0, kind: type[CLIP] = CLIP, **clip_overrides: int) -> STCLIP:
    """ST-CLIP on a random CLIP that is small enough for any test: 48 px, patch 16, 2 layers."""
    torch.manual_seed(seed)
    sizes = {**SMALL_SIZES, "image_size": 48}
    rank = clip_overrides.pop("lora_rank", 2)
    clip = kind(CLIPSizes(**{**sizes, **clip_overrides}), lora_rank=rank)
    model = STCLIP(clip, mixing=kind is CLIP)
    for name, parameter in model.named_parameters():
        if name.endswith("lora_B"):  # zero at first, which would hide LoRA from a test
            torch.nn.init.normal_(parameter, std=0.02)
    return model


def random_batch(
    persons: Sequence[int],
    frames: int = 12,
    classes: int = 0,
    size: int = 48,
    length: int = 9,
    seed: int = 0,
    video: str = "walk/v",
) -> ClipBatch:
    """Keyframes 1, 2, ... of one video of ``frames`` frames, with so many persons each."""
    generator = torch.Generator().manual_seed(seed)
    count = sum(persons)
    windows = [window(t, frames, length) for t in range(1, len(persons) + 1)]
    labels = None
    if classes:
        chosen = torch.randint(classes, (count,), generator=generator)
        labels = torch.nn.functional.one_hot(chosen, classes).float()
    return ClipBatch(
        frames=_pixels(frames, size, generator),
        window=torch.tensor([[f - 1 for f in w] + [-1] * (length - len(w)) for w in windows]),
        keyframe=torch.arange(len(persons)),
        crops=_pixels(count, size, generator),
        owner=torch.repeat_interleave(torch.arange(len(persons)), torch.tensor(persons)),
        boxes=torch.rand(count, 4, generator=generator),
        det_scores=torch.rand(count, generator=generator),
        labels=labels,
        keys=tuple(FrameKey(video, t) for t in range(1, len(persons) + 1)),
        frame_boxes=_inside(count, size, generator),
    )


def _inside(count: int, size: int, generator: torch.Generator) -> torch.Tensor:
    """Boxes (count, 4) in a square, each a fifth to all of it wide and high."""
    sides = 0.2 + 0.8 * torch.rand(count, 2, generator=generator)
    corner = (1 - sides) * torch.rand(count, 2, generator=generator)
    return size * torch.cat([corner, corner + sides], dim=1)


def _pixels(count: int, size: int, generator: torch.Generator) -> torch.Tensor:
    return torch.randint(256, (count, 3, size, size), dtype=torch.uint8, generator=generator)


def load_command(name: str) -> ModuleType:
    """A module of ``stclip.commands``; its main runs a command without a new process."""
    return importlib.import_module(f"stclip.commands.{name}")


def conformance_state(shapes_file: Path) -> dict[str, torch.Tensor]:
    """The state dict that a conformance case was computed with.

    Only names and shapes are stored: each tensor's values follow from its name (seed: CRC-32), and
    its scale from its role.
    """
    shapes = json.loads(shapes_file.read_text())
    return {name: _conformance_tensor(name, shape) for name, shape in shapes.items()}


def _conformance_tensor(name: str, shape: list[int]) -> torch.Tensor:
    leaf = name.rpartition(".")[2]
    if leaf == "logit_scale":
        return torch.tensor(np.float32(np.log(1 / 0.07)))
    rng = np.random.RandomState(zlib.crc32(name.encode()))
    values = rng.standard_normal(tuple(shape)).astype(np.float32)
    small = ("positional_embedding", "class_embedding", "temporalEmbedding", "token_embedding")
    if leaf == "alpha":
        values = np.float32(0.2) + np.float32(0.02) * values
    elif "lora_B" in name:
        values = np.float32(0.05) * values
    elif any(word in name for word in small):
        values = np.float32(0.1) * values
    elif len(shape) == 1 and leaf == "weight":
        values = 1 + np.float32(0.1) * values
    elif len(shape) == 1:
        values = np.float32(0.05) * values
    else:
        transposed = leaf in ("proj", "text_projection", "prompts_visual_proj")
        fan_in = shape[0] if transposed else math.prod(shape[1:])
        values = (values / np.sqrt(fan_in)).astype(np.float32)
    return torch.from_numpy(values)


class InThisProcess:
    """A pool of no processes: spawned ones would not see what the test has changed."""

    def __init__(self, workers, mp_context):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def submit(self, function, *arguments):
        future = Future()
        future.set_result(function(*arguments))
        return future
