"""AVA through the commands: training, testing, and the metric from files alone."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stclip.config import load_config
from stclip.data.ava_files import read_box_csv
from stclip.data.build import build_dataset
from stclip.errors import UserError
from tests.data.make import number_of, numbered
from tests.data.make_ava import CONFIG, settings, write_dataset
from tests.helpers import load_command


@pytest.mark.slow
def test_train_then_test_then_evaluate(tmp_path: Path, reference_checkpoint: Path) -> None:
    ava = write_dataset(tmp_path)
    run = tmp_path / "run"
    pairs = [*settings(tmp_path), "OUTPUT_DIR", str(run), "SOLVER.WARMUP_ON", "False"]
    pairs += ["SOLVER.MAX_ITER", "2", "SOLVER.STEPS", "[]", "SOLVER.VIDEOS_PER_BATCH", "3"]
    weight = ["MODEL.WEIGHT", str(reference_checkpoint)]
    load_command("train").main(["--config-file", str(CONFIG), *pairs, *weight])
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [record["boxes"] for record in records] == [4, 4]
    for part in ("loss", "loss_pose", "loss_object", "loss_person"):
        assert all(np.isfinite(record[part]) and record[part] > 0 for record in records)

    weight = ["MODEL.WEIGHT", str(run / "model_0000002.pth")]
    load_command("test").main(["--config-file", str(CONFIG), *pairs, *weight])
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
    load_command("evaluate").main(
        [
            "ava",
            *("--ground-truth", str(annotations / "ava_val_v2.2.csv")),
            *("--detections", str(folder / "result_ava.csv"), "--json", str(out)),
            *("--excluded", str(annotations / "ava_val_excluded_timestamps_v2.2.csv")),
        ]
    )
    alone = json.loads(out.read_text())
    assert alone["frame_mAP@0.5"] == pytest.approx(metrics["frame_mAP_all@0.5"], abs=1e-4)


def test_data_of_ones_own_in_avas_form(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Seconds 1 to 4 of frame folders that begin with second 0; a label map of three classes."""
    ava = tmp_path / "data" / "ava"
    rate = 10
    for video in ("shop", "park"):
        folder = ava / "frames" / video
        folder.mkdir(parents=True)
        for index in range(1, 5 * rate + 1):
            Image.fromarray(numbered(index)).save(folder / f"{video}_{index:06d}.jpg", quality=95)
    label_map = "".join(
        f'item {{\n  name: "{name}"\n  id: {id_}\n}}\n'
        for name, id_ in (("walk", 4), ("carry", 7), ("talk", 9))
    )
    (ava / "ava_action_list_v2.2.pbtxt").write_text(label_map)
    rows = [f"{second},0.1,0.1,0.6,0.9,{id_},0" for second in (1, 2, 4) for id_ in (4, 7)]
    (ava / "ava_train_v2.2.csv").write_text("".join(f"shop,{row}\n" for row in rows))
    rows = [f"{second},0.1,0.1,0.6,0.9,{id_},0" for second in (1, 3) for id_ in (4, 9)]
    (ava / "ava_val_v2.2.csv").write_text("".join(f"park,{row}\n" for row in rows))
    texts = {"all": "walk\ncarry\ntalk\n", "group": "pose\nobject\nperson\n"}
    texts |= {"seen": "walk\ncarry\n", "unseen": "talk\n"}
    for name, text in texts.items():
        (tmp_path / f"{name}.txt").write_text(text)
    config = tmp_path / "config.yaml"
    config.write_text(f"""
_BASE_: {CONFIG.parent / "base.yaml"}
ALL_LABEL: {tmp_path}/all.txt
ALL_GROUP: {tmp_path}/group.txt
TRAIN_LABEL: {tmp_path}/seen.txt
TEST_LABEL: {tmp_path}/unseen.txt
DATASETS: {{DATA_DIR: {tmp_path}/data, AVA: {{SECONDS: [1, 22], START: 0, FPS: {rate}}}}}
DATALOADER: {{NUM_WORKERS: 0}}
MODEL: {{CLIP: puppet, DEVICE: cpu}}
SOLVER: {{MAX_ITER: 2, VIDEOS_PER_BATCH: 3}}
TEST: {{BOXES: ground_truth}}
OUTPUT_DIR: {tmp_path}/run
""")
    load_command("train").main(["--config-file", str(config)])
    weight = ["MODEL.WEIGHT", str(tmp_path / "run" / "model_0000002.pth")]
    load_command("test").main(["--config-file", str(config), *weight])
    assert "left out" not in caplog.text
    folder = tmp_path / "run" / "inference" / "ava"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert (metrics["keyframes"], metrics["boxes"]) == (2, 2)
    with open(folder / "result_ava.csv", newline="") as file:
        found = {(row[0], int(row[1]), int(row[6])) for row in csv.reader(file)}
    assert found == {("park", second, id_) for second in (1, 3) for id_ in (4, 7, 9)}
    # Second 3 is frame 31.
    cfg = load_config(config)
    keyframe = build_dataset(cfg, "test").keyframes[1]
    assert keyframe.key == ("park", 31)
    dataset = build_dataset(cfg, "test")
    (picture,) = dataset.videos["park"].read([31])
    assert number_of(picture) == 31
    with pytest.raises(UserError, match=r"DATASETS\.AVA\.SECONDS: .* not before .*START 900"):
        build_dataset(load_config(config, ["DATASETS.AVA.START", "900"]), "test")
