"""Results in the formats of annotation tools, and as tubes for ``stclip evaluate video-map``."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
from numpy.typing import NDArray

from stclip.data.tubes import write_detected_tubes
from stclip.errors import UserError
from stclip.files import atomic_path, write_json, write_text
from stclip.footage.events import event_tubes
from stclip.footage.records import Event, Footage, Track

NOTHING = "none"  # the action of a person without an event
_TOLERANCE = 1.5  # pixels that interpolation between two keyframes may be off
_LONGEST_GAP = 1.0  # seconds; a person who is not seen for longer is marked as outside


def export(footage: Footage, kind: str, folder: Path) -> list[Path]:
    """Write the files of one format.

    Args:
        footage: what was found.
        kind: a key of ``EXPORTS``.
        folder: where they go.

    Returns:
        The files.

    Raises:
        UserError: there is no such format, a package is missing, or a file cannot be written.
    """
    if kind not in EXPORTS:
        raise UserError(f"export {kind}: choose among {', '.join(EXPORTS)}")
    return EXPORTS[kind](footage, folder)


def action_at(events: list[Event], seconds: float) -> str:
    """The action of a person at a time: that of the event with the highest score."""
    going = [event for event in events if event.start - 1e-6 <= seconds <= event.end + 1e-6]
    return max(going, key=lambda event: event.score).action if going else NOTHING


def keyframes(
    frames: NDArray[np.int64], boxes: NDArray[np.float64], forced: NDArray[np.bool_]
) -> list[int]:
    """Rows between which linear interpolation is right within ``_TOLERANCE`` pixels.

    Args:
        frames: (n,) ascending.
        boxes: (n, 4).
        forced: (n,) rows that must be among them.

    Returns:
        Ascending rows, the first and the last included.
    """
    chosen = [0]
    start = 0
    fixed = [*np.flatnonzero(forced).tolist(), len(frames) - 1]
    for end in sorted({row for row in fixed if row > 0}):
        stack, found = [(start, end)], {end}
        while stack:
            low, high = stack.pop()
            if high - low < 2:
                continue
            share = (frames[low:high] - frames[low]) / (frames[high] - frames[low])
            line = boxes[low] + share[:, None] * (boxes[high] - boxes[low])
            off = np.abs(boxes[low:high] - line).max(axis=1)
            worst = int(off.argmax())
            if off[worst] > _TOLERANCE:
                found.add(low + worst)
                stack += [(low, low + worst), (low + worst, high)]
        chosen += sorted(found)
        start = end
    return chosen


def _cvat(footage: Footage, folder: Path) -> list[Path]:
    """CVAT for video 1.1: a track a person, with the action as a mutable attribute."""
    width, height = footage.video["size"] or (0, 0)
    last = int(footage.video["frames"])
    root = ET.Element("annotations")
    ET.SubElement(root, "version").text = "1.1"
    task = ET.SubElement(ET.SubElement(root, "meta"), "task")
    facts = {"name": footage.name, "size": str(last), "mode": "interpolation", "overlap": "0",
             "start_frame": "0", "stop_frame": str(max(last - 1, 0))}  # fmt: skip
    for name, value in facts.items():
        ET.SubElement(task, name).text = value
    label = ET.SubElement(ET.SubElement(task, "labels"), "label")
    ET.SubElement(label, "name").text = "person"
    attribute = ET.SubElement(ET.SubElement(label, "attributes"), "attribute")
    values = "\n".join([NOTHING, *footage.actions])
    for name, value in (("name", "action"), ("mutable", "True"), ("input_type", "select"),
                        ("default_value", NOTHING), ("values", values)):  # fmt: skip
        ET.SubElement(attribute, name).text = value
    size = ET.SubElement(task, "original_size")
    ET.SubElement(size, "width").text = str(width)
    ET.SubElement(size, "height").text = str(height)
    for track in footage.tracks.values():
        _cvat_track(root, track, last)
    ET.indent(root)
    path = folder / "cvat.xml"
    text = ET.tostring(root, encoding="unicode", xml_declaration=False)
    write_text(path, '<?xml version="1.0" encoding="utf-8"?>\n' + text + "\n")
    return [path]


def _cvat_track(root: ET.Element, track: Track, last: int) -> None:
    rows = track.boxes
    if not len(rows):
        return
    element = ET.SubElement(root, "track", id=str(track.id), label="person", source="auto")
    gaps = np.flatnonzero(np.diff(rows[:, 0]) > _LONGEST_GAP) + 1
    for part in np.split(rows, gaps):
        frames = part[:, 1].astype(np.int64)
        actions = [action_at(track.events, seconds) for seconds in part[:, 0]]
        changes = np.array([False] + [a != b for a, b in zip(actions[1:], actions, strict=False)])
        for row in keyframes(frames, part[:, 2:6], changes):
            _cvat_box(element, int(frames[row]) - 1, part[row, 2:6], actions[row], outside=False)
        if frames[-1] < last:
            _cvat_box(element, int(frames[-1]), part[-1, 2:6], actions[-1], outside=True)


def _cvat_box(
    element: ET.Element, frame: int, box: NDArray[np.float64], action: str, outside: bool
) -> None:
    corners = {
        name: f"{value:.2f}" for name, value in zip(("xtl", "ytl", "xbr", "ybr"), box, strict=True)
    }
    facts = {"frame": str(frame), "keyframe": "1", "outside": str(int(outside)), "occluded": "0"}
    box_element = ET.SubElement(element, "box", {**facts, **corners, "z_order": "0"})
    ET.SubElement(box_element, "attribute", name="action").text = action


def _ava(footage: Footage, folder: Path) -> list[Path]:
    """AVA's csv, one row per person, action and whole second, and the label map of its ids."""
    width, height = footage.video["size"] or (1, 1)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    for track in footage.tracks.values():
        rows = track.boxes
        for second in range(int(np.ceil(rows[0, 0])), int(rows[-1, 0]) + 1) if len(rows) else ():
            row = rows[np.abs(rows[:, 0] - second).argmin()]
            if abs(row[0] - second) > 0.5:
                continue
            box = np.clip(row[2:6] / [width, height, width, height], 0, 1)
            for event in track.events:
                if event.start <= second <= event.end:
                    number = footage.actions.index(event.action) + 1
                    numbers = [f"{value:.3f}" for value in box]
                    table.writerow([footage.name, f"{second:04d}", *numbers, number, track.id])
    found = [folder / "ava.csv", folder / "ava_action_list.pbtxt"]
    write_text(found[0], text.getvalue())
    labels = [
        f"label {{\n  name: {json.dumps(name, ensure_ascii=False)}\n  label_id: {number}\n"
        "  label_type: PERSON_MOVEMENT\n}\n"
        for number, name in enumerate(footage.actions, start=1)
    ]
    write_text(found[1], "".join(labels))
    return found


def _mot(footage: Footage, folder: Path) -> list[Path]:
    """MOTChallenge's gt.txt, and the actions of its ids in a csv."""
    lines = [
        (int(frame), track.id, x1, y1, x2 - x1, y2 - y1)
        for track in footage.tracks.values()
        for _, frame, x1, y1, x2, y2, _ in track.boxes.tolist()
    ]
    text = "".join(
        f"{f},{i},{x:.2f},{y:.2f},{w:.2f},{h:.2f},1,1,1\n" for f, i, x, y, w, h in sorted(lines)
    )
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["id", "action", "first_frame", "last_frame", "score"])
    for track in footage.tracks.values():
        rows = track.boxes
        for event in track.events:
            inside = rows[(rows[:, 0] >= event.start - 1e-6) & (rows[:, 0] <= event.end + 1e-6), 1]
            if len(inside):
                ends = int(inside[0]), int(inside[-1])
                writer.writerow([track.id, event.action, *ends, f"{event.score:.4f}"])
    found = [folder / "gt.txt", folder / "actions.csv"]
    write_text(found[0], text)
    write_text(found[1], table.getvalue())
    return found


def _label_studio(footage: Footage, folder: Path) -> list[Path]:
    """Label Studio's json: predictions of a video, with rectangles and ranges of the timeline."""
    width, height = footage.video["size"] or (1, 1)
    frames, fps = int(footage.video["frames"]), float(footage.video["fps"])
    result: list[dict[str, Any]] = []
    for track in footage.tracks.values():
        rows = track.boxes
        if not len(rows):
            continue
        numbers = rows[:, 1].astype(np.int64)
        sequence = [
            {
                "frame": int(numbers[row]), "enabled": True, "rotation": 0,
                "x": round(float(100 * rows[row, 2] / width), 3),
                "y": round(float(100 * rows[row, 3] / height), 3),
                "width": round(float(100 * (rows[row, 4] - rows[row, 2]) / width), 3),
                "height": round(float(100 * (rows[row, 5] - rows[row, 3]) / height), 3),
                "time": round(float(rows[row, 0]), 3),
            }
            for row in keyframes(numbers, rows[:, 2:6], np.zeros(len(rows), dtype=bool))
        ]  # fmt: skip
        sequence[-1]["enabled"] = False
        common = {"to_name": "video", "origin": "prediction"}
        value = {"framesCount": frames, "duration": round(frames / fps, 3),
                 "sequence": sequence, "labels": ["person"]}  # fmt: skip
        result.append(
            {"id": f"person{track.id}", "from_name": "box", "type": "videorectangle",
             "value": value, "meta": {"text": [f"person {track.id}"]}, **common}
        )  # fmt: skip
        for number, event in enumerate(track.events, start=1):
            inside = rows[(rows[:, 0] >= event.start - 1e-6) & (rows[:, 0] <= event.end + 1e-6), 1]
            if len(inside):
                ranges = [{"start": int(inside[0]), "end": int(inside[-1])}]
                result.append(
                    {"id": f"person{track.id}-{number}", "from_name": "action",
                     "type": "timelinelabels", "score": round(event.score, 4),
                     "value": {"ranges": ranges, "timelinelabels": [event.action]},
                     "meta": {"text": [f"person {track.id}"]}, **common}
                )  # fmt: skip
    tasks = [
        {"data": {"video": str(footage.video["path"])},
         "predictions": [{"model_version": "stclip", "result": result}]}
    ]  # fmt: skip
    path = folder / "label_studio.json"
    write_json(path, tasks)
    return [path]


def _elan(footage: Footage, folder: Path) -> list[Path]:
    """ELAN's eaf: a tier a person, an annotation an event."""
    try:
        from pympi import Eaf
    except ImportError as error:
        raise UserError("export elan: needs pympi-ling; pip install 'stclip[elan]'") from error
    document = Eaf(author="stclip")
    document.remove_tier("default")
    document.add_linked_file(str(footage.video["path"]), mimetype="video/mp4")
    for track in footage.tracks.values():
        tier = f"person {track.id}"
        document.add_tier(tier)
        ends: dict[str, int] = {}
        for event in track.events:  # those of a tier must not overlap: one tier for each layer
            start, end = round(event.start * 1000), round(event.end * 1000)
            layer = tier
            number = 1
            while ends.get(layer, -1) > start:
                number += 1
                layer = f"{tier} ({number})"
                if layer not in document.get_tier_names():
                    document.add_tier(layer)
            document.add_annotation(layer, start, max(end, start + 1), event.action)
            ends[layer] = end
    path = folder / "elan.eaf"
    with atomic_path(path) as temporary:
        temporary.unlink(missing_ok=True)
        document.to_file(str(temporary))
    return [path]


def _tubes(footage: Footage, folder: Path) -> list[Path]:
    """Events as the detected tubes of ``stclip evaluate video-map`` (DATA.md, "Tubes")."""
    path = folder / "tubes.json"
    write_detected_tubes(path, {footage.name: event_tubes(footage)})
    return [path]


EXPORTS: dict[str, Callable[[Footage, Path], list[Path]]] = {
    "cvat": _cvat,
    "ava": _ava,
    "mot": _mot,
    "label-studio": _label_studio,
    "elan": _elan,
    "tubes": _tubes,
}
