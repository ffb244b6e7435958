"""The benchmark table (docs/evaluation.md, "Benchmark table").

A row for each method; in its columns the unseen mAP of every split, the mean over the splits, the
mean over the splits on seen classes, and the harmonic mean of these two.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

Vocabulary = Literal["unseen", "seen"]


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


def harmonic_mean(a: float, b: float) -> float:
    """2ab / (a + b); 0 if both are 0."""
    return 2 * a * b / (a + b) if a + b else 0.0


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


def header(splits: Sequence[int]) -> list[str]:
    """The names of the columns."""
    return ["method", *(f"split {split}" for split in splits), "avg", "seen avg", "H"]


def cells(row: Row) -> list[str]:
    """A row as text: ``mean ± deviation`` with one decimal, ``-`` where there is no value."""
    values = [*row.splits, row.average, row.seen, row.harmonic]
    return [row.method, *(format_cell(cell) for cell in values)]


def format_cell(cell: Cell | None) -> str:
    """``-``, ``mean`` or ``mean ± deviation``."""
    if cell is None:
        return "-"
    return f"{cell.mean:.1f}" if cell.std is None else f"{cell.mean:.1f} ± {cell.std:.1f}"


def format_text(lines: Sequence[Sequence[str]]) -> str:
    """A table for a terminal; the first line is the header, the first column stands left."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = []
    for first, *others in lines:
        right = (cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
        text.append("  ".join([first.ljust(widths[0]), *right]).rstrip())
    return "\n".join([text[0], "-" * (sum(widths) + 2 * (len(widths) - 1)), *text[1:]])


def format_markdown(lines: Sequence[Sequence[str]]) -> str:
    """The same as a Markdown table."""
    rule = ["---", *("--:" for _ in lines[0][1:])]
    escaped = [[cell.replace("|", "\\|") for cell in line] for line in (lines[0], rule, *lines[1:])]
    return "\n".join(f"| {' | '.join(line)} |" for line in escaped) + "\n"


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


def _over_splits(
    values: dict[int | None, dict[int, float]], splits: Sequence[int]
) -> dict[int | None, float]:
    """For each seed the mean over the splits, if it has all of them."""
    return {
        seed: statistics.mean(of_split[split] for split in splits)
        for seed, of_split in values.items()
        if splits and all(split in of_split for split in splits)
    }
