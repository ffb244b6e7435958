"""Videos on a Ray cluster: what is lost with a worker or a machine is done by another one."""

import itertools
import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import stclip
from stclip.errors import UserError
from stclip.footage.pipeline import LOG, Settings
from stclip.footage.records import Footage
from stclip.footage.results import RESULT, read_result
from stclip.footage.work import Work
from tests.footage.make import drawn_frame, write_film
from tests.helpers import REPOSITORY, load_command

pytest.importorskip("ray")

from ray.exceptions import ActorDiedError

import stclip.footage.cluster as cluster_module
from stclip.footage.cluster import Cluster, _Actor, _room, _Run, _Said

OPTIONS = ["--actions", "walk", "wave", "--clip", "puppet", "--no-video", "--device", "cpu"]


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """One that is none, and four with somebody who walks, for as long as a machine takes to die."""
    folder = tmp_path_factory.mktemp("films")
    pictures = [drawn_frame(240, 160, [(60.0 + 2 * n, 30.0, 110.0)]) for n in range(60)]
    (folder / "none.mp4").write_text("no video")
    films = [write_film(folder / f"{n}.mp4", pictures[: 60 - n]) for n in range(4)]
    return [str(folder / "none.mp4"), *map(str, films)]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Two machines, of one core each, that notice soon that one of them is gone."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    noticing = {"health_check_period_ms": 1000, "health_check_failure_threshold": 3}
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
        until(lambda: begun_by_child_of(raylet, tmp_path / "out", call))
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


class FakeRay:
    """Ray in this process: a call of an actor is made when its result is asked for.

    Args:
        plan: what happens to the workers that begin, under "", and to each video, in turn: an
            error that is raised, or what is said.
    """

    def __init__(self, plan: dict[str, list[Any]]) -> None:
        self.plan, self.calls = plan, []

    def remote(self, **options: Any) -> Any:
        return lambda kind: SimpleNamespace(options=lambda **options: self.Actors(self))

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": {"CPU": 8.0}}]

    def wait(self, references: list[Any], num_returns: int, timeout: float) -> Any:
        return references[:1], references[1:]

    def get(self, reference: tuple[str, int]) -> Any:
        name = reference[0]
        self.calls.append(name)
        result = self.plan[name].pop(0) if self.plan.get(name) else _Said([f"{name} done"])
        if isinstance(result, Exception):
            raise result
        return result

    def kill(self, actor: Any) -> None:
        pass

    class Actors:
        def __init__(self, ray: Any) -> None:
            self.ray = ray

        def remote(self, *arguments: Any) -> Any:
            numbers = itertools.count()
            return SimpleNamespace(
                load=SimpleNamespace(remote=lambda: ("", id(self), next(numbers))),
                do=SimpleNamespace(
                    remote=lambda video, *_: (video, id(self), next(numbers)),
                ),
            )


def run(
    monkeypatch: pytest.MonkeyPatch, out: Path, plan: dict[str, list[Any]], videos: str
) -> tuple[FakeRay, _Run]:
    ray = FakeRay(plan)
    monkeypatch.setattr(cluster_module, "ray", ray)
    work: Any = SimpleNamespace(device="cpu", onnx=None)
    call = _Run(work, videos.split(), out / "mark", Cluster())
    call.all()
    return ray, call


def test_a_video_that_ends_its_workers_is_given_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = [ActorDiedError() for _ in range(9)]
    ray, call = run(monkeypatch, tmp_path, {"b": gone, "c": gone[:1]}, "a b c")
    printed = capsys.readouterr()
    assert call.failed == 1
    assert printed.err.count("error: b: given up, since 3 workers ended at the same place") == 1
    assert [ray.calls.count(name) for name in "abc"] == [1, 3, 2]
    assert "a done" in printed.out
    assert "c done" in printed.out


def test_errors_of_videos_are_said_and_others_go_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = {"a": [_Said(error="a: no video")], "b": [_Said(error="taken", busy=True)]}
    ray, call = run(monkeypatch, tmp_path, plan, "a b c ./c")
    printed = capsys.readouterr()
    assert call.failed == 2
    assert [line for line in printed.err.splitlines() if line.startswith("error: ")] == [
        "error: ./c: another video of this call is called c", "error: a: no video",
    ]  # fmt: skip
    assert f"{tmp_path / 'b'}: another process is working on it" in printed.out
    assert ray.calls.count("a") == ray.calls.count("c") == 1


@pytest.mark.parametrize(
    ("result", "message"),
    [(_Said(error="no such file", who="process 3 on x"), "process 3 on x: no such file"),
     (ActorDiedError(), "ended while it got ready")],
)  # fmt: skip
def test_a_cluster_that_cannot_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, result: Any, message: str
) -> None:
    with pytest.raises(UserError, match=f"no machine of the cluster can work; .*{message}"):
        run(monkeypatch, tmp_path, {"": [result] * 9}, "a b")


@pytest.mark.parametrize(
    ("machines", "asked", "device", "expected"),
    [
        ([{"CPU": 8}, {"CPU": 2}], Cluster(), "auto", (5, 2, 0)),
        ([{"CPU": 16}, {"CPU": 0}], Cluster(), "auto", (4, 4, 0)),
        ([{"CPU": 16, "GPU": 2}, {"CPU": 8}], Cluster(), "auto", (2, 4, 1)),
        ([{"CPU": 2, "GPU": 4}], Cluster(), "auto", (2, 1, 1)),
        ([{"CPU": 16, "GPU": 2}], Cluster(), "cpu", (4, 4, 0)),
        ([{"CPU": 16, "GPU": 2}], Cluster(gpus=0.5), "auto", (4, 4, 0.5)),
        ([{"CPU": 4}], Cluster(workers=3, gpus=1), "auto", (3, 4, 1)),
    ],
)
def test_room_for_workers(
    monkeypatch: pytest.MonkeyPatch, machines: Any, asked: Cluster, device: str, expected: Any
) -> None:
    nodes = [{"Alive": True, "Resources": machine} for machine in machines]
    nodes.append({"Alive": False, "Resources": {"CPU": 99, "GPU": 99}})
    monkeypatch.setattr(cluster_module, "ray", SimpleNamespace(nodes=lambda: nodes))
    work: Any = SimpleNamespace(device=device, onnx=None)
    assert _room(work, asked) == expected


def test_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [{"Alive": True, "Resources": {"CPU": 2.0}}]
    monkeypatch.setattr(cluster_module, "ray", SimpleNamespace(nodes=lambda: nodes))
    work: Any = SimpleNamespace(device="auto", onnx=None)
    with pytest.raises(UserError, match="has 3 cores and 0 GPUs for a worker"):
        _room(work, Cluster(cpus=3))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-"], "-: is of this machine alone"),
        (["film.mp4", "--ray-address", "127.0.0.1:1"], "cannot reach 127.0.0.1:1: "),
        (["film.mp4", "--engine", "local", "--ray-cpus", "2"], "--ray-cpus: belongs to --engine"),
        (["film.mp4", "--ray-gpus", "1.5"], "--ray-gpus: 0, a part of 1, or a whole number"),
        (["film.mp4", "--ray-gpus", "nan"], "--ray-gpus: 0, a part of 1, or a whole number"),
        (["film.mp4", "--ray-gpus", "-1"], "--ray-gpus: 0, a part of 1, or a whole number"),
    ],
)
def test_mistakes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "film.mp4").touch()

    def unreachable(*_: Any, **__: Any) -> None:
        raise ConnectionError("nobody answers\nat all")

    monkeypatch.setattr(cluster_module.ray, "init", unreachable)
    with pytest.raises(UserError, match=message):
        load_command("detect").main(["--engine", "ray", *OPTIONS, *words])
    assert not list(tmp_path.glob("**/.ray-*"))


def _work() -> Work:
    return Work(
        actions=["walk", "wave"], none_of=[], weights=None, clip="puppet", crop_weight=None,
        onnx=None, device="cpu", settings=Settings(), detector="nanodet", boxes=None, batch=4,
        precision="fp32", fps=None, start=0.0, end=math.inf, video=False, resume=False, exports=[],
    )  # fmt: skip


@pytest.mark.slow
def test_the_lock_of_a_machine_that_is_gone(
    films: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server of a network disk may keep it; here a process does that says to be another."""
    monkeypatch.setattr(cluster_module, "_PATIENCE", 0.1)
    monkeypatch.chdir(tmp_path)  # back again after the test: the worker changes it too
    holder = (
        "import sys, stclip.files as f\n"
        "f.this_process = lambda: 'process 1 on gone'\n"
        f"with f.locked({str(tmp_path)!r}, '3'):\n"
        "    print('held', flush=True); sys.stdin.read()\n"
    )
    actor = _Actor(_work(), str(tmp_path), tmp_path, stclip.__version__)
    assert actor.load().error is None
    with subprocess.Popen(
        [sys.executable, "-c", holder], cwd=REPOSITORY,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        for lost in ([], ["process 2 on gone"]):
            assert actor.do(films[4], tmp_path / "3", lost).busy
        said = actor.do(films[4], tmp_path / "3", ["process 1 on gone"])
        process.kill()
    assert said.error is None
    assert read_result(tmp_path / "3" / RESULT).complete
