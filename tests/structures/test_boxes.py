import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stclip.structures.boxes import area, clip, paired_iou
from tests.evaluation import looped

boxes = arrays(np.float64, (4, 4), elements=st.integers(-20, 60).map(float))


def test_areas_by_hand() -> None:
    found = area(np.array([[0.0, 0, 10, 5], [3, 3, 3, 9], [5, 5, 1, 9]]))
    np.testing.assert_array_equal(found, [50, 0, 0])
    assert area(np.zeros((0, 4))).shape == (0,)


@given(boxes)
def test_clipped_boxes_lie_inside_and_clipping_again_changes_nothing(a: np.ndarray) -> None:
    inside = clip(a, height=30, width=40)
    assert (inside >= 0).all()
    assert (inside[:, [0, 2]] <= 39).all()
    assert (inside[:, [1, 3]] <= 29).all()
    np.testing.assert_array_equal(clip(inside, 30, 40), inside)


def test_ious_by_hand() -> None:
    a = np.array([[0.0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 10], [5, 5, 5, 5]])
    b = np.array([[0.0, 0, 10, 5], [5, 5, 15, 15], [10, 0, 20, 10], [5, 5, 5, 5]])
    np.testing.assert_allclose(paired_iou(a, b), [0.5, 25 / 175, 0, 0])
    assert paired_iou(np.zeros((0, 4)), np.zeros((0, 4))).shape == (0,)


@given(boxes, boxes)
def test_ious_equal_the_loops(a: np.ndarray, b: np.ndarray) -> None:
    a[:, 2:], b[:, 2:] = np.maximum(a[:, :2], a[:, 2:]), np.maximum(b[:, :2], b[:, 2:])
    expected = [looped.iou(one, other) for one, other in zip(a, b, strict=True)]
    np.testing.assert_allclose(paired_iou(a, b), expected)
