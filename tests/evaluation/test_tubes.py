import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stclip.evaluation import tubes
from stclip.evaluation.rows import DetectionRows
from stclip.evaluation.tubes import link_tubes
from stclip.structures import FrameKey
from tests.evaluation import looped
from tests.evaluation.make import rows

BOX = (0, 0, 10, 10)
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


@settings(max_examples=200, deadline=None)
@given(
    st.lists(entry, max_size=60, unique_by=lambda e: e[4]),
    st.sampled_from([{}, {"v": 3}, {"v": 1, "w": 8}]),
)
def test_equals_the_loops(entries, lengths):
    check_against_the_loops(entries, ("a", "b"), lengths)


def test_equals_the_loops_on_walking_people(monkeypatch):
    monkeypatch.setattr(tubes, "_BATCH", 700)  # several batches
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
