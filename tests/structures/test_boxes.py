import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stclip.structures.boxes import area, clip

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
