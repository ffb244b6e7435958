"""How the C library hands out memory: kept when freed, in large pages.

A forward on a CPU makes and frees tensors of many megabytes. Left to itself the C library returns
each to the system and asks for it anew, and the system clears it page by page: about a tenth of the
time of a test run (benchmarks/ has the measurement).
"""

import ctypes
import os
import sys

# mallopt's parameters in malloc.h, and what switches the first one off.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_NEVER = -1


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees; best called before the first tensor.

    For a program that does nothing else: what it once needed it holds to its end. Only with glibc
    on Linux; elsewhere, and if the user has set THP_MEM_ALLOC_ENABLE or GLIBC_TUNABLES, what is set
    stays.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch asks for large pages
    if not sys.platform.startswith("linux") or "GLIBC_TUNABLES" in os.environ:
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have none
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, _NEVER)
