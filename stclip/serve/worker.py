"""What looks at videos: a process that keeps its models, and is killed when it has to stop.

A process and not a thread, because FFmpeg and torch work on files of strangers here: one that hangs
or takes all memory can be ended at any moment, and one that crashes harms no other user's job.
Nothing is asked to stop politely; a new process is ready after the seconds that it takes to load.
"""

from __future__ import annotations

import multiprocessing
import os
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

from stclip.errors import UserError
from stclip.serve.jobs import Limits, Message, Request


@dataclass(frozen=True)
class Offer:
    """What the operator lets users choose from, and how it runs.

    Attributes:
        models: names, and what ``load_model`` takes for each: ``clip`` or ``weights``.
        detectors: names of person detectors.
        device: auto, cpu, cuda or cuda:N.
        precision: fp32, bf16 or fp16.
        threads: of the CPU for each worker.
        addresses: whether videos may be fetched from addresses.
        limits: see ``Limits``.
    """

    models: dict[str, dict[str, str]]
    detectors: tuple[str, ...] = ("nanodet",)
    device: str = "auto"
    precision: str = "fp32"
    threads: int = 1
    addresses: bool = False
    limits: Limits = field(default_factory=Limits)


class ProcessWorker:
    """A ``Worker`` in a process of its own.

    Args:
        offer: what it must be able to do.
        wait: whether to return only when its models are loaded.

    Raises:
        UserError: it was waited for, and a model cannot be loaded.
    """

    def __init__(self, offer: Offer, wait: bool) -> None:
        context = multiprocessing.get_context("spawn")  # CUDA and threads survive no fork
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_run, args=[theirs, offer], daemon=True)
        self._process.start()
        theirs.close()
        if wait:
            try:
                kind, content = self._connection.recv()
            except EOFError as error:
                raise UserError(
                    "a worker ended while it loaded the models; is there enough memory?"
                ) from error
            if kind != "ready":
                raise UserError(content)

    def begin(self, request: Request, upload: Path, results: Path) -> None:
        """See ``Worker``."""
        with suppress(BrokenPipeError):  # ``next`` tells
            self._connection.send((request, upload, results))

    def next(self, seconds: float) -> Message | None:
        """See ``Worker``."""
        if not self._connection.poll(seconds):
            return None
        message: Message = self._connection.recv()
        return message

    def memory(self) -> int:
        """See ``Worker``."""
        try:
            pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        except (OSError, IndexError):
            return 0
        return pages * os.sysconf("SC_PAGE_SIZE")

    def end(self) -> None:
        """See ``Worker``."""
        self._process.kill()
        self._process.join()
        self._connection.close()


def _run(connection: Connection, offer: Offer) -> None:
    from stclip.serve.analysis import serve  # torch, which the server itself does without

    serve(connection, offer)
