import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from stclip.cli import run
from stclip.config import saved_config
from stclip.puppet.experiment import runs
from tests.helpers import load_command
from tests.puppet.make_runs import small_benchmark


@pytest.fixture
def configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small benchmark's folder of configs; the commands run in this process."""

    def start_tool(words: list[str], output: Any, jobs: int) -> subprocess.Popen[bytes]:
        assert not load_command(Path(words[1]).stem).main(words[2:])
        return subprocess.Popen([sys.executable, "-c", ""])

    monkeypatch.setattr(runs, "start_tool", start_tool)
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


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--subsets", "space"], "'space': choices are time,crowd,context,multi,backbone"),
        (["--seeds", "1,1"], "distinct numbers from 0"),
        (["--jobs", "0"], "1 or more expected, found 0"),
        (["--config-dir", "nowhere"], "nowhere/time.yaml: there is no such config file"),
    ],
)
def test_mistakes_are_one_line(
    words: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tool = load_command("ablate_puppet")
    with pytest.raises(SystemExit) as stopped:
        run(lambda: tool.main(["--output", str(tmp_path / "out"), *words]))
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert len(error.splitlines()) == 1
    assert expected in error
