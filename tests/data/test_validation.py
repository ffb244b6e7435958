"""Every mistake in a made dataset is found, and a good one has none."""

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from av.video.frame import VideoFrame
from PIL import Image

from stclip.data import findings as kinds
from stclip.data.annotations import DetectionDataset, Request
from stclip.data.checks import recall
from stclip.data.custom import build_custom
from stclip.data.findings import Findings, Kind
from stclip.data.labels import Labels
from stclip.data.validation import (
    check_boxes,
    check_frames,
    check_labels,
    check_overlap,
    check_split,
    count_labels,
    unchecked,
    usable,
)
from stclip.data.video import VideoFile, open_video
from tests.data.make import HEIGHT, WIDTH, write_frames, write_video

FRAMES = 6
LABELS = Labels(("run", "wave"), ("run", "wave"), ("run", "wave"))


def content() -> dict[str, Any]:
    """Two videos of six frames at 10 a second; every second frame has two persons."""
    boxes = [[2, 3, 14, 25], [20, 4, 36, 28]]
    return {
        "labels": ["run", "wave"],
        "videos": [
            {"id": name, "path": f"videos/{name}", "size": [WIDTH, HEIGHT], "fps": 10}
            for name in ("a", "b")
        ],
        "keyframes": [
            {"video": name, "timestamp": frame / 10, "boxes": boxes, "labels": [["run"], ["wave"]]}
            for name in ("a", "b")
            for frame in range(0, FRAMES, 2)
        ],
    }


def detection_rows() -> list[dict[str, Any]]:
    return [
        {"video": name, "frame": frame, "box": box, "score": 0.9}
        for name in ("a", "b")
        for frame in range(1, FRAMES + 1, 2)
        for box in ([2, 3, 15, 25], [20, 4, 35, 28])
    ]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        write_frames(tmp_path / "videos" / name, FRAMES)
    return tmp_path


def read(
    root: Path, made: dict[str, Any], rows: list[dict[str, Any]] | None = None
) -> tuple[DetectionDataset, Findings]:
    """The dataset and what is found in the files alone."""
    (root / "annotations.json").write_text(json.dumps(made))
    detections = None
    if rows is not None:
        (root / "persons.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        detections = str(root / "persons.jsonl")
    found = Findings(keep=100)
    request = Request(
        str(root / "annotations.json"), "test", LABELS, detections=detections,
        reports=unchecked(found),
    )  # fmt: skip
    return build_custom(request), found


def check(
    root: Path, made: dict[str, Any], rows: list[dict[str, Any]] | None = None
) -> dict[Kind, list[str]]:
    """All that is found, with the labels run and wave trained on."""
    dataset, found = read(root, made, rows)
    check_boxes("train", dataset, found)
    check_labels("train", dataset, LABELS, found)
    check_overlap("train", dataset, found)
    check_frames("train", dataset, found, None)
    return found.places


def test_a_good_dataset_has_nothing_wrong(root: Path) -> None:
    assert check(root, content(), detection_rows()) == {}
    dataset, found = read(root, content(), detection_rows())
    assert count_labels(dataset) == {"run": 6, "wave": 6}
    assert recall(dataset) == 1
    assert check_frames("train", dataset, found, None) == 12
    assert check_frames("train", dataset, found, 4) == 4
    assert found.text() == ""


def test_a_file_is_decoded_in_one_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoded: list[VideoFrame]
) -> None:
    monkeypatch.setattr("stclip.data.validation._CHUNK", 4)
    video = VideoFile(write_video(tmp_path / "v.avi", range(20), "mpeg4", options={"bf": "2"}))
    found = Findings(keep=9)
    dataset = DetectionDataset("film", {"v": video}, [])
    assert check_frames("train", dataset, found, None) == len(decoded) == 20
    assert found.counts == {}
    assert video._decoder is None


Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    ("change", "kind", "places"),
    [
        (
            lambda made: made["keyframes"][1]["boxes"].__setitem__(0, [9, 3, 9, 25]),
            kinds.EMPTY,
            ["train, annotated: a frame 3, box 1: (9, 3, 9, 25) in 40 x 30"],
        ),
        (
            lambda made: made["keyframes"][1]["boxes"].__setitem__(1, [30, 4, 60, 28]),
            kinds.OUTSIDE,
            ["train, annotated: a frame 3, box 2: (30, 4, 60, 28) in 40 x 30"],
        ),
        (
            lambda made: made["keyframes"][1]["boxes"].__setitem__(1, [20, 4, 43, 28]),
            kinds.EDGE,
            ["train, annotated: a frame 3, box 2: (20, 4, 43, 28) in 40 x 30"],
        ),
        (
            lambda made: made["keyframes"][5].update(timestamp=0.6),
            kinds.PAST_END,
            ["video 'b' has 6 frames at 10 a second, so none at 0.6 s"],
        ),
        (
            lambda made: made["keyframes"][1].update(timestamp=0.01),
            kinds.TWICE,
            ["annotations.json: frame 1 of video a is annotated twice (the second time at 0.01 s)"],
        ),
        (
            lambda made: made["keyframes"][0]["labels"].__setitem__(0, ["run", "wave"]),
            kinds.SEVERAL_LABELS,
            ["train: a frame 1, box 1: run, wave"],
        ),
        (
            lambda made: made["keyframes"][0]["labels"].__setitem__(0, []),
            kinds.NO_LABEL,
            ["train: a frame 1, box 1"],
        ),
        (
            lambda made: made["videos"][0].update(size=[30, 40]),
            kinds.VIDEOS,
            ["video 'a' has size [30, 40]"],
        ),
        (
            lambda made: made["videos"][1].update(path="videos/c"),
            kinds.VIDEOS,
            ["video 'b': ", "videos/c"],
        ),
    ],
)
def test_one_mistake(root: Path, change: Change, kind: Kind, places: list[str]) -> None:
    made = json.loads(json.dumps(content()))  # no box is shared
    change(made)
    found = check(root, made)
    assert list(found) == [kind]
    assert len(found[kind]) == 1
    for words in places:
        assert words in found[kind][0]


def test_all_mistakes_are_found_at_once(root: Path) -> None:
    made = json.loads(json.dumps(content()))
    made["labels"].append("jump")
    made["videos"].append({"id": "c", "path": "videos/c", "size": [1], "fps": 10})
    made["keyframes"][0]["boxes"][0] = [1, 2, 3]
    made["keyframes"][1]["labels"][0] = ["hop"]
    made["keyframes"][2]["labels"][0] = ["jump"]
    made["keyframes"][3]["boxes"][0] = [300, 4, 310, 9]
    made["keyframes"][4]["timestamp"] = -1
    rows = detection_rows()
    rows += [
        {"video": "a", "frame": 9, "box": [0, 0, 5, 5], "score": 0.5},
        {"video": "z", "frame": 1, "box": [0, 0, 5, 5], "score": 0.5},
        {"video": "a", "frame": 1, "box": [5, 5, 0, 0], "score": 90},
    ]
    (root / "videos/b/00002.png").unlink()
    (root / "videos/b/00003.png").write_bytes(b"no picture")
    Image.fromarray(np.zeros((10, 10, 3), np.uint8)).save(root / "videos/b/00004.png")
    found = check(root, made, rows)
    assert {kind: len(places) for kind, places in found.items()} == {
        kinds.FORMAT: 4,  # video c, three numbers, hop, a time below 0
        kinds.MISSING: 1,
        kinds.DETECTIONS: 2,
        kinds.OUTSIDE: 1,
        kinds.EMPTY_DETECTIONS: 1,
        kinds.SCORES: 1,
        kinds.UNKNOWN_LABELS: 1,
        kinds.UNDECODABLE: 1,
        kinds.SIZES: 1,
    }
    assert "'jump' of 1 boxes" in found[kinds.UNKNOWN_LABELS][0]
    assert "1 frames are missing, the first is frame 2" in found[kinds.MISSING][0]
    assert "frame 4 is 10 x 10, the first one 40 x 30" in found[kinds.SIZES][0]


def test_boxes_as_corner_and_size(root: Path) -> None:
    made = json.loads(json.dumps(content()))
    for keyframe in made["keyframes"]:
        keyframe["boxes"] = [[x1, y1, x2 - x1, y2 - y1] for x1, y1, x2, y2 in keyframe["boxes"]]
    found = check(root, made)
    assert found[kinds.READING] == ["train, annotated: 12 boxes look like x, y, width, height"]
    assert len(found[kinds.EMPTY]) == 6


def test_detections_in_another_format_are_told_by_the_annotations(root: Path) -> None:
    """Corners and sizes that would do as corners too: (10, 8) to (22, 29) is 12 x 21."""
    made = json.loads(json.dumps(content()))
    for keyframe in made["keyframes"]:
        keyframe["boxes"] = [[10, 8, 22, 29], [11, 9, 25, 30]]
    rows = [
        {"video": frame["video"], "timestamp": frame["timestamp"], "box": box, "score": 1}
        for frame in made["keyframes"]
        for box in ([10, 8, 12, 21], [11, 9, 14, 21])
    ]
    assert check(root, made, rows) == {
        kinds.NO_OVERLAP: [
            "train: 0.0% of the annotated boxes overlap a detection by IoU 0.5; read as x, y, "
            "width, height, 100.0% would"
        ]
    }


def test_detections_of_other_persons(root: Path) -> None:
    rows = detection_rows()
    for row in rows:
        row["box"] = [16, 20, 19, 24]
    (place,) = check(root, content(), rows)[kinds.NO_OVERLAP]
    assert place == "train: 0.0% of the annotated boxes overlap a detection by IoU 0.5"


def test_recall_by_hand(root: Path) -> None:
    rows = [row for row in detection_rows() if row["video"] == "a"][:5]
    rows[0]["score"] = 0.1
    dataset, found = read(root, content(), rows)
    assert recall(dataset) == pytest.approx(5 / 12)
    assert recall(dataset, lambda persons: persons.select(0.5, 0)) == pytest.approx(4 / 12)
    assert recall(dataset, lambda persons: persons.select(0.0, 1)) == pytest.approx(3 / 12)
    check_overlap("test", dataset, found)
    (note,) = found.counts
    assert note == kinds.LOW_RECALL
    assert found.problems == 0


def test_classes_without_samples(root: Path) -> None:
    dataset, found = read(root, content())
    check_labels("test", dataset, Labels(("run", "wave", "jump"), test=("run", "jump")), found)
    assert found.places == {kinds.NO_SAMPLE: ["test: 'jump'"]}
    names = ("run", "wave", "jump")
    check_labels("test", dataset, Labels(names, train=names, test=names), found)
    assert found.places[kinds.NOT_TESTED] == ["test: 'jump'"]
    assert found.problems == 1


def test_videos_in_both_parts(root: Path) -> None:
    train, found = read(root, content())
    made = content()
    made["videos"][0]["id"] = "c"  # another name for the same frames
    made["videos"][1]["path"] = "videos/../videos/b2"
    for keyframe in made["keyframes"][:3]:
        keyframe["video"] = "c"
    write_frames(root / "videos/b2", FRAMES)
    test, _ = read(root, made)
    check_split(train, test, found)
    (place,) = found.places[kinds.SHARED_VIDEOS]
    assert place == f"{root}/videos/a: a and c"


def test_videos_that_turn_out_to_be_damaged_are_left_out(root: Path) -> None:
    dataset, found = read(root, content())
    (root / "c.mp4").write_bytes(b"no video")
    videos = {**dataset.videos, "b": open_video(root / "c.mp4")}
    left = usable("test", replace(dataset, videos=videos), found)
    assert list(left.videos) == ["a"]
    assert {keyframe.key.video for keyframe in left.keyframes} == {"a"}
    assert "c.mp4" in found.places[kinds.VIDEOS][0]


def test_missing_pictures_and_gaps_are_noted(root: Path) -> None:
    dataset, found = read(root, content())
    times = [0, 1, 2, 6, 7, 8, 9]
    for name, codec in (("skipping.avi", "mpeg4"), ("gaps.mp4", "libx264")):
        path = write_video(root / name, times, codec)
        usable("test", replace(dataset, videos={"a": open_video(path)}), found)
    skipping, gaps = found.places[kinds.TIMES]
    assert "skipping.avi: 3 of 10 frames were skipped when it was made, the first is" in skipping
    assert "gaps.mp4: 1 gaps between its frames, which are mostly 0.040 s apart: the f" in gaps
    assert found.problems == 0


def test_a_request_chooses_videos_and_the_rest_is_looked_at(root: Path) -> None:
    (root / "annotations.json").write_text(json.dumps(content()))
    found = Findings(keep=5)
    (root / "list.txt").write_text("b\n")
    listed = Request(
        str(root / "annotations.json"), "test", LABELS, list_path=str(root / "list.txt"),
        reports=unchecked(found),
    )  # fmt: skip
    assert list(build_custom(listed).videos) == ["b"]
    nothing = replace(
        listed, part="train", labels=Labels(LABELS.all, train=("jump",)), list_path=""
    )
    assert list(build_custom(nothing).videos) == ["a", "b"]
    assert "has no train video" in found.places[kinds.UNREADABLE][0]


def test_what_is_known_takes_little_memory() -> None:
    found = Findings(keep=0)
    for number in range(50):
        for _ in range(2):
            found.add(kinds.FILES, "a long path " * 100 + str(number))
    assert found.counts == {kinds.FILES: 50}
    assert len(pickle.dumps(found)) < 2500


def test_text_has_problems_first_and_counts_what_it_does_not_list() -> None:
    found = Findings(keep=2)
    found.add(kinds.EDGE, "a note")
    for number in range(5):
        found.add(kinds.EMPTY, f"box {number}")
    assert found.text().splitlines() == [
        f"problem: {kinds.EMPTY.name}: 5",
        "    box 0",
        "    box 1",
        "    ... and 3 more",
        f"  -> {kinds.EMPTY.remedy}",
        f"note: {kinds.EDGE.name}: 1",
        "    a note",
        f"  -> {kinds.EDGE.remedy}",
    ]
    assert found.problems == 5
