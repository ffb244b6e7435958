"""From the scores of a person over time to events: voting, hysteresis, gaps and minimal lengths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stclip.footage.records import Event, Footage, Track
from stclip.structures import Tube
from stclip.tracking import vote


@dataclass(frozen=True)
class EventRule:
    """What makes an event of scores.

    Attributes:
        window: seconds over which scores are averaged (voted), half of them to each side.
        threshold: an event begins where the voted score of its action reaches this.
        keep: it goes on while the score is at least this share of ``threshold``.
        min_seconds: shorter events are dropped.
        max_gap: two events of one action with less between them are one.
    """

    window: float = 2.0
    threshold: float = 0.5
    keep: float = 0.7
    min_seconds: float = 0.5
    max_gap: float = 1.0


def find_events(
    track: Track, actions: Sequence[str], rule: EventRule, score_every: float
) -> list[Event]:
    """The events of one person.

    A moment that was scored stands for the time around it, half way to its neighbours and at most
    half of ``score_every``. Several actions may go on at once if their scores allow it.

    Args:
        track: its scores are those of ``actions`` and of names that are not reported after them.
        actions: the names that are reported.
        rule: what makes an event.
        score_every: seconds from one scored moment to the next.

    Returns:
        Events by start.
    """
    times, scores = track.timeline()
    if not len(times):
        return []
    voted = vote(times, scores, rule.window)
    first, last = float(track.rows[0]), float(track.rows[-7])
    # A moment stands for the time up to the middle between it and its neighbours.
    half = score_every / 2
    middles = (times[1:] + times[:-1]) / 2
    begins = np.concatenate([[max(first, times[0] - half)], np.maximum(middles, times[1:] - half)])
    ends = np.concatenate([np.minimum(middles, times[:-1] + half), [min(last, times[-1] + half)]])
    found: list[Event] = []
    for column, action in enumerate(actions):
        for start, stop in _runs(voted[:, column], ends, begins, rule):
            seconds = begins[start], ends[stop - 1]
            if seconds[1] - seconds[0] + 1e-9 >= rule.min_seconds:
                mean = float(voted[start:stop, column].mean())
                found.append(Event(track.id, action, float(seconds[0]), float(seconds[1]), mean))
    return sorted(found, key=lambda event: (event.start, event.action))


def event_tubes(footage: Footage, rule: EventRule | None = None) -> list[Tube]:
    """Events with the boxes of their persons, for comparing with annotated tubes.

    Args:
        footage: of a whole video.
        rule: finds events anew; None takes those that were found. Voted scores as they are, and
            averaged over no time, differ in ``window``.
    """
    tubes = []
    for track in footage.tracks.values():
        events = track.events
        if rule is not None:
            every = float(footage.settings["score_every"])
            events = find_events(track, footage.actions, rule, every)
        boxes = track.boxes
        for event in events:
            within = (boxes[:, 0] >= event.start - 1e-3) & (boxes[:, 0] <= event.end + 1e-3)
            rows = boxes[within]
            if len(rows):
                frames, xyxy = rows[:, 1].astype(np.int64), rows[:, 2:6].astype(np.float32)
                tubes.append(Tube(event.action, frames, xyxy, event.score))
    return tubes


def _runs(
    voted: NDArray[np.float32],
    ends: NDArray[np.float64],
    begins: NDArray[np.float64],
    rule: EventRule,
) -> list[tuple[int, int]]:
    """Half-open ranges of moments: hysteresis, then gaps closed."""
    low = rule.threshold * rule.keep
    runs: list[tuple[int, int]] = []
    place = 0
    while place < len(voted):
        if voted[place] < low:
            place += 1
            continue
        stop = place
        while stop < len(voted) and voted[stop] >= low:
            if stop > place and begins[stop] - ends[stop - 1] > rule.max_gap:
                break  # nobody was seen in between
            stop += 1
        if (voted[place:stop] >= rule.threshold).any():
            if runs and begins[place] - ends[runs[-1][1] - 1] < rule.max_gap:
                runs[-1] = runs[-1][0], stop
            else:
                runs.append((place, stop))
        place = stop
    return runs
