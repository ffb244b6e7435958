"""Checkpoints: ours and the reference's, read without running anything that they hold.

Our file is a dict of tensors and plain containers:

    format      "stclip/1"
    model       the state dict of models.stclip.STCLIP, CLIP included, or of
                models.xclip_baseline.XCLIPBaseline, which is X-CLIP's with clip. before each name
    config      the run's resolved config as yaml text
    training    {iteration, optimizer, scaler, rng}: what a bitwise resume needs; absent after a
                conversion
    reference   only if the weights came from the reference: what of its file has no place in ours
    groups      {class name: group} of the run's whole label map, only if a person could have
                several classes (ALL_GROUP); the files that the config names may be elsewhere
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stclip.errors import UserError
from stclip.files import atomic_path
from stclip.models.reference import PARALLEL_PREFIX, from_reference, is_reference, to_reference

FORMAT = "stclip/1"


@dataclass
class Checkpoint:
    """A file's contents in our names; see the head of this module."""

    model: dict[str, Tensor]
    config: str | None = None
    training: dict[str, Any] | None = None
    reference: dict[str, Any] | None = None
    groups: dict[str, str] | None = None


def save_checkpoint(path: str | Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint in our format, whole or not at all."""
    content = {"format": FORMAT, "model": checkpoint.model}
    for name in ("config", "training", "reference", "groups"):
        if getattr(checkpoint, name) is not None:
            content[name] = getattr(checkpoint, name)
    _save(content, Path(path))


def save_reference_checkpoint(path: str | Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint in the reference's format (method.md section 9)."""
    extra = checkpoint.reference or {}
    state = to_reference(checkpoint.model, extra.get("unused"))
    order = extra.get("order")
    if order is not None:  # as the file had it, so that the round trip is exact
        state = {name: state[name.removeprefix(PARALLEL_PREFIX)] for name in order}
    content: dict[str, Any] = {"model": state, **extra.get("rest", {})}
    if checkpoint.training is not None:
        content["iteration"] = checkpoint.training["iteration"]
    _save(content, Path(path))


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint of either format; the sizes of the model follow from its shapes.

    Raises:
        UserError: the file is missing, cut short, holds code or anything but weights, or is
            neither ours nor the reference's.
    """
    path = Path(path)
    content = _load(path)
    state = content.get("model") if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise UserError(
            f"{path}: not a checkpoint of ST-CLIP: a dict with a state dict under 'model' was "
            "expected; weights of CLIP alone belong into MODEL.CLIP"
        )
    if is_reference(state):
        try:
            ours, unused = from_reference(state)
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
        rest = {name: value for name, value in content.items() if name != "model"}
        return Checkpoint(ours, reference={"unused": unused, "order": list(state), "rest": rest})
    if content.get("format") != FORMAT:
        raise UserError(
            f"{path}: neither a checkpoint of stclip (format {FORMAT!r} expected, found "
            f"{content.get('format')!r}) nor one of the reference (first parameter: "
            f"{next(iter(state), 'none')})"
        )
    names = ("config", "training", "reference", "groups")
    return Checkpoint(state, **{name: content.get(name) for name in names})


def checkpoint_path(output_dir: str | Path, iteration: int) -> Path:
    """OUTPUT_DIR/model_0000500.pth."""
    return Path(output_dir) / f"model_{iteration:07d}.pth"


def latest_checkpoint(output_dir: str | Path) -> Path | None:
    """The checkpoint with the most iterations in a run's folder, or None."""
    found = [p for p in Path(output_dir).glob("model_*.pth") if re.fullmatch(r"model_\d+", p.stem)]
    return max(found, key=lambda p: int(p.stem.removeprefix("model_")), default=None)


def _load(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"{path}: checkpoint cannot be read: {error.strerror or error}") from error
    except Exception as error:  # a damaged file can raise nearly anything
        reason = str(error).split("\n")[0].split(". ")[0]
        raise UserError(
            f"{path}: not a checkpoint that can be read safely ({reason}); is the file cut short, "
            "or not made of weights only?"
        ) from error


def _save(content: dict[str, Any], path: Path) -> None:
    with atomic_path(path) as temporary:
        try:
            with open(temporary, "wb") as file:
                torch.save(content, file)
        except RuntimeError as error:  # torch's zip writer hides the reason of a failed write
            raise OSError(f"{error} (no space left?)".split("\n")[0]) from error
