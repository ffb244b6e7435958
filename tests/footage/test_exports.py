"""Results, and exports read back by other readers than ours."""

import csv
import json
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from stclip.data.tubes import read_detected_tubes
from stclip.errors import UserError
from stclip.footage.events import EventRule, event_tubes
from stclip.footage.exports import EXPORTS, action_at, export, keyframes
from stclip.footage.given import Given, read_boxes
from stclip.footage.records import Event, Footage
from stclip.footage.results import read_result, write_events, write_page, write_result
from stclip.footage.source import Frame

FPS = 10.0


def footage() -> Footage:
    """Two people for six seconds; the second one is away from 2 to 4 s."""
    found = Footage(
        name="party", actions=["wave, twice", 'say "hi"'], none_of=["stand"],
        video={"path": "party.mp4", "size": [200, 100], "fps": FPS, "frames": 60, "last": 5.9,
               "duration": 6.0},
        model={"name": "ST-CLIP"},
        settings={"detector": "nanodet", "score_every": 0.5,
                  "events": {"threshold": 0.5, "window": 2.0}},
        complete=True,
    )  # fmt: skip
    for n in range(60):
        left = np.array([10 + n, 20, 40 + n, 90], dtype=np.float32)
        found.track(1).add_box(n / FPS, n + 1, left, 0.9)
        if not 20 <= n < 40:
            right = np.array([150, 20 + 10 * (n > 45), 190, 95], dtype=np.float32)
            found.track(2).add_box(n / FPS, n + 1, right, 0.8)
    for time in (0.0, 0.5, 1.0):
        found.track(1).add_scores(time, np.array([0.7, 0.2, 0.1], dtype=np.float32))
    found.track(1).events = [Event(1, "wave, twice", 0.5, 3.0, 0.75)]
    found.track(2).events = [Event(2, 'say "hi"', 4.0, 5.0, 0.6)]
    return found


def test_a_result_comes_back(tmp_path: Path) -> None:
    write_result(tmp_path / "result.json", footage())
    back, first = read_result(tmp_path / "result.json"), footage()
    assert (back.name, back.video, back.actions, back.none_of) == (
        first.name, first.video, first.actions, first.none_of
    )  # fmt: skip
    assert back.events == first.events
    for number, track in first.tracks.items():
        np.testing.assert_allclose(back.tracks[number].boxes, track.boxes, atol=0.01)
        for ours, theirs in zip(back.tracks[number].timeline(), track.timeline(), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c | {"format": "other"}, "stclip-footage/1"),
        (lambda c: {k: v for k, v in c.items() if k != "tracks"},
         r"not in the format of stclip detect \(KeyError: 'tracks'\)"),
        (lambda c: c | {"tracks": [{"id": 1, "boxes": [[1, 2]]}]}, "not in the format of"),
        (lambda c: [c], "found list"),
    ],
)  # fmt: skip
def test_other_results_are_refused(tmp_path: Path, change, words) -> None:
    path = tmp_path / "result.json"
    write_result(path, footage())
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(UserError, match=words):
        read_result(path)


def test_events_for_a_spreadsheet(tmp_path: Path) -> None:
    write_events(tmp_path / "events.csv", footage())
    with open(tmp_path / "events.csv", encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows == [
        {"person": "1", "action": "wave, twice", "start": "0.500", "end": "3.000",
         "score": "0.7500"},
        {"person": "2", "action": 'say "hi"', "start": "4.000", "end": "5.000", "score": "0.6000"},
    ]  # fmt: skip


def test_nothing_in_a_name_runs_in_the_page(tmp_path: Path) -> None:
    found = footage()
    found.actions[0] = "</script><script>alert(1)</script>"
    found.name = "<img src=x onerror=alert(1)>"
    write_page(tmp_path / "index.html", found, "annotated.mp4")
    page = (tmp_path / "index.html").read_text()
    assert "<script>alert" not in page
    assert "<img" not in page
    assert page.count("<script>") == 1
    assert "http:" not in page
    assert "https:" not in page


def test_keyframes_are_few_and_enough() -> None:
    frames = np.arange(1, 101)
    straight = np.stack([frames * 1.0, frames * 0, frames * 1.0 + 20, frames * 0 + 50], axis=1)
    no = np.zeros(100, dtype=bool)
    assert keyframes(frames, straight, no) == [0, 99]
    bent = straight.copy()
    bent[50:, 1] += (frames[50:] - 50) * 3
    chosen = keyframes(frames, bent, no)
    assert len(chosen) <= 4
    for column in range(4):
        line = np.interp(frames, frames[chosen], bent[chosen, column])
        assert np.abs(line - bent[:, column]).max() <= 1.5
    forced = no.copy()
    forced[30] = True
    assert 30 in keyframes(frames, straight, forced)


def test_cvat(tmp_path: Path) -> None:
    (path,) = export(footage(), "cvat", tmp_path)
    root = ET.parse(path).getroot()
    assert root.findtext("version") == "1.1"
    assert root.findtext("meta/task/size") == "60"
    attribute = root.find("meta/task/labels/label/attributes/attribute")
    assert attribute.findtext("values").split("\n") == ["none", "wave, twice", 'say "hi"']
    first, second = root.findall("track")
    shown = [(int(b.get("frame")), b.findtext("attribute"), b.get("outside")) for b in first]
    assert shown[0] == (0, "none", "0")
    assert (5, "wave, twice", "0") in shown
    assert (31, "none", "0") in shown
    assert len(shown) <= 5  # of 60 frames
    away = [int(b.get("frame")) for b in second if b.get("outside") == "1"]
    assert away == [20]
    for box in first:
        frame = int(box.get("frame"))
        assert float(box.get("xtl")) == pytest.approx(10 + frame, abs=1.5)


def test_tubes(tmp_path: Path) -> None:
    (path,) = export(footage(), "tubes", tmp_path)
    tubes = read_detected_tubes(path, footage().actions, ["party"])["party"]
    assert [(t.label, t.first, t.last, t.score) for t in tubes] == [
        ("wave, twice", 6, 31, 0.75), ('say "hi"', 41, 51, 0.6)
    ]  # fmt: skip
    assert tubes[0].boxes[0].tolist() == [15, 20, 45, 90]
    again = event_tubes(footage(), EventRule(window=0, threshold=0.15, keep=1, min_seconds=0.2))
    assert [(tube.label, tube.first, tube.last) for tube in again] == [
        ('say "hi"', 1, 13), ("wave, twice", 1, 13)
    ]  # fmt: skip


def test_ava(tmp_path: Path) -> None:
    table, labels = export(footage(), "ava", tmp_path)
    rows = [line.split(",") for line in table.read_text().splitlines()]
    assert [(row[1], row[-2], row[-1]) for row in rows] == [
        ("0001", "1", "1"), ("0002", "1", "1"), ("0003", "1", "1"), ("0004", "2", "2"),
        ("0005", "2", "2"),
    ]  # fmt: skip
    assert all(0 <= float(value) <= 1 for row in rows for value in row[2:6])
    assert labels.read_text().count("label_id") == 2


def test_mot_comes_back_as_boxes(tmp_path: Path) -> None:
    truth, actions = export(footage(), "mot", tmp_path)
    rows = read_boxes(truth)
    given = Given(rows, FPS, 0.0)
    assert given.has_tracks
    image = np.zeros((100, 200, 3), dtype=np.uint8)
    boxes = given(Frame(1, 0.0, image))
    np.testing.assert_allclose(boxes.boxes, [[10, 20, 40, 90], [150, 20, 190, 95]])
    assert boxes.ids.tolist() == [1, 2]
    assert len(given(Frame(25, 2.4, image)).boxes) == 1
    with open(actions, newline="") as file:
        assert [row["first_frame"] for row in csv.DictReader(file)] == ["6", "41"]


def test_label_studio(tmp_path: Path) -> None:
    (path,) = export(footage(), "label-studio", tmp_path)
    (task,) = json.loads(path.read_text())
    result = task["predictions"][0]["result"]
    box = next(r for r in result if r["type"] == "videorectangle")
    assert box["value"]["sequence"][0] == {
        "frame": 1, "enabled": True, "rotation": 0, "x": 5.0, "y": 20.0, "width": 15.0,
        "height": 70.0, "time": 0.0,
    }  # fmt: skip
    ranges = [r["value"]["ranges"] for r in result if r["type"] == "timelinelabels"]
    assert ranges == [[{"start": 6, "end": 31}], [{"start": 41, "end": 51}]]


def test_elan_is_read_by_pympi(tmp_path: Path) -> None:
    pympi = pytest.importorskip("pympi")
    found = footage()
    found.track(1).events.append(Event(1, 'say "hi"', 1.0, 2.0, 0.5))  # at the same time
    (path,) = export(found, "elan", tmp_path)
    document = pympi.Eaf(str(path))
    assert document.get_annotation_data_for_tier("person 1") == [(500, 3000, "wave, twice")]
    assert document.get_annotation_data_for_tier("person 1 (2)") == [(1000, 2000, 'say "hi"')]


def test_there_is_no_such_export(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"^export [a-z]+: choose among {', '.join(EXPORTS)}"):
        export(footage(), "excel", tmp_path)
    assert action_at([], 1.0) == "none"


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.jsonl", '{"video": "v", "frame": 1, "box": [1, 2, 3], "score": 1}',
         r"a\.jsonl: line 1: box .*four numbers"),
        ("a.jsonl", '{"video": "v", "frame": 1, "box": [5, 5, 3, 4], "score": 1}',
         "1 of 1 boxes are empty"),
        ("a.jsonl", '{"video":"a","frame":1,"box":[1,2,3,4],"score":1}\n'
         '{"video":"b","frame":1,"box":[1,2,3,4],"score":1}', "boxes of 2 videos"),
        ("a.jsonl", "{", "not valid JSON"),
        ("a.txt", "1,2,3", r"a\.txt:1: not in the format of MOT"),
        ("a.txt", "0,1,5,5,5,5,1", "frames from 1"),
        ("a.txt", "1.5,1,5,5,5,5,1", "a whole number"),
        ("a.txt", "1,1,5,5,-5,5,1", "are empty"),
        ("a.xlsx", "", "a .jsonl of persons"),
        ("absent.jsonl", None, "cannot be read"),
    ],
)  # fmt: skip
def test_mistakes_in_boxes_are_named(tmp_path: Path, name, text, words) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=words):
        read_boxes(tmp_path / name)


def test_boxes_by_time_go_to_the_nearest_frame(tmp_path: Path) -> None:
    path = tmp_path / "persons.jsonl"
    path.write_text(
        '{"video": "v", "timestamp": 0.48, "box": [1, 2, 30, 40], "score": 0.9}\n'
        '{"video": "v", "timestamp": 0.52, "box": [1, 2, 30, 40], "score": 0.1}\n'
    )
    given = Given(read_boxes(path), FPS, threshold=0.3)
    image = np.zeros((100, 200, 3), dtype=np.uint8)
    found = [len(given(Frame(n + 1, n / FPS, image)).boxes) for n in range(10)]
    assert found == [0, 0, 0, 0, 0, 1, 0, 0, 0, 0]
    assert not given.has_tracks
