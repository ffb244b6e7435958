"""Several videos and several processes that share them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stclip.files import InUse
from stclip.footage import work
from stclip.footage.pipeline import LOG
from stclip.footage.results import read_result
from tests.footage.make import drawn_frame, write_film
from tests.helpers import REPOSITORY, load_command

OPTIONS = ["--actions", "walk", "wave", "--clip", "puppet", "--no-video", "--device", "cpu"]
HOLDER = """
import sys
from stclip.files import locked
with locked(sys.argv[1], sys.argv[2]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Four of different lengths, and one that is none."""
    folder = tmp_path_factory.mktemp("films")
    person = drawn_frame(240, 160, [(100.0, 30.0, 110.0)])
    found = [write_film(folder / f"{n}.mp4", [person] * (6 + 4 * n)) for n in range(4)]
    (folder / "none.mp4").write_text("no video")
    return [str(folder / "none.mp4"), *map(str, found)]


@pytest.fixture
def held(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that is working on the video 0."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path), "0"], cwd=REPOSITORY,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def command(videos: list[str], out: Path, *options: str) -> int:
    return load_command("detect").main([*videos, *OPTIONS, "--out", str(out), *options])


def complete(out: Path) -> set[str]:
    """The videos with a complete result; nothing else may lie there."""
    return {path.name for path in out.iterdir() if read_result(path / "result.json").complete}


@pytest.mark.slow
def test_a_video_that_another_process_has_is_left_to_it(
    films: list[str], tmp_path: Path, held: subprocess.Popen[str], capsys
) -> None:
    assert command(films[1:3], tmp_path) == 0
    assert f"{tmp_path / '0'}: another process is working on it" in capsys.readouterr().out
    with pytest.raises(InUse, match="is writing there now"):
        command(films[1:2], tmp_path)
    held.kill()
    held.wait()
    assert command(films[1:3], tmp_path) == 0
    assert complete(tmp_path) == {"0", "1"}


@pytest.mark.slow
@pytest.mark.parametrize(("rank", "status"), [("0", 2), ("1", 0)])
def test_the_first_rank_says_what_all_see(
    films: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, rank, status
) -> None:
    command(films[1:2], tmp_path)
    capsys.readouterr()
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert command(films[:3], tmp_path) == status
    printed = capsys.readouterr()
    assert printed.err.count("none.mp4: cannot be read") == (rank == "0")
    assert printed.out.count("is complete already") == (rank == "0")
    assert complete(tmp_path) == {"0", "1"}


@pytest.mark.slow
def test_what_another_rank_does_meanwhile_is_not_said_again(
    films: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    load = work.load_model

    def slowly(*arguments):
        monkeypatch.setattr(work, "load_model", load)
        command(films[1:2], tmp_path)
        return load(*arguments)

    monkeypatch.setattr(work, "load_model", slowly)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert command(films[1:3], tmp_path) == 0
    printed = capsys.readouterr().out
    assert [printed.count(f"look at {tmp_path / name}") for name in "01"] == [1, 1]


def start(words: list[str]) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *words], env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


@pytest.mark.slow
def test_ranks_of_torchrun_share_the_videos(films: list[str], tmp_path: Path) -> None:
    """One of them fails at the first video, and lets the other one end its work."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words = [*films, *OPTIONS, "--out", str(tmp_path)]
    process = start([*torchrun, "-m", "stclip", "detect", *words])
    text, _ = process.communicate(timeout=300)
    assert process.returncode
    assert text.count("error: ") == text.count("none.mp4: cannot be read") == 1
    assert [text.count(f"look at {tmp_path / str(n)}") for n in range(4)] == [1] * 4
    assert complete(tmp_path) == {"0", "1", "2", "3"}


@pytest.mark.slow
def test_what_a_killed_process_left_is_continued(films: list[str], tmp_path: Path) -> None:
    words = ["-m", "stclip", "detect", *films[1:], *OPTIONS, "--out", str(tmp_path), "--resume"]
    two = [start(words), start(words)]
    logs = [tmp_path / str(n) / LOG for n in range(4)]
    while not any(log.exists() and len(log.read_bytes().splitlines()) > 3 for log in logs):
        assert two[0].poll() is None
        time.sleep(0.02)
    two[0].send_signal(signal.SIGKILL)
    text = two[1].communicate(timeout=300)[0]
    two[0].communicate()
    assert two[1].returncode == 0, text
    assert command(films[1:], tmp_path, "--resume") == 0
    assert complete(tmp_path) == {"0", "1", "2", "3"}  # and no <name>.old-1
