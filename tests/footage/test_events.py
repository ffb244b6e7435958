"""The events that the votes along a track make."""

import numpy as np
import pytest

from stclip.footage.events import EventRule, find_events
from stclip.footage.records import Track

PLAIN = EventRule(window=0, threshold=0.6, keep=0.5, min_seconds=0.5, max_gap=1.0)


def track(scores: list[float], every: float = 0.5, start: float = 0.0) -> Track:
    """A person seen 10 times a second, with such scores of `walk`; `other` has the rest."""
    found = Track(3)
    times = [start + every * n for n in range(len(scores))]
    for n in range(round(10 * (times[-1] + every - start))):
        found.add_box(start + n / 10, n + 1, np.array([0, 0, 9, 9], dtype=np.float32), 1.0)
    for time, score in zip(times, scores, strict=True):
        found.add_scores(time, np.array([score, 1 - score], dtype=np.float32))
    return found


def spans(scores: list[float], rule: EventRule = PLAIN) -> list[tuple[float, float]]:
    events = find_events(track(scores), ["walk"], rule, 0.5)
    assert all(event.track == 3 and event.action == "walk" for event in events)
    return [(round(event.start, 3), round(event.end, 3)) for event in events]


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([0.9, 0.9, 0.9, 0.1, 0.1], [(0.0, 1.25)]),
        ([0.1, 0.9, 0.4, 0.4, 0.1], [(0.25, 1.75)]),  # it goes on at half of the threshold
        ([0.1, 0.4, 0.4, 0.4, 0.1], []),  # and does not begin there
        ([0.9, 0.1, 0.9, 0.1, 0.1, 0.1], [(0.0, 1.25)]),  # a short gap is closed
        ([0.9, 0.1, 0.1, 0.1, 0.1, 0.9, 0.9], [(2.25, 3.25)]),  # 0.25 s are too short
        ([0.1] * 4, []),
    ],
)  # fmt: skip
def test_hysteresis_gaps_and_lengths(scores, expected) -> None:
    assert spans(scores) == expected


def test_the_score_of_an_event_is_the_mean_of_its_votes() -> None:
    (event,) = find_events(track([0.7, 0.8, 0.9, 0.1]), ["walk"], PLAIN, 0.5)
    assert event.score == pytest.approx(0.8)


def test_time_in_which_nobody_was_seen_is_no_event() -> None:
    found = track([0.9, 0.9])
    late = track([0.9, 0.9], start=10.0)
    found.rows.extend(late.rows)
    found.score_times.extend(late.score_times)
    found.scores.extend(late.scores)
    events = find_events(found, ["walk"], PLAIN, 0.5)
    assert [(e.start, e.end) for e in events] == [(0.0, 0.75), (9.75, 10.75)]


def test_names_that_are_not_reported_have_no_events() -> None:
    assert find_events(track([0.1, 0.1, 0.1]), ["walk"], PLAIN, 0.5) == []
    assert len(find_events(track([0.1] * 3), ["walk", "other"], PLAIN, 0.5)) == 1
    assert find_events(Track(1), ["walk"], PLAIN, 0.5) == []
