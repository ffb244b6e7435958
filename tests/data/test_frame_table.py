import pytest

from stclip.data.frame_table import table_of_packets

# Stamp and key, in the order of decoding; shown at 0, 1, 2, 3 and 7.
PACKETS = [(0, True), (3, False), (1, False), (2, True), (7, False)]


def test_table_by_hand() -> None:
    table = table_of_packets(PACKETS, unit=0.1)
    assert table is not None
    assert table.seconds == pytest.approx([0, 0.1, 0.2, 0.3, 0.7])
    assert table.stamps.tolist() == [0, 1, 2, 3, 7]
    assert table.starts.tolist() == [0, 2]
    assert [table.start_for(position) for position in range(5)] == [0, 0, 2, 2, 2]
    assert [table.position(stamp) for stamp in (0, 3, 7, 4, 8, -1, None)] == [
        0, 3, 4, -1, -1, -1, -1,
    ]  # fmt: skip
    assert table.mean_interval == pytest.approx(0.175)
    assert table.interval == pytest.approx(0.1)


def test_nearest_and_sampled() -> None:
    table = table_of_packets(PACKETS, unit=0.1)
    assert table is not None
    times = (-0.3, -0.1, 0.04, 0.06, 0.49, 0.51, 0.8, 0.95)
    assert [table.nearest(time, 0.2) for time in times] == [0, 1, 1, 2, 4, 5, 5, 6]
    # 10 samples a second: a frame has come half a sample before its time.
    times = (-0.3, -0.1, 0.04, 0.06, 0.6, 0.66, 0.8, 0.95)
    assert [table.sampled(time, 10) for time in times] == [0, 1, 1, 2, 4, 5, 5, 6]


@pytest.mark.parametrize(
    "packets", [[], [(None, True)], [(0, True), (0, False)], [(0, False), (1, True)]]
)
def test_stamps_that_tell_nothing(packets: list[tuple[int | None, bool]]) -> None:
    assert table_of_packets(packets, unit=1) is None


def test_one_frame() -> None:
    table = table_of_packets([(5, True)], unit=1)
    assert table is not None
    assert (table.interval, table.mean_interval) == (None, None)
    assert [table.sampled(time, 30) for time in (4, 5, 5.03, 6)] == [0, 1, 1, 2]
