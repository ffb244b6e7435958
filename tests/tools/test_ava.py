"""AVA through the tools: training, testing, and the metric from files alone."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from stclip.data.ava_files import read_box_csv
from tests.data.make_ava import CONFIG, settings, write_dataset
from tests.helpers import load_tool


def test_train_then_test_then_evaluate(tmp_path: Path, reference_checkpoint: Path) -> None:
    ava = write_dataset(tmp_path)
    run = tmp_path / "run"
    pairs = [*settings(tmp_path), "OUTPUT_DIR", str(run), "SOLVER.WARMUP_ON", "False"]
    pairs += ["SOLVER.MAX_ITER", "2", "SOLVER.STEPS", "[]", "SOLVER.VIDEOS_PER_BATCH", "3"]
    weight = ["MODEL.WEIGHT", str(reference_checkpoint)]
    load_tool("train_net").main(["--config-file", str(CONFIG), *pairs, *weight])
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [record["boxes"] for record in records] == [4, 4]
    for part in ("loss", "loss_pose", "loss_object", "loss_person"):
        assert all(np.isfinite(record[part]) and record[part] > 0 for record in records)

    weight = ["MODEL.WEIGHT", str(run / "model_0000002.pth")]
    load_tool("test_net").main(["--config-file", str(CONFIG), *pairs, *weight])
    folder = run / "inference" / "ava"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert (metrics["keyframes"], metrics["keyframes_with_boxes"], metrics["boxes"]) == (3, 2, 3)
    boxes = metrics["ground_truth_boxes"]
    assert {name: count for name, count in boxes.items() if count} == {
        "dance": 1, "martial art": 1, "stand": 1, "talk to (e.g., self, a person, a group)": 1,
    }  # fmt: skip
    assert not (folder / "detections").exists()
    with open(folder / "result_ava.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert len(rows) == 3 * 80
    assert [row[:2] for row in rows[::80]] == [["-val_1", s] for s in ("0902", "0902", "0905")]
    assert [int(row[6]) for row in rows[:80]] == list(range(1, 81))
    # As in the file of detections, but for a box being clipped to the last pixel.
    given = read_box_csv(ava / "annotations" / "ava_val_predicted_boxes.csv", {"-val_1"}, 0.8)
    found = [[float(value) for value in row[2:6]] for row in rows[::80]]
    np.testing.assert_allclose(found[:2], given["-val_1", 902][0], atol=1e-5)
    # One pose, so that their scores times the detector's sum to the latter.
    assert sum(float(row[7]) for row in rows[:14]) == pytest.approx(0.95, abs=1e-4)

    out = tmp_path / "ava.json"
    annotations = ava / "annotations"
    load_tool("evaluate").main(
        [
            "ava",
            *("--ground-truth", str(annotations / "ava_val_v2.2.csv")),
            *("--detections", str(folder / "result_ava.csv"), "--json", str(out)),
            *("--excluded", str(annotations / "ava_val_excluded_timestamps_v2.2.csv")),
        ]
    )
    alone = json.loads(out.read_text())
    assert alone["frame_mAP@0.5"] == pytest.approx(metrics["frame_mAP_all@0.5"], abs=1e-4)
