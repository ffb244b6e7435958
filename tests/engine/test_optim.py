from typing import Any

import pytest
import torch

from stclip.config import load_config
from stclip.engine.optim import build_optimizer, learning_rate
from stclip.models.xclip import XCLIP, XCLIPSizes, is_new
from tests.helpers import REPOSITORY, tiny_model


def rate(iteration: int, **changes: object) -> float:
    settings = {
        "base_lr": 1.0,
        "schedule": "step",
        "max_iter": 3000,
        "steps": (1500, 2250),
        "gamma": 0.1,
        "warmup_iters": 800,
        "warmup_factor": 0.25,
    }
    return learning_rate(iteration, **{**settings, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("iteration", "expected"),
    [(0, 0.25), (400, 0.625), (799, 0.99906), (800, 1), (1499, 1), (1500, 0.1), (2250, 0.01)],
)
def test_step(iteration: int, expected: float) -> None:
    assert rate(iteration) == pytest.approx(expected, rel=1e-4)


def test_the_released_rate_is_constant_after_the_warm_up() -> None:
    solver = load_config(REPOSITORY / "configs/base.yaml").SOLVER
    assert solver == load_config().SOLVER
    rates = [
        rate(
            iteration,
            base_lr=solver.BASE_LR,
            schedule=solver.SCHEDULE,
            max_iter=solver.MAX_ITER,
            steps=solver.STEPS,
            gamma=solver.GAMMA,
            warmup_iters=solver.WARMUP_ITERS,
            warmup_factor=solver.WARMUP_FACTOR,
        )
        for iteration in (0, 800, 2999)
    ]
    assert rates == pytest.approx([6.25e-5, 2.5e-4, 2.5e-4])


def test_cosine_is_half_a_period() -> None:
    values = [rate(i, schedule="cosine", warmup_iters=0) for i in (0, 750, 1500, 3000)]
    assert values == pytest.approx([1, (1 + 0.5**0.5) / 2, 0.5, 0], abs=1e-9)


def test_only_the_trained_parameters_have_an_optimizer() -> None:
    model = tiny_model()
    optimizer = build_optimizer(model, 0.1, 0.9, 1e-7)
    chosen = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert chosen == {id(p) for p in model.parameters() if p.requires_grad}


def group_of(optimizer: torch.optim.Optimizer, parameter: torch.nn.Parameter) -> dict[str, Any]:
    (found,) = [g for g in optimizer.param_groups if any(p is parameter for p in g["params"])]
    return found


def test_new_parts_have_a_rate_of_their_own_and_vectors_no_decay() -> None:
    model = tiny_model()
    optimizer = build_optimizer(
        model,
        1e-3,
        0.9,
        0.01,
        kind="adamw",
        is_new=lambda name: name.startswith("person_tokens."),
        new_lr_factor=10,
    )
    assert isinstance(optimizer, torch.optim.AdamW)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            assert not any(p is parameter for g in optimizer.param_groups for p in g["params"])
            continue
        group = group_of(optimizer, parameter)
        factor = 10 if name.startswith("person_tokens.") else 1
        assert group["lr_factor"] == factor, name
        assert group["lr"] == pytest.approx(1e-3 * factor)
        assert group["weight_decay"] == (0.01 if parameter.ndim > 1 else 0), name
        assert group["betas"] == (0.9, 0.98)


def test_sgd_decays_everything_in_one_group() -> None:
    (group,) = build_optimizer(tiny_model(), 0.1, 0.9, 1e-7).param_groups
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.1, 0.9, 1e-7)


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_the_step_by_hand(kind: str) -> None:
    """Of a parameter of one number, two steps; AdamW's first step is about the rate."""
    model = torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(1.0)
    optimizer = build_optimizer(model, 0.1, 0.9, 0.5, kind=kind)
    expected, velocity = 1.0, 0.0
    for gradient in (2.0, -1.0):
        model.weight.grad = torch.full((1, 1), gradient)
        optimizer.step()
        if kind == "sgd":
            velocity = 0.9 * velocity + gradient + 0.5 * expected
            expected -= 0.1 * velocity
    if kind == "adamw":
        first = 1 - 0.1 * 0.5 - 0.1  # decay, then the step
        mean = (0.9 * 0.1 * 2 - 0.1) / (1 - 0.9**2)
        square = (0.98 * 0.02 * 4 + 0.02) / (1 - 0.98**2)
        expected = first * (1 - 0.1 * 0.5) - 0.1 * mean / square**0.5
    assert model.weight.item() == pytest.approx(expected, rel=1e-5)


def test_a_first_step_that_is_skipped_leaves_no_momentum() -> None:
    """A loss scaler skips a step whose gradients overflow, the very first one too."""
    model = torch.nn.Linear(64, 64, bias=False)
    torch.full((64, 64), 123.0)  # so that fresh memory does not happen to hold zeros
    optimizer = build_optimizer(model, 0.5, 0.9, 0.0)
    scaler = torch.amp.GradScaler("cpu")
    before = model.weight.detach().clone()
    for gradient in (torch.inf, 2.0):
        scaler.scale(torch.zeros(())).item()
        model.weight.grad = torch.full((64, 64), gradient) * scaler.get_scale()
        scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
    torch.testing.assert_close(model.weight.detach(), before - 0.5 * 2.0)


def test_positions_do_not_decay() -> None:
    """X-CLIP's recipe, on X-CLIP, which trains some."""
    clip = XCLIP(XCLIPSizes(32, 16, 64, 1, 64, 1, 64, frames=2))
    optimizer = build_optimizer(clip, 1e-3, 0.9, 0.01, kind="adamw", is_new=is_new)
    for name, parameter in clip.named_parameters():
        decays = parameter.ndim > 1 and "positional_embedding" not in name
        assert group_of(optimizer, parameter)["weight_decay"] == (0.01 if decays else 0), name
    assert group_of(optimizer, clip.mit.positional_embedding)["weight_decay"] == 0
