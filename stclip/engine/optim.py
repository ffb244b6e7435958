"""Optimizers and learning rate: ST-CLIP's (method.md section 8) and X-CLIP's."""

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from stclip.errors import UserError
from stclip.models.tensor_files import check_tensors

# AdamW's second decay rate and epsilon in X-CLIP's recipe; torch's are 0.999 and 1e-8.
_BETA_2, _EPSILON = 0.98, 1e-8


def build_optimizer(
    model: nn.Module,
    base_lr: float,
    momentum: float,
    weight_decay: float,
    *,
    kind: str = "sgd",
    is_new: Callable[[str], bool] | None = None,
    new_lr_factor: float = 1.0,
) -> torch.optim.Optimizer:
    """An optimizer over what is trained; frozen parameters get no state.

    Args:
        model: whose parameters.
        base_lr: the learning rate.
        momentum: SGD's momentum; AdamW's first decay rate.
        weight_decay: SGD's of all parameters. AdamW's of matrices only, and not of positional
            embeddings, as in X-CLIP's recipe.
        kind: "sgd" or "adamw".
        is_new: tells by the name which parameters have another learning rate.
        new_lr_factor: what theirs is times the others'.

    Returns:
        The optimizer. Each of its groups has ``lr_factor``, which a schedule must apply.
    """
    groups: dict[tuple[bool, bool], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        new = is_new is not None and is_new(name)
        decays = kind == "sgd" or (parameter.ndim > 1 and "positional_embedding" not in name)
        group = groups.setdefault((new, decays), {"params": []})
        group["params"].append(parameter)
        group["lr_factor"] = new_lr_factor if new else 1.0
        group["lr"] = base_lr * group["lr_factor"]
        group["weight_decay"] = weight_decay if decays else 0.0
    if kind == "sgd":
        sgd = torch.optim.SGD(list(groups.values()), lr=base_lr, momentum=momentum, fused=True)
        for group in groups.values() if momentum else ():
            for parameter in group["params"]:
                # Zeros give what torch starts with. Its own buffers stay uninitialised, and are
                # used all the same, if a loss scaler skips the very first step.
                sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return sgd
    return torch.optim.AdamW(
        list(groups.values()), lr=base_lr, betas=(momentum, _BETA_2), eps=_EPSILON, fused=True
    )


def load_optimizer(optimizer: torch.optim.Optimizer, saved: Any, source: str) -> None:
    """Give an optimizer the state of another one over the same parameters.

    Only the state of the parameters is taken; rates, momentum and decay stay as they are.

    Args:
        optimizer: SGD or AdamW; of a state without anything it keeps its own.
        saved: from the other's ``state_dict``.
        source: what error messages call it.

    Raises:
        UserError: parts are missing, or of other shapes or types than the parameters. PyTorch
            itself would take them, and compute with memory that is not theirs.
    """
    own = optimizer.state_dict()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    slots = {"momentum_buffer"}
    if isinstance(optimizer, torch.optim.AdamW):
        slots = {"step", "exp_avg", "exp_avg_sq"}

    def refuse(what: str, instead: str) -> NoReturn:
        raise UserError(
            f"{source}: found the state of an optimizer with {what}, expected {instead}: is the "
            "file damaged, or of another training? Set MODEL.WEIGHT to it to start again with its "
            "weights"
        )

    saved = saved if isinstance(saved, dict) else {}
    state, groups = saved.get("state"), saved.get("param_groups")
    if not isinstance(state, dict) or not isinstance(groups, list):
        refuse("parts missing", "state and param_groups")
    theirs = [group.get("params") if isinstance(group, dict) else None for group in groups]
    if theirs != [group["params"] for group in own["param_groups"]]:
        refuse("other groups of parameters", f"{len(parameters)} parameters in {len(own)} groups")
    kept = {}
    for number, entry in state.items():
        if number not in range(len(parameters)) or not isinstance(entry, dict):
            refuse(f"an entry {number!r:.40}", f"0 to {len(parameters) - 1}")
        tensors = {name: value for name, value in entry.items() if value is not None}
        if not tensors:
            continue
        if tensors.keys() != slots:
            refuse(f"{sorted(map(str, tensors))} of parameter {number}", str(sorted(slots)))
        for name, value in tensors.items():
            like = torch.zeros(()) if name == "step" else parameters[number]
            expected = f"{like.dtype} of shape {tuple(like.shape)}"
            if not isinstance(value, Tensor):
                refuse(f"{name} {number} as {type(value).__name__}", expected)
            check_tensors({f"{name} {number}": value}, source)
            if (value.dtype, value.shape) != (like.dtype, like.shape):
                found = f"{value.dtype} of shape {tuple(value.shape)}"
                refuse(f"{name} {number} as {found}", expected)
        kept[number] = tensors
    if 0 < len(kept) < len(parameters):
        absent = next(number for number in range(len(parameters)) if number not in kept)
        refuse(f"nothing of parameter {absent}", f"state of all {len(parameters)}")
    if kept:
        optimizer.load_state_dict({"state": kept, "param_groups": own["param_groups"]})


def learning_rate(
    iteration: int,
    *,
    base_lr: float,
    schedule: str,
    max_iter: int,
    steps: Sequence[int] = (),
    gamma: float = 0.1,
    warmup_iters: int = 0,
    warmup_factor: float = 0.25,
) -> float:
    """The learning rate of an iteration, counted from 0; a function of nothing else.

    Args:
        iteration: 0 to max_iter - 1.
        base_lr: the rate after warm-up and before any decay.
        schedule: "step" multiplies by gamma at each of ``steps``; "cosine" falls along half a
            period to zero at max_iter.
        max_iter: the length of the training.
        steps: ascending iterations.
        gamma: factor of a step.
        warmup_iters: the rate grows linearly during these; 0 for none.
        warmup_factor: what it starts from, as a part of base_lr.
    """
    if schedule == "cosine":
        factor = 0.5 * (1 + math.cos(math.pi * iteration / max_iter))
    else:
        factor = gamma ** bisect_right(sorted(steps), iteration)
    if iteration < warmup_iters:
        progress = iteration / warmup_iters
        factor *= warmup_factor * (1 - progress) + progress
    return base_lr * factor
