import pytest

from stclip.data.frame_table import (
    table_at_constant_rate,
    table_of_packets,
    table_of_pictures,
)

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
    "packets", [[], [(None, True)], [(0, True), (0, False)], [(0, False), (1, False)]]
)
def test_stamps_that_tell_nothing(packets: list[tuple[int | None, bool]]) -> None:
    assert table_of_packets(packets, unit=1) is None


def test_one_frame() -> None:
    table = table_of_packets([(5, True)], unit=1)
    assert table is not None
    assert (table.interval, table.mean_interval) == (None, None)
    assert [table.sampled(time, 30) for time in (4, 5, 5.03, 6)] == [0, 1, 1, 2]


def test_what_comes_before_the_first_key_frame_is_left_out() -> None:
    """In the order of decoding (4, 6, 5) and in that of showing (8)."""
    packets = [(4, False), (6, False), (5, False), (9, True), (8, False), (10, False), (12, True)]
    table = table_of_packets(packets, unit=1)
    assert table is not None
    assert (table.stamps.tolist(), table.starts.tolist(), table.cut) == ([9, 10, 12], [0, 2], 4)


@pytest.mark.parametrize(
    ("stamps", "seconds"),
    [
        ([3, 5, None, 9], [0.3, 0.5, 0.75, 0.9]),
        ([None, None, None], [0, 0.25, 0.5]),
        ([3, 2, 4], [0, 0.25, 0.5]),  # they tell nothing
    ],
)
def test_times_of_decoded_pictures(stamps: list[int | None], seconds: list[float]) -> None:
    table = table_of_pictures(stamps, unit=0.1, rate=4)
    assert table.seconds == pytest.approx(seconds)
    assert table.pictures.tolist() == list(range(len(stamps)))


@pytest.mark.parametrize(
    ("stamps", "shown"),
    [
        ([0, 1, 2], [0, 1, 2]),
        ([5, 6, 7, None, None], [0, 1, 2, 3, 4]),  # the decoder was ahead by five
        ([0, 1, 3, 4], [0, 1, 2, 2, 3]),
        ([0, 1, 4, 5], [0, 1, 1, 2, 2, 3]),
        ([0, 1, 5, 6], [0, 1, 1, 1, 2, 2, 3]),
        ([0, 2, 2, 3], [0, 1, 1, 2, 3]),
        ([0, 6, 1, 2, 7], [0, 0, 0, 0, 0, 1, 1, 4]),
    ],
)
def test_skipped_pictures_are_filled_as_ffmpeg_does(
    stamps: list[int | None], shown: list[int]
) -> None:
    table = table_at_constant_rate(stamps, unit=0.1, rate=10)
    assert table.pictures.tolist() == shown
    assert table.seconds == pytest.approx([place / 10 for place in range(len(shown))])
