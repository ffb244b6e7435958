"""Videos spread over the machines of a Ray cluster (extra ``ray``).

Workers are actors, each with a model of its own, and are given one video at a time. What a worker
left that died with its machine is continued by another one from the log in the video's folder.
"""

from __future__ import annotations

import logging
import os
import platform
import queue
import signal
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from logging.handlers import QueueHandler
from pathlib import Path
from typing import Any

from tqdm import tqdm

import stclip
from stclip.errors import UserError, machine_fault
from stclip.files import InUse, break_lock, this_process
from stclip.footage.detect import check_names
from stclip.footage.pipeline import LOG, claimed
from stclip.footage.scoring import Step
from stclip.footage.source import Source, is_missing, name_of
from stclip.footage.work import Work, Worker, called_twice, count, goes_on

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray reports to its makers otherwise
try:
    import ray
    from ray.exceptions import RayError, RayTaskError
except ImportError as error:
    raise UserError('--engine ray: needs Ray; pip install "stclip[ray]"') from error

_CONTROL = "control"  # the thread of an actor that hears while the other one works
_MOST_DEATHS = 3  # of workers, after which a video, or the place of a worker, is given up
_CPUS = 4  # of a worker: more do little for one video
_PATIENCE = 120.0  # seconds for the locks of a machine that is gone; NFS 4 drops them after 90
_SIGHT = 5.0  # seconds until a new file must be seen on another machine
_SECONDS_TO_STOP = 30.0
_SECONDS_OF_SILENCE = 60.0


@dataclass(frozen=True)
class Cluster:
    """Where videos are done; None is for a default.

    Attributes:
        address: host:port; None for $RAY_ADDRESS, a cluster on this machine, or a new one there.
        workers: videos that are done at once.
        cpus: cores of a worker.
        gpus: GPUs of a worker, also parts of one.
    """

    address: str | None = None
    workers: int | None = None
    cpus: int | None = None
    gpus: float | None = None


@dataclass
class _Video:
    location: str
    folder: Path
    deaths: int = 0  # of workers, without any progress between them
    log: int = 0  # bytes at the last death
    lost: list[str] = field(default_factory=list)  # workers that had it


@dataclass
class _Said:
    """What became of a video, or of a worker's beginning."""

    lines: list[str] = field(default_factory=list)
    error: str | None = None
    busy: bool = False  # another call has the video
    records: list[logging.LogRecord] = field(default_factory=list)
    who: str = ""


@dataclass
class _Slot:
    """The place of a worker."""

    actor: Any = None
    who: str = ""  # ``this_process()`` of the actor, once it has its model
    video: _Video | None = None
    deaths: int = 0  # in a row, before it had its model


class _Stopped(Exception):
    """The call is being ended."""


class _Actor:
    """A worker on a machine of the cluster.

    Args:
        work: what is done.
        here: the folder that relative paths start from.
        mark: a file in --out that every machine must see.
        version: of the package where the call was made.
    """

    def __init__(self, work: Work, here: str, mark: Path, version: str) -> None:
        self._work, self._here, self._mark, self._version = work, here, mark, version
        self._stop = threading.Event()
        self._records: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
        log = logging.getLogger("stclip")
        log.setLevel(logging.INFO)
        log.addHandler(QueueHandler(self._records))

    def load(self) -> _Said:
        """Get ready."""
        return self._saying(self._load)

    def do(self, location: str, folder: Path, lost: list[str]) -> _Said:
        """One video.

        Args:
            location: of the video.
            folder: gets the results.
            lost: workers that had it and are gone.
        """
        return self._saying(self._do, location, folder, lost)

    def stop(self) -> None:
        """End what is being done, with what was found so far."""
        self._stop.set()

    def _saying(self, do: Any, *arguments: Any) -> _Said:
        said = _Said(who=this_process())
        try:
            said.lines = do(*arguments)
        except InUse as error:
            said.error, said.busy = str(error), True
        except _Stopped as stopped:
            said.lines = list(stopped.args)
        except Exception as error:
            said.error = str(error) if isinstance(error, UserError) else machine_fault(error)
            if said.error is None:
                raise
        while not self._records.empty():
            said.records.append(self._records.get())
        return said

    def _load(self) -> list[str]:
        if stclip.__version__ != self._version:
            raise UserError(
                f"has stclip {stclip.__version__}, and {self._version} was called; install the "
                "same on all machines"
            )
        with suppress(OSError):  # all paths may be absolute
            os.chdir(self._here)
        end = time.monotonic() + _SIGHT
        while not self._mark.exists():
            if time.monotonic() > end:
                raise UserError(
                    f"does not see --out {self._mark.parent} (from {os.getcwd()}); it must be a "
                    "folder that all machines share, under the same path"
                )
            time.sleep(0.2)
        self._worker = Worker(self._work)
        return []

    def _do(self, location: str, folder: Path, lost: list[str]) -> list[str]:
        if is_missing(location):
            raise UserError(
                f"{location}: {platform.node()} sees no such file or folder (from {os.getcwd()}); "
                "all machines must see the videos under the same paths"
            )
        detection = self._worker.open(location)
        with ExitStack() as claim:
            try:
                claim.enter_context(claimed(folder, _PATIENCE if lost else 0.0))
            except InUse:
                for holder in lost:
                    break_lock(folder.parent, folder.name, holder)
                claim.enter_context(claimed(folder))
            if detection.is_complete_in(folder):
                return self._worker.again(folder)
            resume = self._work.resume or (bool(lost) and detection.is_begun_in(folder))
            try:
                return self._worker.save(detection, folder, self._show, resume)
            except _Stopped:
                raise _Stopped(*goes_on(detection, folder)) from None

    def _show(self, steps: Iterable[Step], source: Source) -> None:
        for _ in steps:
            if self._stop.is_set():
                raise _Stopped


def spread(work: Work, videos: Sequence[str], out: Path, cluster: Cluster) -> bool:
    """Do videos on a cluster.

    A video whose worker dies is done again by another one, from where the log in its folder ends.
    An error of a video is said, and does not stop the others.

    Args:
        work: what is done.
        videos: paths and addresses that all machines see.
        out: the folder of all results, which all machines see.
        cluster: where.

    Returns:
        Whether one failed.

    Raises:
        UserError: the cluster cannot be reached, has no room for a worker, or none can begin.
    """
    check_names(work.actions, work.none_of)
    if "RANK" in os.environ:
        raise UserError("--engine ray: starts processes itself; call it without torchrun")
    for location in videos:
        if location == "-" or location.isdecimal():
            raise UserError(f"{location}: is of this machine alone; leave out --engine ray")
    with _mark_in(out) as mark, _connected(cluster.address):
        run = _Run(work, videos, mark, cluster)
        run.all()
        return run.failed > 0


@contextmanager
def _mark_in(out: Path) -> Iterator[Path]:
    """A file in the folder of results, by which other machines know it."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        mark = tempfile.NamedTemporaryFile(prefix=".ray-", dir=out)  # noqa: SIM115
    except OSError as error:
        raise UserError(f"{out}: cannot write here: {error.strerror or error}") from error
    with mark:
        yield out / Path(mark.name).name


@contextmanager
def _connected(address: str | None) -> Iterator[None]:
    terminate = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:
        reason = next(iter(str(error).splitlines()), "")
        where = address or os.environ.get("RAY_ADDRESS", "a cluster of this machine alone")
        raise UserError(f"--ray-address: cannot reach {where}: {reason}") from error
    finally:
        signal.signal(signal.SIGTERM, terminate)  # Ray has its own, which ends with another status
    try:
        yield
    finally:
        ray.shutdown()


class _Run:
    """One call, seen from where it was made."""

    def __init__(self, work: Work, videos: Sequence[str], mark: Path, cluster: Cluster) -> None:
        workers, cpus, gpus = _room(work, cluster)
        self.failed = 0
        self._todo: deque[_Video] = deque()
        self._bar = tqdm(total=len(videos), unit="video", mininterval=0.5)
        names: set[str] = set()
        for location in videos:
            if (name := name_of(location)) in names:
                self._fail(str(called_twice(location)))
            else:
                names.add(name)
                self._todo.append(_Video(location, mark.parent / name))
        self._alone = len(videos) == 1
        self._workers = min(workers, len(self._todo))
        if not gpus and work.device == "auto":
            work = replace(work, device="cpu")
        self._arguments = (work, os.getcwd(), mark, stclip.__version__)
        self._options: dict[str, Any] = {
            "num_cpus": cpus, "num_gpus": gpus, "scheduling_strategy": "SPREAD",
            "max_restarts": 0, "max_task_retries": 0,
        }  # fmt: skip
        as_actors: dict[str, Any] = {"concurrency_groups": {_CONTROL: 1}}
        self._actors: Any = ray.remote(**as_actors)(_Actor)
        self._busy: dict[Any, _Slot] = {}  # by what their actors are computing
        self._useless: list[Any] = []  # actors that keep the room of machines that cannot work
        self._reason = ""

    def all(self) -> None:
        """Do all videos."""
        silent = time.monotonic()
        try:
            for _ in range(self._workers):
                self._start(_Slot())
            while self._todo or self._running():
                if not self._busy:
                    raise UserError(f"no machine of the cluster can work; {self._reason}")
                for reference in _ready(self._busy, 1, seconds=1.0):
                    self._take(reference)
                self._show()
                if self._running():
                    silent = time.monotonic()
                elif time.monotonic() - silent > _SECONDS_OF_SILENCE:
                    silent = time.monotonic()
                    needs = f"{self._options['num_cpus']} cores, {self._options['num_gpus']:g} GPUs"
                    self._print(f"waiting for room for a worker on the cluster ({needs})")
        except BaseException:
            self._stop()
            raise
        finally:
            self._bar.close()

    def _running(self) -> list[Any]:
        return [reference for reference, slot in self._busy.items() if slot.video is not None]

    def _start(self, slot: _Slot) -> None:
        slot.actor = self._actors.options(**self._options).remote(*self._arguments)
        self._busy[slot.actor.load.remote()] = slot

    def _take(self, reference: Any) -> None:
        """What an actor has computed; its next video."""
        slot = self._busy.pop(reference)
        video, slot.video = slot.video, None
        try:
            said = ray.get(reference)
        except RayTaskError:
            raise  # a mistake in this program
        except RayError as error:
            self._died(slot, video, str(error))
            return
        for record in said.records:
            logging.getLogger(record.name).handle(record)
        if video is not None:
            self._finished(video, said)
        elif said.error is not None:
            self._reason = f"{said.who}: {said.error}"
            self._print(f"warning: {self._reason}", sys.stderr)
            self._useless.append(slot.actor)
            return
        slot.who, slot.deaths = said.who, 0
        if self._todo:
            slot.video = video = self._todo.popleft()
            arguments = (video.location, video.folder, video.lost)
            self._busy[slot.actor.do.remote(*arguments)] = slot
        else:  # others may have a use for its machine
            ray.kill(slot.actor)

    def _finished(self, video: _Video, said: _Said) -> None:
        if said.error is None:
            for line in said.lines:
                self._print(line)
            self._bar.update()
        elif said.busy and not self._alone:
            self._print(f"{video.folder}: another process is working on it")
            self._bar.update()
        else:
            self._fail(said.error)

    def _died(self, slot: _Slot, video: _Video | None, reason: str) -> None:
        """A process or machine is gone: what it had is done again, and another takes its place."""
        with suppress(Exception):
            ray.kill(slot.actor)  # if it is out of reach only
        if video is None:
            slot.deaths += 1
            self._reason = f"a worker ended while it got ready: {' '.join(reason.split())[-300:]}"
            if slot.deaths == _MOST_DEATHS:
                self._print(f"warning: {self._reason}", sys.stderr)
                return
        else:
            log = video.folder / LOG
            size = log.stat().st_size if log.exists() else 0
            video.deaths = 1 if size > video.log else video.deaths + 1
            video.log = size
            video.lost.append(slot.who)
            if video.deaths < _MOST_DEATHS:
                self._print(f"{video.location}: {slot.who} is gone; another one goes on")
                self._todo.appendleft(video)
            else:
                self._fail(
                    f"{video.location}: given up, since {count(video.deaths, 'worker')} ended at "
                    f"the same place of it (the last was {slot.who}); does it need more memory "
                    "than there is? /tmp/ray/session_latest/logs there says more"
                )
        if self._todo:
            self._start(slot)

    def _fail(self, error: str) -> None:
        self.failed += 1
        self._print(f"error: {error}", sys.stderr)
        self._bar.update()

    def _print(self, line: str, file: Any = None) -> None:
        self._bar.write(line, file)

    def _show(self) -> None:
        workers = count(len(self._running()), "worker")
        self._bar.set_postfix_str(f"{workers}, {self.failed} failed", refresh=False)

    def _stop(self) -> None:
        """Let workers write what they have found so far."""
        running = self._running()
        if not running:
            return
        for slot in self._busy.values():
            slot.actor.stop.options(concurrency_group=_CONTROL).remote()
        for reference in _ready(running, len(running), _SECONDS_TO_STOP):
            with suppress(RayError):
                for line in ray.get(reference).lines:
                    self._print(line, sys.stderr)


def _ready(references: Iterable[Any], number: int, seconds: float) -> list[Any]:
    """Those of some references that are there, after a time or as soon as so many are."""
    try:
        return ray.wait(list(references), num_returns=number, timeout=seconds)[0]
    except SystemError as error:  # what Ray makes of an error that the handler of a signal raises
        raise error.__cause__ or error from None


def _room(work: Work, cluster: Cluster) -> tuple[int, int, float]:
    """How many workers there are, and the cores and GPUs of each.

    Raises:
        UserError: there is room for none.
    """
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = cluster.gpus
    if gpus is None:
        on_cpu = work.device == "cpu" or work.onnx is not None
        gpus = float(not on_cpu and any(machine.get("GPU", 0) for machine in machines))
    fits = [
        (int(machine["CPU"]), int(machine.get("GPU", 0) / gpus) if gpus else sys.maxsize)
        for machine in machines
        if machine.get("CPU", 0) >= 1 and machine.get("GPU", 0) >= gpus
    ]
    shares = [cores // min(by_gpu, cores) if gpus else cores for cores, by_gpu in fits]
    cpus = cluster.cpus or max(1, min([_CPUS, *shares]))
    room = sum(min(cores // cpus, by_gpu) for cores, by_gpu in fits)
    if not room and cluster.workers is None:
        found = ", ".join(
            f"{machine.get('CPU', 0):g} cores and {machine.get('GPU', 0):g} GPUs"
            for machine in machines
        )
        raise UserError(
            f"no machine of the cluster has {cpus} cores and {gpus:g} GPUs for a worker (found "
            f"{found}); lower --ray-cpus or --ray-gpus, or give --ray-workers to wait for more"
        )
    return cluster.workers or room, cpus, gpus
