"""Which part of ST-CLIP is needed where: drawn subsets, each trained with and without one part.

Beside them the standard split with another image tower, and with X-CLIP.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from yacs.config import CfgNode

from stclip.config import load_config
from stclip.evaluation.tables import Cell, format_cell
from stclip.puppet.experiment.outcomes import Interval, difference, metric, resampled
from stclip.puppet.experiment.plan import BASELINES, OURS
from stclip.puppet.experiment.runs import Run

# Of CLIP without training. Beside the ablation they show what kind of subset it is.
_BASELINES = {name: BASELINES[name] for name in ("frame", "crop")}


@dataclass(frozen=True)
class Variant:
    """What is trained on a subset.

    Attributes:
        key: the name of its folder.
        title: the name of its row.
        config: a yaml file in the folder of configs.
        pairs: keys and values that win over it.
    """

    key: str
    title: str
    config: str
    pairs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Subset:
    """A subset and what is trained on it: ST-CLIP first, which the others are compared with."""

    variants: tuple[Variant, ...]

    @classmethod
    def drawn_for(cls, config: str, *parts: tuple[str, str]) -> Subset:
        """A subset that was drawn for parts of ST-CLIP: their names, and keys that switch them off.

        Each part needs the next one, so that with it those before it are switched off too.
        """
        variants = [Variant("whole", OURS, config)]
        off: tuple[str, ...] = ()
        for part, key in parts:
            off += (key, "False")
            folder = f"without {part}".replace(" ", "_") if variants[1:] else "without"
            variants.append(Variant(folder, f"{OURS} without {part}", config, off))
        return cls(tuple(variants))


SUBSETS = {
    "time": Subset.drawn_for("time.yaml", ("temporal modelling", "MODEL.TEMPORAL.ENABLED")),
    "crowd": Subset.drawn_for("crowd.yaml", ("person tokens", "MODEL.PERSON_TOKENS.ENABLED")),
    "context": Subset.drawn_for("context.yaml", ("context prompting", "MODEL.PROMPT.ENABLED")),
    "multi": Subset.drawn_for(
        "multi_its.yaml",
        ("interest token spotting", "MODEL.INTEREST_TOKENS.ENABLED"),
        ("context prompting", "MODEL.PROMPT.ENABLED"),
    ),
    "backbone": Subset(
        (
            Variant("clip", OURS, "split_1.yaml"),
            Variant("xclip", f"{OURS} with X-CLIP's image tower", "xclip_backbone.yaml"),
            Variant("xclip_alone", "X-CLIP, fine-tuned", "xclip_split_1.yaml"),
        )
    ),
}


@dataclass(frozen=True)
class Row:
    """The outcome of one method on a subset.

    Attributes:
        method: its name.
        value: frame mAP at 0.5 in percent.
        behind: how much higher ST-CLIP's is; None of ST-CLIP itself.
    """

    method: str
    value: Cell
    behind: Interval | None


@dataclass
class Ablation:
    """The runs of one subset.

    Attributes:
        cfg: the config of ST-CLIP on the subset.
        runs: all in order.
        tests: (method, run) of those that are tests.
    """

    cfg: CfgNode
    runs: list[Run]
    tests: list[tuple[str, Run]]

    @classmethod
    def plan(
        cls, name: str, output: Path, config_dir: Path, seeds: Sequence[int], pairs: Sequence[str]
    ) -> Ablation:
        """Lay out the runs of the subset ``name``.

        Args:
            name: a key of SUBSETS.
            output: the folder of all subsets.
            config_dir: holds the subset's yaml files.
            seeds: of the trainings.
            pairs: config keys of all runs.

        Raises:
            UserError: the config cannot be read.
        """
        variants = SUBSETS[name].variants
        config = str(config_dir / variants[0].config)
        ablation = cls(load_config(config, pairs), [], [])
        for variant in variants:
            load_config(config_dir / variant.config, (*pairs, *variant.pairs))
        for key, title in _BASELINES.items():
            words = (*pairs, "MODEL.NAME", key)
            run = Run(f"{name}, {title}", "test", config, output / name / key, words)
            ablation._add_test(title, run)
        solver = ablation.cfg.SOLVER
        seconds = solver.MAX_ITER * solver.VIDEOS_PER_BATCH / 30
        for seed in seeds:
            for variant in variants:
                words = (*pairs, *variant.pairs, "SEED", str(seed))
                config = str(config_dir / variant.config)
                folder = output / name / variant.key / f"seed_{seed}"
                label = f"{name}, {variant.title}, seed {seed}"
                train = Run(
                    f"{label}: training", "train", config, folder / "train", words,
                    seconds=seconds,
                )  # fmt: skip
                ablation.runs.append(train)
                test = Run(label, "test", config, folder / "test", words, train, seconds / 3)
                ablation._add_test(variant.title, test)
        return ablation

    def rows(self, draws: int, seed: int = 0) -> list[Row]:
        """The outcome, once all runs are finished.

        Args:
            draws: of the test videos, for the intervals.
            seed: of the draws.
        """
        drawn = resampled(self.tests, draws, seed)
        values: dict[str, list[float]] = {}
        for method, run in self.tests:
            values.setdefault(method, []).append(metric(run)[0])
        rows = []
        for method, of_seeds in values.items():
            cell = Cell.of(of_seeds)
            assert cell is not None
            behind = None if method == OURS else difference([drawn[OURS]], [drawn[method]])
            rows.append(Row(method, cell, behind))
        return rows

    def _add_test(self, method: str, run: Run) -> None:
        self.runs.append(run)
        self.tests.append((method, run))


def cells(subset: str, row: Row) -> list[str]:
    """A row as text: subset, method, mAP, and ST-CLIP's lead with its interval."""
    lead = "-"
    if row.behind is not None:
        lead = f"{row.behind.estimate:+.1f} [{row.behind.low:+.1f}, {row.behind.high:+.1f}]"
    return [f"Puppet-{subset}", row.method, format_cell(row.value), lead]
