"""Checkpoints: ours and the reference's, read without running anything that they hold.

Our file is a dict of tensors and plain containers:

    format      "stclip/1"
    model       the state dict of models.stclip.STCLIP, CLIP included, or of
                models.xclip.XCLIPBaseline, which is X-CLIP's with clip. before each name
    config      the run's resolved config as yaml text
    training    {iteration, optimizer, scaler, rng}: what a bitwise resume needs; absent after a
                conversion
    reference   only if the weights came from the reference: what of its file has no place in ours
    groups      {class name: group} of the run's whole label map, only if a person could have
                several classes (ALL_GROUP); the files that the config names may be elsewhere
    activation  quick_gelu or gelu: that of CLIP's MLPs, which no weight shows; absent in older
                files, which are all of quick_gelu

Weights alone are read too: a bare state dict of our names or of the reference's, or one under
``state_dict``, in a file of ``torch.save`` or in safetensors; names may begin with ``module.`` or
``_orig_mod.``. Where a file holds a moving average (EMA) beside the weights, the average is taken.
"""

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stclip.errors import UserError
from stclip.files import atomic_path
from stclip.models.clip import ACTIVATIONS
from stclip.models.formats import STATE_KEYS, bare_names, check_floats, find_state
from stclip.models.reference import from_reference, is_reference, to_reference
from stclip.models.tensor_files import read_tensors

logger = logging.getLogger(__name__)

FORMAT = "stclip/1"
_EXTRA = ("config", "training", "reference", "groups", "activation")
_EXPECTED = (
    "expected a checkpoint of ST-CLIP; weights of CLIP alone belong in MODEL.CLIP, and published "
    "ones of X-CLIP too"
)


@dataclass
class Checkpoint:
    """A file's contents in our names; see the head of this module."""

    model: dict[str, Tensor]
    config: str | None = None
    training: dict[str, Any] | None = None
    reference: dict[str, Any] | None = None
    groups: dict[str, str] | None = None
    activation: str | None = None


def save_checkpoint(path: str | Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint in our format, whole or not at all."""
    content = {"format": FORMAT, "model": checkpoint.model}
    for name in _EXTRA:
        if getattr(checkpoint, name) is not None:
            content[name] = getattr(checkpoint, name)
    _save(content, Path(path))


def save_reference_checkpoint(path: str | Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint in the reference's format (method.md section 9).

    Raises:
        UserError: the model has no counterpart in the reference, or the file cannot be written.
    """
    if checkpoint.activation not in (None, "quick_gelu"):
        raise UserError(
            f"found a CLIP with {checkpoint.activation}: the reference computes every CLIP with "
            "quick_gelu; this model stays in our format"
        )
    extra = checkpoint.reference or {}
    state = to_reference(checkpoint.model, extra.get("unused"))
    order = extra.get("order")
    if order is not None:  # as the file had it, so that the round trip is exact
        bare = bare_names(dict.fromkeys(order))
        if bare.keys() != state.keys() or len(bare) < len(order):
            raise UserError(
                f"{path}: the stored order of tensors does not match those of the model: "
                "is the checkpoint that was converted damaged?"
            )
        state = {name: state[key] for name, key in zip(order, bare, strict=True)}
    content: dict[str, Any] = {"model": state, **extra.get("rest", {})}
    if checkpoint.training is not None:
        content["iteration"] = checkpoint.training["iteration"]
    _save(content, Path(path))


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint, or weights alone; the sizes of the model follow from its shapes.

    Raises:
        UserError: the file is missing, damaged, holds code or anything but weights, or is
            neither ours nor the reference's.
    """
    path = Path(path)
    content = read_tensors(path)
    found = find_state(content, str(path), _EXPECTED)
    state = bare_names(found)
    check_floats(state, str(path), _EXPECTED)
    bare = all(isinstance(value, Tensor) for value in content.values())
    extra: dict[str, Any] = {} if bare else content
    if is_reference(state):
        try:
            ours, unused = from_reference(state)
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
        rest = {name: value for name, value in extra.items() if name not in STATE_KEYS}
        return Checkpoint(ours, reference={"unused": unused, "order": list(found), "rest": rest})
    form = extra.get("format")
    if form != FORMAT and (form is not None or "clip.visual.conv1.weight" not in state):
        raise UserError(
            f"{path}: neither a checkpoint of stclip (format {FORMAT!r} expected, found "
            f"{form!r}) nor one of the reference (first parameter: {next(iter(state))}); "
            f"{_EXPECTED}"
        )
    if form is None:
        logger.warning(
            "%s: found weights without the config that they were trained with; what their shapes "
            "do not show (MODEL.LORA.ALPHA, MODEL.CLIP_ACTIVATION, ...) is that of this run",
            path,
        )
        return Checkpoint(state)
    checkpoint = Checkpoint(state, **{name: extra.get(name) for name in _EXTRA})
    _check(checkpoint, path)
    return checkpoint


def _check(checkpoint: Checkpoint, path: Path) -> None:
    """Refuse a checkpoint of ours whose parts are of other types than we write."""
    training = {"iteration": 0} if checkpoint.training is None else checkpoint.training
    reference = {} if checkpoint.reference is None else checkpoint.reference
    groups = {} if checkpoint.groups is None else checkpoint.groups
    right = {
        "config": isinstance(checkpoint.config, str | None),
        "training": isinstance(training, dict) and type(training.get("iteration")) is int,
        "reference": isinstance(reference, dict)
        and all(isinstance(reference.get(key, {}), dict) for key in ("unused", "rest"))
        and isinstance(reference.get("order", []), list)
        and all(isinstance(name, str) for name in reference.get("order", [])),
        "groups": isinstance(groups, dict)
        and all(isinstance(word, str) for pair in groups.items() for word in pair),
        "activation": checkpoint.activation in (None, *ACTIVATIONS),
    }
    wrong = [name for name in right if not right[name]]
    if wrong:
        raise UserError(
            f"{path}: found {', '.join(wrong)} in another form than stclip writes: is the file "
            "damaged, or of another version? Take another checkpoint"
        )


def not_finite(model: nn.Module, optimizer: torch.optim.Optimizer) -> str | None:
    """Which trained parameter, or the optimizer's state of one, is not finite; None if all are."""
    tensors: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            tensors[f"parameter {name}"] = parameter.detach()
            for key, value in optimizer.state.get(parameter, {}).items():
                if isinstance(value, Tensor) and value.is_floating_point() and value.numel():
                    tensors[f"the optimizer's {key} of {name}"] = value
    # All at once, since the host waits for a device at each number that it reads there.
    if torch.nn.utils.get_total_norm(tensors.values(), norm_type=torch.inf).isfinite():
        return None
    return next(
        f"{name} is not finite" for name, value in tensors.items() if not value.isfinite().all()
    )


def checkpoint_path(output_dir: str | Path, iteration: int) -> Path:
    """OUTPUT_DIR/model_0000500.pth."""
    return Path(output_dir) / f"model_{iteration:07d}.pth"


def latest_checkpoint(output_dir: str | Path) -> Path | None:
    """The checkpoint with the most iterations in a run's folder, or None."""
    found = [p for p in Path(output_dir).glob("model_*.pth") if re.fullmatch(r"model_\d+", p.stem)]
    return max(found, key=lambda p: int(p.stem.removeprefix("model_")), default=None)


def _save(content: dict[str, Any], path: Path) -> None:
    with atomic_path(path) as temporary:
        try:
            with open(temporary, "wb") as file:
                torch.save(content, file)
        except RuntimeError as error:  # torch's zip writer hides the reason of a failed write
            raise OSError(f"{error} (no space left?)".split("\n")[0]) from error
