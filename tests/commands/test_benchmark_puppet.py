"""stclip puppet benchmark and quickstart on a benchmark small enough for a test."""

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from stclip.cli import run
from stclip.errors import UserError
from stclip.puppet.experiment import runs
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
        (["--splits", "one"], "--splits"),
        (["--seeds", "1,1"], "distinct numbers from 0"),
        (["--jobs", "0"], "--jobs: 1 or more expected"),
        (["--ablations", "temporal,attention"], "'attention': choices are temporal,prompt"),
        (["--config-dir", "nowhere"], "nowhere/split_1.yaml: there is no such config file"),
    ],
)
def test_mistakes_are_one_line(
    words: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tool = load_command("benchmark_puppet")
    with pytest.raises(SystemExit) as stopped:
        run(lambda: tool.main(["--output", str(tmp_path / "out"), *words]))
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert len(error.splitlines()) == 1
    assert expected in error


@pytest.fixture
def quickstart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: list[str]) -> ModuleType:
    """The command, with the small benchmark in place of the drawn one."""
    tool = load_command("quickstart")
    size = tool.Size(str(tmp_path / "data"), (), (), unseen_clips=1, seen_clips=1)
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
    table = [line for line in lines[start + 2 :] if line][: len(METHODS) - 1]
    assert [line.rsplit(maxsplit=2)[0] for line in table] == METHODS[:-1]
    assert table[2].endswith("-")
    assert not table[5].endswith("-")
    page = (tmp_path / "quick/report.html").read_text(encoding="utf-8")
    assert page.count("<article>") == 3
    for word in (
        "shoot_bow",
        "ST-CLIP, untrained",
        "Share of persons named correctly",
        "3 iterations",
    ):
        assert word in page


def test_no_interval_without_our_method(tmp_path: Path, calls: list[str]) -> None:
    plan = Plan(tmp_path / "out", small_benchmark(tmp_path))
    plan.add_baselines(1, seen=False)
    runs.Runner(plan.runs).all()
    assert intervals(plan, ["CLIP, crop"], draws=5) == {}
