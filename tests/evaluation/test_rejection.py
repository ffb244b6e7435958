import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stclip.evaluation.frame_map import frame_map
from stclip.evaluation.rejection import auroc, rejection
from stclip.evaluation.tables import frame_map_table
from tests.evaluation.make import annotated, rows

LABELS = ("a", "b")
LEFT, MIDDLE, RIGHT = ((x, 0, x + 10, 10) for x in (0, 20, 40))
SHIFTED = (0, 0, 10, 5)  # IoU 0.5 with LEFT


def scored(frame, box, *scores):
    return [("v", frame, box, label, score) for label, score in enumerate(scores)]


def measures(truth, *boxes):
    return rejection(truth, rows(*(row for box in boxes for row in box)), LABELS).get("rejection")


@given(*[st.lists(st.integers(0, 5), min_size=1, max_size=12)] * 2)
@settings(max_examples=100)
def test_auroc_is_the_share_of_ordered_pairs(positive, negative):
    pairs = [(p > n) + (p == n) / 2 for p in positive for n in negative]
    found = auroc(np.array(positive, float), np.array(negative, float))
    assert found == pytest.approx(sum(pairs) / len(pairs))


def test_by_hand():
    """Four people of the vocabulary in three frames, and two who do something else.

    Ranked by the best class: 0.9 right; 0.8 a duplicate of it; 0.7 someone else; 0.6 right; 0.6
    wrong class; 0.4 someone else; 0.3 nobody. Half of the four are found at 0.6, with five boxes.
    """
    truth = [
        annotated("v", 1, (LEFT, "a"), (MIDDLE, "other"), (RIGHT, "b")),
        annotated("v", 2, (LEFT, "b"), (MIDDLE, "another")),
        annotated("v", 3, (LEFT, "a")),
    ]
    found = measures(
        truth,
        scored(1, LEFT, 0.9, 0.1), scored(1, SHIFTED, 0.8, 0.1), scored(1, MIDDLE, 0.3, 0.7),
        scored(1, RIGHT, 0.2, 0.6),
        scored(2, LEFT, 0.6, 0.5), scored(2, MIDDLE, 0.2, 0.4),
        scored(3, MIDDLE, 0.3, 0.1),
    )  # fmt: skip
    assert (found["boxes_inside"], found["boxes_outside"]) == (4, 2)
    # Of people inside 0.9, 0.8, 0.6, 0.6; of those outside 0.7 and 0.4, with 2 and 4 above them.
    assert found["auroc"] == pytest.approx(100 * 6 / 8)
    assert (found["precision"], found["threshold"]) == (pytest.approx(100 * 2 / 5), 0.6)


def test_half_of_the_people_may_never_be_found():
    truth = [annotated("v", 1, (LEFT, "a"), (MIDDLE, "other")), annotated("v", 2, (LEFT, "b"))]
    found = measures(truth, scored(1, LEFT, 0.1, 0.9), scored(1, MIDDLE, 0.1, 0.2))
    assert (found["auroc"], found["precision"], found["threshold"]) == (100, None, None)


@pytest.mark.parametrize(
    "truth",
    [
        [annotated("v", 1, (LEFT, "a"), (MIDDLE, "b"))],
        [annotated("v", 1, (LEFT, "other"), (MIDDLE, "other"))],
        [annotated("v", 1, (LEFT, "a"), (RIGHT, "other"))],  # no box found the other
        [annotated("v", 1, (LEFT, "a", "b"), (MIDDLE, "other"))],
        [annotated("v", 1, (LEFT, "a"), (MIDDLE,))],
    ],
    ids=["all inside", "none inside", "not found", "several labels", "no label"],
)
def test_only_where_it_means_something(truth):
    assert measures(truth, scored(1, LEFT, 0.9, 0.1), scored(1, MIDDLE, 0.9, 0.1)) is None
    assert measures(truth) is None


def test_table():
    truth = [annotated("v", 1, (LEFT, "a"), (MIDDLE, "other"))]
    found = rows(*scored(1, LEFT, 0.9, 0.1), *scored(1, MIDDLE, 0.8, 0.1))
    metrics = frame_map(truth, found, LABELS) | rejection(truth, found, LABELS)
    assert frame_map_table(metrics).splitlines()[-1] == (
        "something else (1 of 2 boxes): AUROC 100.00; precision at recall 0.5: 100.00"
    )
