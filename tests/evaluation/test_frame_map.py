import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stclip.errors import UserError
from stclip.evaluation.frame_map import FrameMapEvaluator, frame_map
from stclip.evaluation.results import format_table
from tests.evaluation import looped
from tests.evaluation.make import annotated, detections, rows

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
    with pytest.raises(UserError, match="IoU threshold"):
        FrameMapEvaluator([], ("a",), thresholds)


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


def evaluator_case():
    generator = torch.Generator().manual_seed(0)
    keys = [(video, frame) for video in ("v", "w") for frame in range(1, 21)]
    truth = [annotated(*key, (BOX, "ab"[frame % 2])) for frame, key in enumerate(keys)]
    parts = []
    for key in keys:
        persons = []
        for _ in range(int(torch.randint(0, 4, (1,), generator=generator))):
            shift = 6 * torch.rand(4, generator=generator)
            rectangle = [c + s for c, s in zip(BOX, shift.tolist(), strict=True)]
            scores = torch.rand(2, generator=generator).round(decimals=1).tolist()
            persons.append((0, rectangle, 0.5, scores))
        parts.append(detections([key], persons, 2))
    return truth, parts


def test_the_evaluator_does_not_depend_on_the_order_of_its_parts():
    truth, parts = evaluator_case()
    evaluator = FrameMapEvaluator(truth, ("a", "b"))
    for part in parts:
        evaluator.process(part)
    first = evaluator.evaluate()
    assert first["frame_mAP@0.2"] > 0
    evaluator.reset()
    for part in reversed(parts):
        evaluator.process(part)
    assert evaluator.evaluate() == first
    evaluator.reset()
    assert evaluator.evaluate()["rows"] == 0


def test_the_evaluator_applies_action_thresh():
    evaluator = FrameMapEvaluator([annotated("v", 1, (BOX, "a"))], ("a",), [0.5], 0.3)
    evaluator.process(detections([("v", 1)], [(0, BOX, 0.5, [0.5]), (0, BOX, 0.8, [0.5])], 1))
    assert evaluator.evaluate()["rows"] == 1


def test_the_evaluator_refuses_a_keyframe_twice_and_a_wrong_vocabulary():
    evaluator = FrameMapEvaluator([], ("a",))
    part = detections([("v", 1)], [(0, BOX, 1.0, [0.5])], 1)
    evaluator.process(part)
    evaluator.process(part)
    with pytest.raises(AssertionError, match="twice"):
        evaluator.evaluate()
    with pytest.raises(AssertionError, match="column"):
        evaluator.process(detections([("v", 2)], [(0, BOX, 1.0, [0.5, 0.5])], 2))


@pytest.mark.parametrize("where", ["score", "box"])
def test_numbers_that_are_not_finite_are_an_error(where):
    bad = float("nan")
    person = (0, BOX, 1.0, [bad]) if where == "score" else (0, (0, 0, bad, 1), 1.0, [0.5])
    evaluator = FrameMapEvaluator([], ("a",))
    evaluator.process(detections([("v", 7)], [person], 1))
    with pytest.raises(UserError, match="v frame 7") as caught:
        evaluator.evaluate()
    assert "\n" not in str(caught.value)


def test_table():
    truth = [annotated("v", 1, (BOX, "a")), annotated("v", 2, (BOX, "a"))]
    metrics = frame_map(truth, rows(("v", 1, BOX, 0, 0.9)), ("a", "long name"), [0.2, 0.5])
    assert format_table(metrics).splitlines() == [
        "class      boxes  AP@0.2  AP@0.5",
        "--------------------------------",
        "a              2   50.00   50.00",
        "long name      0       -       -",
        "--------------------------------",
        "mean           2   50.00   50.00",
    ]
