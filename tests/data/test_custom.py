import json
import logging

import numpy as np
import pytest

from stclip.config.defaults import get_cfg_defaults
from stclip.data import (
    build_dataset,
    build_test_loader,
    build_train_loader,
)
from stclip.data.custom import open_annotations, read_annotations
from stclip.data.labels import Labels
from stclip.errors import UserError
from stclip.structures import Needs
from tests.data.make import write_frames, write_video


def content():
    return {
        "labels": ["run", {"name": "sit", "group": "pose"}, "wave"],
        "videos": [
            {"id": "v2", "path": "clips/v2.mp4", "size": [128, 32], "fps": 25},
            {"id": "v1", "path": "frames/v1", "size": [40, 30], "fps": 10.0, "note": "kept"},
            {"id": "v3", "path": "frames/v3", "size": [40, 30], "fps": 10},
        ],
        "keyframes": [
            {"video": "v1", "timestamp": 0.5, "boxes": [[1, 2, 30, 28], [0, 0, 9.5, 9]],
             "labels": [["sit"], ["run"]], "id": 7},
            {"video": "v1", "timestamp": 0.2, "boxes": [[1, 2, 30, 28]], "labels": [["run"]]},
            {"video": "v2", "timestamp": 0.4, "boxes": [[1, 2, 100, 30]], "labels": [["wave"]]},
            {"video": "v2", "timestamp": 0.0, "id": "start"},
        ],
    }  # fmt: skip


def write(tmp_path, value):
    path = tmp_path / "a.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


@pytest.fixture
def dataset(tmp_path):
    (tmp_path / "clips").mkdir()
    write_video(tmp_path / "clips" / "v2.mp4", range(30, 60))
    write_frames(tmp_path / "frames" / "v1", 8)
    write_frames(tmp_path / "frames" / "v3", 3)
    write(tmp_path, content())
    (tmp_path / "all.txt").write_text("run\nsit\nwave\n")
    (tmp_path / "seen.txt").write_text("sit\nrun\n")
    (tmp_path / "unseen.txt").write_text("wave\n")
    cfg = get_cfg_defaults()
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = str(tmp_path / "a.json")
    cfg.ALL_LABEL = str(tmp_path / "all.txt")
    cfg.TRAIN_LABEL = str(tmp_path / "seen.txt")
    cfg.TEST_LABEL = str(tmp_path / "unseen.txt")
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.TEST.BOXES = "ground_truth"
    return tmp_path, cfg


def test_reading(tmp_path):
    file = read_annotations(write(tmp_path, content()))
    assert file.labels == ("run", "sit", "wave")
    assert file.groups == {"sit": "pose"}
    assert file.videos["v1"].path == tmp_path / "frames" / "v1"
    assert (file.videos["v2"].size, file.videos["v2"].fps) == ((128, 32), 25.0)
    first, _, _, last = file.keyframes
    assert (first.video, first.timestamp, first.id) == ("v1", 0.5, 7)
    assert first.boxes.dtype == np.float32
    assert first.labels == (("sit",), ("run",))
    assert (last.boxes.shape, last.labels) == ((0, 4), ())
    assert file.video_labels() == {"v1": {"run", "sit"}, "v2": {"wave"}, "v3": set()}


@pytest.mark.parametrize(
    ("table", "change", "message"),
    [
        ("labels", "run", r"labels\[1\]: 'run': a unique name"),
        ("labels", 5, r"labels\[1\]: 5: a unique name"),
        ("labels", {"group": "pose"}, r"labels\[1\]: None: a unique name"),
        ("videos", {"id": "v2"}, r"videos\[1\]: id 'v2' occurs twice"),
        ("videos", {"id": 5}, r"videos\[1\]: id 5: a text"),
        ("videos", {"id": "v\0"}, r"videos\[1\]: id 'v\\x00': a text without control characters"),
        ("videos", {"id": "é" * 120}, r"videos\[1\]: id .* has 120 characters; .* shorter"),
        ("videos", {"path": "a\nb"}, r"videos\[1\]: path 'a\\nb': a text without control"),
        ("videos", {"path": ""}, r"videos\[1\]: path '': a text"),
        ("videos", {"size": [40.5, 30]}, r"videos\[1\]: size \[40\.5, 30\]"),
        ("videos", {"size": 40}, r"videos\[1\]: size 40"),
        ("videos", {"fps": 0}, r"videos\[1\]: fps 0"),
        ("videos", {"fps": None}, r"videos\[1\]: fps None"),
        ("keyframes", {"video": "v9"}, r"keyframes\[1\]: video 'v9' is not the id"),
        ("keyframes", {"timestamp": -1}, r"keyframes\[1\]: timestamp -1"),
        ("keyframes", {"timestamp": "1"}, r"keyframes\[1\]: timestamp '1'"),
        ("keyframes", {"boxes": 5}, r"keyframes\[1\]: boxes 5: a list"),
        ("keyframes", {"boxes": [[1, 2, 3]]}, r"keyframes\[1\]: box \[1, 2, 3\]: numbers"),
        ("keyframes", {"boxes": [[5, 2, 3, 9]]}, r"keyframes\[1\]: box .*: x2 > x1"),
        ("keyframes", {"labels": []}, r"keyframes\[1\]: labels: a list for each of the 1 boxes"),
        ("keyframes", {"labels": ["run"]}, r"keyframes\[1\]: labels 'run': a list of names"),
        ("keyframes", {"labels": [["rum"]]}, r"keyframes\[1\]: label 'rum' is not among"),
        ("keyframes", {"id": 1.5}, r"keyframes\[1\]: id 1\.5"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, table, change, message):
    value = content()
    if table == "labels":
        value[table][1] = change
    else:
        value[table][1].update(change)
    path = write(tmp_path, value)
    with pytest.raises(UserError, match=message) as error:
        read_annotations(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_files_that_are_something_else(tmp_path):
    for value, message in (
        ([], "a JSON object with"),
        ({"labels": [], "videos": []}, "'keyframes' is missing"),
        (json.dumps(content())[:200], "not valid JSON"),
        ({**content(), "videos": ["v1"]}, r"videos\[0\]: id None"),
        ({**content(), "keyframes": [5]}, r"keyframes\[0\]: video None"),
    ):
        with pytest.raises(UserError, match=message):
            read_annotations(write(tmp_path, value))


def test_training_keyframes(dataset):
    _, cfg = dataset
    built = build_dataset(cfg, "train")
    assert built.name == "annotations"
    assert list(built.videos) == ["v1"]
    assert [(k.key, k.labels) for k in built.keyframes] == [
        (("v1", 3), (("run",),)),
        (("v1", 6), (("sit",), ("run",))),
    ]


def test_test_keyframes_and_frames_by_time(dataset):
    _, cfg = dataset
    built = build_dataset(cfg, "test")
    # v3 has no labels, so it may be scored; nothing asks for one of its frames.
    assert list(built.videos) == ["v2", "v3"]
    assert [k.key for k in built.keyframes] == [("v2", 1), ("v2", 11)]


def test_detections_make_keyframes(dataset):
    tmp_path, cfg = dataset
    rows = [
        ("v2", 0.4, 0.9), ("v2", 0.401, 0.8), ("v2", 1.16, 0.7), ("v3", 0.2, 0.6), ("v1", 0, 0.5),
    ]  # fmt: skip
    path = tmp_path / "d.jsonl"
    path.write_text(
        "\n".join(
            json.dumps({"video": v, "timestamp": t, "box": [1, 2, 30, 25], "score": s})
            for v, t, s in rows
        )
    )
    cfg.TEST.BOXES = "detected"
    with pytest.raises(UserError, match=r"^DATASETS\.DETECTIONS: is empty"):
        build_dataset(cfg, "test")
    cfg.DATASETS.DETECTIONS = str(path)
    built = build_dataset(cfg, "test")
    assert [k.key for k in built.keyframes] == [("v2", 1), ("v2", 11), ("v2", 30), ("v3", 3)]
    assert built.proposals["v2", 11].scores.tolist() == pytest.approx([0.9, 0.8])
    batches = list(build_test_loader(cfg, built, Needs(32, 9)))
    assert [len(batch.boxes) for batch in batches] == [3, 1]
    for row, message in (
        ({"video": "v3", "timestamp": 0.3}, "video 'v3' has 3 frames at 10 a second, so none"),
        ({"video": "v3", "frame": 4}, "video 'v3' has no frame 4, only 3"),
        ({"video": "v4", "frame": 4}, "video 'v4' is unknown"),
    ):
        path.write_text(json.dumps({**row, "box": [1, 2, 30, 25], "score": 1}))
        with pytest.raises(UserError, match=r"d\.jsonl: line 1: " + message):
            build_dataset(cfg, "test")


def test_detections_by_image_id(dataset):
    tmp_path, cfg = dataset
    cfg.TEST.BOXES = "detected"
    cfg.DATASETS.DETECTIONS = str(tmp_path / "d.json")
    rows = [{"image_id": id_, "bbox": [1, 2, 3, 4], "score": "0.5"} for id_ in ("start", 7)]
    (tmp_path / "d.json").write_text(json.dumps(rows))
    assert list(build_dataset(cfg, "test").proposals) == [("v2", 1)]
    rows[0]["image_id"] = "end"
    (tmp_path / "d.json").write_text(json.dumps(rows))
    with pytest.raises(UserError, match=r"row 1: image_id 'end' is unknown: .*a\.json"):
        build_dataset(cfg, "test")


def test_a_video_without_any_ground_truth(dataset):
    tmp_path, cfg = dataset
    write(tmp_path, {**content(), "keyframes": []})
    (tmp_path / "d.jsonl").write_text('{"video":"v3","frame":2,"box":[1,2,9,9],"score":1}')
    cfg.TEST.BOXES = "detected"
    cfg.DATASETS.DETECTIONS = str(tmp_path / "d.jsonl")
    (batch,) = build_test_loader(cfg, build_dataset(cfg, "test"), Needs(32, 9))
    assert batch.keys == (("v3", 2),)


def test_training_needs_exactly_one_label_a_box(dataset):
    tmp_path, cfg = dataset
    for names in (["sit", "run"], []):
        value = content()
        value["keyframes"][0]["labels"][0] = names
        write(tmp_path, value)
        with pytest.raises(UserError, match="TRAIN_LABEL: box 1 of frame 6 of video v1 has") as e:
            build_dataset(cfg, "train")
        assert "\n" not in str(e.value)
        assert ("ALL_GROUP, with which a box may have several" in str(e.value)) == bool(names)


def test_persons_who_do_something_unseen_are_not_trained_on(dataset, caplog):
    tmp_path, cfg = dataset
    value = content()
    first, second = value["keyframes"][:2]
    first["labels"] = [["wave"], ["run"]]
    second["labels"] = [["wave"]]
    write(tmp_path, value)
    with caplog.at_level(logging.INFO):
        built = build_dataset(cfg, "train")
    assert [(k.key, k.boxes.tolist(), k.labels) for k in built.keyframes] == [
        (("v1", 6), [[0, 0, 9.5, 9]], (("run",),))  # frame 3 has nobody left
    ]
    (record,) = (r for r in caplog.records if r.name == "stclip.data.build")
    assert record.getMessage().startswith("TRAIN_LABEL: 2 of 3 person boxes")
    tested = build_dataset(cfg, "test").keyframes
    assert [k.labels for k in tested if k.key.video == "v1"] == [
        (("wave",),),
        (("wave",), ("run",)),
    ]


@pytest.fixture
def several(dataset):
    """Five labels in three groups; box 1 of frame 6 has four of them, box 2 an unseen one."""
    tmp_path, cfg = dataset
    value = content()
    value["labels"] += [{"name": "hold", "group": "object"}, {"name": "talk", "group": "person"}]
    value["keyframes"][0]["labels"] = [["talk", "sit", "hold", "run"], ["run", "wave"]]
    write(tmp_path, value)
    (tmp_path / "all.txt").write_text("run\nsit\nwave\nhold\ntalk\n")
    (tmp_path / "group.txt").write_text("pose\npose\nperson\nobject\nperson\n")
    (tmp_path / "seen.txt").write_text("sit\nhold\nrun\n")
    cfg.ALL_GROUP = str(tmp_path / "group.txt")
    return tmp_path, cfg


def test_several_labels_a_box(several):
    _, cfg = several
    assert Labels.read(cfg, "train").groups == {
        "run": "pose", "sit": "pose", "wave": "person", "hold": "object", "talk": "person"
    }  # fmt: skip
    built = build_dataset(cfg, "train")
    # talk is no label of the vocabulary, and the person with the unseen wave is left out.
    assert [(k.key, k.labels) for k in built.keyframes] == [
        (("v1", 3), (("run",),)),
        (("v1", 6), (("sit", "hold", "run"),)),
    ]
    cfg.SOLVER.MAX_ITER, cfg.SOLVER.VIDEOS_PER_BATCH = 1, 2
    (batch,) = build_train_loader(cfg, built, Labels.read(cfg, "train"), Needs(16, 9))
    targets = dict(zip(batch.keys, batch.labels.tolist(), strict=True))
    assert targets == {("v1", 3): [0, 0, 1], ("v1", 6): [1, 1, 1]}


def test_a_box_without_any_label_is_an_error_with_groups_too(several):
    tmp_path, cfg = several
    value = content()
    value["keyframes"][0]["labels"][0] = []
    write(tmp_path, value)
    with pytest.raises(UserError, match=r"box 1 of frame 6 .* 0 of its labels .*at least one"):
        build_dataset(cfg, "train")


def test_without_a_test_vocabulary_nothing_is_unseen(several):
    _, cfg = several
    cfg.TEST_LABEL = ""
    built = build_dataset(cfg, "train")
    assert built.keyframes[1].labels == (("sit", "hold", "run"), ("run",))


def test_nobody_left_to_train_on(several):
    tmp_path, cfg = several
    value = content()
    value["keyframes"][:2] = [{**value["keyframes"][1], "labels": [["run", "wave"]]}]
    write(tmp_path, value)
    with pytest.raises(UserError, match="each of the 1 person boxes has a label that is only in"):
        build_dataset(cfg, "train")


def test_groups_that_disagree(several):
    tmp_path, cfg = several
    (tmp_path / "group.txt").write_text("pose\nobject\nperson\nobject\nperson\n")
    message = r"a\.json: label 'sit' has the group 'pose', but ALL_GROUP says 'object'"
    for part in ("train", "test"):
        with pytest.raises(UserError, match=message):
            build_dataset(cfg, part)
    cfg.ALL_GROUP = ""
    assert Labels.read(cfg, "train").groups is None
    assert build_dataset(cfg, "test").keyframes


def test_generalised_tests_look_at_all_videos_of_all_labels(dataset, caplog):
    _, cfg = dataset
    assert Labels.read(cfg, "test").vocabulary("test") == ["wave"]
    cfg.TEST.GENERALIZED = True
    assert Labels.read(cfg, "test").vocabulary("test") == ["run", "sit", "wave"]
    assert list(build_dataset(cfg, "test").videos) == ["v1", "v2", "v3"]
    # Training is as ever.
    assert list(build_dataset(cfg, "train").videos) == ["v1"]
    with open(cfg.ALL_LABEL, "a") as file:
        file.write("jump\n")
    caplog.clear()
    build_dataset(cfg, "test")
    assert "ALL_LABEL: no video of jump" in caplog.text


def test_labels_outside_all_labels(dataset):
    tmp_path, cfg = dataset
    (tmp_path / "all.txt").write_text("sit\nrun\nwav\n")
    (tmp_path / "unseen.txt").write_text("wav\n")
    with pytest.raises(UserError, match=r"a\.json: label 'wave' is not in ALL_LABEL; .*'wav'"):
        build_dataset(cfg, "test")


@pytest.mark.parametrize(
    ("table", "index", "change", "message"),
    [
        (
            "videos",
            0,
            {"size": [32, 128]},
            r"'v2' has size \[32, 128\], but .* is 128 wide and 32 .* write \[128, 32\]",
        ),
        ("videos", 1, {"path": "frames/v9"}, "video 'v1': .*v9: neither a folder"),
        ("keyframes", 1, {"timestamp": 0.8}, "video 'v1' has 8 frames at 10 a second, so none"),
        ("keyframes", 1, {"timestamp": 0.52}, "frame 6 of video v1 is annotated twice"),
    ],
)
def test_what_does_not_fit_the_videos_is_named(dataset, table, index, change, message):
    tmp_path, _ = dataset
    value = content()
    value[table][index].update(change)
    with pytest.raises(UserError, match=message) as error:
        open_annotations(read_annotations(write(tmp_path, value)))
    assert "\n" not in str(error.value)


def test_missing_frames_are_counted(dataset):
    tmp_path, _ = dataset
    for number in (2, 5):
        (tmp_path / "frames" / "v1" / f"{number:05d}.png").unlink()
    with pytest.raises(UserError, match="video 'v1': 2 frames are missing, the first is frame 2"):
        open_annotations(read_annotations(tmp_path / "a.json"))
