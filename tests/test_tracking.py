"""Who is who in successive frames, and votes along a track."""

import numpy as np
import pytest

from stclip.tracking import Tracker, follow, vote


def boxes(*left: float) -> np.ndarray:
    """A box of 40 x 80 pixels at each place."""
    return np.array([[x, 10, x + 40, 90] for x in left], dtype=np.float32).reshape(-1, 4)


def ids(seconds: list[float], found: list[np.ndarray], scores: float = 0.9) -> list[list[int]]:
    each = [np.full(len(at), scores, dtype=np.float32) for at in found]
    return [numbers.tolist() for numbers in follow(np.array(seconds), found, each)]


def test_persons_who_cross_keep_their_numbers() -> None:
    """Their boxes change places in the list as well."""
    found = [boxes(5 * n, 100 - 5 * n)[:: 1 if n % 2 else -1] for n in range(20)]
    numbers = ids([n / 30 for n in range(20)], found)
    left = [each[0 if n % 2 else 1] for n, each in enumerate(numbers)]
    assert len(set(left)) == 1
    assert {tuple(sorted(each)) for each in numbers} == {(1, 2)}


def test_who_comes_later_and_who_is_seen_once() -> None:
    found = [boxes(0), boxes(1, 100), boxes(2, 101), boxes(200, 3), boxes(4)]
    assert ids([0, 0.1, 0.2, 0.3, 0.4], found) == [[1], [1, 2], [1, 2], [0, 1], [1]]


@pytest.mark.parametrize(
    ("seconds", "left", "numbers"),
    [
        ([0, 0.1, 1.5, 1.6], [0, 0, 0, 0], [1, 1, 1, 1]),  # out of sight for less than two seconds
        ([0, 0.1, 3.5, 3.6], [0, 0, 0, 0], [1, 1, 2, 2]),
        ([0, 0.1, 0.2, 0.3], [0, 25, 50, 75], [1, 1, 1, 1]),
        ([0, 1, 2, 3], [0, 25, 50, 75], [1, 0, 0, 0]),  # a second later it may be somebody else
        ([0, 1, 2, 3], [0, 5, 10, 15], [1, 1, 1, 1]),
        ([0], [0], [1]),
    ],
)
def test_gaps_and_frames_that_are_far_apart(seconds, left, numbers) -> None:
    found = [boxes(x) for x in left]
    assert [each for (each,) in ids(seconds, found)] == numbers


def test_low_scores_begin_no_track_and_an_empty_video_has_none() -> None:
    assert ids([0, 0.1, 0.2], [boxes(0)] * 3, scores=0.3) == [[0], [0], [0]]
    assert ids([0, 0.1], [boxes(), boxes()]) == [[], []]
    assert follow(np.zeros(0), [], []) == []


def update(
    tracker: Tracker, number: int, *found: tuple[float, float], seconds: float | None = None
) -> list[int]:
    """The numbers of persons 30 x 60 pixels large in a frame, each given as (left, score)."""
    boxes = np.array([[x, 20, x + 30, 80] for x, _ in found], np.float32).reshape(-1, 4)
    scores = np.array([score for _, score in found], np.float32)
    seconds = (number - 1) / 10 if seconds is None else seconds
    return tracker.update(boxes, scores, seconds).tolist()


def test_people_keep_their_numbers() -> None:
    tracker = Tracker(fps=10)
    for n in range(1, 30):
        found = [(10 + 3 * n, 0.9)] if 10 <= n < 20 else [(200 - 2 * n, 0.8), (10 + 3 * n, 0.9)]
        ids = update(tracker, n, *found)
        assert ids == ([2] if 10 <= n < 20 else [1, 2])  # 1 is out of sight for a second


def test_a_number_needs_a_sure_box_at_first_and_two_frames_later() -> None:
    tracker = Tracker(fps=10, threshold=0.5)
    assert update(tracker, 1, (10, 0.45), (80, 0.55)) == [0, 1]
    assert update(tracker, 2, (10, 0.55), (80, 0.25)) == [0, 1]
    assert update(tracker, 3, (10, 0.55), (80, 0.25)) == [2, 1]


def test_who_leaves_is_not_replaced_by_an_unsure_box_nearby() -> None:
    tracker = Tracker(fps=10)
    for n in range(1, 6):
        assert update(tracker, n, (10 + 5 * n, 0.9), (60, 0.25)) == [1, 0]
    assert update(tracker, 6, (60, 0.25)) == [0]


def test_times_count_not_frames() -> None:
    """A person is found again where its speed says, however many frames were dropped."""
    tracker = Tracker(fps=10)
    for n in range(1, 11):
        update(tracker, n, (5 * n, 0.9))
    assert update(tracker, 11, (100, 0.9), seconds=1.9) == [1]


def test_a_cut_ends_every_track() -> None:
    tracker = Tracker(fps=10)
    assert update(tracker, 1, (10, 0.9)) == [1]
    assert update(tracker, 2, (10, 0.9)) == [1]
    tracker.cut()
    assert update(tracker, 3, (10, 0.9)) == [2]
    assert update(tracker, 4, (10, 0.9)) == [2]


def test_votes_are_means_within_half_a_window() -> None:
    times, scores = np.array([0.0, 0.5, 1.0, 4.0]), np.array([[1.0], [0.0], [0.5], [0.2]])
    voted = vote(times, scores.astype(np.float32), 1.0)
    np.testing.assert_allclose(voted[:, 0], [0.5, 0.5, 0.25, 0.2])
    np.testing.assert_allclose(vote(times, scores.astype(np.float32), 0.0), scores)


def test_votes_equal_the_loop() -> None:
    rng = np.random.default_rng(0)
    times, scores = rng.uniform(0, 20, 50).cumsum() / 10, rng.random((50, 3)).astype(np.float32)
    for window in (0.3, 2.0, 7.0, np.inf):
        expected = [scores[np.abs(times - t) <= window / 2].mean(axis=0) for t in times]
        np.testing.assert_allclose(vote(times, scores, window), expected, atol=1e-6)
