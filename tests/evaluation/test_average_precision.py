import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stclip.evaluation.average_precision import average_precision
from tests.evaluation import looped


def ap(scores, hits, count):
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
def test_worked_by_hand(scores, hits, count, expected):
    assert ap(scores, hits, count) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("scores", [[], [0.3, 0.2]])
def test_without_ground_truth_it_is_nan(scores):
    assert math.isnan(ap(scores, [False] * len(scores), 0))


def test_more_hits_than_ground_truths_is_a_mistake_of_the_caller():
    with pytest.raises(AssertionError):
        ap([0.9, 0.8], [1, 1], 1)


@given(
    st.lists(st.tuples(st.sampled_from([0.1, 0.2, 0.3, 0.4, 0.5]), st.booleans()), max_size=40),
    st.integers(0, 5),
)
def test_equals_the_loops(ranked, missed):
    scores, hits = [s for s, _ in ranked], [h for _, h in ranked]
    count = sum(hits) + missed
    order = sorted(range(len(scores)), key=lambda i: -scores[i])  # stable
    expected = looped.average_precision([hits[i] for i in order], count)
    assert ap(scores, hits, count) == pytest.approx(expected, abs=1e-12, nan_ok=True)
