"""From the folders that runs left to the table, and to intervals of its differences.

The intervals say how far a difference of frame mAP depends on which test videos there happen to be.
The test videos are drawn with replacement many times, and the metric is computed of each draw. What
a detection matches does not depend on the other videos, so the matches are found once; a draw only
says how often each video counts. Both methods of a comparison get the same draws.

Shape letters: R draws, V videos, n detections of a class, k of them true positives.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from stclip.data.annotations import Keyframe
from stclip.data.build import build_dataset
from stclip.data.labels import Labels
from stclip.errors import UserError
from stclip.evaluation.frame_map import (
    AnnotatedFrame,
    Floats,
    Integers,
    TruthBoxes,
    frame_map,
    rank_classes,
)
from stclip.evaluation.result_csv import DetectionRows, rows_of
from stclip.evaluation.results import read_predictions
from stclip.evaluation.tables import Result
from stclip.evaluation.voting import voted
from stclip.files import read_json
from stclip.puppet.experiment.plan import CHANCE, OURS, Plan
from stclip.puppet.experiment.runs import Run
from stclip.structures import Detections

_BLOCK = 256  # draws at a time, which bounds the memory


def metric(run: Run) -> tuple[float, dict[str, float | None]]:
    """Frame mAP at 0.5 of a test, and the AP of each class, in percent."""
    path = run.results() / "metrics.json"
    metrics = read_json(path)
    try:
        value, per_class = metrics["frame_mAP@0.5"], metrics["per_class@0.5"]
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{path}: has no {error}; TEST.IOU_THRESHOLDS must hold 0.5 and the test videos "
            "ground truth"
        ) from error
    return float(value or 0.0), dict(per_class)


def scored(run: Run) -> tuple[Detections, tuple[str, ...]]:
    """The detections of a test as they were evaluated, and the vocabulary."""
    detections, labels = read_predictions(run.results() / "predictions.npz")
    test = run.cfg().TEST
    return voted(detections, test.VOTING, test.VOTING_WINDOW), labels


def voted_together(found: Sequence[Detections], voting: str, window: float) -> list[Detections]:
    """Several tests' detections after voting; they are of the same boxes.

    Voting does not mix classes, and tracks follow from the boxes, so that these are found once.
    """
    first = found[0]
    assert all(torch.equal(one.boxes, first.boxes) for one in found), "tests of other boxes"
    widths = [one.scores.shape[1] for one in found]
    together = replace(first, scores=torch.cat([one.scores for one in found], dim=1))
    changed = voted(together, voting, window).scores.split(widths, dim=1)
    return [replace(one, scores=scores) for one, scores in zip(found, changed, strict=True)]


def metric_along_tracks(runs: Sequence[Run]) -> list[float]:
    """Frame mAP at 0.5 in percent of tests of the same boxes, voted along tracks."""
    predictions = [read_predictions(run.results() / "predictions.npz") for run in runs]
    window = runs[0].cfg().TEST.VOTING_WINDOW
    changed = voted_together([detections for detections, _ in predictions], "track", window)
    frames = truth(runs[0])
    return [
        frame_map(frames, rows_of(one), labels, (0.5,))["frame_mAP@0.5"] or 0.0
        for one, (_, labels) in zip(changed, predictions, strict=True)
    ]


def truth(run: Run) -> list[Keyframe]:
    """The annotated keyframes of a test."""
    return build_dataset(run.cfg(), "test").keyframes


def results(plan: Plan) -> list[Result]:
    """The outcome of every test of a plan, and of chance for the boxes that these are of."""
    found = [
        Result(trial.method, trial.split, trial.seed, trial.vocabulary, metric(trial.run)[0])
        for trial in plan.trials
    ]
    done = set()
    for trial in plan.trials:
        place = (trial.split, trial.vocabulary)
        if place not in done:  # every method scores the same boxes
            done.add(place)
            found.append(Result(CHANCE, trial.split, None, trial.vocabulary, chance(trial.run)[0]))
    return found


def chance(run: Run) -> tuple[float, dict[str, float]]:
    """What random scores give for the boxes of a test; see ``chance_map``."""
    return chance_map(truth(run), *scored(run))


def chance_map(
    ground_truth: Sequence[AnnotatedFrame],
    detections: Detections,
    labels: Sequence[str],
    draws: int = 10,
    seed: int = 0,
) -> tuple[float, dict[str, float]]:
    """Frame mAP at 0.5 of the same boxes with random class scores, mean over some draws.

    Each person's class scores are drawn evenly from all that are positive and sum to 1, and
    multiplied by the detector's score as a model's are.

    Returns:
        The mAP, and each class's AP, in percent; a class without ground truth is left out.
    """
    generator = torch.Generator().manual_seed(seed)
    values: list[float] = []
    per_class: dict[str, list[float]] = {}
    for _ in range(draws):
        uniform = torch.rand(len(detections), len(labels), generator=generator, dtype=torch.double)
        shares = -torch.log1p(-uniform)  # exponential, so that their shares are even
        scores = (shares / shares.sum(dim=1, keepdim=True)).float()
        rows = rows_of(replace(detections, scores=scores))
        metrics = frame_map(ground_truth, rows, labels, (0.5,))
        values.append(metrics["frame_mAP@0.5"] or 0.0)
        for name, value in metrics["per_class"].items():
            if value is not None:
                per_class.setdefault(name, []).append(value)
    means = {name: sum(each) / len(each) for name, each in per_class.items()}
    return sum(values) / len(values), means


@dataclass(frozen=True)
class Interval:
    """A difference in percentage points, and the interval that 95 % of the draws lie in."""

    estimate: float
    low: float
    high: float


def intervals(
    plan: Plan, others: Iterable[str], draws: int = 1000, seed: int = 0
) -> dict[str, Interval]:
    """How much higher ST-CLIP's unseen mAP is than that of other methods.

    The mean over the splits and seeds that were run, with the interval over draws of test videos.
    """
    methods = [OURS, *others]
    values: dict[str, list[list[Floats]]] = {method: [] for method in methods}
    for split in dict.fromkeys(trial.split for trial in plan.trials):
        tests = [
            (trial.method, trial.run)
            for trial in plan.trials
            if trial.split == split and trial.vocabulary == "unseen" and trial.method in methods
        ]
        for method, of_seeds in resampled(tests, draws, seed + split).items():
            values[method].append(of_seeds)
    return {
        method: difference(values[OURS], of_splits)
        for method, of_splits in values.items()
        if method != OURS and len(of_splits) == len(values[OURS]) > 0
    }


def resampled(tests: Sequence[tuple[str, Run]], draws: int, seed: int) -> dict[str, list[Floats]]:
    """For each method the draws of each of its tests, all of which are of the same test videos."""
    if not tests:
        return {}
    keyframes = truth(tests[0][1])
    videos = sorted({keyframe.key.video for keyframe in keyframes})
    counts = draw_counts(len(videos), draws, seed)
    values: dict[str, list[Floats]] = {}
    for method, run in tests:
        detections, labels = scored(run)
        cfg = run.cfg()
        rows = rows_of(detections, cfg.TEST.ACTION_THRESH)
        matches = match_classes(keyframes, rows, labels, videos)
        # Of a generalised test the mAP is the mean over the unseen classes.
        wanted = Labels.read(cfg, "test").test
        of_wanted = [m for m, name in zip(matches, labels, strict=True) if name in wanted]
        values.setdefault(method, []).append(resampled_map(of_wanted, counts))
    return values


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


def draw_counts(videos: int, draws: int, seed: int) -> Integers:
    """How often each video counts: (1 + draws, videos); in the first row every video, once."""
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(videos, np.full(videos, 1 / videos), size=draws)
    return np.concatenate([np.ones((1, videos), dtype=np.int64), counts])


@dataclass(frozen=True)
class ClassMatches:
    """What the average precision of one class follows from, detection by detection.

    Attributes:
        video: (n,) for each detection, by descending score, a number of its video.
        hit: (n,) whether it is a true positive.
        truths: (V,) ground-truth boxes of each video.
    """

    video: Integers
    hit: NDArray[np.bool_]
    truths: Integers


def match_classes(
    ground_truth: Iterable[AnnotatedFrame],
    rows: DetectionRows,
    labels: Sequence[str],
    videos: Sequence[str],
    iou_threshold: float = 0.5,
) -> list[ClassMatches]:
    """The matches that ``frame_map`` computes from, for each of ``labels``.

    Args:
        ground_truth: see ``stclip.evaluation.frame_map``.
        rows: see ``stclip.evaluation.frame_map``.
        labels: see ``stclip.evaluation.frame_map``.
        videos: V names, which number the videos; every video of ``ground_truth`` and ``rows``.
        iou_threshold: a match needs at least this IoU.
    """
    truth = TruthBoxes.of_frames(ground_truth, labels)
    number = {video: i for i, video in enumerate(videos)}
    of_truth = np.array([number[key.video] for key in truth.frames], dtype=np.int64)
    of_row = np.array([number[key.video] for key in rows.keys], dtype=np.int64)
    matches = []
    for index, ranking in enumerate(rank_classes(truth, rows)):
        truths = np.bincount(of_truth[truth.frame[index]], minlength=len(videos))
        matches.append(
            ClassMatches(
                of_row[rows.frame[ranking.rows]],
                ranking.hits(iou_threshold),
                truths.astype(np.int64),
            )
        )
    return matches


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
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    area = np.einsum("rk,rk->r", weight.astype(np.float64), envelope.astype(np.float64))
    values: Floats = np.full(len(counts), np.nan)
    np.divide(area, truths, out=values, where=truths > 0)
    return values
