"""CVAT's files, in every shape in which people have them."""

import tracemalloc
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stclip.data.cvat import read_cvat
from stclip.data.tracks import Annotated, Film
from stclip.errors import UserError
from tests.data.make_cvat import ACTION, box, document, labels, task, track, write

FILM = Film("film", Path("film.mp4"), (128, 32), 25.0, np.arange(100) / 25, 0.0)
PERSON = task(inside=labels(person=ACTION))
A, B = (0, 0, 10, 20), (10, 4, 20, 24)
Row = tuple[int, tuple[float, ...], tuple[str, ...]]


def rows(annotated: Annotated) -> list[Row]:
    """Frame, box and actions of everybody in every frame."""
    found = []
    for person in annotated.tracks(FILM):
        frames = person.visible(100)
        places, boxes = person.at(frames)
        for frame, place, corners in zip(frames, places, boxes.round(2), strict=True):
            found.append((int(frame), tuple(corners.tolist()), person.actions[place]))
    return sorted(found)


def read(tmp_path: Path, meta: str, *content: str, **options: Any) -> list[Row]:
    (annotated,) = read_cvat(write(tmp_path / "a.xml", meta, *content), **options)
    assert annotated.names[0] == "film.mp4"
    assert annotated.size == (128, 32)
    return rows(annotated)


def test_key_frames_are_interpolated_and_a_value_holds(tmp_path: Path) -> None:
    found = read(
        tmp_path, PERSON,
        track(
            box(A, {"action": "walk"}, frame=2, keyframe=1, outside=0, occluded=1),
            box(B, {"action": "sit down"}, frame=6, keyframe=1, outside=0),
            box(B, frame=8, keyframe=1, outside=1),
            box(A, {"action": " "}, frame=11, keyframe=1, outside=0),
        ),
    )  # fmt: skip
    assert found == [
        (2, (0, 0, 10, 20), ("walk",)),
        (3, (2.5, 1, 12.5, 21), ("walk",)),
        (4, (5, 2, 15, 22), ("walk",)),
        (5, (7.5, 3, 17.5, 23), ("walk",)),
        (6, (10, 4, 20, 24), ("sit down",)),
        (7, (10, 4, 20, 24), ("sit down",)),
        (11, (0, 0, 10, 20), ()),
    ]


def test_what_cvat_does_not_list_is_not_there(tmp_path: Path) -> None:
    """CVAT lists every frame: one that is missing was deleted."""
    found = read(
        tmp_path, PERSON,
        track(*(box(A, {"action": "walk"}, frame=f, keyframe=int(f == 0)) for f in (0, 1, 4))),
    )  # fmt: skip
    assert [row[0] for row in found] == [0, 1, 4]


def test_frames_that_a_task_skips_are_not_annotated(tmp_path: Path) -> None:
    meta = task(inside=labels(person=ACTION), frame_filter="step=5", start_frame=10)
    boxes = (box(A, {"action": "walk"}, frame=f, keyframe=1) for f in (10, 15, 20))
    assert [row[0] for row in read(tmp_path, meta, track(*boxes))] == [10, 15, 20]


@pytest.mark.parametrize(
    ("attributes", "values", "given", "actions"),
    [
        ({}, {}, (), ("person",)),
        ({"Action": "radio", "sure": "checkbox"}, {"Action": "run", "sure": "true"}, (), ("run",)),
        ({"run": "checkbox", "talk": "checkbox", "sure": "checkbox"},
         {"run": "true", "talk": "true", "sure": "true"}, ("run", "talk"), ("run", "talk")),
        ({"run": "checkbox", "talk": "checkbox"}, {"run": "false", "talk": "true"},
         ("run", "talk"), ("talk",)),
        ({"pose": "select", "talk": "checkbox"}, {"pose": "sit &amp; wait", "talk": "true"},
         ("pose", "talk"), ("sit & wait", "talk")),
        ({"sure": "checkbox"}, {"sure": "false"}, ("label",), ("person",)),
    ],
)  # fmt: skip
def test_where_the_action_is(tmp_path: Path, attributes, values, given, actions) -> None:
    person = track(box(A, values, frame=0, keyframe=1))
    meta = task(inside=labels(person=attributes))
    assert read(tmp_path, meta, person, actions_from=given) == [(0, A, actions)]


def test_labels_are_actions_and_other_objects_are_not(tmp_path: Path) -> None:
    meta = task(inside=labels(walk={}, wave={}))
    people = (track(box(A, frame=f, keyframe=1), label=n) for f, n in ((3, "wave"), (1, "walk")))
    assert read(tmp_path, meta, *people) == [(1, A, ("walk",)), (3, A, ("wave",))]
    meta, left_out = task(inside=labels(person=ACTION, ball={})), Counter()
    content = (
        track(box(A, {"action": "walk"}, frame=1, keyframe=1)),
        track(box(A, frame=1, keyframe=1), label="ball"),
        track('<polygon frame="1" keyframe="1" points="1,2;3,4;5,6"/>'),
    )
    assert read(tmp_path, meta, *content, left_out=left_out) == [(1, A, ("walk",))]
    assert left_out == {
        "boxes of 'ball', which has no attribute action": 1,
        "shapes that are no boxes (polygon)": 1,
    }


def test_a_rotated_box_becomes_the_upright_one_around_it(tmp_path: Path) -> None:
    turned = box((10, 10, 30, 20), {"action": "a"}, frame=0, keyframe=1, rotation=90)
    slanted = box((10, 10, 20, 20), {"action": "a"}, frame=1, keyframe=1, rotation=315)
    first, second = read(tmp_path, PERSON, track(turned, slanted))
    assert first[1] == (15, 5, 25, 25)
    assert second[1] == (7.93, 7.93, 22.07, 22.07)


def test_a_project_counts_the_frames_of_its_tasks_on(tmp_path: Path) -> None:
    tasks = (
        task("a.mp4", id=7, subset="Train", frames=10, start_frame=5),
        task("b.mp4", id=8, subset="Train", frames=10, frame_filter="step=2"),
        task("c.mp4", id=9, subset="Test", frames=10),
    )
    meta = f"<project><tasks>{''.join(tasks)}</tasks>{labels(person=ACTION)}</project>"
    people = (
        track(box(A, {"action": "walk"}, frame=frame, keyframe=1), task_id=id_)
        for id_, frame in ((7, 6), (8, 15 + 4), (9, 3))
    )
    found = read_cvat(write(tmp_path / "project.zip", meta, *people))
    assert [(one.names[0], rows(one)[0][0]) for one in found] == [
        ("a.mp4", 6), ("b.mp4", 4), ("c.mp4", 3),
    ]  # fmt: skip
    assert [one.where for one in found] == [
        f"{tmp_path / 'project.zip'}: {name}.mp4" for name in "abc"
    ]


def test_images(tmp_path: Path) -> None:
    def image(id_: int, name: str, *inside: str) -> str:
        return f'<image id="{id_}" name="{name}" width="128" height="32">{"".join(inside)}</image>'

    walk = box(A, {"action": "walk"}, label="person")
    content = (image(0, "frame_000000"), image(4, "frame_000004", walk, '<tag label="person"/>'))
    assert read(tmp_path, PERSON, *content) == [(4, A, ("walk",))]  # of a video
    meta = task("", None, inside=labels(person=ACTION))
    content = (image(0, "party/00003.png", walk), image(1, "street/00001.png", walk))
    found = read_cvat(write(tmp_path / "a.xml", meta, *content))
    assert [(one.names, one.size, rows(one)[0][0]) for one in found] == [
        (("party",), (128, 32), 2), (("street",), (128, 32), 0),
    ]  # fmt: skip


def test_a_job_says_nothing_of_its_video(tmp_path: Path) -> None:
    meta = f"<job><id>4</id>{labels(walk={})}</job>"
    (found,) = read_cvat(write(tmp_path / "party.xml", meta, track(box(A, frame=3), label="walk")))
    assert found.names == ("party",)
    assert rows(found) == [(3, A, ("walk",))]


WALKS = {"action": "walk"}
BOMB = (
    '<?xml version="1.0"?><!DOCTYPE annotations [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>'
    "<annotations>&b;</annotations>"
)
EXTERNAL = (
    '<!DOCTYPE annotations [<!ENTITY a SYSTEM "file:///etc/passwd">]><annotations>&a;</annotations>'
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BOMB, "a.xml: has a DOCTYPE, which CVAT does not write"),
        (EXTERNAL, "a.xml: has a DOCTYPE"),
        ("", "a.xml: not the xml that CVAT exports"),
        ("<annotations><meta>", "is the file cut short"),
        ("<annotation/>", "a.xml: <annotations> of CVAT expected, found <annotation>"),
        ("<annotations/>", "a.xml: no meta in it"),
        ("<annotations><meta><a/></meta></annotations>", "no task, job or project"),
        ('<annotations><track id="1"><box/></track></annotations>', "no meta before its first"),
        (document(task(inside=labels(person={"run": "checkbox", "a b": "checkbox"}))),
         "no attribute of its labels is called action; .* --actions-from 'a b' run"),
        (document(task(size=(0, -1))), "task 1 of its meta: height '-1'"),
        (document(PERSON, track(box(A, WALKS))), "track 3: frame None: a whole number from 0"),
        (document(PERSON, track(box(A, WALKS, frame=-2))), "track 3: frame '-2'"),
        (document(PERSON, track(box((5, 5, 5, 9), WALKS, frame=7))),
         "a.xml: track 3, frame 7: box 5, 5, 5, 9 is empty"),
        (document(PERSON, track(box(("x", 5, 5, 9), WALKS, frame=7))), "frame 7: xtl 'x'"),
        (document(PERSON, track(box(("nan", 5, 5, 9), WALKS, frame=7))), "frame 7: xtl 'nan'"),
        (document(PERSON, track(box(A, WALKS, frame=7, rotation="up"))), "frame 7: rotation 'up'"),
        (document(f"<project><tasks>{task()}{task(id=2)}</tasks></project>",
                  track(box(A, frame=0), task_id=3)), "track 3: task_id '3': one of the tasks"),
        (document(f"<project><tasks>{task()}{task(id=2)}</tasks></project>",
                  track(box(A, frame=0), task_id=2)), "track 3, frame 0: a frame of its"),
        (document(task("", None, inside=labels(walk={})),
                  '<image id="0" name="x.png" width="9" height="9"><box label="walk"/></image>'),
         "image x.png: a name that ends in the frame's number"),
    ],
)  # fmt: skip
def test_mistakes_are_named(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "a.xml").write_text(text)
    with pytest.raises(UserError, match=words):
        read_cvat(tmp_path / "a.xml")


def test_files_that_are_none_of_cvat(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.xml: cannot be read: No such file"):
        read_cvat(tmp_path / "absent.xml")
    with zipfile.ZipFile(tmp_path / "coco.zip", "w") as archive:
        archive.writestr("instances.json", "{}")
    with pytest.raises(UserError, match=r"one annotations\.xml in it expected, found 0"):
        read_cvat(tmp_path / "coco.zip")
    with pytest.raises(UserError, match=r"--actions-from doing: .* no such attribute; .*action"):
        read_cvat(write(tmp_path / "a.xml", PERSON), ["doing"])


def test_a_long_track_is_not_kept_as_a_tree(tmp_path: Path) -> None:
    boxes = (box(A, WALKS, frame=frame, keyframe=0) for frame in range(4000))
    path = write(tmp_path / "a.xml", PERSON, track(*boxes))
    tracemalloc.start()
    try:
        (found,) = read_cvat(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(found.tracks(FILM)[0].frames) == 4000
    assert peak < 3e6  # as a tree it takes 4 MB
