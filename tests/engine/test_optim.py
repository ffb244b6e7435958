import pytest

from stclip.engine.optim import build_optimizer, learning_rate
from tests.helpers import tiny_model


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


def test_cosine_is_half_a_period() -> None:
    values = [rate(i, schedule="cosine", warmup_iters=0) for i in (0, 750, 1500, 3000)]
    assert values == pytest.approx([1, (1 + 0.5**0.5) / 2, 0.5, 0], abs=1e-9)


def test_only_the_trained_parameters_have_an_optimizer() -> None:
    model = tiny_model()
    optimizer = build_optimizer(model, 0.1, 0.9, 1e-7)
    chosen = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert chosen == {id(p) for p in model.parameters() if p.requires_grad}
