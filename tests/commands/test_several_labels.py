"""Several labels a person, and generalised evaluation, through the commands."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import stclip
from stclip.engine.checkpoint import Checkpoint, read_checkpoint, save_checkpoint
from stclip.errors import UserError
from tests.commands.conftest import CASE
from tests.commands.test_train import torchrun
from tests.helpers import load_command

VIDEOS = CASE / "data" / "jhmdb" / "videos"
LABELS = {"stand": "pose", "sit": "pose", "hold": "object", "carry": "object", "talk": "person"}
# In the frames 1 and 4 of each part's video, a person with these labels, and one with those.
PERSONS = {
    "train": ("charlie_pick_s1", [["stand", "hold", "talk"], ["sit"]]),
    "test": ("foxtrot_stand_s1", [["sit", "carry"], ["stand", "talk", "hold"]]),
}


def annotations(part: str, size: tuple[int, int]) -> dict[str, Any]:
    name, labels = PERSONS[part]
    boxes = [[2, 2, 30, 40], [20, 5, 60, 45]]
    return {
        "labels": [{"name": label, "group": group} for label, group in LABELS.items()],
        "videos": [{"id": name, "path": str(VIDEOS / name), "size": size, "fps": 30}],
        "keyframes": [
            {"video": name, "timestamp": (frame - 1) / 30, "boxes": boxes, "labels": labels}
            for frame in (1, 4)
        ],
    }


@pytest.fixture
def config(case_config: Path, tmp_path: Path) -> Path:
    """The tiny model on two videos of the conformance case with labels made up: carry is unseen."""
    for part, (name, _) in PERSONS.items():
        with Image.open(VIDEOS / name / "00001.png") as picture:
            content = annotations(part, picture.size)
        (tmp_path / f"{part}.json").write_text(json.dumps(content))
    lists = {
        "all": LABELS,
        "group": LABELS.values(),
        "seen": [name for name in LABELS if name != "carry"],
        "unseen": ["carry"],
    }
    for name, lines in lists.items():
        (tmp_path / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines))
    path = tmp_path / "several.yaml"
    path.write_text(
        f"""
_BASE_: {case_config.name}
ALL_LABEL: {tmp_path}/all.txt
ALL_GROUP: {tmp_path}/group.txt
TRAIN_LABEL: {tmp_path}/seen.txt
TEST_LABEL: {tmp_path}/unseen.txt
TRAIN_VIDEO: ""
TEST_VIDEO: ""
DATASETS: {{TRAIN: {tmp_path}/train.json, TEST: {tmp_path}/test.json}}
SOLVER: {{VIDEOS_PER_BATCH: 2, MAX_ITER: 2}}
TEST: {{BOXES: ground_truth, GENERALIZED: true}}
"""
    )
    return path


def records(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def run_test(config: Path, *pairs: str) -> tuple[dict[str, Any], Any]:
    load_command("test").main(["--config-file", str(config), *pairs])
    folder = config.parent / "run" / "inference" / "annotations"
    return json.loads((folder / "metrics.json").read_text()), np.load(folder / "predictions.npz")


@pytest.mark.slow
def test_train_and_test(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load_command("train").main(["--config-file", str(config), "SOLVER.EVAL_PERIOD", "2"])
    first, second, validated = records(tmp_path / "run")
    parts = [first[f"loss_{group}"] for group in ("pose", "object", "person")]
    assert first["loss"] == pytest.approx(sum(parts))
    assert second["loss"] < first["loss"]
    assert 0 <= first["accuracy"] <= 1
    assert first["boxes"] == 4  # carry is done in the test part only

    weight = tmp_path / "run" / "model_0000002.pth"
    metrics, raw = run_test(config, "MODEL.WEIGHT", str(weight))
    table = capsys.readouterr().out
    assert raw["labels"].tolist() == list(LABELS)
    np.testing.assert_allclose(raw["scores"][:, :2].sum(axis=1), 1, rtol=1e-5)
    assert not np.allclose(raw["scores"][:, 2:].sum(axis=1), 1)
    per_class = metrics["per_class"]
    seen = [per_class[name] for name in LABELS if name != "carry"]
    assert metrics["frame_mAP@0.5"] == per_class["carry"]
    assert metrics["frame_mAP_seen@0.5"] == pytest.approx(sum(seen) / 4)
    assert metrics["frame_mAP_all@0.5"] == pytest.approx((sum(seen) + per_class["carry"]) / 5)
    a, b = metrics["frame_mAP@0.5"], metrics["frame_mAP_seen@0.5"]
    assert metrics["H"] == pytest.approx(2 * a * b / (a + b))
    for line in ("carry (unseen)", "mean unseen", "mean seen", "mean all", "H "):
        assert f"\n{line}" in table
    for name in ("frame_mAP@0.5", "frame_mAP_seen@0.5", "frame_mAP_all@0.5", "H@0.5"):
        assert validated[f"val_{name}"] == pytest.approx(metrics[name])

    checkpoint = read_checkpoint(weight)
    assert checkpoint.groups == LABELS
    detector = stclip.load(weight, labels=["stand", "juggle", "sit"], device="cpu")
    assert detector.groups == LABELS


@pytest.mark.slow
def test_testing_unlike_training_gives_a_warning(
    config: Path, reference_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Several labels trained and one tested, the other way round, and neither."""
    saved = read_checkpoint(reference_checkpoint)
    paths = {}
    for name, groups in (("several", LABELS), ("one", None)):
        paths[name] = config.with_name(f"{name}.pth")
        checkpoint = Checkpoint(saved.model, config="SEED: 2\n", groups=groups)
        save_checkpoint(paths[name], checkpoint)

    def warnings(path: Path, *pairs: str) -> list[str]:
        run_test(config, "MODEL.WEIGHT", str(path), *pairs)
        return [line for line in capsys.readouterr().err.splitlines() if "ALL_GROUP" in line]

    (text,) = warnings(paths["several"], "ALL_GROUP", "")
    assert f"{paths['several']} was trained with several labels a person" in text
    (text,) = warnings(paths["one"])
    assert f"{paths['one']} was trained with one label a person" in text
    assert warnings(paths["several"]) == warnings(paths["one"], "ALL_GROUP", "") == []
    assert warnings(reference_checkpoint) == []  # it does not say
    assert warnings(paths["several"], "ALL_GROUP", "", "MODEL.NAME", "crop") == []  # not trained


def test_soft_voting_of_several_labels(config: Path) -> None:
    metrics, raw = run_test(config, "TEST.SINGLE_ACTION", "True")
    assert set(metrics["per_class"]) == set(LABELS)
    # All four persons of the video get one score a class, the mean of those that are kept.
    result = config.parent / "run/inference/annotations/result_annotations.csv"
    rows = [line.split(",") for line in result.read_text().splitlines()]
    voted = np.array([float(row[-1]) for row in rows]).reshape(4, len(LABELS))
    np.testing.assert_allclose(voted, np.tile(raw["scores"].mean(axis=0), (4, 1)), atol=1e-5)


def test_only_the_unseen(config: Path) -> None:
    metrics, raw = run_test(config, "TEST.GENERALIZED", "False")
    assert raw["labels"].tolist() == ["carry"]
    assert list(metrics["per_class"]) == ["carry"]
    assert "H" not in metrics
    assert ((raw["scores"] > 0) & (raw["scores"] < 1)).all()  # a sigmoid; a softmax would be 1


@pytest.mark.slow
def test_generalised_with_exclusive_labels(case_config: Path, tmp_path: Path) -> None:
    pairs = ["--config-file", str(case_config), "TEST.GENERALIZED", "True"]
    load_command("test").main(pairs)
    folder = tmp_path / "run" / "inference" / "jhmdb"
    metrics = json.loads((folder / "metrics.json").read_text())
    raw = np.load(folder / "predictions.npz")
    assert raw["scores"].shape[1] == 21
    np.testing.assert_allclose(raw["scores"].sum(axis=1), 1, rtol=1e-5)
    unseen = [metrics["per_class"][name] for name in metrics["unseen"]]
    assert len(unseen) == 3
    assert metrics["frame_mAP@0.5"] == pytest.approx(np.mean(unseen))
    # No test video shows one of the others.
    assert metrics["frame_mAP_seen@0.5"] is None
    assert metrics["H"] is None


def test_without_groups_the_labels_of_a_person_are_too_many(config: Path) -> None:
    with pytest.raises(UserError, match=r"box 1 of frame 1 .* has 3 of its labels .*ALL_GROUP"):
        load_command("train").main(["--config-file", str(config), "ALL_GROUP", ""])


@pytest.mark.slow
def test_two_processes_give_the_losses_of_one(config: Path, tmp_path: Path) -> None:
    """Also where the pose of a whole process's persons is not in the vocabulary."""
    content = annotations("train", (0, 0))
    size = json.loads((tmp_path / "train.json").read_text())["videos"][0]["size"]
    content["videos"][0]["size"] = size
    content["keyframes"][0]["labels"] = [["hold"], ["talk"]]
    (tmp_path / "train.json").write_text(json.dumps(content))
    pairs = ["--config-file", str(config), "OUTPUT_DIR"]
    load_command("train").main([*pairs, str(tmp_path / "one")])
    torchrun("train", 2, *pairs, str(tmp_path / "two"))
    for first, second in zip(records(tmp_path / "one"), records(tmp_path / "two"), strict=True):
        for name in ("loss", "loss_pose", "loss_object", "loss_person", "accuracy"):
            assert second[name] == pytest.approx(first[name], rel=1e-5)
    one, two = (read_checkpoint(tmp_path / n / "model_0000002.pth").model for n in ("one", "two"))
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-4, atol=1e-6)
