"""When the keyframes of the datasets are shown, and which of their boxes are the same person's."""

import json

import pytest

from stclip.config.defaults import get_cfg_defaults
from stclip.data import build_dataset
from stclip.data.times import with_times
from tests.data.make import write_jhmdb, write_video
from tests.data.make_ava import config, write_dataset
from tests.data.make_ucf24 import write_ucf24
from tests.evaluation.make import detections


def timed(cfg, boxes="ground_truth"):
    """Frames and seconds of the keyframes, and the persons of a test of the annotated boxes."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.TEST.BOXES = boxes
    dataset = build_dataset(cfg, "test")
    keyframes = dataset.keyframes
    persons = [
        (row, box, 1.0, [1.0]) for row, k in enumerate(keyframes) for box in k.boxes.tolist()
    ]
    found = detections([keyframe.key for keyframe in keyframes], persons, 1)
    found = with_times(found, dataset, annotated=boxes == "ground_truth")
    frames = [keyframe.key.frame for keyframe in keyframes]
    persons = None if found.persons is None else found.persons.tolist()
    return frames, pytest.approx(found.seconds.tolist()), persons


@pytest.mark.parametrize("annotations", ["pyannot", "act"])
def test_tubes_of_ucf24_are_persons(tmp_path, annotations):
    """Frames 2 to 6 and 5 to 8; the file counts the later skater first or second."""
    frames, seconds, persons = timed(write_ucf24(tmp_path, "jpg", annotations))
    assert (frames, seconds) == (list(range(2, 9)), [(n - 1) / 25 for n in range(2, 9)])
    first, second = persons[0], persons[-1]
    assert {first, second} == {1, 2}
    assert persons == [first] * 3 + [first, second] * 2 + [second] * 2


@pytest.mark.parametrize("annotations", ["json", "pickle"])
def test_jhmdb_has_30_frames_a_second(tmp_path, annotations):
    frames, seconds, persons = timed(write_jhmdb(tmp_path, "flat", annotations))
    assert (frames, seconds) == (list(range(1, 11)), [n / 30 for n in range(10)])
    assert persons == ([1] * 10 if annotations == "pickle" else None)


def test_ava_counts_seconds_and_knows_persons(tmp_path):
    write_dataset(tmp_path)
    frames, seconds, persons = timed(config(tmp_path))
    assert (frames, seconds, persons) == ([61, 121], [2, 4], [1, 2, 1])
    assert timed(config(tmp_path), "detected")[2] is None


def test_a_video_file_has_its_own_times(tmp_path):
    """And a box that is outside of the picture was not tested."""
    write_video(tmp_path / "v.mp4", [10, 11, 12, 20, 21])  # at 25 a second
    boxes = [[200, 2, 230, 30], [1, 2, 30, 30]]
    content = {
        "labels": ["run"],
        "videos": [{"id": "v", "path": "v.mp4", "size": [128, 32], "fps": 99}],
        "keyframes": [{"video": "v", "timestamp": 0.4, "boxes": boxes[1:], "labels": [["run"]]}],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    (tmp_path / "all.txt").write_text("run\n")
    cfg = get_cfg_defaults()
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = str(tmp_path / "a.json")
    cfg.ALL_LABEL = cfg.TRAIN_LABEL = cfg.TEST_LABEL = str(tmp_path / "all.txt")
    assert timed(cfg) == ([4], [0.4], None)
