import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stclip.structures.boxes import area, clip, iou

boxes = arrays(np.float64, (4, 4), elements=st.integers(-20, 60).map(float))


def test_hand_worked() -> None:
    a = np.array([[0.0, 0, 10, 10]])
    b = np.array([[5.0, 0, 15, 10], [0, 0, 10, 10], [10, 0, 20, 10], [3, 3, 3, 9]])
    np.testing.assert_allclose(iou(a, b), [[1 / 3, 1, 0, 0]])


def test_empty_input() -> None:
    assert iou(np.zeros((0, 4)), np.zeros((3, 4))).shape == (0, 3)
    assert area(np.zeros((0, 4))).shape == (0,)


@given(boxes, boxes)
def test_symmetric_and_between_0_and_1(a: np.ndarray, b: np.ndarray) -> None:
    forth, back = iou(a, b), iou(b, a)
    np.testing.assert_allclose(forth, back.T)
    assert ((forth >= 0) & (forth <= 1)).all()


@given(boxes)
def test_clipped_boxes_lie_inside_and_clipping_again_changes_nothing(a: np.ndarray) -> None:
    inside = clip(a, height=30, width=40)
    assert (inside >= 0).all()
    assert (inside[:, [0, 2]] <= 39).all()
    assert (inside[:, [1, 3]] <= 29).all()
    np.testing.assert_array_equal(clip(inside, 30, 40), inside)
