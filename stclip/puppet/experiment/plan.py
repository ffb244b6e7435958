"""Which runs the Puppet benchmark consists of.

Every method is tested on the same videos: the test clips of the unseen classes against the unseen
names, and clips of the seen classes against the seen names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from stclip.config import load_config
from stclip.data.labels import read_video_list
from stclip.errors import UserError
from stclip.evaluation.tables import Vocabulary
from stclip.files import write_text
from stclip.puppet.experiment.runs import Run

CHANCE = "chance"
UNTRAINED, OURS = "ST-CLIP, untrained", "ST-CLIP"
CEILING = "ceiling (trained on all classes)"
# Chosen on held-out seen classes (docs/beyond.md): the trained ST-CLIP with these keys in the test.
PLUS = "ST-CLIP with the crop's feature"
PLUS_PAIRS = ("MODEL.HEAD.CROP_WEIGHT", "1.0")
BASELINES = {"frame": "CLIP, frame", "crop": "CLIP, crop", "frame_crop": "CLIP, frame + crop"}
ABLATIONS = {
    "temporal": ("ST-CLIP without temporal modelling", ("MODEL.TEMPORAL.ENABLED", "False")),
    "prompt": ("ST-CLIP without context prompting", ("MODEL.PROMPT.ENABLED", "False")),
    "person_tokens": ("ST-CLIP without person tokens", ("MODEL.PERSON_TOKENS.ENABLED", "False")),
    "lora": ("ST-CLIP without LoRA", ("MODEL.LORA.RANK", "0")),
    "interest_tokens": (
        "ST-CLIP with interest token spotting",
        ("MODEL.INTEREST_TOKENS.ENABLED", "True", "MODEL.INTEREST_TOKENS.INCLUDE_PERSON", "True"),
    ),
}
# Keyframes a second on two cores, roughly; for the time left.
_TEST_RATE = {"frame": 300.0, "crop": 200.0, "frame_crop": 150.0, "stclip": 70.0}
_TRAIN_RATE = 30.0
_FRAMES = 25  # of a clip, on average


@dataclass(frozen=True)
class Trial:
    """A test whose result goes into the table."""

    method: str
    split: int
    seed: int | None
    vocabulary: Vocabulary
    run: Run


@dataclass
class Plan:
    """The runs of an experiment.

    Attributes:
        output: the folder of everything.
        config_dir: holds split_<n>.yaml.
        pairs: KEY VALUE pairs for every run.
        unseen_clips: test clips of each unseen class, 0 for all.
        seen_clips: the same of seen classes.
        runs: all runs in order, each once.
        trials: the tests among them.
    """

    output: Path
    config_dir: Path
    pairs: tuple[str, ...] = ()
    unseen_clips: int = 0
    seen_clips: int = 0
    runs: list[Run] = field(default_factory=list)
    trials: list[Trial] = field(default_factory=list)

    def config(self, split: int) -> str:
        """The yaml file of a split."""
        return str(self.config_dir / f"split_{split}.yaml")

    def methods(self) -> list[str]:
        """The rows of the table in their order, chance included."""
        names = dict.fromkeys(trial.method for trial in self.trials)
        last = [name for name in names if name == CEILING]
        return [CHANCE, *(name for name in names if name != CEILING), *last]

    def add_baselines(self, split: int, seen: bool = True) -> None:
        """CLIP without training: the frame, the person's crop, and both."""
        for name, method in BASELINES.items():
            self._test(method, split, None, name, ("MODEL.NAME", name), name, seen=seen)

    def add_untrained(self, split: int, seed: int, seen: bool = True) -> None:
        """ST-CLIP as it is initialised."""
        self._test(UNTRAINED, split, seed, "untrained", ("SEED", str(seed)), "stclip", seen=seen)

    def add_trained(
        self,
        split: int,
        seed: int,
        method: str = OURS,
        name: str = "stclip",
        pairs: tuple[str, ...] = (),
    ) -> Run:
        """ST-CLIP trained on the seen classes; gives the training."""
        pairs = (*pairs, "SEED", str(seed))
        folder = self.output / f"split_{split}" / name / f"seed_{seed}"
        title = f"split {split}, {method}, seed {seed}: training"
        lists = self._lists(split)
        videos = ("TRAIN_VIDEO", str(lists / f"split_{split}_train_seen.txt"))
        training = self._add_training(split, title, folder, (*pairs, *videos))
        self._test(method, split, seed, f"{name}/seed_{seed}", pairs, "stclip", training)
        return training

    def add_plus(self, split: int, seed: int, training: Run) -> None:
        """The trained ST-CLIP with what was chosen beyond the paper, on unseen classes."""
        pairs = (*PLUS_PAIRS, "SEED", str(seed))
        self._test(PLUS, split, seed, f"plus/seed_{seed}", pairs, "stclip", training, seen=False)

    def add_ceiling(self, splits: Sequence[int], seed: int) -> None:
        """ST-CLIP trained on all classes, once, and tested on each split's unseen ones."""
        everything = load_config(self.config(splits[0]), self.pairs).ALL_LABEL
        pairs = ("TRAIN_LABEL", everything, "TRAIN_VIDEO", "", "SEED", str(seed))
        title = f"{CEILING}: training"
        training = self._add_training(splits[0], title, self.output / "ceiling", pairs)
        for split in splits:
            self._test(
                CEILING, split, seed, "ceiling", ("SEED", str(seed)), "stclip", training, seen=False
            )

    def _add_training(self, split: int, title: str, folder: Path, pairs: tuple[str, ...]) -> Run:
        pairs = (*self.pairs, *pairs)
        solver = load_config(self.config(split), pairs).SOLVER
        seconds = solver.MAX_ITER * solver.VIDEOS_PER_BATCH / _TRAIN_RATE
        run = Run(title, "train", self.config(split), folder / "train", pairs, seconds=seconds)
        self.runs.append(run)
        return run

    def _test(
        self,
        method: str,
        split: int,
        seed: int | None,
        name: str,
        pairs: tuple[str, ...],
        rate: str,
        training: Run | None = None,
        seen: bool = True,
    ) -> None:
        vocabularies: list[Vocabulary] = ["unseen", "seen"] if seen else ["unseen"]
        for vocabulary in vocabularies:
            words, clips = self._vocabulary(split, vocabulary)
            run = Run(
                f"split {split}, {method}{'' if seed is None else f', seed {seed}'}: {vocabulary}",
                "test",
                self.config(split),
                self.output / f"split_{split}" / name / vocabulary,
                (*self.pairs, *pairs, *words),
                training,
                clips * _FRAMES / _TEST_RATE[rate],
            )
            self.runs.append(run)
            self.trials.append(Trial(method, split, seed, vocabulary, run))

    def _vocabulary(self, split: int, vocabulary: Vocabulary) -> tuple[tuple[str, ...], int]:
        """The label and video keys of a test, and the number of its videos."""
        cfg = load_config(self.config(split), self.pairs)
        limit = self.unseen_clips if vocabulary == "unseen" else self.seen_clips
        path = self._lists(split) / f"split_{split}_test_{vocabulary}.txt"
        videos = read_video_list(path)
        if limit:
            videos = first_of_each_class(videos, limit)
            path = self._list(f"split_{split}_{vocabulary}.txt", videos)
        labels = cfg.TEST_LABEL if vocabulary == "unseen" else cfg.TRAIN_LABEL
        return ("TEST_LABEL", labels, "TEST_VIDEO", str(path)), len(videos)

    def _list(self, name: str, lines: Sequence[str]) -> Path:
        """A list of the output folder, written unless it is there."""
        path, text = self.output / "lists" / name, "".join(f"{line}\n" for line in lines)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            write_text(path, text)
        return path

    def _lists(self, split: int) -> Path:
        """The folder of the drawn video lists."""
        data = load_config(self.config(split), self.pairs).DATASETS
        folder = Path(data.DATA_DIR) / data.TEST / "lists"
        if not folder.is_dir():
            raise UserError(
                f"{folder}: is not there; draw the benchmark first: stclip puppet draw "
                f"--out {folder.parent}"
            )
        return folder


def first_of_each_class(videos: Sequence[str], count: int) -> list[str]:
    """The first ``count`` videos of each class; a name is the class, an underscore, a number."""
    kept: dict[str, list[str]] = {}
    for video in videos:
        kept.setdefault(video.rpartition("_")[0], []).append(video)
    chosen = {video for of_class in kept.values() for video in of_class[:count]}
    return [video for video in videos if video in chosen]


def free_folder(stem: Path) -> Path:
    """``stem``-<n> with the first number that is not taken."""
    number = 1
    while (folder := stem.with_name(f"{stem.name}-{number}")).exists():
        number += 1
    return folder
