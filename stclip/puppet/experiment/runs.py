"""Calls of ``stclip train`` and ``stclip test``, each in a process of its own.

A finished run is recognised by what it left on disk and is not repeated, so an interrupted
experiment goes on where it stopped.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TextIO

from yacs.config import CfgNode

from stclip.config import differences, load_config
from stclip.data.build import dataset_name
from stclip.engine.checkpoint import checkpoint_path
from stclip.errors import UserError
from stclip.files import read_json

LOG = "console.txt"  # what the command printed, in the run's folder
_START_SECONDS = 6.0  # to start a process and build a model, roughly


@dataclass(frozen=True)
class Run:
    """One call of a command.

    Attributes:
        title: what it is, for people.
        command: ``train`` or ``test``.
        config: the yaml file.
        folder: OUTPUT_DIR.
        pairs: further KEY VALUE pairs.
        training: the run whose checkpoint is tested; None tests without MODEL.WEIGHT.
        seconds: how long it may take; only the proportions matter, for the time left.
    """

    title: str
    command: str
    config: str
    folder: Path
    pairs: tuple[str, ...] = ()
    training: Run | None = None
    seconds: float = 0.0

    def arguments(self) -> list[str]:
        """What follows the command on a command line."""
        weight = () if self.training is None else ("MODEL.WEIGHT", str(self.training.checkpoint()))
        output = ("OUTPUT_DIR", str(self.folder))
        return ["--config-file", self.config, *self.pairs, *weight, *output]

    def cfg(self) -> CfgNode:
        """The config of the run."""
        return load_config(self.config, self.arguments()[2:])

    def checkpoint(self) -> Path:
        """The last checkpoint of a training."""
        pairs = [*self.pairs, "OUTPUT_DIR", str(self.folder)]
        return checkpoint_path(self.folder, load_config(self.config, pairs).SOLVER.MAX_ITER)

    def results(self) -> Path:
        """The folder that a test writes."""
        return self.folder / "inference" / dataset_name(self.cfg().DATASETS.TEST)

    def finished(self) -> bool:
        """Whether all that this run should leave is there, made with this very config.

        A test of a checkpoint that was written after it does not count.

        Raises:
            UserError: the folder holds a training with another config.
        """
        if self.command == "train":
            self._refuse_other_config(self.folder / "config.yaml")
            return self.checkpoint().exists()
        metrics, config = self.results() / "metrics.json", self.results() / "config.yaml"
        if not metrics.exists() or not config.exists():
            return False
        if self.training is not None:
            weight = self.training.checkpoint()
            if not weight.exists() or weight.stat().st_mtime > metrics.stat().st_mtime:
                return False
        return config.read_bytes() == self.cfg().dump().encode()

    def begun(self) -> bool:
        """Whether the folder holds a training that --resume continues."""
        return self.command == "train" and (self.folder / "config.yaml").exists()

    def outcome(self) -> str:
        """A few words for the line that ends the run."""
        if self.command == "train":
            return "trained"
        value = read_json(self.results() / "metrics.json").get("frame_mAP@0.5")
        return "no mAP" if value is None else f"{value:.1f} mAP"

    def _refuse_other_config(self, path: Path) -> None:
        if not path.exists():
            return
        changes = differences(self.cfg(), path)
        if changes:
            raise UserError(
                f"{path}: this training was made with another config ({'; '.join(changes)}); "
                "choose another output folder, or remove this one"
            )


@dataclass
class _Job:
    """A run that is being carried out."""

    run: Run
    title: str
    process: subprocess.Popen[bytes]
    start: float

    @property
    def seconds(self) -> float:
        """How long it has been running."""
        return time.monotonic() - self.start

    @property
    def log(self) -> Path:
        """What the command prints."""
        return self.run.folder / LOG


class Runner:
    """Carries out runs and says how far it is.

    Args:
        runs: in order; what a run needs comes before it.
        show_commands: print each command as a person would type it.
        jobs: runs at a time, which share the processor's cores. Small models gain by it.
        stream: where lines go; standard output by default.
        program: what a command is called with.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        show_commands: bool = False,
        jobs: int = 1,
        stream: TextIO | None = None,
        program: Sequence[str] = (sys.executable, "-m", "stclip"),
    ) -> None:
        self._program, self._show_commands, self._jobs = program, show_commands, jobs
        self._stream = sys.stdout if stream is None else stream
        self._runs = list(runs)
        self._left = sum(_nominal(run) for run in runs)
        self._done = self._spent = 0.0  # nominal and real seconds of the runs carried out

    def all(self) -> None:
        """Carry out the runs that are not finished, in order.

        Raises:
            UserError: a command failed; the message has its last line and where the rest is. Other
                runs of that moment are stopped as Ctrl-C stops them.
        """
        finished = [run.finished() for run in self._runs]  # conflicts show before anything is run
        self._left -= sum(
            _nominal(run) for run, done in zip(self._runs, finished, strict=True) if done
        )
        if any(finished):
            self._say(f"{sum(finished)} of {len(finished)} runs are there already")
        waiting = list(enumerate(self._runs, start=1))
        running: list[_Job] = []
        try:
            while waiting or running:
                while len(running) < self._jobs and (item := _next(waiting, running)):
                    waiting.remove(item)
                    number, run = item
                    title = f"[{number}/{len(self._runs)}] {run.title}"
                    # A training that had to be made anew leaves its tests behind.
                    if not run.finished():
                        running.append(self._start(run, title))
                if running:
                    ended = self._wait(running)
                    running.remove(ended)
                    self._end(ended, running)
        except KeyboardInterrupt:
            for job in running:
                job.process.wait()  # it got the signal too, and saves what it has
            raise
        finally:
            for job in running:
                if job.process.poll() is None:
                    job.process.terminate()
                    job.process.wait()

    def _start(self, run: Run, title: str) -> _Job:
        words = [*run.arguments(), *(["--resume"] if run.begun() else [])]
        if self._show_commands:
            self._say(f"$ stclip {run.command} {shlex.join(words)}")
        run.folder.mkdir(parents=True, exist_ok=True)
        with open(run.folder / LOG, "w", encoding="utf-8") as file:
            process = start_tool([*self._program, run.command, *words], file, self._jobs)
        return _Job(run, title, process, time.monotonic())

    def _end(self, job: _Job, others: Sequence[_Job]) -> None:
        if job.process.returncode:
            raise UserError(
                f"{job.run.title}: stclip {job.run.command} failed: {_last(job.log)} "
                f"(all: {job.log})"
            )
        self._done += _nominal(job.run)
        self._left -= _nominal(job.run)
        self._spent += (seconds := job.seconds)
        left = self._time_left(others)
        self._say(f"{job.title}: {job.run.outcome()} in {clock(seconds)}; {left}")

    def _wait(self, running: Sequence[_Job]) -> _Job:
        """The first job that ends; meanwhile says how the oldest is doing."""
        live = self._stream.isatty()
        said = time.monotonic()
        while True:
            for job in running:
                if job.process.poll() is not None:
                    return job
            time.sleep(0.1)
            if time.monotonic() - said < (1 if live else 30):
                continue
            said = time.monotonic()
            job = running[0]
            line = f"{job.title}: {clock(job.seconds)}; {self._time_left(running)}"
            if live:
                print(f"\r\033[K{line}  {_last(job.log)}"[:110], end="", file=self._stream)
                self._stream.flush()
            else:
                print(f"{line}  {_last(job.log)[:90]}", file=self._stream, flush=True)

    def _time_left(self, running: Sequence[_Job]) -> str:
        """Words for the time that is left, by the pace so far."""
        spent = sum(job.seconds for job in running)
        nominal = self._done + sum(_nominal(job.run) for job in running)
        pace = (self._spent + spent) / nominal if nominal else 1.0
        if not self._done:  # unfinished runs say little yet
            pace = max(pace, 0.5)
        return f"about {clock(max(self._left * pace - spent, 0) / self._jobs)} left"

    def _say(self, line: str) -> None:
        clear = "\r\033[K" if self._stream.isatty() else ""
        print(f"{clear}{line}", file=self._stream, flush=True)


def _nominal(run: Run) -> float:
    return _START_SECONDS + run.seconds


def _next(waiting: Sequence[tuple[int, Run]], running: Sequence[_Job]) -> tuple[int, Run] | None:
    """The first run whose training is not still to come."""
    to_come = [run for _, run in waiting] + [job.run for job in running]
    for number, run in waiting:
        if run.training is None or run.training not in to_come:
            return number, run
    return None


def clock(seconds: float) -> str:
    """H:MM:SS, or M:SS below an hour."""
    text = str(timedelta(seconds=round(seconds)))
    return text.removeprefix("0:").removeprefix("0") if seconds < 3599.5 else text


def start_tool(words: list[str], output: TextIO, jobs: int = 1) -> subprocess.Popen[bytes]:
    """Start a process that prints into a file, one of so many at a time."""
    threads = str(max((os.cpu_count() or 1) // jobs, 1))
    environment = {"OMP_NUM_THREADS": threads, **os.environ} if jobs > 1 else None
    return subprocess.Popen(words, stdout=output, stderr=subprocess.STDOUT, env=environment)


def _last(log: Path) -> str:
    """The last line of a log, where a progress bar's later states count as lines."""
    with open(log, "rb") as file:
        file.seek(max(0, log.stat().st_size - 4000))
        text = file.read().decode("utf-8", errors="replace")
    lines = [line.strip() for line in text.replace("\r", "\n").splitlines() if line.strip()]
    return lines[-1] if lines else ""
