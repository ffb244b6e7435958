import json
from dataclasses import replace
from pathlib import Path

import pytest

from stclip.evaluation.frame_map import frame_map, generalized, harmonic_mean
from stclip.evaluation.tables import (
    PUBLISHED,
    Cell,
    Outcome,
    Result,
    benchmark_lines,
    format_table,
    frame_map_table,
    make_rows,
    make_tables,
    to_json,
)
from tests.evaluation.make import annotated, rows
from tests.helpers import shared_path


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


def test_benchmark_as_text_and_markdown():
    lines = benchmark_lines(make_rows(RESULTS, ["crop", "ours"], [1, 2]), [1, 2])
    assert lines[0] == ["method", "split 1", "split 2", "avg", "seen avg", "H"]
    assert lines[2] == ["ours", "42.0 ± 2.8", "64.0 ± 5.7", "53.0 ± 4.2", "75.0", "60.0"]
    text = format_table(lines).splitlines()
    assert text[1] == "-" * len(text[0])
    assert text[2].startswith("crop ")
    assert len({len(line) for line in text}) == 1
    markdown = format_table([*lines, ["a|b", *"12345"]], markdown=True).splitlines()
    assert markdown[1] == "| --- | --: | --: | --: | --: | --: |"
    assert markdown[3] == "| ours | 42.0 ± 2.8 | 64.0 ± 5.7 | 53.0 ± 4.2 | 75.0 | 60.0 |"
    assert markdown[4].startswith("| a\\|b | 1 ")


def test_benchmark_json():
    (row,) = make_rows([r for r in RESULTS if r.split == 1], ["crop"], [1, 2])
    assert to_json(row, [1, 2]) == {
        "method": "crop",
        "splits": {"1": {"mean": 30.0, "std": None}, "2": None},
        "avg": None,
        "seen_avg": None,
        "H": None,
    }


def test_frame_map_table():
    box = (0, 0, 10, 10)
    truth = [annotated("v", 1, (box, "a")), annotated("v", 2, (box, "a"))]
    metrics = frame_map(truth, rows(("v", 1, box, 0, 0.9)), ("a", "long name"), [0.2, 0.5])
    assert frame_map_table(metrics).splitlines() == [
        "class      boxes  AP@0.2  AP@0.5",
        "--------------------------------",
        "a              2   50.00   50.00",
        "long name      0       -       -",
        "--------------------------------",
        "mean           2   50.00   50.00",
    ]
    assert frame_map_table(generalized(metrics, ["long name"])).splitlines() == [
        "class               boxes  AP@0.2  AP@0.5",
        "-----------------------------------------",
        "a                       2   50.00   50.00",
        "long name (unseen)      0       -       -",
        "-----------------------------------------",
        "mean unseen             0       -       -",
        "mean seen               2   50.00   50.00",
        "mean all                2   50.00   50.00",
        "H                               -       -",
    ]


def outcome(split, vocabulary, value, ground_truth=False, **others):
    plain = Outcome("folder", "jhmdb", "ours", split, vocabulary, ground_truth, False, value)
    return replace(plain, **others)


# avg 75, seen 60: H = 2 * 75 * 60 / 135 = 66.667. With annotated boxes 80 and 80: 80.
FULL = [
    *(outcome(split, "unseen", value) for split, value in enumerate((70, 72, 78, 80), 1)),
    *(outcome(split, "seen", value) for split, value in enumerate((58, 62, 50, 70), 1)),
    *(outcome(split, "unseen", value, True) for split, value in enumerate((75, 85, 70, 90), 1)),
    *(outcome(split, "seen", 80, True) for split in range(1, 5)),
]


def test_a_full_row_by_hand():
    plain, single = make_tables(FULL)
    assert plain.columns == ["split 1", "split 2", "split 3", "split 4", "avg", "H", "avg*", "H*"]
    assert [row.method for row in plain.rows] == ["baseline", "ViCLIP", "iCLIP", "ST-CLIP", "ours"]
    assert plain.rows[-1].values == pytest.approx((70, 72, 78, 80, 75, 200 / 3, 80, 80))
    assert [row.ours for row in plain.rows] == [False] * 4 + [True]
    assert not any(row.ours for row in single.rows)  # only published values there


def test_cells_that_lack():
    some = [test for test in FULL if test.split != 3 or test.ground_truth]
    row = make_tables(some)[0].rows[-1]
    assert row.values == (70, 72, None, 80, None, None, 80, 80)
    row = make_tables([test for test in FULL if test.vocabulary == "unseen"])[0].rows[-1]
    assert row.values == (70, 72, 78, 80, 75, None, 80, None)
    row = make_tables(FULL[8:9])[0].rows[-1]
    assert row.values == (None,) * 8


def test_single_action_has_a_table_of_its_own():
    tests = [*FULL, *(replace(test, single_action=True, value=50) for test in FULL)]
    plain, single = make_tables(tests)
    assert plain.rows[-1].values[4] == 75
    assert single.rows[-1].values == (50,) * 8
    assert [row.method for row in single.rows][:2] == ["ActionCLIP", "A5"]
    assert single.title == "jhmdb, with the single-action assumption"


def test_ava_has_three_splits():
    (table,) = make_tables([outcome(2, "unseen", 10.0, dataset="ava")])
    assert table.splits == (1, 2, 3)
    assert table.rows[-1].values == (None, 10.0, None, None, None, None, None)


def test_a_dataset_without_published_results():
    (table,) = make_tables([outcome(4, "unseen", 10.0, dataset="puppet"), *[
        outcome(split, "unseen", 20.0, dataset="puppet") for split in (2, 3)
    ]])  # fmt: skip
    assert table.splits == (2, 3, 4)
    assert table.rows[0].values[:4] == (20, 20, 10, pytest.approx(50 / 3))


def test_lines_mark_what_is_ours():
    lines = make_tables(FULL[:3])[0].lines("[{}]")
    assert lines[0][:2] == ["method", "split 1"]
    assert lines[-2][:3] == ["ST-CLIP (published)", "74.55", "74.97"]
    assert lines[-1] == ["ours (ours)", "[70.00]", "[72.00]", "[78.00]", *"-----"]


def test_paper_json():
    table = make_tables(FULL)[0].to_json()
    assert (table["dataset"], table["single_action"]) == ("jhmdb", False)
    assert table["rows"][3]["source"] == "published"
    assert table["rows"][3]["H*"] == 84.32
    assert table["rows"][-1]["H"] == pytest.approx(200 / 3)


def test_published_values_are_the_facts():
    facts = json.loads(Path(shared_path("facts/published_results.json")).read_text())
    names = {"jhmdb": "ZS_JHMDB_ViT-B/16", "ucf24": "ZS_UCF_ViT-B/16"}
    for dataset, name in names.items():
        for single, key in (
            (False, "no_single_action_assumption"),
            (True, "single_action_assumption"),
        ):
            found = {method: list(v) for method, v in PUBLISHED[dataset][single].items()}
            assert found == facts[name][key]
    ava = {key: v for key, v in facts["ZS_AVA_ViT-L/14"].items() if key != "columns"}
    found = [list(values) for values in PUBLISHED["ava"][False].values()]
    assert found == list(ava.values())


@pytest.mark.parametrize("dataset", PUBLISHED)
def test_published_averages_are_those_of_the_splits(dataset):
    """A slip in transcribing would show: avg is the mean of the splits."""
    for methods in PUBLISHED[dataset].values():
        for method, values in methods.items():
            *splits, average, _, _, _ = values
            assert average == pytest.approx(sum(splits) / len(splits), abs=0.011), method
