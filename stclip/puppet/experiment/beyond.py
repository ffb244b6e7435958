"""What goes beyond the paper, step by step: the runs, and what is read off them.

A test with the training's names as TEST.NONE_OF gives two results: as it is, and with each person's
scores divided by their sum, which are the scores without those names. Voting comes after the
scores too, so that one test of a model serves all columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from stclip.config import load_config
from stclip.data.labels import read_label_file, read_video_list
from stclip.evaluation.frame_map import Floats, Metrics
from stclip.evaluation.rejection import rejection
from stclip.evaluation.result_csv import rows_of
from stclip.evaluation.results import read_predictions
from stclip.evaluation.tables import Result, Vocabulary
from stclip.puppet.experiment.outcomes import (
    draw_counts,
    match_classes,
    resampled_map,
    truth,
    voted_together,
)
from stclip.puppet.experiment.plan import (
    BASELINES,
    OURS,
    PLUS,
    PLUS_PAIRS,
    UNTRAINED,
    Plan,
    Trial,
)
from stclip.puppet.experiment.runs import Run
from stclip.structures import Detections

VOTING = ("none", "track", "video")
HELD_OUT_OF = 3  # every third seen class is held out of training
_CROP = "MODEL.HEAD.CROP_WEIGHT"
_HALF = ("MODEL.SCALE", "0.5")
TRAININGS = {"published": (), "with_crop": PLUS_PAIRS}


@dataclass(frozen=True)
class Step:
    """A row of the table.

    Attributes:
        key: the name of its folder.
        title: the name of its row.
        training: a key of TRAININGS; None tests without training.
        pairs: config keys of the test.
    """

    key: str
    title: str
    training: str | None
    pairs: tuple[str, ...] = ()


TRAINING_FREE = tuple(Step(k, title, None, ("MODEL.NAME", k)) for k, title in BASELINES.items())
STEPS = (
    *TRAINING_FREE,
    Step("untrained", UNTRAINED, None),
    Step("untrained_crop", f"{UNTRAINED}, with the crop's feature", None, PLUS_PAIRS),
    Step("published", OURS, "published"),
    Step("published_half", f"{OURS}, half of the training's way", "published", _HALF),
    Step("plus", PLUS, "published", PLUS_PAIRS),
    Step("plus_0.5", f"{PLUS}, weight 0.5", "published", (_CROP, "0.5")),
    Step("plus_2", f"{PLUS}, weight 2", "published", (_CROP, "2.0")),
    Step("with_crop", f"{PLUS}, trained with it", "with_crop", PLUS_PAIRS),
    Step("with_crop_half", "that, half of the training's way", "with_crop", (*PLUS_PAIRS, *_HALF)),
)


@dataclass
class BeyondPlan(Plan):
    """The runs.

    Attributes:
        held_out: the classes are every third seen one, which is then not trained on, instead of the
            unseen ones; for choosing among the steps.
    """

    held_out: bool = False

    def fill(self, splits: Sequence[int], seeds: Sequence[int], steps: Sequence[Step]) -> None:
        """Add all runs; those without training first."""
        for split in splits:
            for step in (step for step in steps if step.training is None):
                seed = None if step in TRAINING_FREE else seeds[0]
                self._add_step(step, split, seed, None)
        for split in splits:
            for seed in seeds:
                for name, pairs in TRAININGS.items():
                    chosen = [step for step in steps if step.training == name]
                    if not chosen:
                        continue
                    folder = self.output / f"split_{split}" / f"training_{name}" / f"seed_{seed}"
                    words = (*pairs, *self._trained_on(split), "SEED", str(seed))
                    title = f"split {split}, training {name}, seed {seed}"
                    training = self._add_training(split, title, folder, words)
                    for step in chosen:
                        self._add_step(step, split, seed, training)

    def _add_step(self, step: Step, split: int, seed: int | None, training: Run | None) -> None:
        pairs = (*step.pairs, *self._trained_on(split)[:2], "TEST.NONE_OF", "TRAIN_LABEL")
        if seed is not None:
            pairs = (*pairs, "SEED", str(seed))
        name = step.key if seed is None else f"{step.key}/seed_{seed}"
        rate = step.key if step in TRAINING_FREE else "stclip"
        self._test(step.title, split, seed, name, pairs, rate, training, seen=not self.held_out)

    def _trained_on(self, split: int) -> tuple[str, ...]:
        """TRAIN_LABEL and TRAIN_VIDEO of a split."""
        labels = load_config(self.config(split), self.pairs).TRAIN_LABEL
        videos = self._lists(split) / f"split_{split}_train_seen.txt"
        if not self.held_out:
            return "TRAIN_LABEL", labels, "TRAIN_VIDEO", str(videos)
        kept = [n for i, n in enumerate(read_label_file(labels)) if i % HELD_OUT_OF]
        return (
            "TRAIN_LABEL", str(self._list(f"split_{split}_kept_label.txt", kept)),
            "TRAIN_VIDEO",
            str(self._list(f"split_{split}_kept_train.txt", _of(read_video_list(videos), kept))),
        )  # fmt: skip

    def _vocabulary(self, split: int, vocabulary: Vocabulary) -> tuple[tuple[str, ...], int]:
        """As of Plan; held-out classes stand in for the unseen ones, with their last test clips."""
        if not self.held_out:
            return super()._vocabulary(split, vocabulary)
        labels = read_label_file(load_config(self.config(split), self.pairs).TRAIN_LABEL)
        held = labels[::HELD_OUT_OF]
        every = read_video_list(self._lists(split) / f"split_{split}_test_seen.txt")
        # The last ones, because the first ones are what the seen classes are reported on.
        videos = [v for name in held for v in _of(every, [name])[-self.unseen_clips :]]
        words = (
            "TEST_LABEL", str(self._list(f"split_{split}_held_label.txt", held)),
            "TEST_VIDEO", str(self._list(f"split_{split}_held.txt", videos)),
        )  # fmt: skip
        return words, len(videos)


def _of(videos: Sequence[str], classes: Sequence[str]) -> list[str]:
    """The videos whose main person does one of some classes."""
    return [video for video in videos if video.rpartition("_")[0] in classes]


@dataclass(frozen=True)
class Outcome:
    """What a test gave, one way of reading it.

    Attributes:
        trial: the test.
        none_of: whether the training's names took their share of the scores.
        voting: one of VOTING.
        draws: (1 + R,) frame mAP at 0.5 in percent of the test videos and of their draws.
        rejection: of people who do something else, see ``evaluation.rejection``; None without any,
            and of seen classes.
    """

    trial: Trial
    none_of: bool
    voting: str
    draws: Floats
    rejection: Metrics | None

    @property
    def result(self) -> Result:
        """For the table."""
        trial = self.trial
        value = float(self.draws[0])
        return Result(trial.method, trial.split, trial.seed, trial.vocabulary, value)


def outcomes(trials: Sequence[Trial], draws: int, seed: int = 0) -> Iterator[Outcome]:
    """Every way of reading the tests of one split and vocabulary, which share their boxes.

    Args:
        trials: finished, of the same boxes.
        draws: of the test videos; 0 gives the plain values alone.
        seed: of the draws.
    """
    window = trials[0].run.cfg().TEST.VOTING_WINDOW
    keyframes = truth(trials[0].run)
    videos = sorted({keyframe.key.video for keyframe in keyframes})
    counts = draw_counts(len(videos), draws, seed)
    found = [read_predictions(trial.run.results() / "predictions.npz") for trial in trials]
    labels = found[0][1]
    ways = [(trial, none_of) for trial in trials for none_of in (False, True)]
    every: list[Detections] = []
    for detections, _ in found:
        scores = detections.scores
        every += [replace(detections, scores=scores / scores.sum(dim=1, keepdim=True)), detections]
    for voting in VOTING:
        changed = voted_together(every, voting, window)
        for (trial, none_of), one in zip(ways, changed, strict=True):
            rows = rows_of(one)
            values = resampled_map(match_classes(keyframes, rows, labels, videos), counts)
            others = None
            if trial.vocabulary == "unseen":
                others = rejection(keyframes, rows, labels).get("rejection")
            yield Outcome(trial, none_of, voting, values, others)
