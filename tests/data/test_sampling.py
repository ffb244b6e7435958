from hypothesis import given, settings
from hypothesis import strategies as st

from stclip.data.sampling import (
    ShuffledStream,
    choose_persons,
    micro_batch_positions,
    order_in_runs,
    run_of,
    split_into_chunks,
)
from stclip.structures import FrameKey


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
