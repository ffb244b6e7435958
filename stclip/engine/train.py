"""The training loop (method.md section 8)."""

import logging
import math
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from stclip.engine.checkpoint import not_finite
from stclip.engine.distributed import in_group, rank, sum_over_ranks, world_size
from stclip.engine.events import EventWriter, peak_memory_mb
from stclip.engine.optim import load_optimizer
from stclip.engine.precision import autocast
from stclip.errors import UserError
from stclip.signals import SAME_REQUEST, is_repeat, note_request
from stclip.structures import ClipBatch

logger = logging.getLogger(__name__)

# Takes (logits (N, C), labels (N, C)) and gives the sum over persons of each part of the loss.
Criterion = Callable[[Tensor, Tensor], dict[str, Tensor]]


class Interrupted(Exception):
    """A signal ended the run early; everything is saved."""

    def __init__(self, signal_number: int, iteration: int) -> None:
        name = signal.Signals(signal_number).name
        super().__init__(
            f"{name} after iteration {iteration}: saved; the same command with --resume continues"
        )
        self.signal_number = signal_number


@dataclass
class Trainer:
    """Everything that an iteration needs, and the loop.

    Attributes:
        model: ST-CLIP, or a model with its output, on ``device``.
        vocabulary: (C, E) features of the seen class names, on ``device``.
        criterion: the parts of the loss.
        optimizer: over the trained parameters, from ``build_optimizer``.
        learning_rate: iteration, counted from 0, to rate; a group of the optimizer's has
            ``lr_factor`` times that.
        device: where the model is.
        max_iter: iterations of the whole training.
        accumulation_steps: batches of the loader that make an iteration.
        precision: fp32, bf16 or fp16.
        checkpoint_period: iterations between checkpoints; the last iteration always gives one.
        save: called on rank 0 with (iteration, training state).
        eval_period: iterations between validations, 0 for none; then also after the last one.
        validate: gives numbers to record, or None on ranks other than 0; called on every rank.
        events: where rank 0 records; None on the others.
    """

    model: nn.Module
    vocabulary: Tensor
    criterion: Criterion
    optimizer: torch.optim.Optimizer
    learning_rate: Callable[[int], float]
    device: torch.device
    max_iter: int
    save: Callable[[int, dict[str, Any]], None]
    accumulation_steps: int = 1
    precision: str = "fp32"
    checkpoint_period: int = 500
    eval_period: int = 0
    validate: Callable[[], dict[str, float] | None] | None = None
    events: EventWriter | None = None

    def __post_init__(self) -> None:
        self.iteration = 0
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")
        self._trained = [p for p in self.model.parameters() if p.requires_grad]
        self._saved_iteration = -1

    def state(self) -> dict[str, Any]:
        """What a bitwise resume needs besides the parameters; tensors and plain containers only.

        The sampler has no state of its own: its order is a function of seed and iteration.
        """
        rng = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            rng["cuda"] = torch.cuda.get_rng_state(self.device)
        return {
            "iteration": self.iteration,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "rng": rng,
        }

    def load_state(self, state: dict[str, Any], source: str = "checkpoint") -> None:
        """Continue from ``state``; the parameters are loaded by the caller.

        Args:
            state: from ``state``.
            source: what error messages call it.

        Raises:
            UserError: a part of it is missing, or of another type or shape than this training's:
                nothing is changed then. Or it holds what is not finite: training had diverged.
        """
        parts = {name: state.get(name) for name in ("optimizer", "scaler", "rng")}
        wrong = [name for name, part in parts.items() if not isinstance(part, dict)]
        if type(state.get("iteration")) is not int or state["iteration"] < 0:
            wrong.append("iteration")
        rng, scaler = parts["rng"], parts["scaler"]
        expected = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            expected["cuda"] = torch.cuda.get_rng_state(self.device)
        for device, now in expected.items():  # a run that began on a CPU has none of CUDA
            held = rng if isinstance(rng, dict) else {}
            then = held.get(device, now if device == "cuda" else None)
            if not isinstance(then, Tensor) or (then.dtype, then.shape) != (now.dtype, now.shape):
                wrong.append(f"rng.{device}")
        names = torch.amp.GradScaler("cpu").state_dict().keys()
        if isinstance(scaler, dict) and scaler:  # empty if that part of the run was not in fp16
            numbers = [scaler.get(name) for name in names]
            wrong += ["scaler"] * any(type(number) not in (int, float) for number in numbers)
        if wrong:
            raise UserError(
                f"{source}: found the state of the training without a usable {', '.join(wrong)}: "
                "is the file damaged? Resume from another checkpoint, or set MODEL.WEIGHT to this "
                "one to start again with its weights"
            )
        load_optimizer(self.optimizer, state["optimizer"], source)
        self.iteration = self._saved_iteration = state["iteration"]
        if scaler:
            self.scaler.load_state_dict(scaler)
        broken = not_finite(self.model, self.optimizer)
        if broken is not None:
            raise UserError(
                f"{source}: {broken}: training had diverged; remove this checkpoint, and --resume "
                "continues from the one before"
            )
        torch.set_rng_state(state["rng"]["cpu"])
        if self.device.type == "cuda" and "cuda" in state["rng"]:
            torch.cuda.set_rng_state(state["rng"]["cuda"], self.device)

    def run(self, loader: Iterable[ClipBatch]) -> None:
        """Train from ``self.iteration`` to ``max_iter``.

        Args:
            loader: this rank's batches from ``self.iteration`` on, ``accumulation_steps`` of them
                an iteration.

        Raises:
            UserError: the loss or a gradient is not finite, of which nothing is applied; or what a
                checkpoint would hold is not, and it is not saved.
            Interrupted: SIGTERM or SIGINT came; the last finished iteration is saved.
        """
        model: nn.Module = self.model
        if in_group():
            ids = [self.device.index] if self.device.type == "cuda" else None
            model = DistributedDataParallel(
                self.model, device_ids=ids, gradient_as_bucket_view=True
            )
        batches = iter(loader)
        if self.iteration > 0:  # the run may have ended between a checkpoint and its validation
            self._validate_if_due()
        with _stop_signals() as stop:
            while self.iteration < self.max_iter:
                self._one_iteration(model, batches, stop)
                if self.iteration % self.checkpoint_period == 0 or self.iteration == self.max_iter:
                    self._save()
                self._validate_if_due()

    def _one_iteration(
        self, model: nn.Module, batches: Iterator[ClipBatch], stop: dict[str, int]
    ) -> None:
        start = time.perf_counter()
        parts_of_batch = [next(batches) for _ in range(self.accumulation_steps)]
        data_time = time.perf_counter() - start

        # The boxes of the whole batch divide the loss, so they are counted before any forward; the
        # same message tells every rank whether one of them was asked to stop.
        boxes = sum(len(part.boxes) for part in parts_of_batch)
        counts = torch.tensor([boxes, stop["signal"]], dtype=torch.float64)  # no device waits
        all_boxes, stop_signal = sum_over_ranks(counts).tolist()
        if stop_signal:
            self._save()
            raise Interrupted(stop["signal"] or signal.SIGTERM, self.iteration)
        divisor = max(all_boxes, 1) / world_size()  # DistributedDataParallel averages over ranks

        rate = self.learning_rate(self.iteration)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["lr_factor"]
        model.train()
        self.optimizer.zero_grad(set_to_none=True)
        totals: dict[str, Tensor] = {}
        for number, part in enumerate(parts_of_batch, start=1):
            # Gradients are averaged over ranks once, with the last part's.
            early = number < self.accumulation_steps
            with (
                model.no_sync()
                if early and isinstance(model, DistributedDataParallel)
                else nullcontext()
            ):
                for name, value in self._forward_backward(model, part, divisor).items():
                    totals[name] = totals.get(name, 0) + value
        self._step_and_record(totals, all_boxes, rate, data_time, start)

    def _forward_backward(
        self, model: nn.Module, part: ClipBatch, divisor: float
    ) -> dict[str, Tensor]:
        """Add a part's gradients; gives its sums: each part of the loss, and correct answers.

        A correct answer is a person whose highest logit is that of a label of the person's, which
        with several labels may be any of them.
        """
        part = part.to(self.device, non_blocking=True)
        assert part.labels is not None, "training needs labels"
        with autocast(self.precision, self.device):
            output = model(part, self.vocabulary)
        losses = self.criterion(output.logits, part.labels)
        loss = torch.stack(list(losses.values())).sum() / divisor
        if not len(part.boxes):  # nothing was computed, but every rank must take part in the sync
            loss = sum((p.sum() * 0.0 for p in self._trained), start=loss)
        self.scaler.scale(loss).backward()
        correct = part.labels.gather(1, output.logits.argmax(dim=1, keepdim=True)).sum()
        return {k: v.detach() for k, v in losses.items()} | {"correct": correct}

    def _step_and_record(
        self,
        totals: dict[str, Tensor],
        boxes: float,
        rate: float,
        data_time: float,
        start: float,
    ) -> None:
        """Check loss and gradients, take the optimizer's step, and write the iteration down."""
        sums = sum_over_ranks(torch.stack([value.double() for value in totals.values()]))
        self.scaler.unscale_(self.optimizer)
        gradients = [p.grad for p in self._trained if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients).double().reshape(1)
        # The one time in an iteration that the host waits for a device.
        *numbers, grad_norm = torch.cat([sums, norm]).tolist()
        values = {name: value / max(boxes, 1) for name, value in zip(totals, numbers, strict=True)}
        accuracy = values.pop("correct")
        loss = sum(values.values())
        # A scaler meets infinite gradients in its ordinary work and skips the step itself.
        if not math.isfinite(loss) or not (math.isfinite(grad_norm) or self.scaler.is_enabled()):
            parts = ", ".join(f"{name} {value}" for name, value in values.items())
            raise UserError(
                f"iteration {self.iteration + 1}: loss {loss} ({parts}), gradient norm "
                f"{grad_norm}, lr {rate:.3g}: not finite; stopped before the step; lower "
                "SOLVER.BASE_LR, or look at the data of this iteration"
            )
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.iteration += 1
        if self.events is not None:
            record = {"iteration": self.iteration, "loss": loss}
            record |= {f"loss_{name}": value for name, value in values.items()}
            record |= {"accuracy": accuracy, "boxes": int(boxes), "lr": rate}
            record |= {"grad_norm": grad_norm}
            record |= {"data_time": data_time, "iter_time": time.perf_counter() - start}
            self.events.iteration(record | {"max_mem": peak_memory_mb(self.device)})

    def _validate_if_due(self) -> None:
        last = self.iteration == self.max_iter
        if self.validate is None or not self.eval_period:
            return
        if self.iteration % self.eval_period and not last:
            return
        self.model.eval()
        numbers = self.validate()
        if self.events is not None and numbers is not None:
            self.events.write({"iteration": self.iteration, **numbers})

    def _save(self) -> None:
        if self._saved_iteration == self.iteration:
            return
        # On every rank: they hold the same numbers, so that all of them stop.
        broken = not_finite(self.model, self.optimizer)
        if broken is not None:
            raise UserError(
                f"iteration {self.iteration}: {broken}: training has diverged; not saved, and the "
                "checkpoints before it stay as they are; lower SOLVER.BASE_LR"
            )
        if rank() == 0:
            self.save(self.iteration, self.state())
            self._saved_iteration = self.iteration


@contextmanager
def _stop_signals() -> Iterator[dict[str, int]]:
    """Note the first SIGTERM or SIGINT, and exit at the second one only, as without this."""
    received = {"signal": 0}
    previous: dict[signal.Signals, Any] = {}

    def note(number: int, frame: FrameType | None) -> None:
        if is_repeat():
            return
        if received["signal"]:
            restore()
            signal.raise_signal(number)
            return
        note_request()
        received["signal"] = number
        logger.warning(
            "%s: stopping when this iteration or validation is done; another one after %d seconds "
            "stops at once without saving",
            signal.Signals(number).name,
            SAME_REQUEST,
        )

    def restore() -> None:
        for caught, handler in previous.items():
            signal.signal(caught, handler)

    for caught in (signal.SIGTERM, signal.SIGINT):
        previous[caught] = signal.signal(caught, note)
    try:
        yield received
    finally:
        restore()
