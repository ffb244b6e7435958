"""A person has one pose: of several the reader warns, and the validator tells where."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from yacs.config import CfgNode

from stclip.config.defaults import get_cfg_defaults
from stclip.data import build_dataset
from stclip.data import findings as kinds
from stclip.data.annotations import Keyframe
from stclip.data.findings import Findings
from stclip.data.lenient import read_leniently
from stclip.data.validation import check_labels
from stclip.structures import FrameKey
from tests.data.make import HEIGHT, WIDTH, write_frames

GROUPS = {"sit": "pose", "stand": "pose", "bend": "pose", "hold": "object", "talk": "person"}
# Frames 1 and 3; box 2 of frame 3 has two poses.
LABELS = [[["sit", "hold"]], [["stand", "hold", "talk"], ["talk", "stand", "sit"]]]


@pytest.fixture
def cfg(tmp_path: Path) -> CfgNode:
    write_frames(tmp_path / "v", 3)
    box = [2, 3, 14, 25]
    content = {
        "labels": list(GROUPS),
        "videos": [{"id": "v", "path": "v", "size": [WIDTH, HEIGHT], "fps": 10}],
        "keyframes": [
            {"video": "v", "timestamp": time, "boxes": [box] * len(labels), "labels": labels}
            for time, labels in zip((0, 0.2), LABELS, strict=True)
        ],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    cfg = get_cfg_defaults()
    cfg.DATASETS.TRAIN = str(tmp_path / "a.json")
    for key, lines in (("ALL_LABEL", GROUPS), ("ALL_GROUP", GROUPS.values())):
        cfg[key] = str(tmp_path / f"{key}.txt")
        Path(cfg[key]).write_text("".join(f"{line}\n" for line in lines))
    cfg.TRAIN_LABEL = cfg.ALL_LABEL
    return cfg


def test_boxes_with_several_labels_of_some() -> None:
    boxes = np.zeros((3, 4), np.float32)
    keyframe = Keyframe(FrameKey("v", 1), boxes, (("a", "b"), (), ("c", "a", "b", "a")))
    assert keyframe.with_several(("a", "b")) == [(1, ["a", "b"]), (3, ["a", "b"])]
    assert keyframe.with_several("a") == []
    assert keyframe.with_several("ac") == [(3, ["a", "c"])]


def test_several_poses_give_one_warning(cfg: CfgNode, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        dataset = build_dataset(cfg, "train")
    (record,) = (r for r in caplog.records if r.name == "stclip.data.build")
    assert record.getMessage().startswith("DATASETS.TRAIN: 1 of 3 person boxes have several labels")
    assert "(first: box 2 of frame 3 of video v: sit, stand)" in record.getMessage()
    assert sum(len(keyframe.boxes) for keyframe in dataset.keyframes) == 3


def test_an_unseen_pose_does_not_count(
    cfg: CfgNode, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The person with both is left out of training, or has only the seen one there."""
    (tmp_path / "train.txt").write_text("sit\nhold\ntalk\n")
    cfg.TRAIN_LABEL = str(tmp_path / "train.txt")
    for unseen in ("stand", "bend"):
        (tmp_path / "test.txt").write_text(f"{unseen}\n")
        cfg.TEST_LABEL = str(tmp_path / "test.txt")
        with caplog.at_level(logging.WARNING):
            build_dataset(cfg, "train")
    assert "pose" not in caplog.text


def test_the_validator_names_each(cfg: CfgNode) -> None:
    found = Findings(keep=9)
    dataset = read_leniently(cfg.DATASETS.TRAIN, None, found)
    assert dataset is not None
    names = [name for name in GROUPS if name != "bend"]
    check_labels("train", dataset, names, list(GROUPS), True, found, ["sit", "stand", "bend"])
    assert found.places == {kinds.SEVERAL_POSES: ["train: v frame 3, box 2: sit, stand"]}
    found = Findings(keep=9)
    check_labels("train", dataset, names, list(GROUPS), True, found)
    assert not found.counts
