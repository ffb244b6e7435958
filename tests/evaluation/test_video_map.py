import json
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stclip.data.ground_truth import read_tube_truth
from stclip.data.tubes import read_detected_tubes
from stclip.errors import UserError
from stclip.evaluation import video_map as module
from stclip.evaluation.result_csv import DetectionRows
from stclip.evaluation.video_map import (
    RANGE,
    link_tubes,
    precision_and_recall,
    tube_iou,
    video_map,
)
from stclip.structures import FrameKey, Tube
from tests.evaluation import looped
from tests.evaluation.make import rows
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


def test_precision_and_recall():
    truth = {"v": [tube(1, 21), tube(31, 51), tube(1, 21, label="b")], "w": [tube(1, 21)]}
    found = {
        "v": [tube(1, 21, score=0.3), tube(2, 21, score=0.9), tube(31, 36), tube(1, 21, label="c")],
        "other": [tube(1, 21)],
    }
    metrics = precision_and_recall(truth, found, ["a", "b"], (0.2, 0.5))
    assert (metrics["tubes"], metrics["ground_truth_tubes"]) == (4, 4)
    assert (metrics["precision@0.5"], metrics["recall@0.5"]) == (25, 25)  # one act counts once
    assert (metrics["precision@0.2"], metrics["recall@0.2"]) == (50, 50)
    metrics = precision_and_recall({}, {}, ["a"])
    assert (metrics["precision@0.5"], metrics["recall@0.5"]) == (None, None)


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


@pytest.mark.slow
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


FAR = (50, 50, 60, 60)


def link(*entries, labels=("a",), **lengths):
    """Tubes of (frame, box, score) or (frame, box, score, video, label)."""
    full = [(*entry, "v", 0)[:5] if len(entry) == 3 else entry for entry in entries]
    found = rows(*[(video, frame, box, label, s) for frame, box, s, video, label in full])
    return link_tubes(found, labels, lengths or None)


def steady(first, last, box=BOX, score=0.5):
    return [(frame, box, score) for frame in range(first, last + 1)]


def spans(found, video="v"):
    return [(tube.label, tube.first, tube.last) for tube in found[video]]


def test_one_person():
    (tube,) = link(*steady(3, 17), v=40)["v"]
    assert (tube.label, tube.score) == ("a", 0.5)
    assert tube.frames.tolist() == list(range(3, 18))
    assert tube.boxes.tolist() == [list(BOX)] * 15
    assert tube.boxes.dtype == np.float32


def test_tubes_that_are_too_short_are_dropped_unless_the_video_is_shorter():
    assert link(*steady(3, 16), v=40)["v"] == []
    assert spans(link(*steady(1, 14), v=14)) == [("a", 1, 14)]
    assert link(*steady(1, 13), v=14)["v"] == []
    # Without its length a video ends with the last frame that has a row.
    assert spans(link(*steady(1, 9))) == [("a", 1, 9)]
    assert link(*steady(1, 9), (30, FAR, 0.5))["v"] == []


def test_the_score_is_the_mean_and_low_ones_are_dropped():
    (tube,) = link(*steady(1, 15, score=0.2), *steady(16, 20, score=0.6), v=40)["v"]
    assert tube.score == pytest.approx((15 * 0.2 + 5 * 0.6) / 20)
    assert spans(link(*steady(1, 15, score=0.01), v=40)) == [("a", 1, 15)]
    assert link(*steady(1, 15, score=0.00999), v=40)["v"] == []


def test_a_tube_waits_for_five_frames():
    # 4 empty frames, so the box in the 5th is taken; after 5 empty ones it has ended.
    assert spans(link(*steady(1, 10), *steady(15, 20), v=40)) == [("a", 1, 20)]
    assert link(*steady(1, 10), *steady(16, 20), v=40)["v"] == []
    assert spans(link(*steady(1, 15), *steady(21, 40), v=40)) == [("a", 1, 15), ("a", 21, 40)]


def test_a_box_must_overlap_the_last_one():
    enough, less = (0, 0, 10, 2), (0, 0, 10, 1.9)  # IoU 0.2 and 0.19 with BOX
    assert spans(link(*steady(1, 15), *steady(16, 16, enough), v=40)) == [("a", 1, 16)]
    assert spans(link(*steady(1, 15), *steady(16, 16, less), v=40)) == [("a", 1, 15)]


def test_the_highest_score_is_taken_not_the_highest_overlap():
    near, shifted = (0, 0, 10, 3), (0, 5, 10, 10)  # they do not overlap, both overlap BOX
    (tube,) = link(*steady(1, 15), (16, near, 0.4), (16, shifted, 0.7), v=40)["v"]
    assert tube.boxes[-1].tolist() == list(shifted)


def test_the_better_tube_chooses_first():
    left, right = (0, 0, 10, 10), (12, 0, 22, 10)
    middle = (5, 0, 17, 10)  # overlaps both by 5 / 17
    found = link(*steady(1, 15, left, 0.3), *steady(1, 15, right, 0.6), (16, middle, 0.9), v=40)
    assert {tuple(t.boxes[0]): t.last for t in found["v"]} == {left: 15, right: 16}


def test_boxes_on_a_better_one_are_suppressed():
    overlapping, apart = (0, 0, 10, 3.5), (0, 0, 10, 3)  # IoU 0.35 and 0.3 with BOX
    assert len(link(*steady(1, 15), *steady(1, 15, overlapping, 0.4), v=40)["v"]) == 1
    assert len(link(*steady(1, 15), *steady(1, 15, apart, 0.4), v=40)["v"]) == 2


def test_ten_boxes_of_a_frame_are_kept():
    many = [(20 * i, 0, 20 * i + 10, 10) for i in range(14)]
    entries = [entry for i, box in enumerate(many) for entry in steady(1, 15, box, 0.9 - i / 20)]
    found = link(*entries, v=40)["v"]
    assert sorted(tube.boxes[0, 0] for tube in found) == [20 * i for i in range(10)]


def test_videos_and_classes_are_linked_apart():
    entries = [
        (frame, BOX, 0.5, video, label)
        for video, label, first in [("v", 0, 1), ("v", 1, 2), ("w", 1, 3)]
        for frame in range(first, first + 15)
    ]
    found = link(*entries, labels=("a", "b"), v=40, w=40)
    assert spans(found) == [("a", 1, 15), ("b", 2, 16)]
    assert spans(found, "w") == [("b", 3, 17)]


def test_rows_without_a_positive_score_are_dropped():
    found = link(*steady(1, 15, score=0.0), v=15)
    assert found == {"v": []}
    assert link_tubes(rows(), ("a",)) == {}


def test_the_order_of_the_rows_changes_nothing():
    entries = steady(1, 20) + steady(1, 20, FAR, 0.4) + steady(5, 25, (3, 0, 13, 10), 0.7)
    shuffled = [entries[i] for i in np.random.default_rng(0).permutation(len(entries))]
    for one, other in zip(link(*entries)["v"], link(*shuffled)["v"], strict=True):
        assert one.frames.tolist() == other.frames.tolist()
        assert one.boxes.tolist() == other.boxes.tolist()
        assert one.score == pytest.approx(other.score)


def as_set(tubes):
    """Comparable: every tube as its frames, boxes and score."""
    return sorted(
        (tuple(frames), tuple(map(tuple, boxes)), round(score, 9)) for frames, boxes, score in tubes
    )


def check_against_the_loops(entries, labels, lengths):
    found = link_tubes(rows(*entries), labels, lengths)
    for video in {entry[0] for entry in entries}:
        for label, name in enumerate(labels):
            mine = [(e[1], e[2], e[4]) for e in entries if (e[0], e[3]) == (video, label)]
            last = max(e[1] for e in entries if e[0] == video)
            expected = looped.linked(mine, lengths.get(video, last))
            ours = [
                (tube.frames.tolist(), tube.boxes.tolist(), tube.score)
                for tube in found[video]
                if tube.label == name
            ]
            assert as_set(ours) == as_set(
                ([f for f, _, _ in t], [b for _, b, _ in t], np.mean([s for _, _, s in t]))
                for t in expected
            )


corner = st.integers(0, 4)
box = st.builds(lambda x, y, w, h: (x, y, x + w, y + h), corner, corner, corner, corner)
entry = st.tuples(
    st.sampled_from(["v", "w"]),
    st.integers(1, 12),
    box,
    st.integers(0, 1),
    st.integers(0, 10**6).map(lambda n: n / 10**6),
)


@pytest.mark.slow
@settings(max_examples=200)
@given(
    st.lists(entry, max_size=60, unique_by=lambda e: e[4]),
    st.sampled_from([{}, {"v": 3}, {"v": 1, "w": 8}]),
)
def test_linking_equals_the_loops(entries, lengths):
    check_against_the_loops(entries, ("a", "b"), lengths)


def test_linking_equals_the_loops_on_walking_people(monkeypatch):
    monkeypatch.setattr(module, "_BATCH", 700)  # several batches
    rng = np.random.default_rng(1)
    entries = []
    for video in range(6):
        walks = rng.uniform(0, 60, (4, 1, 2)) + rng.normal(0, 3, (4, 40, 2)).cumsum(axis=1)
        for person, frame in np.argwhere(rng.random((4, 40)) < 0.8).tolist():
            x, y = walks[person, frame].round().tolist()  # exact in float32
            for label in range(2):
                score = rng.random()
                entries.append((f"v{video}", frame + 1, (x, y, x + 20, y + 40), label, score))
    check_against_the_loops(entries, ("a", "b"), {"v0": 40})


@pytest.mark.slow
def test_many_rows_are_fast():
    # 470,000 rows of 24 classes in 10 videos; loops over classes and frames would take a minute.
    rng = np.random.default_rng(0)
    keys = [FrameKey(f"v{v}", frame) for v in range(10) for frame in range(1, 651)]
    corners = rng.uniform(0, 300, (len(keys), 3, 1, 2)).repeat(24, axis=2).reshape(-1, 2)
    count = len(corners)
    many = DetectionRows(
        keys=tuple(keys),
        frame=np.arange(len(keys)).repeat(72),
        boxes=np.concatenate([corners, corners + 90], axis=1),
        labels=np.tile(np.arange(24), count // 24),
        scores=rng.random(count),
    )
    start = time.process_time()
    assert link_tubes(many, [f"c{i}" for i in range(24)])
    assert time.process_time() - start < 20
