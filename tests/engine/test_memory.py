"""Freed memory is kept, measured by the pages that the system has to hand out anew; or released."""

import os
import platform
import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
import torch
from stclip.engine.memory import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
for repeat in range(3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.ones(16 << 20)  # 64 MB, above what glibc would keep by itself
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(faults)
"""


RELEASE = """
import torch
from stclip.engine.memory import keep_freed_memory, release_freed_memory
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])
keep_freed_memory()
kept = torch.ones(16 << 20)
before = resident()
freed, behind = torch.ones(16 << 20), torch.ones(1)
del freed
held = resident() - before
release_freed_memory()
print(held, resident() - before, kept.sum().item())
"""

only_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")


@only_glibc
@pytest.mark.slow
def test_freed_memory_is_used_again():
    clean = {k: v for k, v in os.environ.items() if k not in ("GLIBC_TUNABLES",)}
    clean["THP_MEM_ALLOC_ENABLE"] = "0"

    def faults(mode: str) -> int:
        words = [sys.executable, "-c", SCRIPT, mode]
        return int(subprocess.run(words, env=clean, check=True, capture_output=True).stdout)

    assert faults("leave") > 16384  # of 5 x 16,384 pages
    assert faults("keep") < 1000


@only_glibc
@pytest.mark.slow
def test_what_is_free_is_released():
    clean = {k: v for k, v in os.environ.items() if k not in ("GLIBC_TUNABLES",)}
    words = [sys.executable, "-c", RELEASE]
    run = subprocess.run(words, env=clean, check=True, capture_output=True, text=True)
    held, left, total = run.stdout.split()
    assert int(held) > 16000  # of 16,384 pages
    assert int(left) < 1000
    assert float(total) == 16 << 20
