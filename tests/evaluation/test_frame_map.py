import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stclip.errors import UserError
from stclip.evaluation.frame_map import average_precision, frame_map, generalized
from tests.evaluation import looped
from tests.evaluation.make import annotated, rows

BOX = (0, 0, 10, 10)
HALF = (0, 0, 10, 5)  # IoU 0.5 with BOX
FAR = (50, 50, 60, 60)


def ap(truth, found, threshold=0.5, labels=("a",)):
    return frame_map(truth, found, labels, [threshold])["per_class"][labels[0]]


def test_one_match():
    assert ap([annotated("v", 1, (BOX, "a"))], rows(("v", 1, BOX, 0, 0.9))) == 100


def test_the_threshold_itself_is_enough():
    truth = [annotated("v", 1, (BOX, "a"))]
    assert ap(truth, rows(("v", 1, HALF, 0, 0.9)), 0.5) == 100
    assert ap(truth, rows(("v", 1, HALF, 0, 0.9)), 0.51) == 0


def test_boxes_have_no_plus_one():
    # With +1 on the sides the IoU would be 22/33; in continuous coordinates it is 10/20.
    truth = [annotated("v", 1, ((0, 0, 10, 2), "a"))]
    assert ap(truth, rows(("v", 1, (0, 0, 10, 1), 0, 1)), 0.51) == 0


def test_a_duplicate_is_a_false_positive():
    truth = [annotated("v", 1, (BOX, "a")), annotated("v", 2, (BOX, "a"))]
    found = rows(("v", 1, BOX, 0, 0.9), ("v", 1, BOX, 0, 0.8), ("v", 2, BOX, 0, 0.7))
    assert ap(truth, found) == pytest.approx(50 + 50 * 2 / 3)


def test_a_taken_best_match_does_not_fall_through():
    # Both detections overlap the first ground truth most; the second one, at IoU 0.6, stays
    # unmatched although the lower-ranked detection would reach it.
    first, second = (0, 0, 10, 10), (0, 0, 10, 6)
    truth = [annotated("v", 1, (first, "a"), (second, "a"))]
    found = rows(("v", 1, first, 0, 0.9), ("v", 1, (0, 0, 10, 9), 0, 0.8))
    assert ap(truth, found) == pytest.approx(50)


def test_the_higher_score_claims_even_with_the_lower_overlap():
    truth = [annotated("v", 1, (BOX, "a"))]
    found = rows(("v", 1, BOX, 0, 0.2), ("v", 1, (0, 0, 10, 6), 0, 0.9))
    assert ap(truth, found, 0.5) == 100
    assert ap(truth, found, 0.75) == pytest.approx(50)  # the duplicate now ranks first, and misses


def test_matches_stay_in_their_frame_video_and_class():
    truth = [annotated("v", 1, (BOX, "a")), annotated("w", 1, (BOX, "b"))]
    for elsewhere in [("v", 2, BOX, 0, 0.9), ("w", 1, BOX, 0, 0.9), ("v", 1, BOX, 1, 0.9)]:
        assert ap(truth, rows(elsewhere), labels=("a", "b")) == 0


def test_a_detection_where_there_is_no_ground_truth_is_a_false_positive():
    truth = [annotated("v", 1, (BOX, "a")), annotated("w", 1)]
    for frame in [("v", 2), ("w", 1), ("never annotated", 7)]:
        found = rows((*frame, BOX, 0, 0.9), ("v", 1, BOX, 0, 0.8))
        assert ap(truth, found) == pytest.approx(50)


def test_ground_truth_in_frames_without_detections_is_missed():
    truth = [annotated("v", frame, (BOX, "a")) for frame in range(1, 5)]
    assert ap(truth, rows(("v", 3, BOX, 0, 0.9))) == pytest.approx(25)


def test_the_mean_is_over_classes_with_ground_truth():
    truth = [annotated("v", 1, (BOX, "a")), annotated("v", 2, (BOX, "b"))]
    found = rows(("v", 1, BOX, 0, 0.9), ("v", 1, BOX, 2, 0.9))
    metrics = frame_map(truth, found, ("a", "b", "c"), [0.5])
    assert metrics["per_class"] == {"a": 100, "b": 0, "c": None}
    assert metrics["frame_mAP@0.5"] == 50
    assert metrics["ground_truth_boxes"] == {"a": 1, "b": 1, "c": 0}


def test_no_detections():
    metrics = frame_map([annotated("v", 1, (BOX, "a"))], rows(), ("a",), [0.5])
    assert metrics["frame_mAP@0.5"] == 0
    assert metrics["rows"] == 0


def test_no_ground_truth_at_all():
    metrics = frame_map([], rows(("v", 1, BOX, 0, 0.9)), ("a",))
    assert metrics["frame_mAP@0.5"] is None
    json.dumps(metrics, allow_nan=False)


def test_ground_truth_of_other_classes_is_left_out():
    truth = [annotated("v", 1, (BOX, "a"), (FAR, "seen class"))]
    assert ap(truth, rows(("v", 1, BOX, 0, 0.9))) == 100


def test_a_box_with_several_labels_counts_for_each_once():
    truth = [annotated("v", 1, (BOX, "a", "b", "a"))]
    metrics = frame_map(truth, rows(("v", 1, BOX, 1, 0.9)), ("a", "b"), [0.5])
    assert metrics["ground_truth_boxes"] == {"a": 1, "b": 1}
    assert metrics["per_class"] == {"a": 0, "b": 100}


def test_a_frame_annotated_in_two_pieces_is_one_frame():
    truth = [
        annotated("v", 1, (BOX, "a")),
        annotated("v", 2, (BOX, "a")),
        annotated("v", 1, (FAR, "a")),
    ]
    found = rows(("v", 1, BOX, 0, 0.9), ("v", 2, BOX, 0, 0.9), ("v", 1, FAR, 0, 0.9))
    assert ap(truth, found) == 100


def test_scores_that_are_not_positive_are_dropped():
    truth = [annotated("v", 1, (BOX, "a"))]
    found = rows(("v", 1, FAR, 0, 0.0), ("v", 1, FAR, 0, -1.0), ("v", 1, BOX, 0, 0.1))
    assert frame_map(truth, found, ("a",))["rows"] == 1
    assert ap(truth, rows(("v", 1, BOX, 0, 0.0))) == 0


def test_equal_scores_rank_the_same_whatever_the_order_of_frames():
    truth = [annotated("v", 1, (BOX, "a")), annotated("v", 3, (BOX, "a"))]
    entries = [("v", 2, FAR, 0, 0.5), ("v", 3, BOX, 0, 0.5), ("v", 1, BOX, 0, 0.5)]
    values = {
        ap(truth, rows(*order)) for order in (entries, entries[::-1], entries[1:] + entries[:1])
    }
    assert len(values) == 1
    assert values.pop() == pytest.approx(50 + 50 * 2 / 3)


def test_equal_overlaps_take_the_first_ground_truth():
    truth = [annotated("v", 1, (BOX, "a"), (BOX, "a"))]
    assert ap(truth, rows(("v", 1, BOX, 0, 0.9), ("v", 1, BOX, 0, 0.8))) == pytest.approx(50)


def test_an_empty_box_overlaps_nothing():
    truth = [annotated("v", 1, ((5, 5, 5, 5), "a"))]
    assert ap(truth, rows(("v", 1, (5, 5, 5, 5), 0, 0.9), ("v", 1, (9, 9, 1, 1), 0, 0.9))) == 0


@pytest.mark.parametrize("thresholds", [[0.0], [1.1], [-0.5], [float("nan")], []])
def test_thresholds_are_checked(thresholds):
    with pytest.raises(UserError, match="IoU threshold"):
        frame_map([], rows(), ("a",), thresholds)


def test_thresholds_come_out_sorted_and_once():
    metrics = frame_map([annotated("v", 1, (BOX, "a"))], rows(), ("a",), [0.75, 0.2, 0.75])
    assert metrics["iou_thresholds"] == [0.2, 0.75]
    assert metrics["per_class"] is metrics["per_class@0.2"]  # 0.5 was not asked for
    assert "frame_mAP@0.5" not in metrics


corner = st.integers(0, 6)
box = st.builds(lambda x, y, w, h: (x, y, x + w, y + h), corner, corner, corner, corner)
place = st.tuples(st.sampled_from(["v", "w"]), st.integers(1, 3))
truths = st.lists(st.tuples(place, box, st.integers(0, 1)), max_size=12)
founds = st.lists(
    st.tuples(place, box, st.integers(0, 1), st.sampled_from([-0.1, 0.0, 0.2, 0.4, 0.6, 0.8])),
    max_size=25,
)


@pytest.mark.slow
@settings(max_examples=300)
@given(truths, founds, st.sampled_from([0.2, 0.5, 0.75, 1.0]))
def test_equals_the_loops(truth, found, threshold):
    frames = {}
    for key, rectangle, label in truth:
        frames.setdefault(key, []).append((rectangle, "ab"[label]))
    metrics = frame_map(
        [annotated(*key, *persons) for key, persons in frames.items()],
        rows(*[(*key, rectangle, label, score) for key, rectangle, label, score in found]),
        ("a", "b"),
        [threshold],
    )
    for label, name in enumerate("ab"):
        boxes = [(key, rectangle) for key, rectangle, number in truth if number == label]
        mine = [
            (key, rectangle, score) for key, rectangle, number, score in found if number == label
        ]
        hits = looped.class_hits(mine, boxes, threshold)
        expected = looped.average_precision(hits, len(boxes))
        value = metrics["per_class"][name]
        assert (float("nan") if value is None else value / 100) == pytest.approx(
            expected, abs=1e-12, nan_ok=True
        )


def area(scores, hits, count):
    return average_precision(np.array(scores, dtype=float), np.array(hits, dtype=bool), count)


@pytest.mark.parametrize(
    ("scores", "hits", "count", "expected"),
    [
        ([0.9], [1], 1, 1.0),
        ([0.9], [0], 1, 0.0),
        ([0.9, 0.8], [0, 1], 1, 0.5),
        ([0.8, 0.9], [1, 0], 1, 0.5),  # given in another order
        ([0.9, 0.8, 0.7], [1, 0, 1], 2, 0.5 * 1 + 0.5 * 2 / 3),
        # The precision 1/2 at the first hit is raised to the 2/3 that comes after it.
        ([0.9, 0.8, 0.7], [0, 1, 1], 2, 2 / 3),
        ([0.9, 0.8], [1, 1], 4, 0.5),  # half of the recall is never reached
        ([0.5, 0.5], [1, 0], 1, 1.0),  # of equal scores the first ranks first
        ([0.5, 0.5], [0, 1], 1, 0.5),
        ([], [], 3, 0.0),
    ],
)
def test_average_precision_by_hand(scores, hits, count, expected):
    assert area(scores, hits, count) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("scores", [[], [0.3, 0.2]])
def test_average_precision_without_ground_truth_is_nan(scores):
    assert math.isnan(area(scores, [False] * len(scores), 0))


def test_more_hits_than_ground_truths_is_a_mistake_of_the_caller():
    with pytest.raises(AssertionError):
        area([0.9, 0.8], [1, 1], 1)


@given(
    st.lists(st.tuples(st.sampled_from([0.1, 0.2, 0.3, 0.4, 0.5]), st.booleans()), max_size=40),
    st.integers(0, 5),
)
def test_average_precision_equals_the_loops(ranked, missed):
    scores, hits = [s for s, _ in ranked], [h for _, h in ranked]
    count = sum(hits) + missed
    order = sorted(range(len(scores)), key=lambda i: -scores[i])  # stable
    expected = looped.average_precision([hits[i] for i in order], count)
    assert area(scores, hits, count) == pytest.approx(expected, abs=1e-12, nan_ok=True)


NAMES = ("seen", "unseen", "never", "other")


def generalized_example():
    """Of ``seen`` one of two boxes is found, ``unseen`` after a false positive, ``other`` loosely.

    Average precisions at 0.2 and 0.5: 0.5 and 0.5; 0.5 and 0.5; 1 and 0; ``never`` has none.
    """
    truth = [
        annotated("v", 1, (BOX, "seen", "other")),
        annotated("v", 2, (BOX, "seen"), ((50, 50, 60, 60), "unseen")),
    ]
    found = rows(
        ("v", 1, BOX, 0, 0.9),
        ("v", 1, BOX, 1, 0.8),
        ("v", 2, (50, 50, 60, 60), 1, 0.7),
        ("v", 1, (0, 0, 10, 4), 3, 0.6),
        ("v", 1, BOX, 2, 0.5),
    )
    return frame_map(truth, found, NAMES, [0.2, 0.5])


def test_generalized_means_by_hand():
    metrics = generalized(generalized_example(), ["unseen", "never"])
    assert metrics["frame_mAP@0.5"] == 50
    assert metrics["frame_mAP_seen@0.5"] == 25  # (50 + 0) / 2
    assert metrics["frame_mAP_all@0.5"] == pytest.approx(100 / 3)
    assert metrics["H"] == metrics["H@0.5"] == pytest.approx(100 / 3)  # 2 * 50 * 25 / 75
    assert metrics["frame_mAP_seen@0.2"] == 75
    assert metrics["H@0.2"] == pytest.approx(60)
    assert metrics["unseen"] == ["unseen", "never"]


def test_generalized_keeps_what_was_there():
    before = generalized_example()
    copy = dict(before)
    after = generalized(before, ["unseen"])
    assert before == copy
    for name in ("per_class@0.5", "ground_truth_boxes", "rows", "iou_thresholds"):
        assert after[name] == before[name]
