import pytest
from hypothesis import given
from hypothesis import strategies as st

from stclip.data.windows import window


@pytest.mark.parametrize(
    ("t", "n", "expected"),
    [
        (1, 20, range(1, 10)),
        (4, 20, range(1, 10)),
        (5, 20, range(1, 10)),
        (6, 20, range(2, 11)),
        (16, 20, range(12, 21)),
        (17, 20, range(12, 21)),
        (20, 20, range(12, 21)),
        (3, 9, range(1, 10)),
        (2, 5, range(1, 6)),
        (1, 1, range(1, 2)),
    ],
)
def test_window_of_nine_by_hand(t, n, expected):
    assert window(t, n, 9) == list(expected)


@given(st.data())
def test_window_is_consecutive_inside_the_video_and_holds_its_keyframe(data):
    n = data.draw(st.integers(1, 60))
    t = data.draw(st.integers(1, n))
    length = data.draw(st.integers(1, 20))
    frames = window(t, n, length)
    assert len(frames) == min(length, n)
    assert frames == list(range(frames[0], frames[0] + len(frames)))
    assert 1 <= frames[0] <= t <= frames[-1] <= n
    if length // 2 < t and t + length - length // 2 - 1 <= n:  # no edge is near
        assert frames[length // 2] == t


def test_window_of_a_frame_outside_the_video_is_a_programming_error():
    with pytest.raises(AssertionError):
        window(0, 5, 9)
