import pytest

from stclip.evaluation.benchmark_table import (
    Cell,
    Result,
    cells,
    format_markdown,
    format_text,
    harmonic_mean,
    header,
    make_rows,
    to_json,
)


def result(method, split, seed, vocabulary, value):
    return Result(method, split, seed, vocabulary, value)


RESULTS = [
    result("crop", 1, None, "unseen", 30.0),
    result("crop", 2, None, "unseen", 50.0),
    result("crop", 1, None, "seen", 60.0),
    result("crop", 2, None, "seen", 60.0),
    result("ours", 1, 0, "unseen", 40.0),
    result("ours", 2, 0, "unseen", 60.0),
    result("ours", 1, 1, "unseen", 44.0),
    result("ours", 2, 1, "unseen", 68.0),
    result("ours", 1, 0, "seen", 75.0),
    result("ours", 2, 0, "seen", 75.0),
]


@pytest.mark.parametrize(("a", "b", "mean"), [(40, 60, 48), (50, 50, 50), (0, 70, 0), (0, 0, 0)])
def test_harmonic_mean(a, b, mean):
    assert harmonic_mean(a, b) == pytest.approx(mean)


def test_a_method_without_seeds():
    (row,) = make_rows(RESULTS, ["crop"], [1, 2])
    assert row.splits == (Cell(30.0), Cell(50.0))
    assert row.average == Cell(40.0)
    assert row.seen == Cell(60.0)
    assert row.harmonic == Cell(48.0)


def test_seeds_are_averaged_over_splits_first():
    (row,) = make_rows(RESULTS, ["ours"], [1, 2])
    # Split 1: 40 and 44. Whole runs: 50 and 56, which differ by 6: deviation 6 / sqrt(2).
    assert row.splits[0] == Cell(42.0, pytest.approx(2.8284271))
    assert row.average == Cell(53.0, pytest.approx(4.2426407))
    # Only seed 0 was run on seen classes: H of 50 and 75.
    assert row.seen == Cell(75.0)
    assert row.harmonic == Cell(60.0)


def test_a_seed_that_lacks_a_split_is_left_out_of_the_average():
    partial = [r for r in RESULTS if (r.split, r.seed) != (2, 1)]
    (row,) = make_rows(partial, ["ours"], [1, 2])
    assert row.average == Cell(50.0)
    assert row.splits[0] == Cell(42.0, pytest.approx(2.8284271))
    (row,) = make_rows([r for r in RESULTS if r.split == 1], ["crop"], [1, 2])
    assert row.splits == (Cell(30.0), None)
    assert row.average is row.seen is row.harmonic is None


def test_rows_follow_the_methods_asked_for():
    rows = make_rows(RESULTS, ["ours", "nobody", "crop"], [1, 2])
    assert [row.method for row in rows] == ["ours", "crop"]


def test_text_and_markdown():
    lines = [header([1, 2]), *map(cells, make_rows(RESULTS, ["crop", "ours"], [1, 2]))]
    assert lines[2] == ["ours", "42.0 ± 2.8", "64.0 ± 5.7", "53.0 ± 4.2", "75.0", "60.0"]
    text = format_text(lines).splitlines()
    assert text[0].split() == ["method", "split", "1", "split", "2", "avg", "seen", "avg", "H"]
    assert text[2].startswith("crop ")
    assert len({len(line) for line in text}) == 1
    markdown = format_markdown(lines).splitlines()
    assert markdown[1] == "| --- | --: | --: | --: | --: | --: |"
    assert markdown[3] == "| ours | 42.0 ± 2.8 | 64.0 ± 5.7 | 53.0 ± 4.2 | 75.0 | 60.0 |"


def test_json():
    (row,) = make_rows([r for r in RESULTS if r.split == 1], ["crop"], [1, 2])
    assert to_json(row, [1, 2]) == {
        "method": "crop",
        "splits": {"1": {"mean": 30.0, "std": None}, "2": None},
        "avg": None,
        "seen_avg": None,
        "H": None,
    }
