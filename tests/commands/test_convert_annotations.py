"""stclip convert-annotations: from annotations of other tools to a trained and tested model."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from stclip.errors import UserError
from stclip.footage.exports import export
from stclip.footage.records import Event, Footage
from stclip.footage.results import write_result
from tests.data.make import write_frames, write_video
from tests.data.make_cvat import ACTION, box, labels, task, track, write
from tests.helpers import load_command

SIZE, FPS, FRAMES = (128, 32), 10, 40
A = (10, 2, 30, 30)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def film(name: str, frames: int = FRAMES) -> None:
    Path("videos").mkdir(exist_ok=True)
    write_video(Path("videos") / name, range(frames), rate=FPS, size=SIZE)


def convert(*words: object) -> None:
    assert load_command("convert_annotations").main([str(word) for word in words]) == 0


def annotate(video: str, *actions: str, film_too: bool = True) -> str:
    """A CVAT export: a person for each action, in all frames of the film."""
    if film_too:
        film(video)
    people = (
        track(
            box((5 + 30 * n, 2, 25 + 30 * n, 30), {"action": action}, frame=0, keyframe=1),
            box((9 + 30 * n, 2, 29 + 30 * n, 30), frame=FRAMES, keyframe=1, outside=1),
        )
        for n, action in enumerate(actions)
    )
    meta = task(video, SIZE, FRAMES, labels(person=ACTION))
    return str(write(Path(video).with_suffix(".zip"), meta, *people))


def content(part: str, out: str = "mine") -> dict[str, Any]:
    return json.loads((Path(out) / f"{part}.json").read_text())


def videos(part: str, out: str = "mine") -> list[str]:
    path = Path(out) / f"{part}.json"
    return [row["id"] for row in content(part, out)["videos"]] if path.exists() else []


def names(part: str) -> list[str]:
    return Path(f"mine/{part}_label.txt").read_text().splitlines()


def footage(frames: int = FRAMES) -> Footage:
    """Two people in a film of ``stclip detect``; the second is away for a while."""
    found = Footage(
        name="party", actions=["walk", "wave"], none_of=["stand"], model={}, settings={},
        video={"path": "videos/party.mp4", "size": list(SIZE), "fps": FPS, "frames": frames,
               "last": (frames - 1) / FPS, "duration": frames / FPS}, complete=True,
    )  # fmt: skip
    for n in range(frames):
        found.track(1).add_box(n / FPS, n + 1, np.float32([10 + n, 2, 30 + n, 30]), 0.9)
        if not 8 <= n < 25:
            found.track(2).add_box(n / FPS, n + 1, np.float32([90, 2, 110, 30 - n / 4]), 0.9)
    found.track(1).events = [Event(1, "walk", 0.5, 2.95, 0.8)]
    found.track(2).events = [Event(2, "wave", 0.0, 3.9, 0.8)]
    return found


def expected(actions_of: Footage) -> dict[float, set[tuple[Any, ...]]]:
    """Boxes and actions by time, those without an action left out."""
    rows: dict[float, set[tuple[Any, ...]]] = {}
    for person in actions_of.tracks.values():
        for seconds, _, *corners, _ in person.boxes.round(2).tolist():
            if any(event.start <= seconds <= event.end for event in person.events):
                rows.setdefault(seconds, set()).add((*corners, person.events[0].action))
    return rows


def written(out: str) -> dict[float, set[tuple[Any, ...]]]:
    return {
        row["timestamp"]: {
            (*corners, *actions)
            for corners, actions in zip(row["boxes"], row["labels"], strict=True)
        }
        for row in content("train", out)["keyframes"]
        if row["boxes"]
    }


@pytest.mark.parametrize("kind", ["cvat", "result"])
def test_what_stclip_detect_wrote_comes_back(here: Path, kind: str) -> None:
    film("party.mp4")
    if kind == "cvat":
        (path,) = export(footage(), "cvat", here)
    else:
        path = here / "result.json"
        write_result(path, footage())
    convert(path, "--videos", "videos", "--out", "mine", "--every", 1)
    assert written("mine") == expected(footage())
    assert yaml.safe_load(Path("mine/config.yaml").read_text())["DATASETS"] == {
        "TRAIN": "mine/train.json"  # one film cannot be split
    }


def test_ava_comes_back(here: Path) -> None:
    film("party.mp4")
    table, _ = export(footage(), "ava", here)
    with table.open("a") as file:  # what a person added: the second one walks too
        file.write("party,0003,0.703,0.062,0.859,0.703,1,2\n")
    convert(table, "--videos", "videos", "--out", "mine")
    found = content("train")["keyframes"]
    assert [row["timestamp"] for row in found] == [0, 1, 2, 3]
    assert found[1]["labels"] == [["walk"], ["wave"]]
    np.testing.assert_allclose(found[1]["boxes"][0], [20, 2, 40, 30], atol=0.1)
    np.testing.assert_allclose(found[3]["boxes"], [[90, 2, 110, 22.5]], atol=0.1)
    assert found[3]["labels"] == [["wave", "walk"]]
    assert Path("mine/all_group.txt").read_text() == "object\nobject\n"


def test_a_video_may_be_called_like_a_share(here: Path) -> None:
    for name in ("1", "2"):
        film(f"{name}.mp4")
        write(
            here / f"{name}.xml", task(f"{name}.mp4", SIZE), track(box(A, {}, frame=0, keyframe=1))
        )
    convert("1.xml", "2.xml", "--videos", "videos", "--out", "mine", "--test", "1")
    assert [[row["id"] for row in content(p)["videos"]] for p in ("train", "test")] == [
        ["2"],
        ["1"],
    ]


def test_people_and_frames_that_are_used(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = annotate("a.mp4", "walk", "none", "stand", "__undefined__")
    convert(path, "--videos", "videos", "--out", "mine", "--ignore", "stand")
    found = content("train")["keyframes"]
    assert [row["timestamp"] for row in found] == [n / 2 for n in range(8)]  # half seconds
    assert [row["labels"] for row in found] == [[["walk"]]] * 8
    assert content("train")["videos"] == [
        {"id": "a", "path": str(here / "videos/a.mp4"), "size": list(SIZE), "fps": 10.0}
    ]
    text = capsys.readouterr().out
    assert "left out: 8 boxes of --ignore\nleft out: 16 boxes without an action\n" in text
    with pytest.raises(UserError, match=r"mine/train\.json: exists already"):
        convert(path, "--videos", "videos", "--out", "mine")
    convert(path, "--videos", "videos", "--out", "videos", "--every", 30)
    assert [row["timestamp"] for row in content("train", "videos")["keyframes"]] == [0, 3]
    assert content("train", "videos")["videos"][0]["path"] == "a.mp4"  # moves with the folder


def test_boxes_end_at_the_edge_of_the_picture(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    film("a.mp4")
    boxes = (
        box(corners, frame=frame, keyframe=1)
        for frame, corners in ((0, (-9, -9, 20, 99)), (1, (130, 0, 150, 9)))
    )
    path = write(
        here / "a.xml", task("a.mp4", SIZE, inside=labels(walk={})), track(*boxes, label="walk")
    )
    convert(path, "--videos", "videos", "--out", "mine", "--every", 1)
    assert [row["boxes"] for row in content("train")["keyframes"]] == [[[0, 0, 20, 32]], []]
    assert "left out: 1 boxes outside of the picture" in capsys.readouterr().out


def test_splits(here: Path) -> None:
    shown = {
        "a": ("walk", "run"),
        "b": ("walk",),
        "c": ("run",),
        "d": ("walk", "wave"),
        "e": ("run",),
    }
    paths = [annotate(f"{name}.mp4", *actions) for name, actions in shown.items()]
    # Nobody of interest is there, so nothing can be tested: its name would come first.
    paths.append(annotate("n.mp4", "none"))
    given = ("--videos", "videos", "--out", "mine")

    def split(*words: object) -> tuple[list[str], list[str]]:
        shutil.rmtree("mine", ignore_errors=True)
        convert(*paths, *given, *words)
        return videos("train"), videos("test")

    train, test = split()
    assert len(test) == 2
    assert not {"d", "n"} & set(test)  # wave must be trained, and nobody of n can be tested
    assert sorted([*train, *test]) == list("abcden")
    assert names("train") == names("test") == names("all") == ["run", "walk", "wave"]
    paths.reverse()
    assert split() == (train, test)
    assert len(split("--test", 0.4)[1]) == 2
    assert split("--test", "b", "c.mp4") == (["a", "d", "e", "n"], ["b", "c"])
    assert split("--test", 0) == (list("abcden"), [])
    assert split("--test", 1) == ([], list("abcden"))
    assert split("--unseen", "wave") == (["a", "b", "c", "e", "n"], ["d"])
    assert (names("train"), names("test")) == (["run", "walk"], ["wave"])


def test_one_film_in_several_exports_and_parts(here: Path) -> None:
    """Two jobs of one film, each named after it."""
    film("a.mp4")
    for name, frame in (("a.xml", 0), ("A/a.xml", 20)):
        Path(name).parent.mkdir(exist_ok=True)
        person = track(box(A, frame=frame, keyframe=1), label="walk")
        write(Path(name), f"<job>{labels(walk={})}</job>", person)
    convert("a.xml", "A/a.xml", "--videos", "videos/a.mp4", "--out", "mine")
    assert [row["timestamp"] for row in content("train")["keyframes"]] == [0, 2]


def test_pictures(here: Path) -> None:
    write_frames(here / "pictures" / "party", 4)
    walk = box((2, 2, 20, 20), label="walk")
    image = f'<image id="0" name="party/00003.png" width="40" height="30">{walk}</image>'
    path = write(here / "a.xml", task("", None, inside=labels(walk={})), image)
    convert(path, "--videos", "pictures", "--fps", 5, "--out", "mine")
    assert content("train")["keyframes"][0]["timestamp"] == 0.4
    assert content("train")["videos"][0]["fps"] == 5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--unseen", "wawe"], "--unseen wawe: nobody does that; did you mean 'wave'"),
        (["--fps", "0"], "--fps 0: frames a second, above 0"),
        (["--poses", "fly"], "--poses fly: nobody does that"),
        (["--test", "z"], "--test z: no such video; choices: .*a"),
        (["--unseen", "walk"], "every video shows an action of --unseen"),
        (["--unseen", "walk", "wave", "--test", "b"], "nobody is left to train on"),
        (["--unseen", "wave", "--test", "b"], "no test video shows wave"),
        (["--unseen", "wave", "--test", "0"], "no test video shows wave"),
        (["--test", "0.5", "--ignore", "walk"], "each video shows an action that no other"),
        (["--ignore", "walk", "wave", "run"], "no box has an action that is wanted"),
        (["--videos", "nowhere"], "--videos nowhere: there is no such file"),
        (["--videos", "."], r"a\.zip: its video 'a\.mp4' or 'a task' is not in \.; --videos names"),
    ],
)
def test_mistakes_of_the_command_line(here: Path, words: list[str], message: str) -> None:
    paths = [annotate("a.mp4", "walk", "wave"), annotate("b.mp4", "walk", "run")]
    place = [] if "--videos" in words else ["--videos", "videos"]
    with pytest.raises(UserError, match=message):
        convert(*paths, *place, "--out", "mine", *words)
    assert not Path("mine").exists()


def test_videos_that_do_not_fit(here: Path) -> None:
    path = annotate("a.mp4", "walk")
    film("long.mp4", 50)
    film("short.mp4", 20)
    write_frames(here / "videos" / "small", 3)
    convert(path, "--videos", "videos/long.mp4", "--out", "mine")  # it was renamed
    late = write(
        here / "late.xml", task("a.mp4", SIZE, inside=labels(walk={})),
        track(box(A, frame=30, keyframe=1), label="walk"),
    )  # fmt: skip
    for files, words in (
        (
            (late, "--videos", "videos/short.mp4"),
            "late.xml: track 3, frame 30 of the video: .* has 20",
        ),
        ((path, "--videos", "videos/small"), r"\[128, 32\] .* but .*small is \[40, 30\]"),
        ((path, "--videos", "videos", "other"), "a.mp4' may be videos/a.mp4 or other/a.mp4"),
        (("a.mp4",), r"a\.mp4: \.xml or \.zip of CVAT"),
    ):
        Path("other").mkdir(exist_ok=True)
        shutil.copy("videos/a.mp4", "other/a.mp4")
        with pytest.raises(UserError, match=words):
            convert(*files, "--out", "more")
    with pytest.raises(UserError, match=r"ava\.csv: ava_action_list\.pbtxt .* is not beside it"):
        convert("ava.csv", "--out", "more")
    (here / "ava_action_list.pbtxt").write_text("label { name: 'walk' label_id: 1 }")
    (here / "ava.csv").write_text("party,0005,0.1,0.1,0.5,0.5,1,1\n")
    with pytest.raises(UserError, match=r"party, second 5: videos/a\.mp4 ends after 4\.00"):
        convert("ava.csv", "--videos", "videos/a.mp4", "--out", "more")


@pytest.mark.slow
def test_several_actions_a_person(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kinds = {"pose": "select", "talk": "checkbox"}
    for name, pose in (("a", "walk"), ("b", "sit")):
        film(f"{name}.mp4")
        values = {"pose": pose, "talk": "true"}
        write(
            here / f"{name}.xml", task(f"{name}.mp4", SIZE, inside=labels(person=kinds)),
            track(box(A, values, frame=3, keyframe=1), box(A, frame=9, keyframe=1, outside=1)),
        )  # fmt: skip
    given = ("a.xml", "b.xml", "--videos", "videos", "--actions-from", "pose", "talk")
    convert(*given, "--out", "more", "--test", "b")
    assert "--poses names actions that exclude each other" in capsys.readouterr().out
    convert(*given, "--out", "mine", "--poses", "walk", "sit", "--unseen", "sit")
    assert Path("mine/all_group.txt").read_text() == "pose\nobject\npose\n"
    assert run("validate", "--decode", "all") == 0
    assert run("train", "SOLVER.MAX_ITER", "2", "SOLVER.VIDEOS_PER_BATCH", "2") == 0
    assert run("test", "MODEL.WEIGHT", "output/mine/model_0000002.pth") == 0
    found = json.loads(Path("output/mine/inference/annotations/metrics.json").read_text())
    assert {"frame_mAP@0.5", "frame_mAP_seen@0.5"} <= set(found)


def run(command: str, *words: str) -> int:
    sparing = ("DATALOADER.NUM_WORKERS", "0", "MODEL.DEVICE", "cpu", "MODEL.CLIP", "puppet")
    given = ("--config-file", "mine/config.yaml", *words, *sparing)
    return load_command(command).main(list(given)) or 0
