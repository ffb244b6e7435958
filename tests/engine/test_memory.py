"""Freed memory is kept: measured by the pages that the system has to hand out anew."""

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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_freed_memory_is_used_again():
    clean = {k: v for k, v in os.environ.items() if k not in ("GLIBC_TUNABLES",)}
    clean["THP_MEM_ALLOC_ENABLE"] = "0"

    def faults(mode: str) -> int:
        words = [sys.executable, "-c", SCRIPT, mode]
        return int(subprocess.run(words, env=clean, check=True, capture_output=True).stdout)

    assert faults("leave") > 16384  # of 5 x 16,384 pages
    assert faults("keep") < 1000
