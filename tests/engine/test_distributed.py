import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from stclip.engine.distributed import choose_device, gather, sum_over_ranks, world_size
from stclip.errors import UserError
from tests.helpers import REPOSITORY


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "CPU", "mps"])
def test_unknown_devices(name: str) -> None:
    with pytest.raises(UserError, match="auto, cpu, cuda or cuda:N expected"):
        choose_device(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize("name", ["cuda", "cuda:1"])
def test_no_cuda(name: str) -> None:
    with pytest.raises(UserError, match="no CUDA device"):
        choose_device(name)


def test_cpu_and_a_single_process() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert world_size() == 1
    assert gather("value") == ["value"]
    assert sum_over_ranks(torch.ones(2)).tolist() == [1, 1]


ONE_RANK_FAILS = """
import os, sys, time, torch
from stclip.cli import run
from stclip.engine.distributed import barrier, broadcast, gather, process_group, rank
from stclip.errors import UserError

def main():
    with process_group(torch.device("cpu")):
        assert broadcast(f"of {rank()}") == "of 0"
        assert gather(rank()) == ([0, 1] if rank() == 0 else [])
        if rank() == 1 and sys.argv[1] != "none":
            raise UserError("rank 1 has no label file") if sys.argv[1] == "user" else KeyError("x")
        barrier()
    print("done")

run(main)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("user", "error: rank 1 has no label file"),
        ("mistake", "KeyError: 'x'"),
        ("none", "done\n"),
    ],
)
def test_an_error_of_one_rank_ends_all(tmp_path: Path, kind: str, expected: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(ONE_RANK_FAILS)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    ended = subprocess.run(
        [*command, str(script), kind],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
    )
    assert (ended.returncode == 0) == (kind == "none"), ended.stderr
    assert expected in ended.stdout + ended.stderr
