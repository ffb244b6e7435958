"""Videos on a Ray cluster: what is lost with a worker or a machine is done by another one."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from stclip.errors import UserError
from stclip.files import locked
from stclip.footage.pipeline import LOG
from stclip.footage.records import Footage
from stclip.footage.results import RESULT, read_result
from tests.footage.make import drawn_frame, write_film
from tests.helpers import REPOSITORY, load_command

pytest.importorskip("ray")

OPTIONS = ["--actions", "walk", "wave", "--clip", "puppet", "--no-video", "--device", "cpu"]


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """One that is none, and four with somebody who walks."""
    folder = tmp_path_factory.mktemp("films")
    pictures = [drawn_frame(240, 160, [(80.0 + 4 * n, 30.0, 110.0)]) for n in range(8)]
    (folder / "none.mp4").write_text("no video")
    films = [write_film(folder / f"{n}.mp4", pictures[: 8 - n]) for n in range(4)]
    return [str(folder / "none.mp4"), *map(str, films)]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Two machines, of one core each, that notice soon that one of them is gone."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    noticing = {"health_check_period_ms": 500, "health_check_failure_threshold": 2}
    head = {"num_cpus": 1, "include_dashboard": False, "_system_config": noticing}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    yield cluster
    cluster.shutdown()


@pytest.mark.slow
def test_a_machine_is_lost_and_no_video(cluster: Any, films: list[str], tmp_path: Path) -> None:
    other = cluster.add_node(num_cpus=1)
    raylet = other.all_processes["raylet"][0].process.pid
    words = [*films, *OPTIONS, "--out", str(tmp_path / "out")]
    engine = ["--engine", "ray", "--ray-address", cluster.address]
    call = subprocess.Popen(
        [sys.executable, "-m", "stclip", "detect", *words, *engine],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        lost = until(lambda: begun_by_child_of(raylet, tmp_path / "out", call))
        cluster.remove_node(other, allow_graceful=False)
        text, _ = call.communicate(timeout=120)
    finally:
        call.kill()
    assert call.returncode == 2, text
    assert text.count("error: ") == text.count("none.mp4: cannot be read") == 1
    assert text.count("is gone; another one goes on") == 1
    assert [text.count(f"look at {tmp_path / 'out' / str(n)}") for n in range(4)] == [1] * 4
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"0", "1", "2", "3"}
    assert not list(tmp_path.glob(f"out/*/{LOG}"))
    assert load_command("detect").main([*words[:-1], str(tmp_path / "here")]) == 2
    for n in range(4):
        same(*(read_result(tmp_path / out / str(n) / RESULT) for out in ("out", "here")))


def begun_by_child_of(parent: int, out: Path, call: subprocess.Popen[str]) -> bool:
    """Whether a process of a machine is half way through a video."""
    assert call.poll() is None, call.communicate()[0]
    for lock in out.glob(".*.lock"):
        name = lock.name[1:].removesuffix(".lock")
        log = out / name / LOG
        words = lock.read_text().split() if lock.exists() else []
        if len(words) > 1 and log.exists() and len(log.read_bytes().splitlines()) > 2:
            stat = Path(f"/proc/{words[1]}/stat").read_text().rpartition(") ")[2].split()
            if int(stat[1]) == parent:
                return True
    return False


def until(found: Callable[[], Any], seconds: float = 120) -> Any:
    end = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return value


def same(one: Footage, two: Footage) -> None:
    """Scores only almost: a moment may have been in a batch with others."""
    assert (one.complete, one.video) == (two.complete, two.video)
    assert one.tracks.keys() == two.tracks.keys()
    for mine, yours in zip(one.tracks.values(), two.tracks.values(), strict=True):
        assert (mine.rows, mine.score_times) == (yours.rows, yours.score_times)
        np.testing.assert_allclose(mine.scores, yours.scores, atol=1e-5)
        for field in ("action", "start", "end"):
            values = [[getattr(e, field) for e in track.events] for track in (mine, yours)]
            assert values[0] == values[1]
