"""The one exception that a user is meant to read."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class UserError(ValueError):
    """Something outside the program is wrong: a file, a config key, a tensor, an argument.

    The message is one line that names the thing, says what was found and what was expected, and
    how to repair it. Commands print it without a traceback and exit with status 2.
    """


# What a reader does with a mistake that it finds: raise it, or keep it, and the reader goes on.
Report = Callable[[UserError], None]


def fail(error: UserError) -> None:
    """The report that stops at the first mistake."""
    raise error


@contextmanager
def reporting(report: Report) -> Iterator[None]:
    """Hand a UserError of the block to ``report``."""
    try:
        yield
    except UserError as error:
        report(error)


# What torch says when a loader process was killed, or the machine ran out of something.
_WORKER = re.compile(r"DataLoader worker \(pid|Too many open files|shared memory", re.IGNORECASE)
_ALLOCATOR = re.compile(r"can't allocate memory|not enough memory|out of memory", re.IGNORECASE)
_REMEDY = (
    "use fewer keyframes at a time: TEST.VIDEOS_PER_BATCH to test, a larger "
    "SOLVER.ACCUMULATION_STEPS to train; MODEL.PRECISION bf16; or DATALOADER.NUM_WORKERS 0"
)


def machine_fault(error: BaseException) -> str | None:
    """One line for what the machine and not the program is to blame for; None for all else."""
    text = str(error).strip()
    first = next(iter(text.splitlines()), "")
    if isinstance(error, OSError):
        reason = error.strerror or first or type(error).__name__
        return reason if error.filename is None else f"{error.filename}: {reason}"
    if isinstance(error, MemoryError):
        return f"out of memory ({first or type(error).__name__}); {_REMEDY}"
    if isinstance(error, RecursionError):
        return "something is nested too deeply; is a file damaged?"
    if isinstance(error, UnicodeEncodeError):
        return (
            f"the text {error.object!r:.60} cannot be written as {error.encoding}; run in a UTF-8 "
            "locale (PYTHONUTF8=1)"
        )
    if isinstance(error, RuntimeError) and _WORKER.search(text):
        return (
            f"a loader process failed ({first}); memory, shared memory (/dev/shm) or open files "
            "(ulimit -n) may be short: allow more, or set DATALOADER.NUM_WORKERS 0"
        )
    if isinstance(error, RuntimeError) and _ALLOCATOR.search(text):
        return f"{first.removesuffix('.')}; {_REMEDY}"
    return None
