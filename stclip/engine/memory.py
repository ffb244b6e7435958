"""How the C library hands out memory: kept when freed, in large pages.

A forward on a CPU makes and frees tensors of many megabytes. Left to itself the C library returns
each to the system and asks for it anew, and the system clears it page by page: about a tenth of the
time of a test run (benchmarks/ has the measurement).
"""

import ctypes
import os
import sys
from collections.abc import Callable
from typing import Any

# mallopt's parameters in malloc.h, and what switches the first one off.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_NEVER = -1


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
    """Give back once what is free; best called before processes are forked.

    What is there at a fork belongs to both processes, and is copied, in small pages, when one of
    them writes to it: 7 % of the time of a short test that follows another one (benchmarks/ has
    the measurement). Only with glibc on Linux.
    """
    malloc_trim = _from_c("malloc_trim")
    if malloc_trim is not None:
        malloc_trim(0)


def _from_c(name: str) -> Callable[..., Any] | None:
    """A function of the C library; None where it has none of that name."""
    if not sys.platform.startswith("linux"):
        return None
    return getattr(ctypes.CDLL(None), name, None)
