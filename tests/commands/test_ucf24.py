"""UCF101-24 through the commands: training, testing, and the metric from files alone."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.data.make_ucf24 import LABELS, TEST, act_pickle, dump, write_ucf24
from tests.helpers import load_command


@pytest.fixture
def config(tmp_path: Path, reference_checkpoint: Path) -> Path:
    """Zero-shot split 1 of a small UCF101-24, with the small ST-CLIP of the conformance case."""
    write_ucf24(tmp_path)
    path = tmp_path / "ucf24.yaml"
    path.write_text(
        f"""
OUTPUT_DIR: {tmp_path / "run"}
ALL_LABEL: {LABELS}/all_label.txt
TRAIN_LABEL: {LABELS}/split_1/train_label.txt
TEST_LABEL: {LABELS}/split_1/test_label.txt
MODEL: {{WEIGHT: {reference_checkpoint}, DEVICE: cpu}}
DATASETS: {{DATA_DIR: {tmp_path / "data"}, TRAIN: ucf24, TEST: ucf24}}
DATALOADER: {{NUM_WORKERS: 0}}
SOLVER: {{BASE_LR: 0.01, WARMUP_ON: false, STEPS: [], MAX_ITER: 2, VIDEOS_PER_BATCH: 3}}
TEST: {{MAX_PERSONS: 0}}
"""
    )
    return path


@pytest.mark.slow
def test_train_then_test_then_evaluate(config: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    load_command("train").main(["--config-file", str(config)])
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [record["boxes"] for record in records] == [3, 3]
    assert all(np.isfinite(record["loss"]) for record in records)
    weight = ["MODEL.WEIGHT", str(run / "model_0000002.pth")]
    load_command("test").main(["--config-file", str(config), *weight])
    folder = run / "inference" / "ucf24"
    metrics = json.loads((folder / "metrics.json").read_text())
    # Frames 2 to 8 are annotated; frame 12 only has a detection.
    assert (metrics["keyframes"], metrics["keyframes_with_boxes"], metrics["boxes"]) == (8, 2, 3)
    assert metrics["ground_truth_boxes"]["Ice Dancing"] == 9
    with open(folder / "result_ucf24.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert [row[:2] for row in rows[::6]] == [
        [TEST[0], frame] for frame in ("0002", "0002", "0012")
    ]
    names = {path.name for path in (folder / "detections").iterdir()}
    assert names == {f"IceDancing_v_IceDancing_g01_c01_{frame:05d}.txt" for frame in (2, 12)}
    # The first box is the only true one, one of nine; what scores higher is false.
    scores = [float(row[7]) for row in rows if row[6] == "1"]
    rank = 1 + sum(score > scores[0] for score in scores[1:])
    assert metrics["per_class"]["Ice Dancing"] == pytest.approx(100 / 9 / rank)
    dump(tmp_path / "UCF101v2-GT.pkl", act_pickle())
    truths = (tmp_path / "data/ucf24/splitfiles/pyannot.pkl", tmp_path / "UCF101v2-GT.pkl")
    for truth in truths:
        arguments = ["--ground-truth", truth, "--detections", folder / "result_ucf24.csv"]
        arguments += ["--test-label", LABELS / "split_1" / "test_label.txt", "--overwrite"]
        arguments += ["--json", tmp_path / "map.json"]
        load_command("evaluate").main(["frame-map", *map(str, arguments)])
        found = json.loads((tmp_path / "map.json").read_text())
        for threshold in ("0.2", "0.5", "0.75"):
            assert found[f"frame_mAP@{threshold}"] == metrics[f"frame_mAP@{threshold}"]


@pytest.mark.slow
def test_ground_truth_boxes(config: Path, tmp_path: Path) -> None:
    (tmp_path / "data/ucf24/ucf24_person_detections.jsonl").unlink()
    pairs = ("TEST.BOXES", "ground_truth")
    load_command("test").main(["--config-file", str(config), *pairs])
    folder = tmp_path / "run" / "inference" / "ucf24"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert (metrics["keyframes"], metrics["boxes"]) == (7, 9)
    # With one class among the videos and the annotated boxes, nothing is false and nothing missed.
    assert metrics["per_class"]["Ice Dancing"] == pytest.approx(100)
    predictions = np.load(folder / "predictions.npz")
    assert (predictions["det_scores"] == 1).all()
    assert predictions["boxes"][-1].tolist() == [263, 20, 293, 220]


@pytest.mark.slow
def test_an_edited_prompt_changes_the_scores(config: Path, tmp_path: Path) -> None:
    """The text of the label file is what the text encoder reads."""
    found = {}
    for prompt in ("Ice Dancing", "two people skating"):
        files = {}
        for key, name in (("ALL_LABEL", "all_label"), ("TEST_LABEL", "split_1/test_label")):
            files[key] = tmp_path / f"{key}.txt"
            text = (LABELS / f"{name}.txt").read_text()
            files[key].write_text(text.replace("Ice Dancing", prompt))
        pairs = [word for key, path in files.items() for word in (key, str(path))]
        pairs += ["TRAIN_LABEL", "", "TEST.BOXES", "ground_truth"]
        load_command("test").main(
            ["--config-file", str(config), *pairs, "OUTPUT_DIR", str(tmp_path / prompt)]
        )
        predictions = np.load(tmp_path / prompt / "inference/ucf24/predictions.npz")
        found[prompt] = torch.from_numpy(predictions["scores"])
        metrics = json.loads((tmp_path / prompt / "inference/ucf24/metrics.json").read_text())
        assert metrics["per_class"][prompt] == pytest.approx(100)
    one, two = found.values()
    assert not torch.allclose(one, two, atol=1e-3)


def test_trained_on_jhmdb_tested_on_ucf24(
    case_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All classes of another dataset than the one trained on."""
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
