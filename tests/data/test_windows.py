from itertools import pairwise

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


@pytest.mark.parametrize(
    ("t", "n", "length", "stride", "expected"),
    [
        (10, 20, 5, 2, [6, 8, 10, 12, 14]),
        (2, 20, 5, 2, [1, 3, 5, 7, 9]),  # shifted by 3 frames, so that 2 is not in it
        (19, 20, 5, 2, [12, 14, 16, 18, 20]),
        (5, 9, 5, 2, [1, 3, 5, 7, 9]),  # just fits
        (4, 8, 5, 2, [2, 4, 6, 8]),  # does not
        (8, 8, 5, 3, [2, 5, 8]),
        (3, 4, 9, 10, [3]),
        (10, 20, 4, 3, [4, 7, 10, 13]),
        (7, 20, 1, 5, [7]),
    ],
)
def test_windows_with_a_stride_by_hand(t, n, length, stride, expected):
    assert window(t, n, length, stride) == expected


@given(st.data())
def test_window_with_a_stride_is_the_nearest_that_fits(data):
    n = data.draw(st.integers(1, 40))
    t = data.draw(st.integers(1, n))
    length = data.draw(st.integers(1, 12))
    stride = data.draw(st.integers(1, 6))
    frames = window(t, n, length, stride)
    assert all(b - a == stride for a, b in pairwise(frames))
    assert 1 <= frames[0] <= frames[-1] <= n
    fitting = [s for s in range(1, n + 1) if s + (length - 1) * stride <= n]
    if fitting:
        centred = t - length // 2 * stride
        assert len(frames) == length
        assert abs(frames[0] - centred) == min(abs(start - centred) for start in fitting)
    else:
        assert len(frames) < length
        assert t in frames
        assert frames[0] - stride < 1
        assert frames[-1] + stride > n


def test_window_of_a_frame_outside_the_video_is_a_programming_error():
    with pytest.raises(AssertionError):
        window(0, 5, 9)
