"""AVA from its files to batches, on small films in the formats that people hold."""

import json
import logging
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from stclip.data import build_dataset, build_test_loader, build_train_loader
from stclip.data.annotations import Request
from stclip.data.ava import build_ava
from stclip.data.ava_videos import AVA
from stclip.data.build import read_dataset
from stclip.data.labels import Labels, read_label_file
from stclip.data.transforms import preprocess
from stclip.errors import UserError
from stclip.structures import Needs
from tests.data.make import number_of
from tests.data.make_ava import config, number_at, write_dataset, write_lines
from tests.data.test_build import same
from tests.helpers import REPOSITORY, shared_path

LABELS = REPOSITORY / "data" / "label_splits" / "ava"
SIZE = 16
NEEDS = Needs(SIZE, 9)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_dataset(folder)
    return folder


def write_annotations(tmp_path, train=(), val=()):
    """A dataset of annotations alone: what is wrong in them must show before videos are opened."""
    (tmp_path / "ava").mkdir(exist_ok=True)
    for part, lines in (("train", train), ("val", val)):
        if lines:
            write_lines(tmp_path / "ava" / f"ava_{part}_v2.2.csv", lines)


def build(tmp_path, part, names=("sit", "run"), **options):
    labels = Labels(tuple(names), train=names, test=names)
    return build_ava(Request("ava", part, replace(labels, **options), tmp_path))


def test_training_videos_show_no_unseen_class(root):
    dataset = build_dataset(config(root), "train")
    assert sorted(dataset.videos) == ["other", "seen"]
    assert [keyframe.key for keyframe in dataset.keyframes] == [
        ("other", AVA.frame_of(904)), ("seen", AVA.frame_of(902)), ("seen", AVA.frame_of(903)),
    ]  # fmt: skip
    assert [keyframe.labels for keyframe in dataset.keyframes] == [
        (("watch (a person)",),),
        (("stand", "carry/hold (an object)"), ("sit",)),
        (("walk",),),
    ]
    # 128 x 32 pixels
    np.testing.assert_allclose(
        dataset.keyframes[1].boxes, [[32, 3.2, 96, 28.8], [12.8, 0, 25.6, 32]], rtol=1e-6
    )
    # Trained and tested on the same labels, none is unseen.
    every = str(LABELS / "all_label.txt")
    closed = build_dataset(config(root, "TEST_LABEL", every, "TRAIN_LABEL", every), "train")
    assert sorted(closed.videos) == ["other", "seen", "unseen"]


def test_keyframes_of_a_test(root):
    dataset = build_dataset(config(root), "test")
    assert list(dataset.videos) == ["-val_1"]
    # 903 is excluded, 905 has detections alone, those of 906 score too low.
    assert [dataset.ava.seconds[keyframe.key] for keyframe in dataset.keyframes] == [902, 904, 905]
    assert [keyframe.key.frame for keyframe in dataset.keyframes] == [61, 121, 151]
    assert dataset.keyframes[0].labels == (
        ("stand", "talk to (e.g., self, a person, a group)"), ("martial art",),
    )  # fmt: skip
    assert dataset.keyframes[2].boxes.shape == (0, 4)
    scores = {key.frame: persons.scores.tolist() for key, persons in dataset.proposals.items()}
    assert {frame: np.round(values, 2).tolist() for frame, values in scores.items()} == {
        61: [0.95, 0.81], 151: [0.9],
    }  # fmt: skip
    boxes = dataset.proposals[dataset.keyframes[0].key].boxes
    np.testing.assert_allclose(boxes, [[32, 3.2, 96, 28.8], [0, 0, 32, 16]], rtol=1e-6)
    truth = build_dataset(config(root, "TEST.BOXES", "ground_truth"), "test")
    assert [dataset.ava.seconds[keyframe.key] for keyframe in truth.keyframes] == [902, 904]
    assert truth.proposals is None
    assert truth.ava.action_ids["watch (a person)"] == 80


@pytest.mark.parametrize("stride", [1, 3])
def test_batches_show_the_pictures_around_the_second(root, stride):
    cfg = config(root, "TEST.VIDEOS_PER_BATCH", "2")
    dataset = build_dataset(cfg, "test")
    batches = list(build_test_loader(cfg, dataset, Needs(SIZE, 9, stride)))
    assert [len(batch) for batch in batches] == [2, 1]
    first = batches[0]
    assert first.owner.tolist() == [0, 0]  # nobody was detected at 904
    for row, key in enumerate(first.keys):
        shown = [key.frame + offset * stride for offset in range(-4, 5)]
        for index, frame in zip(first.window[row], shown, strict=True):
            (picture,) = dataset.videos[key.video].read([frame])
            assert number_of(picture) == number_at(frame)
            assert torch.equal(first.frames[index], preprocess(picture, SIZE))
    assert first.window[:, 4].tolist() == first.keyframe.tolist()


def test_batches_are_the_same_with_a_store(root, tmp_path, decoded):
    """A film and a cut one to train on, clips to test."""
    cfg = config(root, "SOLVER.MAX_ITER", "2", "SOLVER.VIDEOS_PER_BATCH", "3")
    train, test = build_dataset(cfg, "train"), build_dataset(cfg, "test")

    def batches():
        yield from build_train_loader(cfg, train, Labels.read(cfg, "train"), NEEDS)
        yield from build_test_loader(cfg, test, NEEDS)

    without = list(batches())
    cfg.defrost()
    cfg.DATALOADER.STORE = str(tmp_path / "store")
    first = list(batches())
    decoded.clear()
    second = list(batches())
    assert decoded == []
    for one, two, three in zip(without, first, second, strict=True):
        assert same(one, two)
        assert same(one, three)


def test_what_is_found_is_read_where_mistakes_are_collected(tmp_path):
    ava = write_dataset(tmp_path)
    (ava / "videos" / "seen.mkv").unlink()
    found = []
    cfg = config(tmp_path)
    dataset = read_dataset(cfg, "train", Labels.read(cfg, "train"), lambda kind: found.append)
    assert list(dataset.videos) == ["other"]
    assert [keyframe.key.video for keyframe in dataset.keyframes] == ["other"]
    assert len(dataset.ava.seconds) == 1
    (error,) = found
    assert "1 of 2 videos are missing, the first is seen" in str(error)
    shutil.rmtree(ava / "clips")
    labels = Labels.read(cfg, "test")
    nothing = read_dataset(cfg, "test", labels, lambda kind: found.append)
    assert (nothing.videos, nothing.keyframes, nothing.proposals) == ({}, [], {})
    assert "1 of 1 videos are missing, the first is -val_1" in str(found[1])
    with pytest.raises(UserError, match="the first is seen"):
        build_dataset(config(tmp_path), "train")


def test_training_targets_hold_every_label(root):
    cfg = config(root, "SOLVER.MAX_ITER", "1", "SOLVER.VIDEOS_PER_BATCH", "3")
    labels = Labels.read(cfg, "train")
    (batch,) = build_train_loader(cfg, build_dataset(cfg, "train"), labels, NEEDS)
    found = {}
    for owner, row in zip(batch.owner.tolist(), batch.labels, strict=True):
        names = [labels.train[column] for column in torch.nonzero(row)[:, 0]]
        found.setdefault(batch.keys[owner], []).append(names)
    assert found == {
        ("other", AVA.frame_of(904)): [["watch (a person)"]],
        ("seen", AVA.frame_of(903)): [["walk"]],
        ("seen", AVA.frame_of(902)): [["stand", "carry/hold (an object)"], ["sit"]],
    }


def test_the_label_map_decides_what_an_id_means(tmp_path):
    write_annotations(tmp_path, val=["v,902,0,0,1,1,2"])
    path = tmp_path / "ava" / "ava_action_list_v2.2.pbtxt"
    path.write_text('item { name: "run" id: 2 } item { name: "sit" id: 7 }')
    with pytest.raises(UserError, match="1 of 1 videos are missing, the first is v"):
        build(tmp_path, "test")
    write_annotations(tmp_path, val=["v,902,0,0,1,1,1"])
    with pytest.raises(UserError, match=f"action_id '1' is not in {path}, which has 2 classes"):
        build(tmp_path, "test")
    with pytest.raises(UserError, match=r"ALL_LABEL: the classes of .* are not in it"):
        build(tmp_path, "test", ("sit", "jump", "fly"))


def test_missing_annotations(tmp_path):
    with pytest.raises(UserError, match=r"ava_val_v2\.2\.csv is not in .*ava or .*annotations"):
        build(tmp_path, "test")


def test_a_class_outside_all_label(tmp_path):
    write_annotations(tmp_path, val=["v,902,0,0,1,1,3"])
    with pytest.raises(UserError, match="row 1: action_id '3' is not in ALL_LABEL, which has 2"):
        build(tmp_path, "test")


def test_a_video_of_both_parts(tmp_path):
    write_annotations(tmp_path, ["v,902,0,0,1,1,1", "w,902,0,0,1,1,1"], ["w,902,0,0,1,1,1"])
    for part in ("train", "test"):
        with pytest.raises(UserError, match=r"1 of its videos are in .* too, the first is w; a"):
            build(tmp_path, part)


def test_no_video_without_unseen_classes(tmp_path):
    write_annotations(tmp_path, ["v,902,0,0,1,1,1", "v,903,0,0,1,1,2"])
    with pytest.raises(UserError, match=r"TRAIN_LABEL: each of the 1 videos of .* only in TEST_LA"):
        build(tmp_path, "train", train=("sit",))


def test_seconds_outside_are_left_out_with_a_warning(root, tmp_path, caplog):
    (tmp_path / "ava").mkdir()
    (tmp_path / "ava" / "videos").symlink_to(root / "ava" / "videos")
    lines = [f"seen,{second},0,0,1,1,1" for second in (900, 901, 902, 1799)]
    write_annotations(tmp_path, train=lines)
    dataset = build(tmp_path, "train")
    assert list(dataset.ava.seconds.values()) == [902]
    assert "3 of 4 seconds are outside of 902 to 1798" in caplog.text
    lines = [f"seen,{second},0,0,1,1,1" for second in (1, 22)]
    write_annotations(tmp_path, train=lines)
    with pytest.raises(UserError, match=r"2 of 2 .* from 1 to 22.*DATASETS\.AVA\.SECONDS says"):
        build(tmp_path, "train")


def test_a_nearly_whole_dataset_is_compared_with_the_known_counts(tmp_path, caplog):
    for count, warns in ((32, False), (33, True), (64, False), (65, True)):
        caplog.clear()
        write_annotations(tmp_path, val=[f"v{n},902,0,0,1,1,1" for n in range(count)])
        with pytest.raises(UserError, match=f"{count} of {count} videos are missing"):
            build(tmp_path, "test")
        assert (f"{count} videos; AVA v2.2 has 64" in caplog.text) == warns


def test_lists_of_videos_and_videos_without_the_classes(root, tmp_path):
    """All validation videos are tested, also those that show none of the tested classes."""
    names = read_label_file(LABELS / "all_label.txt")
    request = Request("ava", "test", Labels(tuple(names), test=("crawl",)), root)
    dataset = build_ava(request)
    assert len(dataset.keyframes) == 2
    listed = write_lines(tmp_path / "list.txt", ["nobody"])
    with pytest.raises(UserError, match=r"TEST_VIDEO .*none of its 1 videos is left"):
        build_ava(replace(request, list_path=str(listed)))


def test_no_detections_at_all(root, tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    path = write_lines(tmp_path / "boxes.csv", ["-val_1,0902,0.25,0.1,0.75,0.9,,0.5"])
    dataset = build_dataset(config(root, "DATASETS.DETECTIONS", str(path)), "test")
    assert dataset.proposals == {}
    assert "no detection in any of the 1 videos" in caplog.text


def test_label_splits_are_consistent():
    names = read_label_file(LABELS / "all_label.txt")
    groups = (LABELS / "all_group.txt").read_text().split()
    assert len(names) == len(groups) == 80
    assert (groups[:14], groups[14:63], groups[63:]) == (
        ["pose"] * 14, ["object"] * 49, ["person"] * 17,
    )  # fmt: skip
    for split, count in ((1, 18), (2, 12), (3, 6)):
        seen, unseen = (
            read_label_file(LABELS / f"split_{split}" / f"{part}_label.txt")
            for part in ("train", "test")
        )
        assert len(unseen) == count
        assert sorted(seen + unseen) == sorted(names)
        assert seen == [name for name in names if name not in unseen]


def test_unseen_classes_are_the_papers():
    facts = json.loads(shared_path("facts/ava_zs_splits.json").read_text())["unseen"]
    names = read_label_file(LABELS / "all_label.txt")
    for split, rows in facts.items():
        found = read_label_file(LABELS / f"split_{split}" / "test_label.txt")
        assert {names.index(name) + 1 for name in found} == {row["id"] for row in rows}
