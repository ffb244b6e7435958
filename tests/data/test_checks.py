import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stclip.config.defaults import get_cfg_defaults
from stclip.data import findings as kinds
from stclip.data.annotations import Keyframe
from stclip.data.build import build_dataset, read_dataset
from stclip.data.checks import check_boxes, guess_format, readings
from stclip.data.findings import Findings
from stclip.data.labels import Labels
from stclip.data.validation import check_labels
from stclip.errors import UserError
from stclip.structures import FrameKey
from tests.data.make import HEIGHT, WIDTH, write_frames

SIZE = (320, 240)


def people(count=200, seed=0):
    """Boxes as detectors make them: upright, anywhere in the picture."""
    rng = np.random.default_rng(seed)
    wide, high = rng.uniform(20, 90, count), rng.uniform(60, 150, count)
    x, y = rng.uniform(0, SIZE[0] - wide), rng.uniform(0, SIZE[1] - high)
    return np.stack([x, y, x + wide, y + high], axis=1), np.tile(np.array(SIZE, float), (count, 1))


def to_size(boxes):
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def to_centre(boxes):
    return np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], axis=1)


def test_pixels_are_what_they_seem():
    assert guess_format(*people()) is None


def test_a_few_boxes_over_the_edge_are_no_other_format():
    boxes, sizes = people()
    boxes[:15] -= 30
    assert guess_format(boxes, sizes) is None


def test_nothing_is_guessed_of_no_boxes():
    assert guess_format(np.zeros((0, 4)), np.zeros((0, 2))) is None


def test_nothing_is_guessed_of_noise():
    boxes, sizes = people()
    assert guess_format(boxes[:, ::-1] * 5 - 100, sizes) is None


@pytest.mark.parametrize(
    ("turn", "name"),
    [
        (to_size, "x, y, width, height"),
        (lambda boxes: boxes[:, [2, 3, 0, 1]], "x2, y2, x1, y1"),
        (lambda boxes: boxes[:, [1, 0, 3, 2]], "y1, x1, y2, x2"),
    ],
)
def test_other_formats_in_pixels(turn, name):
    boxes, sizes = people()
    assert guess_format(turn(boxes), sizes) == name
    np.testing.assert_allclose(readings(turn(boxes), sizes)[name], boxes)


@pytest.mark.parametrize(
    ("turn", "name"), [(lambda boxes: boxes, "x1, y1, x2, y2"), (to_size, "x, y, width, height")]
)
def test_shares_of_the_picture(turn, name):
    boxes, sizes = people()
    turned = turn(boxes) / np.array([*SIZE, *SIZE])
    full = f"{name}, as shares (0 to 1) of the picture"
    assert guess_format(turned, sizes) == full
    np.testing.assert_allclose(readings(turned, sizes)[full], boxes)


def test_centres_are_one_of_the_readings():
    boxes, sizes = people()
    found = readings(to_centre(boxes), sizes)["centre x, centre y, width, height"]
    np.testing.assert_allclose(found, boxes)


def test_one_empty_box_among_few_is_no_other_format():
    boxes, sizes = people(6)
    boxes[2, 2:] = boxes[2, :2]
    assert guess_format(boxes, sizes) is None
    boxes[2, 2:] = 5  # inverted
    assert guess_format(boxes, sizes) is None


def check(boxes):
    rows = [(FrameKey("v", index), boxes[index : index + 1]) for index in range(len(boxes))]
    return check_boxes(rows, {"v": SIZE}, "found.json", "are left out")


@pytest.mark.parametrize(
    ("turn", "words"),
    [
        (to_size, "200 boxes look like x, y, width, height \\(frame"),
        (lambda b: b / (320, 240, 320, 240), "200 boxes look like x1, y1, x2, y2, as shares"),
        (
            lambda b: np.where(np.arange(200)[:, None] < 5, b * -1, b),
            "5 of 200 boxes have x2 <= x1",
        ),
    ],
)
def test_boxes_of_another_format_are_refused(turn, words):
    boxes, _ = people()
    with pytest.raises(UserError, match=f"^found.json: {words}"):
        check(turn(boxes))


@pytest.mark.parametrize(("total", "empty", "said"), [(200, 2, True), (4000, 3, False)])
def test_a_few_empty_boxes_are_counted_unless_they_are_negligible(total, empty, said, caplog):
    boxes, _ = people(total)
    boxes[7 : 7 + empty, 2] = boxes[7 : 7 + empty, 0]
    check(boxes)
    text = f"found.json: {empty} of {total} boxes are empty within their picture and are left out"
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert any(text in warning for warning in warnings) == said


def test_boxes_of_larger_pictures_are_told_of(caplog):
    boxes, _ = people()
    check(boxes)
    assert not caplog.records
    check(boxes * 2)
    assert "reach more than 2 pixels over the edge of their picture" in caplog.text
    assert "another resolution" in caplog.text


# ------------------------------------------------------------------ several poses

GROUPS = {"sit": "pose", "stand": "pose", "bend": "pose", "hold": "object", "talk": "person"}
# Frames 1 and 3; box 2 of frame 3 has two poses.
LABELS = [[["sit", "hold"]], [["stand", "hold", "talk"], ["talk", "stand", "sit"]]]


@pytest.fixture
def cfg(tmp_path):
    write_frames(tmp_path / "v", 3)
    box = [2, 3, 14, 25]
    content = {
        "labels": list(GROUPS),
        "videos": [{"id": "v", "path": "v", "size": [WIDTH, HEIGHT], "fps": 10}],
        "keyframes": [
            {"video": "v", "timestamp": time, "boxes": [box] * len(labels), "labels": labels}
            for time, labels in zip((0, 0.2), LABELS, strict=True)
        ],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    cfg = get_cfg_defaults()
    cfg.DATASETS.TRAIN = str(tmp_path / "a.json")
    for key, lines in (("ALL_LABEL", GROUPS), ("ALL_GROUP", GROUPS.values())):
        cfg[key] = str(tmp_path / f"{key}.txt")
        Path(cfg[key]).write_text("".join(f"{line}\n" for line in lines))
    cfg.TRAIN_LABEL = cfg.ALL_LABEL
    return cfg


def test_boxes_with_several_labels_of_some():
    boxes = np.zeros((3, 4), np.float32)
    keyframe = Keyframe(FrameKey("v", 1), boxes, (("a", "b"), (), ("c", "a", "b", "a")))
    assert keyframe.with_several(("a", "b")) == [(1, ["a", "b"]), (3, ["a", "b"])]
    assert keyframe.with_several("a") == []
    assert keyframe.with_several("ac") == [(3, ["a", "c"])]


def test_several_poses_give_one_warning(cfg, caplog):
    with caplog.at_level(logging.WARNING):
        dataset = build_dataset(cfg, "train")
    (record,) = (r for r in caplog.records if r.name == "stclip.data.checks")
    assert record.getMessage().startswith("DATASETS.TRAIN: 1 of 3 person boxes have several labels")
    assert "(first: box 2 of frame 3 of video v: sit, stand)" in record.getMessage()
    assert sum(len(keyframe.boxes) for keyframe in dataset.keyframes) == 3


def test_an_unseen_pose_does_not_count(cfg, tmp_path, caplog):
    """The person with both is left out of training, or has only the seen one there."""
    (tmp_path / "train.txt").write_text("sit\nhold\ntalk\n")
    cfg.TRAIN_LABEL = str(tmp_path / "train.txt")
    for unseen in ("stand", "bend"):
        (tmp_path / "test.txt").write_text(f"{unseen}\n")
        cfg.TEST_LABEL = str(tmp_path / "test.txt")
        with caplog.at_level(logging.WARNING):
            build_dataset(cfg, "train")
    assert "pose" not in caplog.text


def test_the_validator_names_each(cfg):
    labels = Labels.read(cfg, "train")
    dataset = read_dataset(cfg, "train", labels)
    seen = replace(labels, train=tuple(name for name in GROUPS if name != "bend"))
    found = Findings(keep=9)
    check_labels("train", dataset, seen, found)
    assert found.places == {kinds.SEVERAL_POSES: ["train: v frame 3, box 2: sit, stand"]}
