"""A model that one dataset trained, tested on another with all of its classes."""

import json
from pathlib import Path

import pytest

from tests.data.make_ucf24 import LABELS, write_ucf24
from tests.helpers import load_command


def test_trained_on_jhmdb_tested_on_ucf24(
    case_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_ucf24(tmp_path)
    # What was trained on is J-HMDB's; one name stands in both vocabularies, which is warned of.
    trained = tmp_path / "trained.txt"
    trained.write_text("golf\nrun\nSkiing\n")
    pairs = ["DATASETS.TEST", "ucf24", "DATASETS.DATA_DIR", str(tmp_path / "data")]
    pairs += ["ALL_LABEL", f"{LABELS}/all_label.txt", "TEST_LABEL", f"{LABELS}/all_label.txt"]
    pairs += ["TRAIN_LABEL", str(trained), "TEST_VIDEO", "", "TEST.BOXES", "ground_truth"]
    load_command("test").main(["--config-file", str(case_config), *pairs])
    metrics = json.loads((tmp_path / "run/inference/ucf24/metrics.json").read_text())
    assert len(metrics["per_class"]) == 24
    assert metrics["ground_truth_boxes"]["Ice Dancing"] == 9
    assert metrics["ground_truth_boxes"]["Golf Swing"] == 4
    assert metrics["frame_mAP@0.5"] > 0
    assert "1 of 24 labels of TEST_LABEL are in TRAIN_LABEL too" in capsys.readouterr().err
