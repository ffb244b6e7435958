"""Commands as processes: killed workers, signals, two at once. Nobody hangs and nothing is left."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stclip.errors import UserError
from stclip.files import locked
from tests.helpers import REPOSITORY, children

pytestmark = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="looks into /proc")

# Ten batches from two workers; what is wrong with the ninth is the first argument.
LOADER = """
import os, signal, sys
import torch
from stclip.cli import run
from stclip.data.loaders import BatchLoader

class Samples:
    def __len__(self):
        return 10

    def __getitem__(self, index):
        if index == 8 and sys.argv[1] == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if index == 8 and sys.argv[1] == "memory":
            raise MemoryError
        if index == 8 and sys.argv[1] == "mistake":
            raise KeyError("ours")
        return torch.zeros(2)

def main():
    batches = iter(BatchLoader(Samples(), 2))
    for number, batch in enumerate(batches):
        print(*(w.pid for w in __import__("multiprocessing").active_children()), flush=True)
        if number == 2 and sys.argv[1] == "mistake in the loop":
            raise KeyError("ours")
        if number == 2 and sys.argv[1] == "allocator":
            torch.empty(1 << 60)

run(main)
"""


def environment() -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts processes, which the end of the test kills."""
    started: list[subprocess.Popen[str]] = []

    def begin(*words: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
            env=environment(),
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "in vain"
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "status", "message"),
    [
        ("killed", 2, r"a loader process failed \(DataLoader worker \(pid.*NUM_WORKERS 0"),
        ("memory", 2, "out of memory .*NUM_WORKERS 0"),
        ("allocator", 2, "allocate.*NUM_WORKERS 0"),
        ("mistake", 1, "KeyError"),
        ("mistake in the loop", 1, "KeyError: 'ours'"),
    ],
)
def test_an_error_with_workers_ends_the_process_and_them(
    start: Callable[..., subprocess.Popen[str]], what: str, status: int, message: str
) -> None:
    process = start("-c", LOADER, what)
    out, err = process.communicate(timeout=60)
    assert process.returncode == status, err
    lines = err.splitlines()
    if status == 2:
        assert len(lines) == 1, err

    assert re.search(message, lines[-1] if status == 2 else err)
    workers = {int(pid) for pid in out.split()}
    assert len(workers) == 2
    assert not any(map(is_running, workers))


def test_a_lock_is_dropped_with_its_process(tmp_path: Path) -> None:
    """The second one is told who has it; a killed one leaves neither lock nor unfinished files."""
    ready, tell = os.pipe()
    child = os.fork()
    if child == 0:
        with locked(tmp_path, "work"):
            (tmp_path / ".tmp-half").write_bytes(b"half")
            os.write(tell, b"x")
            time.sleep(60)
        os._exit(0)
    try:
        os.read(ready, 1)
        with (
            pytest.raises(UserError, match=rf"{tmp_path}: process {child} on .* \(work\); wait"),
            locked(tmp_path, "work"),
        ):
            pass
        with locked(tmp_path, "other work", leftovers="nothing"):
            pass
    finally:
        threading.Timer(0.2, os.kill, (child, signal.SIGKILL)).start()
    with locked(tmp_path, "work", patience=60):
        os.waitpid(child, 0)
        assert [path.name for path in tmp_path.iterdir()] == [".work.lock"]
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_locked_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UserError, match="file: cannot write here"),
        locked(tmp_path / "file", "work"),
    ):
        pass


def test_without_such_locks_nothing_is_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stclip.files.fcntl", None)
    with locked(tmp_path, "work"), locked(tmp_path, "work"):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status", "line"),
    [(signal.SIGINT, 130, "interrupted\n"), (signal.SIGTERM, 143, "terminated\n")],
)
@pytest.mark.parametrize("moment", ["during imports", "reading the config"])
def test_signals_in_the_first_seconds(
    start: Callable[..., subprocess.Popen[str]],
    tmp_path: Path,
    number: int,
    status: int,
    line: str,
    moment: str,
) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("".join(f"{number}\n" for number in range(5_000_000)))  # takes seconds
    pairs = ["ALL_LABEL", labels, "TRAIN_LABEL", labels, "OUTPUT_DIR", tmp_path / "out"]
    config = REPOSITORY / "configs/jhmdb/split_1.yaml"
    process = start("tools/train_net.py", "--config-file", config, *pairs)
    if moment == "during imports":
        maps = Path(f"/proc/{process.pid}/maps")
        until(lambda: "numpy" in maps.read_text() or "torch" in maps.read_text())
    else:
        until((tmp_path / "out" / "log.txt").exists)
        time.sleep(0.2)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err.splitlines(keepends=True)[-1:]) == (status, [line])
    assert "Traceback" not in err


@pytest.mark.slow
@pytest.mark.parametrize("tool", ["train", "test"])
def test_two_at_once_and_after_a_kill(
    start: Callable[..., subprocess.Popen[str]], case_config: Path, tool: str
) -> None:
    """The second is refused; when the first is killed, so do its workers end, and a third runs."""
    words = ["-m", "stclip", tool, "--config-file", case_config]
    pairs = ["DATALOADER.NUM_WORKERS", "2", "SOLVER.MAX_ITER", "100000"]
    run = case_config.parent / "run"
    lock = run / ".train.lock" if tool == "train" else run / "inference" / ".jhmdb.lock"
    first = start(*words, *pairs)
    until(lambda: lock.exists() and lock.read_text())
    until(lambda: len(children(first.pid)) >= 2 or first.poll() is not None)
    if tool == "test":  # it is short
        first.send_signal(signal.SIGSTOP)
    second = start(*words, *pairs)
    _, err = second.communicate(timeout=60)
    assert second.returncode == 2
    assert f"process {first.pid} on" in err.splitlines()[-1]
    assert "Traceback" not in err
    workers = children(first.pid)
    first.kill()
    until(lambda: not any(map(is_running, workers)), 20)
    (run / ".tmp-half.pth").write_bytes(b"")
    third = start(*words, *(["--resume"] if tool == "train" else []), *pairs)
    if tool == "test":
        assert third.wait(timeout=100) == 0
        assert not [path for path in (run / "inference").iterdir() if path.name.startswith(".")]
        return
    until(lambda: lock.exists() and str(third.pid) in lock.read_text())
    until(lambda: len(children(third.pid)) >= 2)
    assert not list(run.glob(".tmp-*"))
    os.kill(children(third.pid)[0], signal.SIGKILL)
    _, err = third.communicate(timeout=60)
    assert third.returncode == 2
    assert "a loader process failed" in err.splitlines()[-1]
    assert not lock.exists()
