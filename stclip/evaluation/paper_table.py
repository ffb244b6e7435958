"""The paper's results table with our own runs in it (docs/evaluation.md, "Benchmark table").

Columns: the unseen mAP of every split; ``avg``, their mean; ``H``, the harmonic mean of ``avg`` and
of the mean over the splits on seen classes; ``avg*`` and ``H*``, the same with annotated boxes in
the place of detected ones. One table is without and one with the single-action assumption.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stclip.evaluation.benchmark_table import Cell, Result, Row, Vocabulary, make_rows
from stclip.evaluation.published_results import PUBLISHED

NOTE = (
    "Frame mAP at IoU 0.5 in percent on unseen classes. avg: mean over the splits; H: harmonic "
    "mean of avg and of the mean on seen classes; *: with annotated boxes. Values {marks} are "
    "ours, from the runs given; the others were published and have not been reproduced here."
)


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
        """What no two tests of a table may have in common."""
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
            texts = ["-" if value is None else f"{value:.2f}" for value in row.values]
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
        found.append(PaperRow(method, True, tuple(map(_value, cells))))
    return found


def _value(cell: Cell | None) -> float | None:
    return None if cell is None else cell.mean
