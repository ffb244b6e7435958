"""From the folders that runs left to the table, and to intervals of its differences."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from stclip.data.annotations import Keyframe
from stclip.data.build import build_dataset
from stclip.data.labels import Labels
from stclip.errors import UserError
from stclip.evaluation.benchmark_table import Result
from stclip.evaluation.bootstrap import Interval, difference, draw_counts, resampled_map
from stclip.evaluation.frame_map import match_classes
from stclip.evaluation.matching import Floats
from stclip.evaluation.predictions import chance_map, read_predictions
from stclip.evaluation.results import soft_voting
from stclip.evaluation.rows import rows_of
from stclip.files import read_json
from stclip.puppet.experiment.plan import CHANCE, OURS, Plan
from stclip.puppet.experiment.runs import Run
from stclip.structures import Detections


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
    return soft_voting(detections) if run.cfg().TEST.SINGLE_ACTION else detections, labels


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
