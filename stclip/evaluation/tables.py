"""Tables: of a metric, of the benchmark, and the paper's with our own runs in it.

docs/evaluation.md, "Benchmark table", says what the columns of the last two are.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from stclip.evaluation.frame_map import Metrics, harmonic_mean
from stclip.evaluation.video_map import RANGE_NAME

Vocabulary = Literal["unseen", "seen"]

NOTE = (
    "Frame mAP at IoU 0.5 in percent on unseen classes. avg: mean over the splits; H: harmonic "
    "mean of avg and of the mean on seen classes; *: with annotated boxes. Values {marks} are "
    "ours, from the runs given; the others were published and have not been reproduced here."
)

# Published zero-shot results: dataset -> with the single-action assumption or without -> method ->
# the splits, avg, H, avg*, H*. From the results tables on the project page of ST-CLIP (Huang, Chen,
# Lai, WACV 2025; github.com/webber2933/ST-CLIP-project-page, static/images/ZS_*_evaluation.svg),
# pictures that were transcribed by eye. ViT-B/16 on J-HMDB and UCF101-24, ViT-L/14 on AVA.
PUBLISHED: dict[str, dict[bool, dict[str, tuple[float, ...]]]] = {
    "jhmdb": {
        False: {
            "baseline": (64.63, 71.04, 82.13, 75.88, 73.42, 65.45, 81.21, 71.82),
            "ViCLIP": (52.29, 72.29, 53.59, 70.58, 62.19, 68.03, 68.15, 74.05),
            "iCLIP": (66.53, 69.99, 82.88, 71.84, 72.81, 74.47, 79.01, 81.09),
            "ST-CLIP": (74.55, 74.97, 83.59, 83.22, 79.08, 77.65, 85.53, 84.32),
        },
        True: {
            "ActionCLIP": (69.18, 75.28, 77.11, 76.55, 74.53, 75.82, 82.07, 83.25),
            "A5": (50.92, 66.06, 69.07, 60.21, 61.57, 68.94, 67.39, 75.34),
            "X-CLIP": (72.91, 72.62, 80.02, 77.78, 75.83, 77.13, 83.11, 84.34),
            "Vita-CLIP": (68.60, 82.35, 84.95, 80.19, 79.02, 80.46, 86.02, 87.49),
            "ST-CLIP": (79.62, 78.70, 85.84, 87.19, 82.84, 80.96, 90.12, 88.48),
        },
    },
    "ucf24": {
        False: {
            "baseline": (48.37, 52.84, 39.76, 51.92, 48.22, 49.00, 90.49, 82.45),
            "ViCLIP": (41.37, 43.93, 24.14, 34.04, 35.87, 43.72, 63.07, 72.50),
            "iCLIP": (50.34, 52.75, 39.73, 47.95, 47.69, 54.46, 85.47, 90.35),
            "ST-CLIP": (49.09, 54.95, 42.05, 53.92, 50.00, 54.41, 91.80, 91.34),
        },
        True: {
            "ActionCLIP": (52.64, 55.01, 38.04, 51.84, 49.38, 55.36, 89.72, 92.91),
            "A5": (46.78, 47.36, 41.23, 53.18, 47.14, 54.24, 85.60, 90.86),
            "X-CLIP": (50.10, 56.94, 44.52, 55.35, 51.73, 56.96, 94.12, 95.30),
            "Vita-CLIP": (52.52, 57.22, 45.12, 57.32, 53.05, 57.65, 96.57, 95.94),
            "ST-CLIP": (51.36, 56.30, 43.12, 54.52, 51.33, 55.94, 95.02, 94.75),
        },
    },
    "ava": {
        False: {
            "baseline": (8.67, 8.57, 2.77, 6.67, 7.38, 10.09, 10.58),
            "baseline, person crop": (8.22, 5.05, 3.04, 5.44, 6.42, 7.55, 8.63),
            "iCLIP": (4.04, 9.08, 1.91, 5.01, 7.59, 6.91, 10.37),
            "Vita-CLIP": (4.25, 4.29, 0.64, 3.06, 4.49, 10.45, 13.94),
            "ST-CLIP": (12.85, 10.17, 4.01, 9.01, 11.41, 11.76, 15.05),
        },
    },
}


def format_table(lines: Sequence[Sequence[str]], footer: int = 0, markdown: bool = False) -> str:
    """A table as text: the first column is aligned left, the others right.

    Args:
        lines: the rows of cells, the header first.
        footer: this many of the last lines stand below a rule of their own; not in Markdown.
        markdown: Markdown, with a line end after the table.
    """
    if markdown:
        rule = ["---", *("--:" for _ in lines[0][1:])]
        rows = [[cell.replace("|", "\\|") for cell in row] for row in (lines[0], rule, *lines[1:])]
        return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = []
    for first, *others in lines:
        right = (cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
        text.append("  ".join([first.ljust(widths[0]), *right]).rstrip())
    rules = {1, len(text) - footer} if footer else {1}
    for place in sorted(rules, reverse=True):
        text.insert(place, "-" * (sum(widths) + 2 * (len(widths) - 1)))
    return "\n".join(text)


def frame_map_table(metrics: Metrics) -> str:
    """The table of what ``frame_map``, ``generalized`` or ``ava_map`` returns.

    One line for each class, then the means; columns are the number of ground-truth boxes and the
    AP in percent at each threshold. ``-`` stands for a class without ground truth. Of generalised
    metrics, the unseen classes are marked, and there are three means and H. A last line has what
    ``rejection`` returns.
    """
    thresholds = metrics["iou_thresholds"]
    counts: dict[str, int] = metrics["ground_truth_boxes"]
    unseen = metrics.get("unseen")
    lines = [["class", "boxes", *(f"AP@{t:g}" for t in thresholds)]]
    for name, count in counts.items():
        values = [metrics[f"per_class@{t:g}"][name] for t in thresholds]
        mark = " (unseen)" if unseen is not None and name in unseen else ""
        lines.append([name + mark, str(count), *map(percent, values)])
    total = sum(counts.values())
    means = [("mean", "frame_mAP", str(total))]
    if unseen is not None:
        of_unseen = sum(counts[name] for name in unseen)
        means = [
            ("mean unseen", "frame_mAP", str(of_unseen)),
            ("mean seen", "frame_mAP_seen", str(total - of_unseen)),
            ("mean all", "frame_mAP_all", str(total)),
            ("H", "H", ""),
        ]
    for name, key, boxes in means:
        lines.append([name, boxes, *(percent(metrics[f"{key}@{t:g}"]) for t in thresholds)])
    table = format_table(lines, footer=len(means))
    if (others := metrics.get("rejection")) is None:
        return table
    return (
        f"{table}\nsomething else ({others['boxes_outside']} of "
        f"{others['boxes_outside'] + others['boxes_inside']} boxes): AUROC "
        f"{percent(others['auroc'])}; precision at recall 0.5: {percent(others['precision'])}"
    )


def video_map_table(metrics: Metrics) -> str:
    """The same of what ``video_map`` returns, with the mean over 0.5, 0.55 ... 0.95."""
    names = [*(f"{t:g}" for t in metrics["iou_thresholds"]), RANGE_NAME]
    counts: dict[str, int] = metrics["ground_truth_tubes"]
    lines = [["class", "tubes", *(f"AP@{name}" for name in names)]]
    for label, count in counts.items():
        values = [metrics[f"per_class@{name}"][label] for name in names]
        lines.append([label, str(count), *map(percent, values)])
    means = [metrics[f"video_mAP@{name}"] for name in names]
    lines.append(["mean", str(sum(counts.values())), *map(percent, means)])
    return format_table(lines, footer=1)


def percent(value: float | None) -> str:
    """A value of a table, ``-`` for None."""
    return "-" if value is None else f"{value:.2f}"


@dataclass(frozen=True)
class Result:
    """The outcome of one test.

    Attributes:
        method: the row it belongs to.
        split: number of the label split.
        seed: of the training; None for a method without randomness.
        vocabulary: which classes were evaluated, by themselves.
        value: frame mAP in percent.
    """

    method: str
    split: int
    seed: int | None
    vocabulary: Vocabulary
    value: float


@dataclass(frozen=True)
class Cell:
    """Mean over seeds, and the sample standard deviation; None where there is one seed only."""

    mean: float
    std: float | None = None

    @classmethod
    def of(cls, values: Sequence[float]) -> Cell | None:
        """The cell of the seeds' values; None without any."""
        if not values:
            return None
        return cls(statistics.mean(values), statistics.stdev(values) if len(values) > 1 else None)


@dataclass(frozen=True)
class Row:
    """One method.

    Attributes:
        method: its name.
        splits: for each split asked for the unseen mAP, None where it was not run.
        average: unseen mAP, mean over the splits; over the seeds that have all of them.
        seen: the same on seen classes.
        harmonic: of ``average`` and ``seen``, over the seeds that have both.
    """

    method: str
    splits: tuple[Cell | None, ...]
    average: Cell | None
    seen: Cell | None
    harmonic: Cell | None


def make_rows(
    results: Sequence[Result], methods: Sequence[str], splits: Sequence[int]
) -> list[Row]:
    """The table's rows.

    Deviations are between whole runs of the benchmark: a seed's values are averaged over the
    splits first, and mean and deviation are then taken over the seeds.

    Args:
        results: in any order; at most one for each method, split, seed and vocabulary.
        methods: the rows in their order; those without a result are left out.
        splits: the columns in their order.
    """
    values: dict[tuple[str, Vocabulary], dict[int | None, dict[int, float]]] = {}
    for result in results:
        of_seed = values.setdefault((result.method, result.vocabulary), {})
        of_split = of_seed.setdefault(result.seed, {})
        assert result.split not in of_split, f"two results: {result}"
        of_split[result.split] = result.value
    rows = []
    for method in methods:
        unseen, seen = values.get((method, "unseen"), {}), values.get((method, "seen"), {})
        if not unseen and not seen:
            continue
        unseen_means, seen_means = _over_splits(unseen, splits), _over_splits(seen, splits)
        both = [seed for seed in unseen_means if seed in seen_means]
        rows.append(
            Row(
                method,
                tuple(
                    Cell.of([of_split[split] for of_split in unseen.values() if split in of_split])
                    for split in splits
                ),
                Cell.of(list(unseen_means.values())),
                Cell.of(list(seen_means.values())),
                Cell.of([harmonic_mean(unseen_means[s], seen_means[s]) for s in both]),
            )
        )
    return rows


def _over_splits(
    values: dict[int | None, dict[int, float]], splits: Sequence[int]
) -> dict[int | None, float]:
    """For each seed the mean over the splits, if it has all of them."""
    return {
        seed: statistics.mean(of_split[split] for split in splits)
        for seed, of_split in values.items()
        if splits and all(split in of_split for split in splits)
    }


def benchmark_lines(rows: Sequence[Row], splits: Sequence[int]) -> list[list[str]]:
    """The table as text, its header first."""
    lines = [["method", *(f"split {split}" for split in splits), "avg", "seen avg", "H"]]
    for row in rows:
        values = [*row.splits, row.average, row.seen, row.harmonic]
        lines.append([row.method, *map(format_cell, values)])
    return lines


def format_cell(cell: Cell | None) -> str:
    """``-``, ``mean`` or ``mean ± deviation``."""
    if cell is None:
        return "-"
    return f"{cell.mean:.1f}" if cell.std is None else f"{cell.mean:.1f} ± {cell.std:.1f}"


def to_json(row: Row, splits: Sequence[int]) -> dict[str, Any]:
    """A row with full precision: each cell is {mean, std} or null."""

    def value(cell: Cell | None) -> dict[str, float | None] | None:
        return None if cell is None else {"mean": cell.mean, "std": cell.std}

    return {
        "method": row.method,
        "splits": {str(s): value(cell) for s, cell in zip(splits, row.splits, strict=True)},
        "avg": value(row.average),
        "seen_avg": value(row.seen),
        "H": value(row.harmonic),
    }


@dataclass(frozen=True)
class Outcome:
    """The outcome of one test of ours.

    Attributes:
        source: the folder that it was read from.
        dataset: what DATASETS.TEST says.
        method: the row it belongs to.
        split: number of the label split.
        vocabulary: which classes ``value`` is the mean of.
        ground_truth: whether the boxes were annotated ones.
        single_action: whether with the single-action assumption.
        value: frame mAP at 0.5 in percent.
    """

    source: str
    dataset: str
    method: str
    split: int
    vocabulary: Vocabulary
    ground_truth: bool
    single_action: bool
    value: float

    @property
    def place(self) -> tuple[object, ...]:
        """The test's cell; no two tests of a table may share one."""
        return (
            self.dataset,
            self.method,
            self.split,
            self.vocabulary,
            self.ground_truth,
            self.single_action,
        )

    def describe(self) -> str:
        """The same in words."""
        boxes = "annotated" if self.ground_truth else "detected"
        action = ", single action" if self.single_action else ""
        return (
            f"{self.method} on {self.dataset}, split {self.split}, {self.vocabulary} classes, "
            f"{boxes} boxes{action}"
        )


@dataclass(frozen=True)
class PaperRow:
    """A row of the table.

    Attributes:
        method: its name.
        ours: False for published values.
        values: in the order of the columns; None where there is no run.
    """

    method: str
    ours: bool
    values: tuple[float | None, ...]


@dataclass(frozen=True)
class PaperTable:
    """One of the tables.

    Attributes:
        dataset: what DATASETS.TEST says.
        single_action: whether with the single-action assumption.
        splits: of the first columns.
        rows: published ones first.
    """

    dataset: str
    single_action: bool
    splits: tuple[int, ...]
    rows: tuple[PaperRow, ...]

    @property
    def title(self) -> str:
        """One line above it."""
        word = "with" if self.single_action else "without"
        return f"{self.dataset}, {word} the single-action assumption"

    @property
    def columns(self) -> list[str]:
        """Their names, the methods' left out."""
        return [*(f"split {split}" for split in self.splits), "avg", "H", "avg*", "H*"]

    def lines(self, mark: str) -> list[list[str]]:
        """The table as text; our values are put into ``mark``, such as ``[{}]``."""
        lines = [["method", *self.columns]]
        for row in self.rows:
            texts = [percent(value) for value in row.values]
            if row.ours:
                texts = [text if text == "-" else mark.format(text) for text in texts]
            lines.append([f"{row.method} ({'ours' if row.ours else 'published'})", *texts])
        return lines

    def to_json(self) -> dict[str, Any]:
        """The table with full precision."""
        return {
            "dataset": self.dataset,
            "single_action": self.single_action,
            "rows": [
                {
                    "method": row.method,
                    "source": "ours" if row.ours else "published",
                    **dict(zip(self.columns, row.values, strict=True)),
                }
                for row in self.rows
            ],
        }


def make_tables(tests: Sequence[Outcome]) -> list[PaperTable]:
    """For each dataset of the tests its tables, those without any value of ours included.

    Args:
        tests: no two of one ``place``.
    """
    assert len({test.place for test in tests}) == len(tests), "two tests of one cell"
    tables = []
    for dataset in dict.fromkeys(test.dataset for test in tests):
        known = PUBLISHED.get(dataset, {})
        for single_action in (False, True):
            mine = [t for t in tests if (t.dataset, t.single_action) == (dataset, single_action)]
            published = known.get(single_action, {})
            if not mine and not published:
                continue
            splits = _splits(dataset, tests)
            rows = [PaperRow(name, False, values) for name, values in published.items()]
            tables.append(
                PaperTable(dataset, single_action, splits, (*rows, *_own_rows(mine, splits)))
            )
    return tables


def _splits(dataset: str, tests: Sequence[Outcome]) -> tuple[int, ...]:
    """All that were published, or all that there are."""
    for published in PUBLISHED.get(dataset, {}).values():
        return tuple(range(1, len(next(iter(published.values()))) - 3))
    return tuple(sorted({test.split for test in tests if test.dataset == dataset}))


def _own_rows(tests: Sequence[Outcome], splits: Sequence[int]) -> list[PaperRow]:
    methods = list(dict.fromkeys(test.method for test in tests))
    rows: dict[bool, dict[str, Row]] = {}
    for ground_truth in (False, True):
        results = [
            Result(test.method, test.split, None, test.vocabulary, test.value)
            for test in tests
            if test.ground_truth == ground_truth
        ]
        rows[ground_truth] = {row.method: row for row in make_rows(results, methods, splits)}
    found = []
    for method in methods:
        detected, annotated = rows[False].get(method), rows[True].get(method)
        cells = [*(detected.splits if detected else [None] * len(splits))]
        for row in (detected, annotated):
            cells += [row.average, row.harmonic] if row else [None, None]
        found.append(
            PaperRow(method, True, tuple(None if cell is None else cell.mean for cell in cells))
        )
    return found
