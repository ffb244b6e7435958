"""What a finished video leaves in its folder: result.json, events.csv and a page."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from stclip.data.fields import format_of
from stclip.errors import UserError
from stclip.files import atomic_path, read_json, write_text
from stclip.footage.records import FORMAT, Event, Footage, Track, colour_of

RESULT, EVENTS, VIDEO, PAGE = "result.json", "events.csv", "annotated.mp4", "index.html"
EVENT_COLUMNS = ("person", "action", "start", "end", "score")


def write_result(path: Path, footage: Footage) -> None:
    """Write result.json, whole or not at all, one track after the other."""
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        for part in _json_parts(footage):
            file.write(part)


def _json_parts(footage: Footage) -> Iterator[str]:
    head = {
        "format": FORMAT,
        "name": footage.name,
        "complete": footage.complete,
        "video": footage.video,
        "actions": footage.actions,
        "none_of": footage.none_of,
        "model": footage.model,
        "settings": footage.settings,
    }
    yield json.dumps(head, indent=1, allow_nan=False)[:-2] + ',\n "tracks": ['
    for number, track in enumerate(footage.tracks.values()):
        yield ("," if number else "") + "\n  " + json.dumps(_track(track), allow_nan=False)
    yield "\n ]\n}\n"


def _track(track: Track) -> dict[str, Any]:
    times, scores = track.timeline()
    return {
        "id": track.id,
        "boxes": [
            [round(row[0], 4), int(row[1]), *(round(value, 2) for value in row[2:6]),
             round(row[6], 4)]
            for row in track.boxes.tolist()
        ],
        "scores": [
            [round(time, 4), *(round(value, 5) for value in row)]
            for time, row in zip(times.tolist(), scores.tolist(), strict=True)
        ],
        "events": [_event(event) for event in track.events],
    }  # fmt: skip


def _event(event: Event) -> dict[str, Any]:
    return {
        "action": event.action,
        "start": round(event.start, 3),
        "end": round(event.end, 3),
        "score": round(event.score, 4),
    }


def read_result(path: str | Path) -> Footage:
    """Read result.json again.

    Raises:
        UserError: the file is missing, damaged or of another format.
    """
    content = read_json(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise UserError(
            f"{path}: a result.json of stclip detect ({FORMAT}) expected, found {found}"
        )
    with format_of("stclip detect", str(path)):
        footage = Footage(
            content["name"], content["video"], content["actions"], content["none_of"],
            content["model"], content["settings"], complete=content["complete"],
        )  # fmt: skip
        for row in content["tracks"]:
            track = footage.track(int(row["id"]))
            for seconds, frame, *box, score in row["boxes"]:
                track.add_box(seconds, frame, np.array(box, dtype=np.float32), score)
            for seconds, *scores in row["scores"]:
                track.add_scores(seconds, np.array(scores, dtype=np.float32))
            track.events = [
                Event(track.id, e["action"], e["start"], e["end"], e["score"])
                for e in row["events"]
            ]
    return footage


def write_events(path: Path, footage: Footage) -> None:
    """Write events.csv; spreadsheets know its UTF-8 by the mark in front."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(EVENT_COLUMNS)
    for event in footage.events:
        row = event.track, event.action, f"{event.start:.3f}", f"{event.end:.3f}"
        table.writerow([*row, f"{event.score:.4f}"])
    write_text(path, "\ufeff" + text.getvalue())


def write_page(path: Path, footage: Footage, video: str | None) -> None:
    """Write index.html, which shows the video above a timeline and needs no network.

    Args:
        path: of the page.
        footage: what was found.
        video: the name of the video file next to the page; None shows the timeline alone.
    """
    persons = []
    for _, track in sorted(footage.tracks.items()):
        if not len(track.rows):
            continue
        persons.append(
            {
                "id": track.id,
                "from": round(track.rows[0], 2),
                "to": round(track.rows[-7], 2),
                "colour": "#{:02x}{:02x}{:02x}".format(*colour_of(track.id)),
                "events": [_event(event) for event in track.events],
            }
        )
    data = {
        "actions": footage.actions,
        "duration": round(float(footage.video.get("last") or 0) + 1 / footage.video["fps"], 3),
        "persons": persons,
    }
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(
        files("stclip.footage").joinpath("page.html.jinja").read_text(encoding="utf-8")
    )
    # In a script, "</" would end it, whatever stands around.
    embedded = json.dumps(data).replace("<", "\\u003c")
    html = template.render(footage=footage, data=embedded, video=video)
    write_text(path, html)
