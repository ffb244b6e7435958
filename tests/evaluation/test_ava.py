import json

import numpy as np
import pytest

from stclip.errors import UserError
from stclip.evaluation.ava import CLASSES, ava_map, group_of
from stclip.evaluation.frame_map import frame_map
from stclip.evaluation.result_csv import read_ava_rows
from tests.evaluation.make import annotated, rows
from tests.helpers import GOLDEN

FOLDER = GOLDEN / "ava_eval"
BOX = (0.1, 0.1, 0.5, 0.5)
OFF = (0.6, 0.6, 0.9, 0.9)
TWO = {12: "stand", 80: "watch (a person)"}


def golden(classes):
    truth = read_ava_rows(FOLDER / "gt.csv", classes, scored=False)
    return truth, read_ava_rows(FOLDER / "detections.csv.gz", classes, scored=True)


def moments(path):
    lines = (line.split(",") for line in path.read_text().split())
    return {(video, int(second)) for video, second in lines}


@pytest.mark.parametrize("name", ["ap60", "ap80"])
def test_conformance(name):
    expected = json.loads((FOLDER / "expected.json").read_text())
    numbers = expected["classes60"] if name == "ap60" else list(CLASSES)
    classes = {number: f"class {number}" for number in numbers}
    excluded = moments(FOLDER / "excluded_timestamps.csv")
    metrics = ava_map(*golden(numbers), classes, excluded)
    assert metrics["frame_mAP@0.5"] / 100 == pytest.approx(expected[name]["mAP@0.5IOU"], abs=1e-4)
    for label, number in metrics["class_ids"].items():
        value = metrics["per_class"][label]
        value = None if value is None else value / 100
        assert value == pytest.approx(expected[name][str(number)], abs=1e-4)
    different = ava_map(*golden(numbers), classes)
    assert different["frame_mAP@0.5"] != metrics["frame_mAP@0.5"]  # the excluded rows matter


def test_agrees_with_frame_map_on_the_same_boxes():
    """The official metric of one dataset is the metric of the others on its files."""
    truth, found = golden(list(CLASSES))
    names = [str(number) for number in CLASSES]
    frames = [
        annotated(
            key.video,
            key.frame,
            *(
                (box, names[label])
                for box, label in zip(
                    truth.boxes[truth.frame == row], truth.labels[truth.frame == row], strict=True
                )
            ),
        )
        for row, key in enumerate(truth.keys)
    ]
    one = ava_map(truth, found, dict(zip(CLASSES, names, strict=True)), (), [0.2, 0.5])
    other = frame_map(frames, found, names, [0.2, 0.5])
    assert {key: one[key] for key in other} == other


def test_by_hand():
    truth = rows(("v", 902, BOX, 0, 1), ("v", 903, BOX, 0, 1), ("v", 902, BOX, 1, 1))
    found = rows(
        ("v", 902, BOX, 0, 0.9),
        ("w", 950, BOX, 0, 0.8),  # a second without ground truth: a false positive
        ("v", 903, BOX, 0, 0.7),
        ("v", 902, OFF, 1, 0.6),
    )
    metrics = ava_map(truth, found, TWO)
    assert metrics["per_class"] == {
        "stand": pytest.approx(50 + 50 * 2 / 3),
        "watch (a person)": 0,
    }
    assert metrics["per_group"] == {"pose": pytest.approx(50 + 50 * 2 / 3), "person": 0}
    assert metrics["ground_truth_boxes"] == {"stand": 2, "watch (a person)": 1}
    left = ava_map(truth, found, TWO, {("w", 950), ("v", 903)})
    assert left["per_class"]["stand"] == 100
    assert left["ground_truth_boxes"]["stand"] == 1


def test_rows_of_score_zero_count_unlike_in_frame_map():
    metrics = ava_map(rows(("v", 902, BOX, 0, 1)), rows(("v", 902, BOX, 0, 0.0)), {1: "bend"})
    assert metrics["per_class"] == {"bend": 100}
    assert metrics["rows"] == 1


def test_classes_without_ground_truth_are_left_out_of_every_mean():
    metrics = ava_map(rows(("v", 902, BOX, 0, 1)), rows(("v", 902, BOX, 1, 0.5)), TWO)
    assert metrics["per_class"] == {"stand": 0, "watch (a person)": None}
    assert metrics["per_group"] == {"pose": 0, "person": None}
    assert metrics["frame_mAP@0.5"] == 0
    json.dumps(metrics, allow_nan=False)


def test_groups():
    groups = [group_of(number) for number in CLASSES]
    assert [groups.count(name) for name in ("pose", "object", "person")] == [14, 49, 17]
    metrics = ava_map(rows(("v", 1, BOX, 0, 1)), rows(), {81: "something of one's own"})
    assert "per_group" not in metrics


def test_thresholds_are_checked():
    with pytest.raises(UserError, match="IoU threshold"):
        ava_map(rows(), rows(), TWO, (), [2.0])


def test_the_rows_that_were_read():
    truth, found = golden([1, 80])
    assert np.isin(truth.labels, [0, 1]).all()
    assert (truth.scores == 1).all()
    assert len(found) < 9_462
    assert found.keys[0].video == "vid00"
    assert min(key.frame for key in found.keys) >= 902
