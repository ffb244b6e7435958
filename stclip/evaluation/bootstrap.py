"""How far a difference of frame mAP depends on which test videos there happen to be.

The test videos are drawn anew, with replacement, many times over, and the metric is computed of
each draw. What a detection matches does not depend on the other videos, so the matches are found
once; a draw only says how often each video counts. Both methods of a comparison get the same draws.

Shape letters: R draws, V videos, n detections of a class, k of them true positives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stclip.evaluation.frame_map import ClassMatches
from stclip.evaluation.matching import Floats, Integers

_BLOCK = 256  # draws at a time, which bounds the memory


@dataclass(frozen=True)
class Interval:
    """A difference in percentage points, and the interval that 95 % of the draws lie in."""

    estimate: float
    low: float
    high: float


def draw_counts(videos: int, draws: int, seed: int) -> Integers:
    """How often each video counts: (1 + draws, videos); in the first row every video, once."""
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(videos, np.full(videos, 1 / videos), size=draws)
    return np.concatenate([np.ones((1, videos), dtype=np.int64), counts])


def resampled_map(matches: Sequence[ClassMatches], counts: Integers) -> Floats:
    """Frame mAP in percent of each draw.

    A video drawn k times counts as k videos. Detections of equal score keep the order that they
    have without the copies.

    Args:
        matches: of each class, over the same V videos.
        counts: (R, V).

    Returns:
        (R,); a class without ground truth in a draw is left out of that draw's mean, and NaN
        stands where no class is left.
    """
    blocks = [counts[start : start + _BLOCK] for start in range(0, len(counts), _BLOCK)]
    parts = [np.stack([_average_precision(m, block) for m in matches]) for block in blocks]
    values = np.concatenate(parts, axis=1)  # (classes, R)
    known = np.isfinite(values)
    total = np.where(known, values, 0).sum(axis=0)
    number = known.sum(axis=0)
    means: Floats = np.full(len(counts), np.nan)
    np.divide(100 * total, number, out=means, where=number > 0)
    return means


def difference(ours: Sequence[Sequence[Floats]], other: Sequence[Sequence[Floats]]) -> Interval:
    """The interval of the mean difference of two methods.

    Args:
        ours: for each split, for each seed what ``resampled_map`` gives, draw 0 being the plain
            test set; all seeds of a split with the same draws.
        other: the same of the other method, with the same splits and draws; its number of seeds
            may differ.
    """
    a, b = (
        np.mean([np.mean(split, axis=0) for split in method], axis=0) for method in (ours, other)
    )
    values = a - b
    drawn = values[1:][np.isfinite(values[1:])]
    low, high = np.percentile(drawn, [2.5, 97.5]) if len(drawn) else (np.nan, np.nan)
    return Interval(float(values[0]), float(low), float(high))


def _average_precision(matches: ClassMatches, counts: Integers) -> Floats:
    """Average precision (R,) as a fraction; NaN where a draw has no ground truth.

    Only true positives are steps of the curve. Of a video's copies the last one has the highest
    precision, which the envelope gives to the others, so precision is needed after all of them.
    """
    weights = counts.astype(np.float32)  # whole numbers, exact up to 2 ** 24
    truths = counts @ matches.truths
    positive = np.flatnonzero(matches.hit)
    if not len(positive):
        return np.where(truths > 0, 0.0, np.nan)
    # How many detections of each video rank no lower than each true positive: (V, k).
    ranked = np.zeros((counts.shape[1], len(positive) + 1), dtype=np.float32)
    step = np.searchsorted(positive, np.arange(len(matches.hit)))
    np.add.at(ranked, (matches.video, step), 1)
    detected = weights @ np.cumsum(ranked[:, :-1], axis=1)
    weight = weights[:, matches.video[positive]]
    found = np.cumsum(weight, axis=1)
    precision = np.divide(found, detected, out=np.zeros_like(found), where=detected > 0)
    envelope = _highest_from_here(precision)
    area = np.einsum("rk,rk->r", weight.astype(np.float64), envelope.astype(np.float64))
    values: Floats = np.full(len(counts), np.nan)
    np.divide(area, truths, out=values, where=truths > 0)
    return values


def _highest_from_here(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """For each column the highest of it and those right of it."""
    highest: NDArray[np.float32] = np.maximum.accumulate(values[:, ::-1], axis=1)[:, ::-1]
    return highest
