"""The queue, with workers that only pretend."""

import queue
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import stclip.serve.jobs as jobs_module
from stclip.errors import UserError
from stclip.serve.jobs import CANCELLED, DONE, FAILED, RUNNING, WAITING, Job, Jobs, Limits, Request


class Pretender:
    """A worker that says what a test gives it."""

    def __init__(self) -> None:
        self.says: queue.Queue[Any] = queue.Queue()
        self.begun: list[Request] = []
        self.ended, self.held = False, 0

    def begin(self, request: Request, upload: Path, results: Path) -> None:
        assert upload.read_bytes() == request.name.encode()
        (results / "index.html").write_text(request.name)
        self.begun.append(request)

    def next(self, seconds: float) -> Any:
        try:
            message = self.says.get(timeout=0.01)
        except queue.Empty:
            return None
        if message is EOFError:
            raise EOFError
        return message

    def memory(self) -> int:
        return self.held

    def end(self) -> None:
        self.ended = True


class House:
    """A queue, its workers, and somebody who uploads."""

    def __init__(self, folder: Path, count: int, **limits: Any) -> None:
        self.workers: list[Pretender] = []
        self.broken = 0  # how many workers cannot be started
        self.jobs = Jobs(folder, self._hire, count, Limits(**limits))

    def _hire(self, wait: bool) -> Pretender:
        if not wait and self.broken:
            self.broken -= 1
            raise OSError("no memory")
        self.workers.append(Pretender())
        return self.workers[-1]

    def submit(self, name: str) -> Job:
        upload = self.jobs.uploads / name
        upload.write_bytes(name.encode())
        return self.jobs.submit(Request(name, ("wave",), ("stand",), "puppet", "nanodet"), upload)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[Callable[..., House]]:
    made: list[House] = []

    def make(count: int = 1, **limits: Any) -> House:
        made.append(House(tmp_path, count, **limits))
        return made[-1]

    yield make
    for one in made:
        one.jobs.close()
        assert all(worker.ended for worker in one.workers)
        assert not list(tmp_path.iterdir())


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_one_after_the_other(house: Callable[..., House]) -> None:
    it = house()
    first, second, third = (it.submit(name) for name in ("a", "b", "c"))
    until(lambda: first.state == RUNNING)
    assert [it.jobs.position(job) for job in (second, third)] == [0, 1]
    assert it.jobs.waiting_seconds(third) is None
    first.begun -= 30  # it has taken so long
    it.workers[0].says.put(("progress", {"share": 0.5}))
    until(lambda: first.progress != {})
    assert it.jobs.waiting_seconds(second) == pytest.approx(30, abs=1)
    assert it.jobs.waiting_seconds(third) == pytest.approx(90, abs=1)
    it.workers[0].says.put(("done", {"persons": []}))
    until(lambda: second.state == RUNNING)
    assert (first.state, first.progress) == (DONE, {"persons": []})
    assert not first.upload.exists()
    assert (first.results / "index.html").read_text() == "a"
    assert it.jobs.waiting_seconds(third) == pytest.approx(30, abs=1)
    assert len({first.token, second.token, third.token}) == 3
    assert it.jobs.find(second.token) is second
    assert it.jobs.find("b") is None


def test_several_at_once(house: Callable[..., House]) -> None:
    it = house(2)
    jobs = [it.submit(name) for name in "abcd"]
    until(lambda: [job.state for job in jobs] == [RUNNING, RUNNING, WAITING, WAITING])
    for worker in it.workers:
        worker.says.put(("done", {}))
    until(lambda: [job.state for job in jobs] == [DONE, DONE, RUNNING, RUNNING])


def test_cancelling(house: Callable[..., House]) -> None:
    it = house()
    running, waiting, last = (it.submit(name) for name in "abc")
    until(lambda: running.state == RUNNING)
    it.jobs.cancel(waiting.token)
    assert waiting.state == CANCELLED
    assert not waiting.folder.exists()
    it.jobs.cancel(running.token)
    until(lambda: last.state == RUNNING)
    assert running.state == CANCELLED
    assert not running.folder.exists()
    assert it.workers[0].ended
    until(lambda: [request.name for request in it.workers[1].begun] == ["c"])
    it.jobs.cancel("no such token")


@pytest.mark.parametrize(
    ("limits", "error"),
    [
        ({"job": 0.05}, "a: stopped after 0.000833333 minutes, the longest that one video may"),
        ({"memory": 2**30}, "a: needs more than 1 GB of memory"),
    ],
)
def test_limits_of_a_job(house: Callable[..., House], limits: dict[str, Any], error: str) -> None:
    it = house(**limits)
    it.workers[0].held = 2**31
    job = it.submit("a")
    until(lambda: job.state == FAILED and not job.folder.exists())
    assert job.error.startswith(error)
    assert it.workers[0].ended


def test_too_many_and_too_large(house: Callable[..., House]) -> None:
    it = house(waiting=1, upload=3)
    first = it.submit("a")
    until(lambda: first.state == RUNNING)
    it.submit("b")
    with pytest.raises(UserError, match="1 videos are waiting already"):
        it.submit("c")
    it.workers[0].says.put(("done", {}))
    until(lambda: not it.jobs._waiting)
    with pytest.raises(UserError, match="long name: 0 MB, more than 0 MB"):
        it.submit("long name")
    assert len(list(first.folder.parent.iterdir())) == 2


def test_mistakes_stay_in_the_log(
    house: Callable[..., House], caplog: pytest.LogCaptureFixture
) -> None:
    it = house()
    bad, broken, crashed = (it.submit(name) for name in "abc")
    it.workers[0].says.put(("error", "a: no video in this file"))
    it.workers[0].says.put(("fault", "Traceback: /secret/place"))
    it.workers[0].says.put(EOFError)
    until(lambda: crashed.state == FAILED and not crashed.folder.exists())
    assert bad.error == "a: no video in this file"
    for job in (broken, crashed):
        number = job.error.removeprefix("internal error ").partition(";")[0]
        assert number in caplog.text
        assert "secret" not in job.error
    assert "Traceback: /secret/place" in caplog.text
    assert [worker.ended for worker in it.workers] == [True, False]


def test_files_go_after_a_while(house: Callable[..., House]) -> None:
    it = house(keep=0.01)
    job = it.submit("a")
    it.workers[0].says.put(("done", {}))
    until(lambda: job.state == DONE)
    assert list(it.jobs.uploads.iterdir())
    time.sleep(0.02)
    it.jobs.sweep()
    assert it.jobs.find(job.token) is None
    assert not job.folder.exists()
    assert not list(it.jobs.uploads.iterdir())


def test_what_an_earlier_server_left_goes(tmp_path: Path, house: Callable[..., House]) -> None:
    left = [tmp_path / f"stclip-serve-{kind}" / "x" for kind in ("jobs", "uploads")]
    for path in left:
        path.mkdir(parents=True)
    house()
    assert not any(path.exists() for path in left)


def test_a_worker_that_cannot_be_started_at_once(
    house: Callable[..., House], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs_module, "_HIRE_SECONDS", 0.01)
    one = house()
    one.broken = 2
    first = one.submit("a")
    one.workers[0].says.put(EOFError)
    until(lambda: first.state == FAILED)
    second = one.submit("b")
    until(lambda: second.state == RUNNING)
    one.workers[1].says.put(("done", {}))
    until(lambda: second.state == DONE)


def test_removing_goes_on_after_a_fault(
    house: Callable[..., House], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs_module, "_SWEEP_SECONDS", 0.01)
    calls: list[None] = []

    def sweep(jobs: Jobs) -> None:
        calls.append(None)
        raise RuntimeError("odd")

    monkeypatch.setattr(Jobs, "sweep", sweep)
    house()
    until(lambda: len(calls) > 1)
