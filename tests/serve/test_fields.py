"""What a browser may send, and what the page makes of a job."""

import math
import time
from pathlib import Path
from typing import Any

import pytest

from stclip.errors import UserError
from stclip.footage.pipeline import Settings
from stclip.serve.fields import KEEP, LEAST_BOX, NONE_OF, names, request_of, video_of
from stclip.serve.jobs import DONE, RUNNING, Job, Jobs, Request
from stclip.serve.view import clock, duration, outcome
from stclip.serve.worker import Offer

OFFER = Offer({"puppet": {"clip": "puppet"}})
FIELDS: dict[str, Any] = {
    "actions": "wave\nclap, wave ", "none_of": "standing,  Clap\n,", "model": "puppet",
    "detector": "nanodet", "track_threshold": 0.3, "start": 0, "end": 0, "score_every": 0.5,
    "window": 2, "threshold": 0.5, "min_seconds": 0.5,
}  # fmt: skip


def test_fields_become_a_request() -> None:
    request = request_of(OFFER, "a.mp4", "", **FIELDS)
    assert (request.actions, request.none_of) == (("wave", "clap"), ("standing",))
    assert (request.start, request.end, request.track_threshold) == (0, math.inf, 0.3)
    for wanted, others in [
        ("sit down, wave", ["standing", "walking", "nothing special"]),
        ("Walk|walks around, stand up", ["sitting", "nothing special"]),
    ]:
        fields = {**FIELDS, "actions": wanted, "none_of": NONE_OF}
        assert list(request_of(OFFER, "a.mp4", "", **fields).none_of) == others
    assert (Settings().detector_threshold, Settings().events.keep) == (LEAST_BOX, KEEP)
    assert names("a\n\nb,,a") == ["a", "b"]


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"actions": " ,\n"}, "Say what you look for"),
        ({"actions": "wave", "none_of": "Wave"}, "One action alone"),
        ({"actions": ",".join(map(str, range(98)))}, "100 actions; at most 40"),
        ({"actions": "w" * 121}, "at most 120 letters"),
        ({"actions": "| wave", "none_of": ""}, "One action alone"),
        ({"model": "/etc/passwd"}, "of the lists"),
        ({"detector": "dfine"}, "of the lists"),
        ({"start": 5, "end": 3}, "the second must be the larger one"),
        ({"start": -1}, "the second must be the larger one"),
        ({"score_every": 1e-9}, "0.1 to 1 expected"),
        ({"window": 1e9}, "0.5 to 4 expected"),
        ({"threshold": math.nan}, "0 to 1 expected"),
        ({"threshold": "x"}, "0 to 1 expected"),
        ({"track_threshold": 0.1}, "0.2 to 1 expected"),
    ],
)
def test_fields_that_cannot_be(changed: dict[str, Any], error: str) -> None:
    with pytest.raises(UserError, match=error):
        request_of(OFFER, "a.mp4", "", **{**FIELDS, **changed})


def test_only_uploads_are_videos(tmp_path: Path) -> None:
    uploads, address = tmp_path / "uploads", Offer({}, addresses=True)
    uploads.mkdir()
    (uploads / "a.mp4").touch()
    (tmp_path / "secret.mp4").touch()
    (uploads / "link.mp4").symlink_to(tmp_path / "secret.mp4")
    assert video_of(str(uploads / "a.mp4"), "", OFFER, uploads) == (uploads / "a.mp4", "a.mp4")
    for path in ("../secret.mp4", "link.mp4", "none.mp4", "."):
        with pytest.raises(UserError, match="is gone"):
            video_of(str(uploads / path), "", OFFER, uploads)
    for offer, text in ((OFFER, "https://a.example/b.mp4"), (address, " ")):
        with pytest.raises(UserError, match="no video yet"):
            video_of(None, text, offer, uploads)
    assert video_of(None, "https://a.example/b.mp4?c", address, uploads) == (None, "b.mp4")


def test_names_are_escaped(tmp_path: Path) -> None:
    evil = '<img src=x onerror=alert(1)>"'
    jobs = Jobs(tmp_path, lambda wait: None, 0, OFFER.limits)  # type: ignore[arg-type, return-value]
    jobs.close()
    event = {"track": 1, "action": evil, "start": 61.5, "end": 70.0, "score": 0.5}
    job = Job("token", Request(evil, (evil,), (), "puppet", "nanodet"), tmp_path, DONE)
    job.progress = {"persons": [{"id": 1, "picture": ""}], "actions": [evil], "events": [event]}
    for state in (DONE, "failed", "running", "waiting", "cancelled"):
        job.state, job.error = state, evil
        html = outcome(jobs, job, 1)
        assert "<img" not in html
        assert f'data-state="{state}"' in html
    job.state = DONE
    html = outcome(jobs, job, 1)
    assert '1:01.5 – 1:10.0 <small title="score">0.50</small>' in html
    assert "Somebody without a box? Lower “Follow people from a score of”" in html


def test_the_time_left_falls_or_is_not_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = Jobs(tmp_path, lambda wait: None, 0, OFFER.limits)  # type: ignore[arg-type, return-value]
    jobs.close()
    job = Job("token", Request("a.mp4", ("wave",), (), "puppet", "nanodet"), tmp_path, RUNNING)
    job.progress = {"phase": "looking", "share": 0.5, "persons": []}
    for left, words in [
        (300.0, ", about 5 minutes left"), (12.0, ", about 10 seconds left"),
        (7.0, ", a few seconds left"), (0.1, ", a few seconds left"), (None, "50 %</p>"),
    ]:  # fmt: skip
        monkeypatch.setattr(Job, "left", left)
        assert words in outcome(jobs, job, 1)


def test_the_time_left_falls_while_nothing_is_said(tmp_path: Path) -> None:
    job = Job("token", Request("a.mp4", ("wave",), (), "puppet", "nanodet"), tmp_path, RUNNING)
    job.progress, job.begun = {"share": 0.5}, time.monotonic() - 100
    for said in (70, 90):  # seconds after the beginning, of 100 that have gone by
        job.heard = job.begun + said
        assert job.left == pytest.approx(2 * said - 100, abs=1)
    job.heard = job.begun + 40
    assert job.left is None
    job.heard = time.monotonic()
    for share in (0.05, 0.99):
        job.progress = {"share": share}
        assert job.left is None


def test_times_in_words() -> None:
    assert [duration(s) for s in (0, 12, 60, 100, 600, 3600, 7200)] == [
        "5 seconds", "10 seconds", "1 minute", "2 minutes", "10 minutes", "1 hour", "2 hours"
    ]  # fmt: skip
    assert [clock(s) for s in (7.94, 59.97, 3723)] == ["0:07.9", "1:00.0", "1:02:03.0"]
