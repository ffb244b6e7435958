"""One process or many: the same calls work in both."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from stclip.errors import UserError

T = TypeVar("T")

# Ranks wait for each other while one validates, or scores a shard that takes longer.
_TIMEOUT = timedelta(hours=12)


def choose_device(name: str) -> torch.device:
    """The device of this process.

    Args:
        name: auto (CUDA if there is one), cpu, cuda (under torchrun each process of a machine takes
            the device of its local rank) or cuda:N.

    Raises:
        UserError: another name; or CUDA is asked for and there is none, or fewer than processes.
    """
    match = re.fullmatch(r"auto|cpu|cuda(?::(\d+))?", name)
    if match is None:
        raise UserError(f"device {name!r}: auto, cpu, cuda or cuda:N expected")
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UserError(f"device {name}: torch finds no CUDA device; use cpu or auto")
    number = int(match[1] or os.environ.get("LOCAL_RANK", 0))
    if number >= torch.cuda.device_count():
        raise UserError(
            f"there is no CUDA device {number}: {torch.cuda.device_count()} found; start torchrun "
            "with --nproc_per_node not above that, or set MODEL.DEVICE cpu"
        )
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Join torchrun's process group; nothing without torchrun.

    CUDA tensors are exchanged by nccl and CPU tensors by gloo, so that counts, objects and barriers
    neither wait for the device nor need it.

    If the block fails, the group is left as it is: to destroy it is a collective operation under
    nccl, for which the other ranks would not come. ``stclip.cli.run`` then prints the error and
    ends the process at once, and torchrun ends the others.

    Raises:
        UserError: the other processes cannot be reached, or one of them ended before this one; or
            torchrun could not start them again (``_store_of_this_start``).
    """
    if not {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= os.environ.keys():
        yield
        return
    try:
        options = {"timeout": _TIMEOUT, **_store_of_this_start()}
        if device.type == "cuda":
            # With its device, the rank opens its nccl connections now, and not at the first
            # collective, which might be minutes later.
            dist.init_process_group("cpu:gloo,cuda:nccl", device_id=device, **options)
        else:
            dist.init_process_group("gloo", **options)
        yield
        dist.destroy_process_group()
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"rank {os.environ['RANK']}: lost the other processes ({reason}); the first message of "
            "another rank says why"
        ) from error


def _store_of_this_start() -> dict[str, Any]:
    """Where processes find each other's addresses, without those of processes that have ended.

    torchrun keeps one store for all its restarts. Those of one machine have a number, which keeps
    their addresses apart; machines count for themselves, and their numbers may differ.

    Raises:
        UserError: there are several machines, one store, and restarts.
    """
    environment = os.environ
    if environment.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return {}
    if environment.get("GROUP_WORLD_SIZE", "1") != "1":
        if environment.get("TORCHELASTIC_MAX_RESTARTS", "0") == "0":
            return {}
        raise UserError(
            "torchrun --max-restarts: processes on several machines that were started again would "
            "be given the addresses of those before and wait in vain; call torchrun with "
            "--rdzv-backend c10d and TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 in its environment, or "
            "without --max-restarts"
        )
    store = dist.TCPStore(  # type: ignore[attr-defined]
        environment["MASTER_ADDR"], int(environment["MASTER_PORT"]), timeout=_TIMEOUT
    )
    start = environment["TORCHELASTIC_RESTART_COUNT"]
    return {
        "store": dist.PrefixStore(start, store),  # type: ignore[attr-defined]
        "rank": int(environment["RANK"]),
        "world_size": int(environment["WORLD_SIZE"]),
    }


def in_group() -> bool:
    """Whether torchrun started this process, alone or with others."""
    return dist.is_initialized()


def rank() -> int:
    """The number of this process, 0 in a single one."""
    return dist.get_rank() if in_group() else 0


def world_size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if in_group() else 1


def sum_over_ranks(tensor: torch.Tensor) -> torch.Tensor:
    """The sum of a tensor over all processes, in place; on the CPU no device waits for it."""
    if in_group():
        dist.all_reduce(tensor)
    return tensor


def gather(value: T) -> list[T]:
    """Every process's value on process 0, an empty list on the others. Small things only."""
    if not in_group():
        return [value]
    values: list[T | None] | None = [None] * world_size() if rank() == 0 else None
    dist.gather_object(value, values)
    return [item for item in values or [] if item is not None]


def broadcast(value: T) -> T:
    """Process 0's value on every process."""
    if not in_group():
        return value
    values = [value]
    dist.broadcast_object_list(values)
    return values[0]


def seconds_for_the_lost() -> float:
    """How long a lock may still be that of a process of this run, whose machine is gone.

    The server of a network disk drops it after 90 seconds (NFS 4).
    """
    several = os.environ.get("GROUP_WORLD_SIZE", "1") != "1"
    return 120.0 if several or os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0" else 0.0


def barrier() -> None:
    """Wait until every process is here."""
    sum_over_ranks(torch.zeros(1))
