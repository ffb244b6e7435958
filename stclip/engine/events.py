"""What a run says: console lines, log.txt, metrics.jsonl, TensorBoard."""

import json
import logging
import math
import resource
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from stclip.errors import UserError
from stclip.files import parse_json, write_text

logger = logging.getLogger(__name__)

T = TypeVar("T")

_WATCHED, _MOST_WAITING = 50, 0.3  # batches, and the share of their time
_INFINITE = (float("inf"), float("-inf"))


def setup_logging(output_dir: str | Path | None, rank: int = 0) -> None:
    """Log to the console and to OUTPUT_DIR/log.txt; ranks other than 0 report warnings only."""
    root = logging.getLogger("stclip")
    root.setLevel(logging.INFO if rank == 0 else logging.WARNING)
    root.propagate = False
    root.handlers.clear()
    root.addHandler(Console(sys.stderr))
    if output_dir is not None and rank == 0:
        Path(output_dir).mkdir(parents=True, exist_ok=True)
        root.addHandler(logging.FileHandler(Path(output_dir) / "log.txt", encoding="utf-8"))
    for handler in root.handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))


class Console(logging.StreamHandler):  # type: ignore[type-arg]  # not before Python 3.11
    """Writes lines of their own, beside a progress bar too."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record; the bar, if there is one, goes on below it."""
        with tqdm.external_write_mode(file=self.stream):
            super().emit(record)


def peak_memory_mb(device: torch.device) -> float:
    """The most memory held so far in MB: the device's, or on a CPU the process's resident set."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6  # bytes there, KiB here


def watch_loader(batches: Iterable[T], device: torch.device) -> Iterable[T]:
    """The batches, with one warning if a GPU spends over 30 % of the time waiting for them.

    On a CPU nothing is said: there the loader's workers take what the model needs.
    """
    return batches if device.type == "cpu" else _watched(batches)


def _watched(batches: Iterable[T]) -> Iterator[T]:
    times: deque[tuple[float, float]] = deque(maxlen=_WATCHED)  # waiting, and in all
    warned = False
    asked = time.perf_counter()
    for number, batch in enumerate(batches):
        got = time.perf_counter()
        yield batch
        before, asked = asked, time.perf_counter()
        if number:  # nothing can hide the first
            times.append((got - before, asked - before))
        share = sum(waited for waited, _ in times) / (sum(whole for _, whole in times) or 1)
        if not warned and len(times) == _WATCHED and share > _MOST_WAITING:
            warned = True
            logger.warning(
                "%.0f %% of the time goes into waiting for data: raise DATALOADER.NUM_WORKERS to "
                "the number of cores less one, or set DATALOADER.RESIZE torch or DATALOADER.STORE",
                100 * share,
            )


class EventWriter:
    """Writes every iteration to metrics.jsonl and TensorBoard, and some to the console.

    Args:
        output_dir: the run's folder.
        start_iteration: iterations already done; what an interrupted run logged after its last
            checkpoint is dropped, because it is about to be done again.
        max_iter: for the time left.
        log_period: iterations between console lines.
    """

    def __init__(
        self, output_dir: str | Path, start_iteration: int, max_iter: int, log_period: int
    ) -> None:
        folder = Path(output_dir)
        path = folder / "metrics.jsonl"
        if path.exists():
            write_text(path, "".join(lines_up_to(path, start_iteration)))
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 (held open for the run)
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=start_iteration + 1)
        self._max_iter, self._log_period = max_iter, log_period
        self._times: deque[float] = deque(maxlen=100)

    def write(self, values: dict[str, Any]) -> None:
        """Record one iteration's (or validation's) numbers; ``values`` holds ``iteration``."""
        finite = {k: None if v != v or v in _INFINITE else v for k, v in values.items()}
        self._file.write(json.dumps(finite) + "\n")  # JSON has no infinity
        self._file.flush()
        for name, value in values.items():
            if name != "iteration" and isinstance(value, int | float):
                self._board.add_scalar(name, value, values["iteration"])

    def iteration(self, values: dict[str, Any]) -> None:
        """Record one training iteration; every ``log_period`` of them gives a console line."""
        self.write(values)
        self._times.append(values["iter_time"])
        done = values["iteration"]
        if done % self._log_period and done not in (1, self._max_iter):
            return
        mean_time = sum(self._times) / len(self._times)
        parts = " ".join(f"{k[5:]} {v:.4f}" for k, v in values.items() if k.startswith("loss_"))
        logger.info(
            "iteration %d/%d  loss %.4f (%s)  accuracy %.3f  lr %.3g  %.3f s (data %.3f)  "
            "%.0f MB  eta %s",
            done,
            self._max_iter,
            values["loss"],
            parts,
            values["accuracy"],
            values["lr"],
            mean_time,
            values["data_time"],
            values["max_mem"],
            timedelta(seconds=round(mean_time * (self._max_iter - done))),
        )

    def close(self) -> None:
        """Flush everything."""
        self._file.close()
        self._board.close()


def lines_up_to(path: Path, iteration: int) -> list[str]:
    """The lines to keep when a run resumes after an iteration, whose validation is repeated.

    Lines that are no records are left out: an interrupt cuts the last one, and a crash of the
    machine may leave anything.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    kept, damaged = [], 0
    for line in content.split(b"\n"):
        try:
            text = line.decode()
            record = parse_json(text, str(path)) if text else {"iteration": math.inf}
            if record["iteration"] < iteration + ("loss" in record):
                kept.append(text + "\n")
        except (UserError, UnicodeDecodeError, KeyError, TypeError):
            damaged += 1
    if damaged:
        logger.warning("%s: %d damaged lines are left out", path, damaged)
    return kept
