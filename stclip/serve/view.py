"""A job in HTML, for the page."""

from __future__ import annotations

from importlib.resources import files
from pathlib import PurePath
from typing import Any

import jinja2

from stclip.serve.jobs import DONE, FAILED, RUNNING, WAITING, Job, Jobs

PAGE = "index.html"
# What others may read of a job: name, type, what the link says, and its hint. The page itself has
# no link.
FILES = {
    "annotated.mp4": ("video/mp4", "video with boxes", ""),
    "events.csv": ("text/csv", "events (csv)", ""),
    "result.json": ("application/json", "everything (json)", ""),
    "cvat.xml": (
        "application/xml", "for CVAT (xml)",
        "to correct by hand; a box has one action at a time there: where events overlap, that of "
        "the highest score",
    ),
    PAGE: ("text/html", "", ""),
}  # fmt: skip


def asset(name: str) -> str:
    """A file of this folder."""
    return files("stclip.serve").joinpath(name).read_text(encoding="utf-8")


_ENVIRONMENT = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
_OUTCOME = _ENVIRONMENT.from_string(asset("outcome.html.jinja"))


def nothing_yet(examples: bool) -> str:
    """What stands where results will be."""
    return _OUTCOME.render(state="none", examples=examples)


def refused(error: str) -> str:
    """Why nothing was started."""
    return _OUTCOME.render(state="refused", error=error)


def unknown(jobs: Jobs) -> str:
    """For a token that no job has any more."""
    return _OUTCOME.render(state="unknown", keep=duration(jobs.limits.keep))


def outcome(jobs: Jobs, job: Job, detectors: int) -> str:
    """A job as it stands.

    Args:
        jobs: the queue.
        job: one of it.
        detectors: how many person detectors there are to choose from.
    """
    state, progress = job.state, job.progress  # both may change meanwhile
    facts: dict[str, Any] = {"state": state}
    if state == WAITING:
        wait = jobs.waiting_seconds(job)
        facts |= {
            "position": jobs.position(job),
            "wait": None if wait is None else duration(wait),
        }
    elif state == RUNNING:
        looking, left = progress.get("phase") == "looking", job.left
        phase = progress.get("phase", "starting").capitalize()
        facts |= {
            "looking": looking,
            "phase": "Looking at the video:" if looking else f"{phase} ...",
            "share": progress.get("share"),
            "left": "" if left is None else _left(left),
            "persons": progress.get("persons", []),
        }
    elif state == FAILED:
        facts["error"] = job.error
    elif state == DONE:
        answer = _answer(progress)
        facts |= {
            "name": job.request.name,
            "stem": PurePath(job.request.name).stem or "video",
            "persons": progress["persons"],
            "answer": answer,
            "some": any(found for _, found in answer),
            "detectors": detectors,
            "files": [
                (file, text, hint)
                for file, (_, text, hint) in FILES.items()
                if text and (job.results / file).exists()
            ],
            "link": f"jobs/{job.token}",
            "keep": duration(jobs.limits.keep),
        }
    return _OUTCOME.render(facts)


def _answer(progress: dict[str, Any]) -> list[tuple[str, list[tuple[dict[str, Any], list[Any]]]]]:
    """Each action with those who do it, and when."""
    persons = {person["id"]: person for person in progress["persons"]}
    answer = []
    for action in progress["actions"]:
        times: dict[int, list[dict[str, Any]]] = {}
        for event in progress["events"]:
            if event["action"] == action:
                text = f"{clock(event['start'])} – {clock(event['end'])}"
                times.setdefault(event["track"], []).append({**event, "text": text})
        found = [(persons[number], found) for number, found in sorted(times.items())]
        answer.append((action, found))
    return answer


def clock(seconds: float) -> str:
    """0:07.4, 1:02:03.0."""
    whole, tenth = divmod(round(10 * seconds), 10)
    front = f"{whole // 3600}:{whole // 60 % 60:02}" if whole >= 3600 else f"{whole // 60}"
    return f"{front}:{whole % 60:02}.{tenth}"


def duration(seconds: float) -> str:
    """Some time in words, such as 40 seconds; roughly."""
    for size, name in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= 1.5 * size or seconds == size:
            return _count(round(seconds / size), name)
    return _count(max(5 * round(seconds / 5), 5), "second")


def _left(seconds: float) -> str:
    """The last seconds are not counted down in steps of five: it would seem to stand still."""
    return f"about {duration(seconds)}" if seconds >= 7.5 else "a few seconds"


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
