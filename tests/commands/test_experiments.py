"""stclip puppet benchmark, puppet ablate and quickstart on a benchmark small enough for a test."""

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from stclip.cli import run
from stclip.config import saved_config
from stclip.errors import UserError
from stclip.puppet.experiment import runs
from stclip.puppet.experiment.beyond import STEPS, BeyondPlan
from stclip.puppet.experiment.outcomes import intervals
from stclip.puppet.experiment.plan import Plan
from tests.helpers import REPOSITORY, load_command
from tests.puppet.make_runs import small_benchmark

METHODS = ["chance", "CLIP, frame", "CLIP, crop", "CLIP, frame + crop", "ST-CLIP, untrained"]
METHODS += ["ST-CLIP", "ceiling (trained on all classes)"]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Runs commands in this process, which spares starting Python; gives what was called."""
    called: list[str] = []

    def start_tool(words: list[str], output: Any, jobs: int) -> subprocess.Popen[bytes]:
        called.append(words[3])
        assert not load_command(called[-1]).main(words[4:])
        return subprocess.Popen([sys.executable, "-c", ""])

    monkeypatch.setattr(runs, "start_tool", start_tool)
    return called


@pytest.mark.slow
def test_the_whole_benchmark(
    tmp_path: Path, calls: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    tool = load_command("benchmark_puppet")
    words = ["--config-dir", str(small_benchmark(tmp_path)), "--output", str(tmp_path / "out")]
    words += ["--splits", "1", "--seeds", "3,4", "--draws", "20"]
    assert tool.main(words) == 0
    assert (calls.count("train"), calls.count("test")) == (3, 13)
    printed = capsys.readouterr().out
    table = json.loads((tmp_path / "out/table.json").read_text())
    assert [row["method"] for row in table["rows"]] == METHODS
    rows = {row["method"]: row for row in table["rows"]}
    assert rows["ST-CLIP"]["avg"]["std"] is not None
    assert rows["CLIP, crop"]["H"]["mean"] > 0
    assert rows[METHODS[-1]]["seen_avg"] is None
    metrics = tmp_path / "out/split_1/crop/unseen/inference/jhmdb/metrics.json"
    assert rows["CLIP, crop"]["avg"]["mean"] == json.loads(metrics.read_text())["frame_mAP@0.5"]
    assert list(table["differences"]) == [*METHODS[1:5], METHODS[6]]
    crop = table["differences"]["CLIP, crop"]
    expected = rows["ST-CLIP"]["avg"]["mean"] - rows["CLIP, crop"]["avg"]["mean"]
    assert crop["estimate"] == pytest.approx(expected, abs=1e-3)
    assert crop["low"] <= crop["high"]
    markdown = (tmp_path / "out/table.md").read_text()
    for text in (printed, markdown):
        assert "ST-CLIP minus CLIP, crop" in text
        assert METHODS[-1] in text

    with pytest.raises(UserError, match=r"is there already; continue it with --resume"):
        tool.main(words)
    calls.clear()
    (tmp_path / "out/split_1/crop/unseen/inference/jhmdb/metrics.json").unlink()
    assert tool.main([*words, "--resume"]) == 0
    assert calls == ["test"]
    assert "15 of 16 runs are there already" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["benchmark", "--splits", "one"], "--splits"),
        (["benchmark", "--seeds", "1,1"], "distinct numbers from 0"),
        (["benchmark", "--seeds", "1,x"], "whole numbers such as 0,1,2 expected, found '1,x'"),
        (["benchmark", "--jobs", "0"], "--jobs: 1 or more expected"),
        (["benchmark", "--jobs", "two"], "--jobs: 1 or more expected, found two"),
        (["benchmark", "--ablations", "temporal,attention"], "'attention': choices are temporal,"),
        (["benchmark", "--config-dir", "nowhere"], "nowhere/split_1.yaml: there is no such config"),
        (
            ["ablate", "--subsets", "space"],
            "'space': choices are time,crowd,context,multi,backbone",
        ),
        (["ablate", "--seeds", "1,1"], "distinct numbers from 0"),
        (["ablate", "--jobs", "0"], "1 or more expected, found 0"),
        (["ablate", "--config-dir", "nowhere"], "nowhere/time.yaml: there is no such config file"),
    ],
)
def test_mistakes_are_one_line(
    words: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main = load_command(f"{words[0]}_puppet").main
    with pytest.raises(SystemExit) as stopped:
        run(lambda: main(["--output", str(tmp_path / "out"), *words[1:]]))
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert len(error.splitlines()) == 1
    assert expected in error


@pytest.fixture
def quickstart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: list[str]) -> ModuleType:
    """The command, with the small benchmark in place of the drawn one."""
    tool = load_command("quickstart")
    film = str(tmp_path / "film.mp4")
    size = tool.Size(str(tmp_path / "data"), (), (), 1, 1, film, film_seconds=4)
    monkeypatch.setattr(tool, "FULL", size)
    monkeypatch.setattr(tool, "CONFIGS", str(small_benchmark(tmp_path)))
    monkeypatch.setattr(tool, "free_folder", lambda stem: tmp_path / "quick")
    monkeypatch.chdir(REPOSITORY)
    return tool


@pytest.mark.slow
def test_quickstart(
    quickstart: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert quickstart.main(["--floor", "100.5"]) == 1
    captured = capsys.readouterr()
    assert "too low: ST-CLIP has" in captured.err
    lines = captured.out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("frame mAP at 0.5"))
    table = [line for line in lines[start + 2 :] if line][: len(METHODS)]
    methods = [*METHODS[:-1], "ST-CLIP with the crop's feature"]
    assert [line.rsplit(maxsplit=3)[0] for line in table] == methods
    assert table[2].endswith("-")
    assert not table[5].endswith("-")
    page = (tmp_path / "quick/report.html").read_text(encoding="utf-8")
    assert page.count("<article>") == 3
    heading = "Share of persons named correctly"
    for word in ("shoot_bow", "ST-CLIP, untrained", heading, "3 iterations"):
        assert word in page
    assert 'href="film/index.html"' in page
    assert (tmp_path / "quick/film/index.html").exists()
    assert "The film: " in captured.out


@pytest.mark.slow
def test_no_interval_without_our_method(tmp_path: Path, calls: list[str]) -> None:
    plan = Plan(tmp_path / "out", small_benchmark(tmp_path))
    plan.add_baselines(1, seen=False)
    runs.Runner(plan.runs).all()
    assert intervals(plan, ["CLIP, crop"], draws=5) == {}


@pytest.fixture
def configs(calls: list[str], tmp_path: Path) -> Path:
    """A small benchmark's folder of configs, of which the one is that of a subset."""
    folder = small_benchmark(tmp_path)
    (folder / "split_1.yaml").rename(folder / "time.yaml")
    return folder


@pytest.mark.slow
def test_a_subset(configs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tool = load_command("ablate_puppet")
    out = tmp_path / "out"
    words = ["--config-dir", str(configs), "--output", str(out), "--subsets", "time"]
    words += ["--seeds", "3,4", "--draws", "20"]
    assert tool.main(words) == 0
    assert "Puppet-time" in capsys.readouterr().out
    rows = json.loads((out / "table.json").read_text())["subsets"]["time"]
    methods = ["CLIP, frame", "CLIP, crop", "ST-CLIP", "ST-CLIP without temporal modelling"]
    assert [row["method"] for row in rows] == methods
    found = [
        [
            json.loads(
                (out / f"time/{kind}/seed_{s}/test/inference/jhmdb/metrics.json").read_text()
            )
            for s in (3, 4)
        ]
        for kind in ("whole", "without")
    ]
    whole, without = (sum(m["frame_mAP@0.5"] for m in of_seeds) / 2 for of_seeds in found)
    assert rows[2]["mAP"]["mean"] == pytest.approx(whole)
    assert rows[3]["mAP"]["mean"] == pytest.approx(without)
    assert rows[2]["lead"] is None
    assert rows[3]["lead"]["estimate"] == pytest.approx(whole - without, abs=1e-3)
    assert rows[3]["lead"]["low"] <= rows[3]["lead"]["high"]
    trained = [
        saved_config(out / f"time/{kind}/seed_3/train/config.yaml") for kind in ("whole", "without")
    ]
    assert [cfg.MODEL.TEMPORAL.ENABLED for cfg in trained] == [True, False]


@pytest.mark.slow
def test_of_a_generalised_test_the_unseen_classes_count(configs: Path, tmp_path: Path) -> None:
    text = (configs / "time.yaml").read_text()
    words = "TEST: {GENERALIZED: true, BOXES: ground_truth}"
    (configs / "multi_its.yaml").write_text(f"{text}{words}\n")
    out = tmp_path / "out"
    words = ["--config-dir", str(configs), "--output", str(out), "--subsets", "multi"]
    words += ["--seeds", "3", "--draws", "5", "TEST_VIDEO", ""]  # the seen classes' videos too
    assert load_command("ablate_puppet").main(words) == 0
    rows = json.loads((out / "table.json").read_text())["subsets"]["multi"]
    path = out / "multi/whole/seed_3/test/inference/jhmdb/metrics.json"
    metrics = json.loads(path.read_text())
    assert rows[2]["mAP"]["mean"] == metrics["frame_mAP@0.5"] != metrics["frame_mAP_all@0.5"]
    lead = rows[2]["mAP"]["mean"] - rows[0]["mAP"]["mean"]
    assert rows[0]["lead"]["estimate"] == pytest.approx(lead, abs=1e-3)
    assert [row["method"] for row in rows[3:]] == [
        "ST-CLIP without interest token spotting", "ST-CLIP without context prompting",
    ]  # fmt: skip
    for name, switches in (
        ("without", {"INTEREST_TOKENS": False, "PROMPT": True}),
        ("without_context_prompting", {"INTEREST_TOKENS": False, "PROMPT": False}),
    ):
        trained = yaml.safe_load((out / f"multi/{name}/seed_3/train/config.yaml").read_text())
        found = {part: trained["MODEL"][part]["ENABLED"] for part in switches}
        assert found == switches


@pytest.mark.slow
def test_image_towers(configs: Path, tmp_path: Path) -> None:
    (configs / "time.yaml").rename(configs / "split_1.yaml")
    for name, key in (("xclip_backbone", "BACKBONE"), ("xclip_split_1", "NAME")):
        text = f"_BASE_: split_1.yaml\nMODEL: {{{key}: xclip}}\n"
        (configs / f"{name}.yaml").write_text(text)
    out = tmp_path / "out"
    words = ["--config-dir", str(configs), "--output", str(out), "--subsets", "backbone"]
    assert load_command("ablate_puppet").main([*words, "--seeds", "3", "--draws", "5"]) == 0
    rows = json.loads((out / "table.json").read_text())["subsets"]["backbone"]
    assert [row["method"] for row in rows[2:]] == [
        "ST-CLIP",
        "ST-CLIP with X-CLIP's image tower",
        "X-CLIP, fine-tuned",
    ]
    assert [row["lead"] is None for row in rows] == [False, False, True, False, False]
    for row, key in zip(rows[2:], ("clip", "xclip", "xclip_alone"), strict=True):
        folder = out / "backbone" / key / "seed_3" / "test/inference/jhmdb"
        metrics = json.loads((folder / "metrics.json").read_text())
        assert row["mAP"]["mean"] == metrics["frame_mAP@0.5"]


@pytest.mark.slow
def test_beyond_the_paper(
    tmp_path: Path, calls: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    configs, out = small_benchmark(tmp_path), tmp_path / "out"
    words = ["--config-dir", str(configs), "--splits", "1", "--seeds", "3", "--draws", "20"]
    words += ["--steps", "with_crop,frame_crop,published,published_half", "--chosen", "with_crop"]
    assert load_command("beyond_puppet").main([*words, "--output", str(out)]) == 0
    assert (calls.count("train"), calls.count("test")) == (2, 8)
    assert "trained with it minus ST-CLIP: " in capsys.readouterr().out
    table = json.loads((out / "table.json").read_text())
    tables, others = table["tables"], {line[0]: line for line in table["something else"]}
    found = {
        (table["none_of"], table["voting"], row["method"]): row["splits"]["1"]["mean"]
        for table in tables
        for row in table["rows"]
    }
    # Each way of reading the one test is the test with these keys.
    title, folder = "CLIP, frame + crop", tmp_path / "plain"
    for voting in ("none", "track", "video"):
        for none_of in ("", "TRAIN_LABEL"):
            pairs = ["MODEL.NAME", "frame_crop", "TEST.NONE_OF", none_of, "TEST.VOTING", voting]
            pairs += ["OUTPUT_DIR", str(folder)]
            config = str(configs / "split_1.yaml")
            assert load_command("test").main(["--config-file", config, *pairs]) == 0
            metrics = json.loads((folder / "inference/jhmdb/metrics.json").read_text())
            value = found[bool(none_of), voting, title]
            assert value == pytest.approx(metrics["frame_mAP@0.5"], abs=1e-4)
            if voting != "video":
                auroc, cell = metrics.get("rejection", {}).get("auroc"), others[title].pop(1)
                assert cell.split(" / ")[0] == ("-" if auroc is None else f"{auroc:.1f}")
    (first, *_) = tables
    leads = first["leads"]
    assert list(leads) == [title, "ST-CLIP", "ST-CLIP, half of the training's way"]
    ours = found[False, "none", "ST-CLIP with the crop's feature, trained with it"]
    expected = ours - found[False, "none", title]
    assert leads[title]["estimate"] == pytest.approx(expected, abs=1e-6)


def test_classes_held_out_to_choose_on(tmp_path: Path) -> None:
    lists, labels = tmp_path / "puppet/lists", tmp_path / "labels"
    lists.mkdir(parents=True)
    labels.mkdir()
    (labels / "all.txt").write_text("a\nb\nc\nd\nz\n")
    (labels / "train.txt").write_text("b\na\nc\nd\n")
    (labels / "test.txt").write_text("z\n")
    for part, first in (("train", 1), ("test", 5001)):
        names = [f"{name}_{first + i}" for name in "abcd" for i in range(3)]
        (lists / f"split_1_{part}_seen.txt").write_text("\n".join(names))
    (tmp_path / "split_1.yaml").write_text(
        f"""
ALL_LABEL: {labels}/all.txt
TRAIN_LABEL: {labels}/train.txt
TEST_LABEL: {labels}/test.txt
DATASETS: {{DATA_DIR: {tmp_path}, TRAIN: puppet, TEST: puppet}}
"""
    )
    plan = BeyondPlan(tmp_path / "out", tmp_path, unseen_clips=2, held_out=True)
    plan.fill([1], [7], STEPS)
    assert [run.command for run in plan.runs].count("train") == 2
    cfg = plan.trials[-1].run.cfg()
    assert Path(cfg.TRAIN_LABEL).read_text().split() == ["a", "c"]
    assert Path(cfg.TEST_LABEL).read_text().split() == ["b", "d"]
    assert Path(cfg.TEST_VIDEO).read_text().split() == ["b_5002", "b_5003", "d_5002", "d_5003"]
    trained = plan.trials[-1].run.training
    assert trained is not None
    of_training = trained.cfg()
    assert Path(of_training.TRAIN_VIDEO).read_text().split() == [
        *("a_1", "a_2", "a_3", "c_1", "c_2", "c_3")
    ]
    assert (of_training.TRAIN_LABEL, of_training.SEED) == (cfg.TRAIN_LABEL, 7)
    assert (cfg.TEST.NONE_OF, cfg.MODEL.HEAD.CROP_WEIGHT, cfg.MODEL.SCALE) == (
        "TRAIN_LABEL", 1.0, 0.5,
    )  # fmt: skip
