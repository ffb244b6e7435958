import json
import logging
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from stclip.config import load_config
from stclip.data import build_dataset
from stclip.data.annotations import Request
from stclip.data.custom import build_custom
from stclip.data.jhmdb import CLASSES
from stclip.data.labels import Labels, read_label_file
from stclip.errors import UserError
from stclip.puppet.draw import dataset
from stclip.puppet.draw.camera import Camera
from stclip.puppet.draw.dataset import draw_puppet
from stclip.puppet.draw.multi import LABELS
from tests.helpers import REPOSITORY, load_command

SPLITS = REPOSITORY / "data" / "label_splits"


class Blocks:
    """A scene of coloured blocks, for what does not depend on the drawing."""

    def __init__(self, rng, actions, frames, look="benchmark", apart=False):
        self.colour = tuple(int(256 * rng.random()) for _ in range(3))
        self.actions, self.frames, self.apart = tuple(actions), frames, apart

    def draw(self, frame):
        picture = Image.new("RGB", (160, 120), self.colour)
        boxes = [(30 * n + frame // 8, 20, 30 * n + 20, 100) for n in range(len(self.actions))]
        for box in boxes:
            picture.paste((frame, 0, 0), box)
        return picture, boxes


@pytest.fixture
def blocks(monkeypatch):
    monkeypatch.setattr(dataset, "plan_scene", Blocks)


def draw(folder, **options):
    options = {"train_clips": 2, "test_clips": 1, "workers": 1, **options}
    return draw_puppet(folder, label_splits=SPLITS, **options)


@pytest.fixture(scope="module")
def puppet(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "puppet"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset, "plan_scene", Blocks)
        draw(folder)
    return folder


def truth(folder, part):
    return json.loads((folder / "annotations" / f"jhmdb_{part}_gt_min.json").read_text())


def config(puppet, split, *pairs):
    return load_config(
        REPOSITORY / "configs" / "puppet" / f"split_{split}.yaml",
        [
            "DATASETS.DATA_DIR", str(puppet.parent),
            "TRAIN_VIDEO", str(puppet / f"lists/split_{split}_train_seen.txt"),
            "TEST_VIDEO", str(puppet / f"lists/split_{split}_test_unseen.txt"),
            *pairs,
        ],
    )  # fmt: skip


def test_the_files_agree_with_one_another(puppet):
    facts = json.loads((puppet / "puppet.json").read_text())
    ids, boxes = set(), 0
    for part, videos in (("train", 42), ("test", 21)):
        content = truth(puppet, part)
        assert len({image["movie"] for image in content["images"]}) == videos
        for image in content["images"]:
            assert image["id"] not in ids
            ids.add(image["id"])
            assert (puppet / "videos" / image["img_path"]).is_file()
        names = {image["id"]: image["movie"].rpartition("_")[0] for image in content["images"]}
        for row in content["annotations"]:
            if row["person_id"] == 1:
                assert CLASSES[row["action_ids"][0] - 1] == names[row["image_id"]]
        boxes += len(content["annotations"])
    assert len(ids) == facts["frames"] == len(list((puppet / "videos").rglob("*.png")))
    assert boxes == facts["boxes"] > facts["frames"]
    assert read_label_file(puppet / "annotations" / "all_label.txt") == list(CLASSES)

    rows = json.loads((puppet / "jhmdb_faster_RCNN_person.json").read_text())
    tested = {image["id"] for image in truth(puppet, "test")["images"]}
    assert {row["image_id"] for row in rows} < tested  # nobody is found in some frames
    assert all(isinstance(row["score"], str) for row in rows)
    by_image = {}
    for row in rows:
        by_image.setdefault(row["image_id"], []).append(float(row["score"]))
    assert all(scores == sorted(scores, reverse=True) for scores in by_image.values())


@pytest.mark.parametrize("split", [1, 2, 3, 4])
def test_a_split_trains_on_seen_actions_only(puppet, split, caplog):
    cfg = config(puppet, split)
    with caplog.at_level(logging.INFO):
        train, test = build_dataset(cfg, "train"), build_dataset(cfg, "test")
    seen, unseen = read_label_file(cfg.TRAIN_LABEL), read_label_file(cfg.TEST_LABEL)
    assert train.name == test.name == "puppet"
    assert (len(train.videos), len(test.videos)) == (30, 6)
    assert {video.split("/")[0] for video in train.videos} == set(seen)
    assert {video.split("/")[0] for video in test.videos} == set(unseen)
    assert {name for k in train.keyframes for (name,) in k.labels} == set(seen)
    in_test = {name for k in test.keyframes for (name,) in k.labels}
    assert in_test & set(seen)  # others do seen actions beside them
    assert test.proposals is not None
    (line,) = (r.getMessage() for r in caplog.records)
    assert "person boxes have none of its labels" in line


def test_lists_are_the_videos_of_the_main_action(puppet):
    lists = {path.stem: path.read_text().split() for path in (puppet / "lists").iterdir()}
    assert len(lists) == 18
    for split in (1, 2, 3, 4):
        for part, clips in (("train", 2), ("test", 1)):
            seen, unseen = (lists[f"split_{split}_{part}_{kind}"] for kind in ("seen", "unseen"))
            assert (len(seen), len(unseen)) == (15 * clips, 6 * clips)
            assert not set(seen) & set(unseen)
    assert lists["split_1_test_unseen"] == [
        f"{name}_5001" for name in ("catch", "clap", "pullup", "sit", "throw", "wave")
    ]
    assert {name[:-5] for name in lists["time_test"]} == set(
        read_label_file(SPLITS / "puppet" / "time.txt")
    )


def test_multi_loads_as_annotations(puppet):
    for part in ("train", "test"):
        detections = str(puppet / "detections_test.jsonl") if part == "test" else None
        labels = Labels(tuple(LABELS), train=tuple(LABELS), test=tuple(LABELS))
        path = str(puppet / f"annotations_{part}.json")
        built = build_custom(Request(path, part, labels, detections=detections))
        assert len(built.videos) == (42 if part == "train" else 21)
        assert all(k.key.frame % 5 == 3 for k in built.keyframes)
        frames = truth(puppet, part)
        places = {
            image["id"]: (image["movie"], int(image["timestamp"])) for image in frames["images"]
        }
        rows = {}
        for row in frames["annotations"]:
            rows.setdefault(places[row["image_id"]], []).append(row)
        for keyframe in built.keyframes:
            same = rows[keyframe.key.video, keyframe.key.frame]
            assert keyframe.boxes.tolist() == [row["bbox"] for row in same]
            for names, row in zip(keyframe.labels, same, strict=True):
                assert CLASSES[row["action_ids"][0] - 1] in names
                assert len(names) >= 1
        assert (built.proposals is None) == (part == "train")


@pytest.mark.slow
def test_equal_arguments_give_equal_files(puppet, tmp_path, blocks):
    again = draw(tmp_path / "again")
    files = sorted(path.relative_to(puppet) for path in puppet.rglob("*") if path.is_file())
    for path in files:
        assert (tmp_path / "again" / path).read_bytes() == (puppet / path).read_bytes()
    assert files == sorted(
        path.relative_to(tmp_path / "again")
        for path in (tmp_path / "again").rglob("*")
        if path.is_file()
    )
    other = draw(tmp_path / "other", seed=1)
    fewer = draw(tmp_path / "fewer", train_clips=1, test_clips=0)
    sums = {facts["pixels_sha256"] for facts in (again, other, fewer)}
    assert len(sums) == 3
    for name in ("walk_0001", "clap_0001"):
        first = tmp_path / "fewer" / "videos" / name / "00001.png"
        assert first.read_bytes() == (puppet / "videos" / name / "00001.png").read_bytes()


@pytest.mark.slow
def test_settings_reach_the_drawing(tmp_path, monkeypatch):
    scenes = []

    def plan(*arguments, **options):
        scenes.append(Blocks(*arguments, **options))
        return scenes[-1]

    monkeypatch.setattr(dataset, "plan_scene", plan)
    for setting, people, apart in (("crowd", {4, 5}, False), ("context", {1, 2}, True)):
        scenes.clear()
        draw(tmp_path / setting, setting=setting, train_clips=0)
        assert {len(scene.actions) for scene in scenes} == people
        assert {scene.apart for scene in scenes} == {apart}


@pytest.mark.slow
@pytest.mark.usefixtures("blocks")
def test_a_camera_films_the_scene(tmp_path):
    folders = [tmp_path / name / "puppet_camera" for name in ("a", "b")]
    first, second = (draw(folder, setting="camera", train_clips=1) for folder in folders)
    assert first["pixels_sha256"] == second["pixels_sha256"]
    pictures = sorted((folders[0] / "videos").rglob("*.*"))
    assert {path.suffix for path in pictures} == {".jpg"}
    assert [p.read_bytes() for p in pictures] == [
        p.read_bytes() for p in sorted((folders[1] / "videos").rglob("*.*"))
    ]
    content = json.loads((folders[0] / "annotations/jhmdb_test_gt_min.json").read_text())
    assert all((folders[0] / "videos" / i["img_path"]).is_file() for i in content["images"])


def test_what_a_camera_does():
    clean = Image.new("RGB", (160, 120), (180, 60, 60))
    clean.paste((20, 20, 20), (60, 40, 100, 120))
    camera = Camera(
        gains=(1.2, 1.0, 0.8), gamma=1.0, contrast=0.8, saturation=0.5, scale=0.5, blur=1.0,
        vignette=0.4, noise=5.0, quality=40, seed=3,
    )  # fmt: skip
    first, again, next_frame = (np.asarray(camera.film(clean, n), dtype=float) for n in (0, 0, 1))
    assert (first == again).all()
    assert 4 < (next_frame - first).std() < 10  # the difference of two noises of 5, some cut off
    still = replace(camera, noise=0.0)
    picture = np.asarray(still.film(clean, 0), dtype=float)
    assert picture[2, 2].mean() < 0.75 * picture[20, 80].mean()  # vignette
    spread = np.ptp(np.asarray(clean, dtype=float)[20, 80])
    assert np.ptp(picture[20, 80]) < spread  # less colour, though red is stronger than blue
    edge = picture[80, 52:68].mean(axis=-1)
    assert (np.abs(np.diff(edge)) > 2).sum() >= 4  # blurred over several pixels
    assert len(still.compress(clean)) < len(replace(still, quality=90).compress(clean))


def test_a_folder_is_whole_or_absent(tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(dataset, "plan_scene", fail)
    with pytest.raises(KeyboardInterrupt):
        draw(tmp_path / "puppet")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "puppet").mkdir()
    with pytest.raises(UserError, match=r"puppet exists already; remove it"):
        draw(tmp_path / "puppet")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write here"):
        draw(tmp_path / "file" / "puppet")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"setting": "crowds"}, "'crowds' is unknown; did you mean 'crowd'"),
        ({"train_clips": -1}, "train_clips: a number from 0 to 4999 expected, found -1"),
        ({"test_clips": 5000}, "test_clips: a number from 0 to 4999"),
        ({"train_clips": 0, "test_clips": 0}, "nothing to draw"),
        ({"workers": 0}, "workers: a number above 0 expected, found 0"),
    ],
)
def test_wrong_arguments(tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        draw(tmp_path / "puppet", **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_command_says_what_it_drew(tmp_path, blocks, capsys):
    out = tmp_path / "puppet"
    words = ["--out", str(out), "--train-clips", "1", "--test-clips", "1", "--workers", "1"]
    load_command("draw_puppet").main(words)
    printed = capsys.readouterr().out
    facts = json.loads((out / "puppet.json").read_text())
    assert printed.startswith(f"{out}: setting standard, 21 classes, 21 training and 21 test clips")
    assert f"{facts['frames']:,} frames" in printed
    assert facts["pixels_sha256"] in printed


def test_frames_on_disk_are_what_was_drawn(puppet):
    plan = dataset.plan_clips("standard", 2, 1, 0)[5]
    rng = plan.random()
    actions = dataset.choose_actions(rng, dataset.SETTINGS["standard"], plan.action)
    scene = Blocks(rng, actions, dataset.choose_frames(rng))
    folder = puppet / "videos" / plan.name
    assert len(list(folder.iterdir())) == scene.frames
    for frame in (0, scene.frames - 1):
        written = np.asarray(Image.open(folder / f"{frame + 1:05d}.png"))
        assert np.array_equal(written, np.asarray(scene.draw(frame)[0]))


@pytest.mark.slow
def test_several_processes_draw_the_same(tmp_path):
    options = {"train_clips": 0, "test_clips": 1}
    one = draw(tmp_path / "one", **options)
    assert draw(tmp_path / "two", workers=2, **options) == one
