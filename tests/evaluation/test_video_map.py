import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stclip.data.ground_truth import read_tube_truth
from stclip.data.tubes import read_detected_tubes
from stclip.errors import UserError
from stclip.evaluation.video_map import RANGE, tube_iou, video_map
from stclip.structures import Tube
from tests.evaluation import looped
from tests.helpers import GOLDEN

BOX = (0, 0, 10, 10)
HALF = (0, 0, 10, 5)  # IoU 0.5 with BOX


def tube(first, last, box=BOX, label="a", score=1.0):
    """The same box in all frames."""
    count = last - first + 1
    boxes = np.array([box] * count, dtype=np.float32)
    return Tube(label, np.arange(first, last + 1), boxes, score)


def sparse(frames, label="a"):
    return Tube(label, np.array(frames), np.array([BOX] * len(frames), dtype=np.float32))


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (tube(1, 11), tube(1, 11), 1.0),
        (tube(1, 11), tube(1, 11, HALF), 0.5),
        (tube(1, 11), tube(6, 16), 5 / 15),  # frames 6 to 11 of 1 to 16, without + 1
        (tube(1, 11), tube(4, 6, HALF), 0.5 * 2 / 10),
        (tube(1, 11), tube(12, 20), 0.0),
        (tube(1, 11), tube(11, 20), 0.0),  # one common frame has no extent
        (tube(5, 5), tube(5, 5, HALF), 0.5),  # a one-frame pair counts its spatial IoU
        (tube(5, 5), tube(5, 6), 0.0),
        (tube(5, 5), tube(6, 6), 0.0),
        # What lies between the frames of a tube does not count, neither way.
        (sparse([1, 2, 3, 11]), sparse([2, 3, 4, 11]), 9 / 10),
        (sparse([1, 3, 5]), sparse([2, 4, 6]), 0.0),
    ],
)
def test_tube_iou_by_hand(a, b, expected):
    assert tube_iou(a, b) == pytest.approx(expected)
    assert tube_iou(b, a) == pytest.approx(expected)


frames_boxes = st.dictionaries(
    st.integers(1, 8),
    st.tuples(*[st.integers(0, 6)] * 4).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])),
    min_size=1,
)


def from_dict(boxes, label="a", score=1.0):
    frames = sorted(boxes)
    return Tube(
        label, np.array(frames), np.array([boxes[f] for f in frames], dtype=np.float32), score
    )


@settings(deadline=None)
@given(frames_boxes, frames_boxes)
def test_tube_iou_equals_the_loops(a, b):
    value = tube_iou(from_dict(a), from_dict(b))
    assert value == pytest.approx(looped.tube_iou(a, b), abs=1e-9)
    assert 0 <= value <= 1


def ap(truth, found, threshold=0.5):
    return video_map({"v": truth}, {"v": found}, ["a"], [threshold])["per_class"]["a"]


def test_the_threshold_itself_is_enough():
    assert ap([tube(1, 11)], [tube(1, 11, HALF)], 0.5) == 100
    assert ap([tube(1, 11)], [tube(1, 11, HALF)], 0.51) == 0


def test_a_duplicate_is_a_false_positive_and_ranks_by_its_score():
    truth = [tube(1, 11), tube(21, 31)]
    found = [tube(21, 31, score=0.7), tube(1, 11, score=0.9), tube(1, 11, score=0.8)]
    assert ap(truth, found) == pytest.approx(50 + 50 * 2 / 3)


def test_a_taken_best_match_does_not_fall_through():
    # Both overlap the first ground truth most; the second would reach the threshold too.
    truth = [tube(1, 21), tube(1, 17)]
    assert ap(truth, [tube(1, 21, score=0.9), tube(1, 20, score=0.8)]) == pytest.approx(50)


def test_tubes_of_other_videos_and_classes_do_not_match():
    truth = {"v": [tube(1, 11)], "w": [tube(1, 11, label="b")]}
    for video, label in [("w", "a"), ("v", "b"), ("unknown", "a")]:
        metrics = video_map(truth, {video: [tube(1, 11, label=label)]}, ["a", "b"])
        assert metrics["video_mAP@0.5"] == 0
        assert metrics["tubes"] == 1


def test_means_and_counts():
    truth = {"v": [tube(1, 11), tube(1, 11, label="b"), tube(1, 11, label="other")], "w": []}
    found = {"v": [tube(1, 11, (0, 0, 10, 7)), tube(1, 11, label="other")]}
    metrics = video_map(truth, found, ["a", "b", "c"], [0.75, 0.2])
    assert metrics["iou_thresholds"] == [0.2, 0.75]
    assert metrics["per_class"] == {"a": 100, "b": 0, "c": None}  # at 0.2: 0.5 is not asked for
    assert metrics["video_mAP@0.2"] == 50
    assert metrics["video_mAP@0.75"] == 0
    assert metrics["per_class@0.5:0.95"]["a"] == pytest.approx(50)  # 0.5 to 0.7 of ten steps
    assert metrics["video_mAP@0.5:0.95"] == pytest.approx(25)
    assert metrics["ground_truth_tubes"] == {"a": 1, "b": 1, "c": 0}
    assert metrics["tubes"] == 1
    json.dumps(metrics, allow_nan=False)


def test_nothing_found_and_nothing_to_find():
    assert video_map({"v": [tube(1, 11)]}, {}, ["a"])["video_mAP@0.5"] == 0
    assert video_map({}, {"v": [tube(1, 11)]}, ["a"])["video_mAP@0.5:0.95"] is None
    with pytest.raises(UserError, match="IoU threshold"):
        video_map({}, {}, ["a"], [0])


def test_conformance():
    folder = GOLDEN / "video_map"
    expected = json.loads((folder / "expected.json").read_text())
    truth = read_tube_truth(folder / "ground_truth_tubes.json")
    found = read_detected_tubes(folder / "detected_tubes.json", truth.labels, truth.tubes)
    thresholds = [float(name) for name in expected if ":" not in name]
    assert set(RANGE) < set(thresholds)
    metrics = video_map(truth.tubes, found, truth.labels, thresholds)
    for name, value in expected.items():
        assert metrics[f"video_mAP@{name}"] == pytest.approx(value, abs=0.01)


drawn = st.lists(
    st.tuples(st.sampled_from("vw"), frames_boxes, st.integers(1, 99).map(lambda s: s / 100)),
    max_size=8,
)


@settings(deadline=None)
@given(drawn, drawn, st.sampled_from([0.2, 0.5, 0.75]))
def test_equals_the_loops(truth, found, threshold):
    truths = {v: [from_dict(boxes) for w, boxes, _ in truth if w == v] for v in "vw"}
    tubes = {v: [from_dict(b, score=s) for w, b, s in found if w == v] for v in "vw"}
    by_rank = sorted(sorted(found, key=lambda f: f[0]), key=lambda f: -f[2])
    taken, hits = set(), []
    for video, boxes, _ in by_rank:
        ious = {
            i: looped.tube_iou(boxes, other)
            for i, (v, other, _) in enumerate(sorted(truth, key=lambda t: t[0]))
            if v == video
        }
        best = max(ious, key=lambda i: ious[i], default=None)
        # Far from the threshold and from ties, rounding decides nothing.
        hit = best is not None and ious[best] >= threshold - 1e-9 and best not in taken
        taken |= {best} if hit else set()
        hits.append(hit)
    expected = looped.average_precision(hits, len(truth))
    value = video_map(truths, tubes, ["a"], [threshold])["per_class"]["a"]
    assert (np.nan if value is None else value / 100) == pytest.approx(expected, nan_ok=True)
