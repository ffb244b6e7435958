"""The made files are what evaluate.py takes, and the report has what it promises."""

import json
from pathlib import Path

import numpy as np
import pytest

from stclip.errors import UserError
from tests.helpers import load_tool

tool = load_tool("benchmark_metrics")


@pytest.mark.slow
def test_video_map(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.json"
    tool.main(["video-map", "--share", "0.001", "--json", str(out)])
    found = json.loads(out.read_text())["video-map"]
    assert found["rows"] == 180 * 3 * 24  # one video
    assert found["seconds"] > 0
    assert 0 < found["peak_memory_gb"] < 3
    assert 0 <= found["mAP"] <= 100  # linked over the whole video, annotated in a part of it
    assert "video-map: " in capsys.readouterr().out
    with pytest.raises(UserError, match="exists already"):
        tool.main(["video-map", "--json", str(out)])


def test_the_made_ava_files_can_be_evaluated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tool, "AVA_SECONDS", range(902, 912))
    assert tool.make_ava(tmp_path, 0.04, np.random.default_rng(0)) == 3 * 10 * 3 * 80
    arguments = ["ava", "--ground-truth", tmp_path / "truth.csv"]
    arguments += ["--detections", tmp_path / "found.csv", "--json", tmp_path / "out.json"]
    load_tool("evaluate").main([*map(str, arguments)])
    metrics = json.loads((tmp_path / "out.json").read_text())
    assert metrics["rows"] == 7200
    assert metrics["frame_mAP@0.5"] > 0


def test_a_share_that_cannot_be() -> None:
    with pytest.raises(UserError, match="--share 2: a number above 0 and at most 1"):
        tool.main(["ava", "--share", "2"])
