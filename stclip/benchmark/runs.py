"""Calls of train_net and test_net, one after the other, each in a process of its own.

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
from stclip.engine.checkpoint import checkpoint_path
from stclip.errors import UserError
from stclip.files import read_json

LOG = "console.txt"  # what the tool printed, in the run's folder
_START_SECONDS = 6.0  # to start a process and build a model, roughly


@dataclass(frozen=True)
class Run:
    """One call of a tool.

    Attributes:
        title: what it is, for people.
        tool: ``train_net`` or ``test_net``.
        config: the yaml file.
        folder: OUTPUT_DIR.
        pairs: further KEY VALUE pairs.
        training: the run whose checkpoint is tested; None tests without MODEL.WEIGHT.
        seconds: how long it may take; only the proportions matter, for the time left.
    """

    title: str
    tool: str
    config: str
    folder: Path
    pairs: tuple[str, ...] = ()
    training: Run | None = None
    seconds: float = 0.0

    def arguments(self) -> list[str]:
        """What follows the tool's name on a command line."""
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
        return self.folder / "inference" / str(self.cfg().DATASETS.TEST)

    def finished(self) -> bool:
        """Whether all that this run should leave is there, made with this very config.

        A test of a checkpoint that was written after it does not count.

        Raises:
            UserError: a training stands there that was made with another config.
        """
        if self.tool == "train_net":
            self._refuse_other_config(self.folder / "config.yaml")
            return self.checkpoint().exists()
        metrics, config = self.results() / "metrics.json", self.results() / "config.yaml"
        if not metrics.exists() or not config.exists():
            return False
        if self.training is not None:
            weight = self.training.checkpoint()
            if not weight.exists() or weight.stat().st_mtime > metrics.stat().st_mtime:
                return False
        return config.read_text(encoding="utf-8") == self.cfg().dump()

    def begun(self) -> bool:
        """Whether a training stands there that --resume continues."""
        return self.tool == "train_net" and (self.folder / "config.yaml").exists()

    def outcome(self) -> str:
        """A few words for the line that ends the run."""
        if self.tool == "train_net":
            return "trained"
        value = read_json(self.results() / "metrics.json").get("frame_mAP@0.5")
        return "no mAP" if value is None else f"{value:.1f} mAP"

    def _refuse_other_config(self, path: Path) -> None:
        if not path.exists():
            return
        changes = differences(self.cfg(), path.read_text(encoding="utf-8"))
        if changes:
            raise UserError(
                f"{path}: this training was made with another config ({'; '.join(changes)}); "
                "choose another output folder, or remove this one"
            )


class Runner:
    """Carries out runs and says how far it is.

    Args:
        tools: the folder of train_net.py and test_net.py.
        runs: in order; what a run needs comes before it.
        show_commands: print each command as a person would type it.
        stream: where lines go; standard output by default.
    """

    def __init__(
        self,
        tools: Path,
        runs: Sequence[Run],
        show_commands: bool = False,
        stream: TextIO | None = None,
    ) -> None:
        self._tools, self._show_commands = tools, show_commands
        self._stream = sys.stdout if stream is None else stream
        self._runs = list(runs)
        self._left = sum(_START_SECONDS + run.seconds for run in runs)
        self._done = self._spent = 0.0  # nominal and real seconds of the runs carried out

    def all(self) -> None:
        """Carry out the runs that are not finished, in order.

        Raises:
            UserError: a tool failed; the message has its last line and where the rest is.
        """
        finished = [run.finished() for run in self._runs]  # conflicts show before anything is run
        self._left -= sum(
            _START_SECONDS + run.seconds
            for run, done in zip(self._runs, finished, strict=True)
            if done
        )
        if any(finished):
            self._say(f"{sum(finished)} of {len(finished)} runs are there already")
        for number, run in enumerate(self._runs, start=1):
            # A training that had to be made anew leaves its tests behind.
            if not run.finished():
                self._one(run, f"[{number}/{len(self._runs)}] {run.title}")

    def _one(self, run: Run, title: str) -> None:
        words = [*run.arguments(), *(["--resume"] if run.begun() else [])]
        if self._show_commands:
            self._say(f"$ python tools/{run.tool}.py {shlex.join(words)}")
        run.folder.mkdir(parents=True, exist_ok=True)
        log = run.folder / LOG
        start = time.monotonic()
        with open(log, "w", encoding="utf-8") as file:
            tool = str(self._tools / f"{run.tool}.py")
            process = start_tool([sys.executable, tool, *words], file)
            try:
                status = self._wait(process, log, title, start, _START_SECONDS + run.seconds)
            except KeyboardInterrupt:
                process.wait()  # it got the signal too, and saves what it has
                raise
            finally:
                if process.poll() is None:
                    process.terminate()
        if status:
            raise UserError(f"{run.title}: tools/{run.tool}.py failed: {_last(log)} (all: {log})")
        seconds = time.monotonic() - start
        self._done += _START_SECONDS + run.seconds
        self._left -= _START_SECONDS + run.seconds
        self._spent += seconds
        self._say(f"{title}: {run.outcome()} in {clock(seconds)}; {self._time_left(0, 0)}")

    def _wait(
        self,
        process: subprocess.Popen[bytes],
        log: Path,
        title: str,
        start: float,
        nominal: float,
    ) -> int:
        live = self._stream.isatty()
        while True:
            try:
                return process.wait(timeout=1 if live else 30)
            except subprocess.TimeoutExpired:
                seconds = time.monotonic() - start
                line = f"{title}: {clock(seconds)}; {self._time_left(seconds, nominal)}"
                if live:
                    print(f"\r\033[K{line}  {_last(log)}"[:110], end="", file=self._stream)
                    self._stream.flush()
                else:
                    print(f"{line}  {_last(log)[:90]}", file=self._stream, flush=True)

    def _time_left(self, seconds: float, nominal: float) -> str:
        """Words for the time that is left, by the pace so far."""
        pace = (self._spent + seconds) / (self._done + nominal) if self._done + nominal else 1.0
        if not self._done:  # one unfinished run says little yet
            pace = max(pace, 0.5)
        return f"about {clock(max(self._left * pace - seconds, 0))} left"

    def _say(self, line: str) -> None:
        clear = "\r\033[K" if self._stream.isatty() else ""
        print(f"{clear}{line}", file=self._stream, flush=True)


def clock(seconds: float) -> str:
    """H:MM:SS, or M:SS below an hour."""
    text = str(timedelta(seconds=round(seconds)))
    return text.removeprefix("0:").removeprefix("0") if seconds < 3599.5 else text


def start_tool(words: list[str], output: TextIO) -> subprocess.Popen[bytes]:
    """Start a process that prints into a file."""
    # Threads that spin while they wait lose their cores to whatever else is busy there, and all the
    # others wait for them: a test that takes 5 s beside other work has taken 120 s so.
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}
    return subprocess.Popen(words, stdout=output, stderr=subprocess.STDOUT, env=environment)


def _last(log: Path) -> str:
    """The last line of a log, where a progress bar's later states count as lines."""
    with open(log, "rb") as file:
        file.seek(max(0, log.stat().st_size - 4000))
        text = file.read().decode("utf-8", errors="replace")
    lines = [line.strip() for line in text.replace("\r", "\n").splitlines() if line.strip()]
    return lines[-1] if lines else ""
