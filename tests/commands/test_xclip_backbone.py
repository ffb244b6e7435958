"""stclip train, stclip test and stclip.load with X-CLIP's image tower."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import stclip
from stclip.cli import run
from stclip.engine.checkpoint import read_checkpoint, save_reference_checkpoint
from stclip.errors import UserError
from tests.commands.test_train import losses
from tests.helpers import load_command
from tests.puppet.make_runs import small_benchmark

PAIRS = ("MODEL.BACKBONE", "xclip", "SOLVER.BASE_LR", "0.02", "SOLVER.VIDEOS_PER_BATCH", "8")
PAIRS += ("SOLVER.CHECKPOINT_PERIOD", "3", "MODEL.TEMPORAL.FRAMES", "3", "SOLVER.STEPS", "[]")


@pytest.fixture
def config(tmp_path: Path) -> str:
    return str(small_benchmark(tmp_path) / "split_1.yaml")


def train(config: str, out: Path, *words: str) -> None:
    words = ("--config-file", config, *words, "OUTPUT_DIR", str(out), *PAIRS)
    assert load_command("train").main([*words, "SOLVER.MAX_ITER", "6"]) == 0


@pytest.mark.slow
def test_messages_and_lora_alone(config: str, tmp_path: Path) -> None:
    """The only parameters are then in the tower; what a training writes can be tested."""
    pairs = ("MODEL.PERSON_TOKENS.ENABLED", "False", "MODEL.PROMPT.ENABLED", "False")
    train(config, tmp_path / "run", *pairs)
    weight = tmp_path / "run" / "model_0000006.pth"
    words = ["--config-file", config, *PAIRS, *pairs, "MODEL.WEIGHT", str(weight)]
    assert load_command("test").main([*words, "OUTPUT_DIR", str(tmp_path / "test")]) == 0
    assert stclip.load(weight, ["wave"], device="cpu").model.person_tokens is None


@pytest.mark.slow
def test_train_resume_test_and_load(config: str, tmp_path: Path) -> None:
    train(config, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "parts")
    found = losses(tmp_path / "whole")
    assert sum(found[3:]) < sum(found[:3])
    (tmp_path / "parts" / "model_0000006.pth").unlink()  # as if killed after iteration 3
    with pytest.raises(UserError, match=r"MODEL\.TRAIN_MESSAGES True -> False"):
        train(config, tmp_path / "parts", "--resume", "MODEL.TRAIN_MESSAGES", "False")
    train(config, tmp_path / "parts", "--resume")
    assert losses(tmp_path / "parts") == found
    paths = [tmp_path / name / "model_0000006.pth" for name in ("whole", "parts")]
    one, two = (read_checkpoint(path).model for path in paths)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    before = read_checkpoint(tmp_path / "whole" / "model_0000003.pth").model
    moved = {name for name in one if not torch.equal(one[name], before[name])}
    parts = ("person_tokens.", "context_prompting.")
    assert {n for n in moved if not n.startswith(parts)} == {
        name for name in one if ".lora_" in name or ".message_" in name
    }
    words = ["--config-file", config, *PAIRS, "MODEL.WEIGHT", str(paths[0])]
    assert load_command("test").main([*words, "OUTPUT_DIR", str(tmp_path / "test")]) == 0
    assert (tmp_path / "test/inference/jhmdb/metrics.json").is_file()

    detector = stclip.load(paths[0], ["wave", "sit"], device="cpu")
    assert detector.model.window_length == 3  # no parameter shows it
    frames = [np.full((60, 80, 3), 40 * number, np.uint8) for number in range(5)]
    scores = detector.score(frames, [[5, 5, 40, 50]])
    assert scores.sum() == pytest.approx(1, abs=1e-5)
    frames[3] = 255 - frames[3]  # beside the keyframe, which is the third
    assert not np.array_equal(detector.score(frames, [[5, 5, 40, 50]]), scores)
    with pytest.raises(UserError, match="X-CLIP's image tower: it has no counterpart"):
        save_reference_checkpoint(tmp_path / "reference.pth", read_checkpoint(paths[0]))


def test_nothing_to_train(config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["MODEL.PERSON_TOKENS.ENABLED", "False", "MODEL.PROMPT.ENABLED", "False"]
    words += ["MODEL.LORA.RANK", "0", "MODEL.TRAIN_MESSAGES", "False"]
    with pytest.raises(SystemExit) as stopped:
        run(lambda: train(config, tmp_path / "out", *words))
    assert stopped.value.code == 2
    assert "TEMPORAL.BEFORE_XCLIP and TRAIN_MESSAGES are False" in capsys.readouterr().err
