"""stclip train and test with MODEL.NAME xclip."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import stclip
from stclip.engine.checkpoint import read_checkpoint
from stclip.errors import UserError
from stclip.models.xclip import XCLIP, XCLIPSizes
from tests.commands.test_train import losses, records
from tests.helpers import SMALL_SIZES, load_command

SIZES = {**SMALL_SIZES, "frames": 4}


@pytest.fixture
def config(case_config: Path, tmp_path: Path) -> Path:
    """The conformance case's data with a small X-CLIP; 3 training videos of a class each."""
    torch.manual_seed(0)
    torch.save(XCLIP(XCLIPSizes(**SIZES)).state_dict(), tmp_path / "xclip.pth")
    path = tmp_path / "xclip.yaml"
    path.write_text(
        f"""
_BASE_: case.yaml
MODEL: {{NAME: xclip, WEIGHT: "", CLIP: {tmp_path / "xclip.pth"}, XCLIP: {{FRAMES: 4}}}}
SOLVER:
  OPTIMIZER: adamw
  BASE_LR: 5.0e-4
  NEW_LR_FACTOR: 10
  WEIGHT_DECAY: 1.0e-3
  SCHEDULE: cosine
  FOCAL_GAMMA: 0
  VIDEOS_PER_BATCH: 3
  MAX_ITER: 6
  CHECKPOINT_PERIOD: 3
"""
    )
    return path


def train(config: Path, *arguments: str) -> None:
    load_command("train").main(["--config-file", str(config), *arguments])


@pytest.mark.slow
def test_a_training_learns_and_is_tested(config: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(config, "SOLVER.EVAL_PERIOD", "6")
    assert losses(run)[-1] < 0.7 * losses(run)[0]
    assert {record["boxes"] for record in records(run) if "loss" in record} == {3}
    weight = ("MODEL.WEIGHT", str(run / "model_0000006.pth"))
    load_command("test").main(["--config-file", str(config), *weight])
    folder = run / "inference" / "jhmdb"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["model"] == "xclip"
    (validated,) = [record for record in records(run) if "loss" not in record]
    assert metrics["frame_mAP@0.5"] == validated["val_frame_mAP@0.5"]
    found = np.load(folder / "predictions.npz")
    videos = found["videos"][found["owner"]]
    assert len(set(videos)) == 3
    for video in set(videos):  # a whole video has one score
        assert np.ptp(found["scores"][videos == video], axis=0).max() < 1e-6
    np.testing.assert_allclose(found["scores"].sum(axis=1), 1, rtol=1e-5)


@pytest.mark.slow
def test_resume_continues_bit_for_bit(config: Path, tmp_path: Path) -> None:
    train(config, "OUTPUT_DIR", str(tmp_path / "whole"))
    shutil.copytree(tmp_path / "whole", tmp_path / "parts")
    (tmp_path / "parts" / "model_0000006.pth").unlink()  # as if killed after iteration 3
    train(config, "OUTPUT_DIR", str(tmp_path / "parts"), "--resume")
    assert losses(tmp_path / "whole") == losses(tmp_path / "parts")
    one, two = (read_checkpoint(tmp_path / n / "model_0000006.pth") for n in ("whole", "parts"))
    assert all(torch.equal(one.model[name], two.model[name]) for name in one.model)
    states = [c.training["optimizer"]["state"] for c in (one, two)]  # type: ignore[index]
    for number, state in states[0].items():
        assert torch.equal(state["exp_avg"], states[1][number]["exp_avg"])
        assert torch.equal(state["exp_avg_sq"], states[1][number]["exp_avg_sq"])


@pytest.mark.slow
def test_what_a_resume_may_change(config: Path, tmp_path: Path) -> None:
    train(config, "SOLVER.MAX_ITER", "1")
    with pytest.raises(UserError, match="'adamw' -> 'sgd'"):
        train(config, "--resume", "SOLVER.OPTIMIZER", "sgd")
    path = tmp_path / "run" / "model_0000001.pth"
    content = torch.load(path, weights_only=True)
    lines = content["config"].splitlines(keepends=True)
    content["config"] = "".join(line for line in lines if "OPTIMIZER" not in line)
    old = tmp_path / "old"  # as if written before there was the key, by the only optimizer then
    old.mkdir()
    torch.save(content, old / path.name)
    with pytest.raises(UserError, match="'sgd' -> 'adamw'"):
        train(config, "--resume", "OUTPUT_DIR", str(old))
    train(config, "--resume", "SOLVER.MAX_ITER", "2", "SOLVER.NEW_LR_FACTOR", "3")
    training = read_checkpoint(tmp_path / "run" / "model_0000002.pth").training
    assert training is not None
    groups = training["optimizer"]["param_groups"]
    assert sorted({group["lr_factor"] for group in groups}) == [1, 3]
    assert {group["lr"] / group["lr_factor"] for group in groups} == {
        records(tmp_path / "run")[-1]["lr"]
    }


@pytest.mark.slow
def test_windows_and_the_weights_of_clip(config: Path, tmp_path: Path) -> None:
    """From the small CLIP, over windows: nothing of X-CLIP's is given."""
    pairs = ("MODEL.CLIP", "puppet", "MODEL.XCLIP.UNIT", "window", "MODEL.XCLIP.STRIDE", "1")
    train(config, *pairs, "SOLVER.MAX_ITER", "1", "MODEL.XCLIP.FRAMES", "2")
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "freshly initialised" in log
    weight = ("MODEL.WEIGHT", str(tmp_path / "run" / "model_0000001.pth"))
    pairs = ("MODEL.CLIP", "puppet", "OUTPUT_DIR", str(tmp_path / "random"))
    load_command("test").main(["--config-file", str(config), *pairs])
    log = (tmp_path / "random" / "log.txt").read_text()
    assert "MODEL.CLIP puppet is CLIP: testing an X-CLIP in which what it adds" in log
    pairs = ("MODEL.XCLIP.UNIT", "window", "MODEL.XCLIP.FRAMES", "2", *weight)
    load_command("test").main(["--config-file", str(config), *pairs])
    assert "another value of MODEL.XCLIP.STRIDE" in (tmp_path / "run" / "log.txt").read_text()


def test_x_clip_as_it_is(config: Path, tmp_path: Path) -> None:
    load_command("test").main(["--config-file", str(config)])
    metrics = json.loads((tmp_path / "run/inference/jhmdb/metrics.json").read_text())
    assert metrics["weight"] == ""
    assert "never trained" not in (tmp_path / "run" / "log.txt").read_text()


def test_other_tools_say_what_such_a_checkpoint_is(config: Path, tmp_path: Path) -> None:
    train(config, "SOLVER.MAX_ITER", "1")
    weight = tmp_path / "run" / "model_0000001.pth"
    with pytest.raises(UserError, match=r"found X-CLIP as a baseline, expected ST-CLIP"):
        stclip.load(weight, labels=["run"])
    pairs = ("MODEL.NAME", "stclip", "MODEL.WEIGHT", str(weight))
    with pytest.raises(UserError, match=r"MODEL\.WEIGHT: .* ST-CLIP"):
        load_command("test").main(["--config-file", str(config), *pairs])


def test_other_baselines_have_nothing_to_train(config: Path) -> None:
    with pytest.raises(UserError, match="stclip or xclip expected, found crop"):
        train(config, "MODEL.NAME", "crop")
