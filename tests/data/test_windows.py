from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stclip.data.windows import (
    ShuffledStream,
    choose_persons,
    micro_batch_positions,
    order_in_runs,
    run_of,
    split_into_chunks,
    spread,
    window,
)
from stclip.structures import FrameKey


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


@pytest.mark.parametrize(
    ("n", "length", "expected"),
    [
        (8, 4, [2, 4, 6, 8]),
        (9, 3, [2, 5, 8]),
        (40, 8, [3, 8, 13, 18, 23, 28, 33, 38]),
        (3, 6, [1, 1, 2, 2, 3, 3]),
        (1, 3, [1, 1, 1]),
        (7, 1, [4]),
    ],
)
def test_spread_takes_the_middles_of_equal_parts(n, length, expected):
    assert spread(n, length) == expected


def test_spread_is_the_frame_shown_in_the_middle_of_each_part():
    for n in range(1, 30):
        for length in range(1, 12):
            parts = [int((part + 0.5) * n / length + 1e-9) + 1 for part in range(length)]
            assert spread(n, length) == parts


@given(st.integers(1, 30), st.integers(0, 5))
def test_every_epoch_holds_every_number_once(count, seed):
    stream = ShuffledStream(count, seed)
    for epoch in range(3):
        numbers = [stream[epoch * count + offset] for offset in range(count)]
        assert sorted(numbers) == list(range(count))


@given(st.lists(st.integers(0, 200), max_size=20), st.integers(1, 30))
def test_a_position_does_not_depend_on_what_was_read_before(positions, count):
    stream = ShuffledStream(count, 3)
    assert [stream[p] for p in positions] == [ShuffledStream(count, 3)[p] for p in positions]


def test_epochs_and_seeds_differ():
    stream = ShuffledStream(50, 0)
    first, second = [stream[i] for i in range(50)], [stream[i] for i in range(50, 100)]
    assert first != second
    assert first != [ShuffledStream(50, 1)[i] for i in range(50)]
    assert first != list(range(50))


@given(st.integers(0, 20), st.integers(1, 12), st.integers(0, 100))
def test_chosen_persons(count, limit, position):
    chosen = choose_persons(count, limit, 2, position)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(count, limit)
    assert set(chosen) <= set(range(count))
    assert chosen == choose_persons(count, limit, 2, position)


def test_persons_are_drawn_anew_at_each_position():
    assert len({tuple(choose_persons(20, 10, 2, position)) for position in range(20)}) > 15


@settings(max_examples=60)
@given(st.data())
def test_processes_and_steps_share_an_iteration_without_overlap(data):
    world_size, steps = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4))
    batch = world_size * steps * data.draw(st.integers(1, 3))
    start, iteration = data.draw(st.integers(0, 9)), data.draw(st.integers(0, 9))
    positions = [
        position
        for rank in range(world_size)
        for step in range(steps)
        for position in micro_batch_positions(
            iteration * steps + step, start, batch, steps, rank, world_size
        )
    ]
    first = (start + iteration) * batch
    assert positions == list(range(first, first + batch))


@given(st.lists(st.integers(1, 12), max_size=6), st.integers(1, 9))
def test_chunks_cover_every_keyframe_once_in_one_video_each(lengths, size):
    keys = [FrameKey(f"v{v}", f) for v, n in enumerate(lengths) for f in range(1, n + 1)]
    chunks = split_into_chunks(keys, size)
    assert [row for chunk in chunks for row in chunk] == list(range(len(keys)))
    assert len(chunks) == sum(-(-n // size) for n in lengths)
    for chunk in chunks:
        assert 1 <= len(chunk) <= size
        assert len({keys[row].video for row in chunk}) == 1


@given(st.integers(0, 40), st.integers(0, 7))
def test_runs_share_all_and_are_dealt_in_turn(count, workers):
    parts = max(workers, 1)
    runs = [run_of(part, parts, count) for part in range(parts)]
    assert [number for run in runs for number in run] == list(range(count))
    assert max(map(len, runs)) - min(map(len, runs)) <= 1
    order = order_in_runs(count, workers)
    assert [order[worker::parts] for worker in range(parts)] == [list(run) for run in runs]
