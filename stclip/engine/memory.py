"""Memory that the process frees: kept for its next tensors, or given back to the system."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from typing import Any

# Left to itself the C library returns each large tensor to the system when it is freed, and the
# system clears its pages anew for the next: about a tenth of the time of a test on a CPU.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _NEVER = -1, -4, -1  # of malloc.h


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees; best called before the first tensor.

    For a program that does nothing else: what it once needed it holds to its end, or until
    ``release_freed_memory``. Only with glibc on Linux; elsewhere, and if the user has set
    THP_MEM_ALLOC_ENABLE or GLIBC_TUNABLES, what is set stays.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch asks for large pages
    mallopt = _from_c("mallopt")
    if mallopt is not None and "GLIBC_TUNABLES" not in os.environ:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, _NEVER)


def release_freed_memory() -> None:
    """Give back once what is free, if glibc keeps it; best called before processes are forked.

    Else both processes have it, and copy it in small pages when one writes to it: 7 % of the time
    of a short test that follows another one.
    """
    malloc_trim = _from_c("malloc_trim")
    if malloc_trim is not None:
        malloc_trim(0)


def _from_c(name: str) -> Callable[..., Any] | None:
    """A function of the C library; None where it has none of that name."""
    if not sys.platform.startswith("linux"):
        return None
    return getattr(ctypes.CDLL(None), name, None)
