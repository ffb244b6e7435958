"""The training loop on several processes, seen from one."""

import copy
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from stclip.engine import train
from stclip.engine.optim import build_optimizer
from stclip.engine.train import Trainer
from stclip.errors import UserError
from stclip.models.losses import FocalCriterion
from tests.helpers import random_batch, tiny_model


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    """A process group of this process alone."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def trainer_of(model: torch.nn.Module, **changes: Any) -> Trainer:
    settings: dict[str, Any] = {
        "model": model,
        "vocabulary": torch.randn(3, 64),
        "criterion": FocalCriterion(),
        "optimizer": build_optimizer(model, 0.1, 0.9, 0.0),
        "learning_rate": lambda iteration: 0.1,
        "device": torch.device("cpu"),
        "max_iter": 2,
        "save": lambda iteration, state: None,
    }
    return Trainer(**(settings | changes))


def test_what_has_diverged_is_not_saved() -> None:
    """A step that overflows, after a loss and gradients that were finite."""
    torch.manual_seed(0)
    model = tiny_model()
    saved: dict[int, dict[str, Any]] = {}

    def save(iteration: int, state: dict[str, Any]) -> None:
        saved[iteration] = copy.deepcopy(state)
        for values in state["optimizer"]["state"].values():
            values["momentum_buffer"].fill_(3e38)

    trainer = trainer_of(
        model, learning_rate=lambda iteration: (0.1, 100)[iteration], checkpoint_period=1, save=save
    )
    batches = [random_batch([2], seed=n, classes=3) for n in range(2)]
    with pytest.raises(UserError, match=r"^iteration 2: .* is not finite: training has diverged"):
        trainer.run(batches)
    assert list(saved) == [1]
    trainer_of(tiny_model()).load_state(saved[1])


@pytest.mark.parametrize("broken", ["parameter", "momentum"])
def test_a_checkpoint_that_had_diverged_is_not_resumed(broken: str) -> None:
    model = tiny_model()
    trainer = trainer_of(model, max_iter=1)
    trainer.run([random_batch([2], classes=3)])
    state = trainer.state()
    if broken == "parameter":
        next(p for p in model.parameters() if p.requires_grad).data.view(-1)[0] = math.nan
    else:
        state["optimizer"]["state"][0]["momentum_buffer"].view(-1)[0] = math.inf
    with pytest.raises(UserError, match=rf"{broken}.* is not finite: .*remove this checkpoint"):
        trainer.load_state(state)


def a_trainer(kind: str) -> Trainer:
    torch.manual_seed(0)
    model = tiny_model()
    return trainer_of(model, optimizer=build_optimizer(model, 0.1, 0.9, 0.0, kind=kind), max_iter=1)


def damaged(state: dict[str, Any], change: str) -> None:
    """Change a state as a damaged, cut or foreign file could have it."""
    optimizer = state["optimizer"]
    part, _, how = change.partition(" ")
    if how == "missing":
        del state[part]
    elif part == "momentum":
        entry = optimizer["state"][3]
        name = next(name for name in entry if name != "step")
        like = entry[name]
        entry[name] = {
            "shape": like[..., :1].clone(),
            "dtype": like.double(),
            "repeats": like.new_zeros(1).expand(like.shape),
            "number": 3,
        }[how]
    elif part == "entry":
        if how == "gone":
            del optimizer["state"][3]
        elif how == "renamed":
            optimizer["state"][3] = {"other": torch.zeros(2)}
        else:
            optimizer["state"][10_000] = optimizer["state"][3]
    elif part == "groups":
        optimizer["param_groups"][0]["params"].pop()
    elif part == "rng":
        state["rng"]["cpu"] = state["rng"]["cpu"][:100] if how == "short" else "x"
    elif part == "scaler":
        state["scaler"] = {"scale": "x"}
    else:
        state["iteration"] = -1


CHANGES = [
    *(f"{part} missing" for part in ("iteration", "optimizer", "scaler", "rng")),
    *(f"momentum {how}" for how in ("shape", "dtype", "repeats", "number")),
    *("entry gone", "entry renamed", "entry beyond", "groups short"),
    *("rng short", "rng text", "scaler damaged", "iteration negative"),
]


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_a_state_with_parts_missing_or_of_other_shapes_is_refused(kind: str) -> None:
    whole = a_trainer(kind)
    whole.run([random_batch([2], classes=3)])
    fresh = a_trainer(kind)
    for change in CHANGES:
        state = copy.deepcopy(whole.state())
        damaged(state, change)
        with pytest.raises(
            UserError, match=r"a\.pth: found (the state of|\w+ 3 of shape)"
        ) as error:
            fresh.load_state(state, "a.pth")
        assert "\n" not in str(error.value), change
        assert fresh.iteration == 0
    fresh.load_state(whole.state(), "a.pth")
    assert fresh.iteration == 1
    states = [trainer.optimizer.state_dict()["state"] for trainer in (whole, fresh)]
    for number, entry in states[0].items():
        assert all(torch.equal(entry[name], states[1][number][name]) for name in entry)


def test_hyperparameters_are_the_run_s_own() -> None:
    whole, fresh = a_trainer("sgd"), a_trainer("sgd")
    whole.run([random_batch([2], classes=3)])
    state = whole.state()
    state["optimizer"]["param_groups"][0] |= {"momentum": 0.1, "nesterov": True, "maximize": True}
    fresh.load_state(state)
    group = fresh.optimizer.param_groups[0]
    assert (group["momentum"], group["nesterov"], group["maximize"]) == (0.9, False, False)


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.usefixtures("group")
def test_gradients_are_exchanged_once_an_iteration(
    steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many parts it has: the other parts' gradients stay on their process."""
    exchanged: list[int] = []

    class Counting(DistributedDataParallel):
        def __init__(self, module: torch.nn.Module, **kwargs: object) -> None:
            super().__init__(module, **kwargs)

            def hook(state: None, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
                exchanged.append(bucket.buffer().numel())
                future: torch.futures.Future[torch.Tensor] = torch.futures.Future()
                future.set_result(bucket.buffer())
                return future

            self.register_comm_hook(None, hook)

    monkeypatch.setattr(train, "world_size", lambda: 2)
    monkeypatch.setattr(train, "DistributedDataParallel", Counting)
    torch.manual_seed(0)
    model = tiny_model()
    trainer = trainer_of(model, accumulation_steps=steps)
    trainer.run([random_batch([2], seed=n, classes=3) for n in range(2 * steps)])
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert sum(exchanged) == 2 * trained
