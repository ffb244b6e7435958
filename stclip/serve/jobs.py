"""The queue of videos: who is next, for how long, and when the files go.

Nothing here knows of the page or of models: a ``Worker`` does the work, and is ended if it takes
too long, needs too much memory, or nobody wants the result any more.
"""

from __future__ import annotations

import heapq
import logging
import os
import secrets
import shutil
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from stclip.errors import UserError

logger = logging.getLogger(__name__)

# Folders of this program alone: they are emptied without asking.
_JOBS, _UPLOADS = "stclip-serve-jobs", "stclip-serve-uploads"
RESULTS = "results"  # of a job's folder, the only one that others may read from
_LOOK_SECONDS = 0.2  # between looks at a worker that says nothing
_SWEEP_SECONDS = 30.0
_HIRE_SECONDS = 5.0  # between attempts to start a worker

WAITING, RUNNING, DONE, FAILED, CANCELLED = "waiting", "running", "done", "failed", "cancelled"


@dataclass(frozen=True)
class Limits:
    """What one job may take.

    Attributes:
        upload: bytes of a video file.
        video: seconds of a video that are looked at.
        job: seconds of work.
        memory: bytes of a worker; looked at where the system has /proc (Linux).
        waiting: jobs that wait at most.
        keep: seconds that files are kept after the end of a job.
    """

    upload: int = 200 * 2**20
    video: float = 600.0
    job: float = 1800.0
    memory: int = 6 * 2**30
    waiting: int = 20
    keep: float = 7200.0


@dataclass(frozen=True)
class Request:
    """What somebody wants to know of a video.

    Attributes:
        name: what the user calls the video; for showing, never a path.
        actions: names that are reported.
        none_of: names that are scored and never reported.
        model: one of those that the operator offers.
        detector: likewise.
        start: seconds before this are skipped.
        end: nothing from this second on is read.
        score_every: seconds between scores.
        window: seconds that scores are averaged over.
        threshold: averaged score that begins an event.
        min_seconds: shorter events are dropped.
        address: where the video is to be fetched from; empty for an uploaded one.
        track_threshold: score of a box from which somebody is followed.
    """

    name: str
    actions: tuple[str, ...]
    none_of: tuple[str, ...]
    model: str
    detector: str
    start: float = 0.0
    end: float = float("inf")
    score_every: float = 0.5
    window: float = 2.0
    threshold: float = 0.5
    min_seconds: float = 0.5
    address: str = ""
    track_threshold: float = 0.5


# What a worker says: "progress", "done", "error" (one line for the user) or "fault" (a traceback).
Message = tuple[str, Any]
_SILENT: Message = ("", None)


class Worker(Protocol):
    """Does one job after the other."""

    def begin(self, request: Request, upload: Path, results: Path) -> None:
        """Look at the video ``upload``, and write into the folder ``results``."""

    def next(self, seconds: float) -> Message | None:
        """What it says within so many seconds; EOFError once it has ended by itself."""

    def memory(self) -> int:
        """Bytes that it holds; 0 if nobody knows."""

    def end(self) -> None:
        """Stop at once, whatever it does."""


@dataclass
class Job:
    """One video of one user, who alone knows the token.

    Attributes:
        token: what its page and files are found by; cannot be guessed.
        request: what is asked.
        folder: its own; gone with the job.
        state: one of the five above.
        progress: the last that the worker said: facts for the page.
        error: what went wrong, in words for the user.
        begun: when work began, on the clock of ``time.monotonic``.
        heard: when the worker said the last of ``progress``, likewise.
        ended: when it ended, likewise.
        unwanted: whether it is to be cancelled.
    """

    token: str
    request: Request
    folder: Path
    state: str = WAITING
    progress: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    begun: float = 0.0
    heard: float = 0.0
    ended: float = 0.0
    unwanted: bool = False

    @property
    def upload(self) -> Path:
        """The video: a name that says nothing, for no name of a user becomes a path."""
        return self.folder / "upload"

    @property
    def results(self) -> Path:
        """The folder that the page may show files of."""
        return self.folder / RESULTS

    @property
    def active(self) -> bool:
        """Whether something is still to come."""
        return self.state in (WAITING, RUNNING)

    @property
    def left(self) -> float | None:
        """Seconds of work that remain, as the part that is done tells; None if it cannot tell."""
        share = self.progress.get("share", 0.0)
        if self.state != RUNNING or not 0.1 <= share < 0.98:  # at last results are written
            return None
        silent = time.monotonic() - self.heard  # else it would grow while nothing is said
        left = (self.heard - self.begun) * (1 - share) / share - silent
        return left if left > 0 else None


class Jobs:
    """All jobs, and the threads that see to them, one for each worker.

    Args:
        folder: where jobs and uploads have folders; what an earlier server left there is deleted.
        hire: starts a worker, and waits until it is ready if asked to.
        count: workers, that is jobs at once.
        limits: see ``Limits``.
    """

    def __init__(
        self, folder: Path, hire: Callable[[bool], Worker], count: int, limits: Limits
    ) -> None:
        self.limits = limits
        self.uploads, self._folder = folder / _UPLOADS, folder / _JOBS
        self._remove_files()
        for path in (self.uploads, self._folder):
            path.mkdir(parents=True, mode=0o700)
        self._hire = hire
        self._condition = threading.Condition()
        self._waiting: deque[Job] = deque()
        self._jobs: dict[str, Job] = {}
        self._took: deque[float] = deque(maxlen=10)  # seconds of the last jobs
        self._closing = threading.Event()
        self._threads = [
            *(threading.Thread(target=self._work, args=[hire(True)]) for _ in range(count)),
            threading.Thread(target=self._sweep),
        ]
        self._count = count
        for thread in self._threads:
            thread.start()

    def submit(self, request: Request, upload: Path | None) -> Job:
        """Put a job at the end of the queue.

        Args:
            request: what is asked.
            upload: the video, which stays where it is; None if it comes from an address.

        Raises:
            UserError: too many wait already, or the file is gone or too large.
        """
        token = secrets.token_urlsafe(24)
        job = Job(token, request, self._folder / token)
        with self._condition:
            if len(self._waiting) >= self.limits.waiting:
                raise UserError(
                    f"{len(self._waiting)} videos are waiting already; please try again later"
                )
            job.results.mkdir(parents=True)
            if upload is not None:
                try:
                    # Equal files of two users lie at one place, and may be replaced or swept there.
                    os.link(upload, job.upload)
                    size = job.upload.stat().st_size
                except OSError as error:
                    shutil.rmtree(job.folder)
                    raise UserError(f"{request.name}: is gone; please upload it again") from error
                if size > self.limits.upload:
                    shutil.rmtree(job.folder)
                    raise UserError(
                        f"{request.name}: {size / 2**20:.0f} MB, more than "
                        f"{self.limits.upload / 2**20:.0f} MB; cut or compress the video"
                    )
            self._jobs[token] = job
            self._waiting.append(job)
            self._condition.notify_all()
        return job

    def find(self, token: str) -> Job | None:
        """The job of a token."""
        return self._jobs.get(token)

    def cancel(self, token: str) -> None:
        """Let nobody wait for a job; its files go."""
        with self._condition:
            job = self._jobs.get(token)
            if job is None or not job.active:
                return
            job.unwanted = True
            if job in self._waiting:
                self._waiting.remove(job)
                self._finish(job, CANCELLED)
                self._discard(job)

    def position(self, job: Job) -> int:
        """How many jobs begin before a waiting one."""
        with self._condition, suppress(ValueError):
            return self._waiting.index(job)
        return 0

    def waiting_seconds(self, job: Job) -> float | None:
        """About when a waiting job begins; None as long as no job has shown how long one takes."""
        with self._condition:
            running = [other for other in self._jobs.values() if other.state == RUNNING]
            before = self.position(job)
        now, usual = time.monotonic(), list(self._took)
        gone = [now - other.begun for other in running]
        left = [other.left for other in running]  # once: it changes meanwhile
        if not self._took:
            usual = [a + b for a, b in zip(gone, left, strict=True) if b is not None]
        if not usual:
            return None
        mean = statistics.fmean(usual)
        free = [max(mean - a, 0.0) if b is None else b for a, b in zip(gone, left, strict=True)]
        free += [0.0] * (self._count - len(free))
        heapq.heapify(free)
        for _ in range(before):
            heapq.heapreplace(free, free[0] + mean)
        return free[0]

    def close(self) -> None:
        """End everything, and leave no files of users."""
        with self._condition:
            self._closing.set()
            for job in self._jobs.values():
                job.unwanted = True
            self._condition.notify_all()
        for thread in self._threads:
            thread.join()
        self._remove_files()

    def sweep(self) -> None:
        """Remove jobs and uploads that have been kept long enough."""
        with self._condition:
            for job in list(self._jobs.values()):
                if not job.active and time.monotonic() - job.ended > self.limits.keep:
                    del self._jobs[job.token]
                    self._discard(job)
        for path in self.uploads.rglob("*"):
            with suppress(OSError):
                if path.is_file() and time.time() - path.stat().st_mtime > self.limits.keep:
                    path.unlink()
        for path in self.uploads.glob("*"):
            with suppress(OSError):
                path.rmdir()  # if it is empty

    def _sweep(self) -> None:
        while not self._closing.wait(_SWEEP_SECONDS):
            try:
                self.sweep()
            except Exception:  # the next one may do
                logger.exception("old files could not be removed")

    def _work(self, worker: Worker) -> None:
        """What the thread of a worker does."""
        while (job := self._next()) is not None:
            try:
                usable = self._run(job, worker)
            except Exception as error:
                usable = False
                self._fault(job, repr(error))
                logger.exception("the worker of a job failed")
            if not usable:
                worker.end()
            if job.state != DONE:
                self._discard(job)
            if not usable:
                again = self._hire_again()
                if again is None:
                    return
                worker = again
        worker.end()

    def _hire_again(self) -> Worker | None:
        """A worker in the place of one that has ended, as soon as one starts; None at the end."""
        while True:
            try:
                return self._hire(False)
            except Exception:
                logger.exception("no worker could be started; trying again")
                if self._closing.wait(_HIRE_SECONDS):
                    return None

    def _next(self) -> Job | None:
        with self._condition:
            while not self._waiting and not self._closing.is_set():
                self._condition.wait()
            if self._closing.is_set():
                return None
            job = self._waiting.popleft()
            job.state, job.begun = RUNNING, time.monotonic()
            return job

    def _run(self, job: Job, worker: Worker) -> bool:
        """See to one job until it has ended; whether its worker can go on with another."""
        limits = self.limits
        worker.begin(job.request, job.upload, job.results)
        while True:
            try:
                message = worker.next(_LOOK_SECONDS)
            except (EOFError, OSError):
                self._fault(job, "the worker's process ended by itself")
                return False
            kind, content = message or _SILENT
            if kind == "progress":
                job.progress, job.heard = content, time.monotonic()
            elif kind == "done":
                job.upload.unlink(missing_ok=True)
                self._took.append(time.monotonic() - job.begun)
                job.progress = content
                self._finish(job, DONE)
                return True
            elif kind == "error":
                self._finish(job, FAILED, content)
                return True
            elif kind == "fault":
                self._fault(job, content)
                return True
            if job.unwanted:
                self._finish(job, CANCELLED)
                return False
            if time.monotonic() - job.begun > limits.job:
                self._finish(
                    job, FAILED,
                    f"{job.request.name}: stopped after {limits.job / 60:g} minutes, the longest "
                    "that one video may take here; choose a part of it (From second, To second)",
                )  # fmt: skip
                return False
            if worker.memory() > limits.memory:
                self._finish(
                    job, FAILED,
                    f"{job.request.name}: needs more than {limits.memory / 2**30:.3g} GB of "
                    "memory; make its pictures smaller or its frame rate lower",
                )  # fmt: skip
                return False

    def _fault(self, job: Job, text: str) -> None:
        """The user gets a number, and the log what it stands for."""
        number = secrets.token_hex(4)
        logger.error("internal error %s: %s", number, text)
        self._finish(job, FAILED, f"internal error {number}; the operator finds it in the log")

    def _finish(self, job: Job, state: str, error: str = "") -> None:
        job.error, job.ended, job.state = error, time.monotonic(), state

    def _discard(self, job: Job) -> None:
        shutil.rmtree(job.folder, ignore_errors=True)

    def _remove_files(self) -> None:
        for path in (self.uploads, self._folder):
            shutil.rmtree(path, ignore_errors=True)
