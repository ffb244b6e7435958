"""stclip train and test beyond the reference's numbers: resume, processes, signals."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stclip.config import load_config
from stclip.engine.checkpoint import read_checkpoint
from stclip.errors import UserError
from tests.commands.conftest import CASE
from tests.helpers import children, load_command

ONE = ("SOLVER.VIDEOS_PER_BATCH", "1", "SOLVER.MAX_ITER", "1")
SMALL = ["SOLVER.VIDEOS_PER_BATCH", "4", "SOLVER.MAX_ITER", "4", "SOLVER.CHECKPOINT_PERIOD", "2"]


def train(config: Path, *arguments: str) -> int:
    result: int = load_command("train").main(["--config-file", str(config), *SMALL, *arguments])
    return result


def records(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def losses(run: Path) -> list[float]:
    return [record["loss"] for record in records(run) if "loss" in record]


def launcher(processes: int) -> list[str]:
    """The beginning of a command line that starts a module under torchrun."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={processes}"]
    return [*command, f"--master_port={port}", "--master_addr=127.0.0.1"]


def torchrun(name: str, processes: int, *arguments: str) -> None:
    command = [*launcher(processes), "-m", "stclip", name]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [*command, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr[-4000:]


def test_resume_continues_bit_for_bit(case_config: Path, tmp_path: Path) -> None:
    train(case_config, "OUTPUT_DIR", str(tmp_path / "whole"))
    with pytest.raises(UserError, match="--resume"):  # a run is not overwritten
        train(case_config, "OUTPUT_DIR", str(tmp_path / "whole"))
    shutil.copytree(tmp_path / "whole", tmp_path / "parts")
    (tmp_path / "parts" / "model_0000004.pth").unlink()  # as if killed after iteration 2
    train(case_config, "OUTPUT_DIR", str(tmp_path / "parts"), "--resume")
    assert losses(tmp_path / "whole") == losses(tmp_path / "parts")
    one, two = (read_checkpoint(tmp_path / n / "model_0000004.pth") for n in ("whole", "parts"))
    assert one.model.keys() == two.model.keys()
    assert all(torch.equal(one.model[name], two.model[name]) for name in one.model)
    assert one.training is not None
    assert two.training is not None
    momentum = [c.training["optimizer"]["state"] for c in (one, two)]  # type: ignore[index]
    for number, state in momentum[0].items():
        assert torch.equal(state["momentum_buffer"], momentum[1][number]["momentum_buffer"])


@pytest.mark.slow
def test_the_activation_of_clip_is_saved(case_config: Path, tmp_path: Path) -> None:
    train(case_config, *ONE, "MODEL.CLIP_ACTIVATION", "gelu")
    weight = tmp_path / "run" / "model_0000001.pth"
    assert read_checkpoint(weight).activation == "gelu"
    pairs = ("MODEL.WEIGHT", str(weight), "MODEL.CLIP_ACTIVATION", "quick_gelu")
    with pytest.raises(UserError, match="WEIGHT has gelu"):
        load_command("test").main(["--config-file", str(case_config), *pairs])


@pytest.mark.slow
def test_validation_while_training(case_config: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    pairs = ("SOLVER.EVAL_PERIOD", "2", "SOLVER.MAX_ITER", "3")
    train(case_config, *pairs)
    found = [(r["iteration"], r["val_frame_mAP@0.5"]) for r in records(run) if "loss" not in r]
    assert [iteration for iteration, _ in found] == [2, 3]
    weight = ("MODEL.WEIGHT", str(run / "model_0000003.pth"))
    load_command("test").main(["--config-file", str(case_config), *weight])
    metrics = json.loads((run / "inference" / "jhmdb" / "metrics.json").read_text())
    assert metrics["frame_mAP@0.5"] == found[-1][1]


def test_a_loss_that_is_not_finite_stops_before_the_step(case_config: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not finite") as caught:
        train(case_config, *ONE[:2], "SOLVER.BASE_LR", "1e30", "SOLVER.CHECKPOINT_PERIOD", "1")
    assert "action" in str(caught.value)
    state = read_checkpoint(tmp_path / "run" / "model_0000001.pth").model
    assert all(tensor.isfinite().all() for tensor in state.values())


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.slow
def test_autocast_is_close_to_float32(case_config: Path, tmp_path: Path, precision: str) -> None:
    for name, value in (("full", "fp32"), ("half", precision)):
        pairs = ("MODEL.PRECISION", value, "SOLVER.MAX_ITER", "2")
        train(case_config, "OUTPUT_DIR", str(tmp_path / name), *pairs)
    full, half = losses(tmp_path / "full"), losses(tmp_path / "half")
    assert half[0] == pytest.approx(full[0], rel=0.01)
    assert half[0] != full[0]


@pytest.mark.slow
def test_start_from_clip_alone(case_config: Path, tmp_path: Path) -> None:
    """Without MODEL.WEIGHT the rest is freshly initialised, the same for the same seed."""
    reference = read_checkpoint(load_config(case_config).MODEL.WEIGHT).model
    clip = {k[5:]: v for k, v in reference.items() if k.startswith("clip.") and "lora" not in k}
    torch.save(clip, tmp_path / "clip.pt")
    pairs = ("MODEL.WEIGHT", "", "MODEL.CLIP", str(tmp_path / "clip.pt"), "SOLVER.MAX_ITER", "1")
    for name in ("a", "b"):
        train(case_config, *pairs, "OUTPUT_DIR", str(tmp_path / name))
    assert losses(tmp_path / "a") == losses(tmp_path / "b")


@pytest.mark.slow
def test_a_test_of_half_the_training(case_config: Path, tmp_path: Path) -> None:
    reference = load_config(case_config).MODEL.WEIGHT
    state = read_checkpoint(reference).model
    clip = {k[5:]: v for k, v in state.items() if k.startswith("clip.") and "lora" not in k}
    torch.save(clip, tmp_path / "clip.pt")
    scratch = ("MODEL.WEIGHT", "", "MODEL.CLIP", str(tmp_path / "clip.pt"))
    train(case_config, *scratch, *ONE[2:], "OUTPUT_DIR", str(tmp_path / "run"))
    trained = ("MODEL.WEIGHT", str(tmp_path / "run/model_0000001.pth"), "SEED", "9")

    def scores(name: str, *pairs: str) -> np.ndarray:
        words = ["--config-file", str(case_config), *pairs, "OUTPUT_DIR", str(tmp_path / name)]
        assert load_command("test").main(words) == 0
        predictions = np.load(tmp_path / name / "inference/jhmdb/predictions.npz")
        return np.asarray(predictions["scores"])

    untrained = scores("untrained", *scratch)
    half, none = (scores(share, *trained, "MODEL.SCALE", share) for share in ("0.5", "0"))
    np.testing.assert_allclose(none, untrained, atol=1e-6)
    whole = scores("whole", *trained)
    assert np.abs(half - untrained).max() > 1e-4
    assert np.abs(half - whole).max() > 1e-4
    with pytest.raises(UserError, match=r"MODEL\.SCALE: .* does not say how its training started"):
        scores("reference", "MODEL.SCALE", "0.5")


@pytest.mark.slow
@pytest.mark.parametrize("accumulation", ["1", "2"])
def test_two_processes_give_the_losses_of_one(
    case_config: Path, tmp_path: Path, accumulation: str
) -> None:
    steps = ("SOLVER.ACCUMULATION_STEPS", accumulation)
    train(case_config, "OUTPUT_DIR", str(tmp_path / "one"))
    pairs = [*SMALL, *steps, "OUTPUT_DIR", str(tmp_path / "two")]
    torchrun("train", 2, "--config-file", str(case_config), *pairs)
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-5)
    one, two = (read_checkpoint(tmp_path / n / "model_0000004.pth").model for n in ("one", "two"))
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_a_process_without_boxes_and_validation_on_two(case_config: Path, tmp_path: Path) -> None:
    """Half of the boxes lie outside and are dropped, so that ranks run out of them now and then."""
    data = shutil.copytree(CASE / "data", tmp_path / "data")
    path = data / "jhmdb/annotations/jhmdb_train_gt_min.json"
    content = json.loads(path.read_text())
    for row in content["annotations"][::2]:
        row["bbox"] = [161, 10, 190, 50]
    path.write_text(json.dumps(content))
    pairs = ["DATASETS.DATA_DIR", str(data), "SOLVER.EVAL_PERIOD", "3", *SMALL]
    pairs += ["SOLVER.VIDEOS_PER_BATCH", "2", "SOLVER.MAX_ITER", "6", "OUTPUT_DIR"]
    train(case_config, *pairs, str(tmp_path / "one"))
    torchrun("train", 2, "--config-file", str(case_config), *pairs, str(tmp_path / "two"))
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-5)
    boxes = [record["boxes"] for record in records(tmp_path / "one") if "loss" in record]
    assert min(boxes) < 2
    validated = [
        [(r["iteration"], r["val_frame_mAP@0.5"]) for r in records(tmp_path / n) if "loss" not in r]
        for n in ("one", "two")
    ]
    assert [iteration for iteration, _ in validated[0]] == [3, 6]
    assert dict(validated[0]) == pytest.approx(dict(validated[1]))


@pytest.mark.slow
def test_resuming_in_another_precision(case_config: Path, tmp_path: Path) -> None:
    train(case_config, "SOLVER.MAX_ITER", "1")
    changes = ("MODEL.PRECISION", "fp16", "SOLVER.MOMENTUM", "0.5", "SOLVER.MAX_ITER", "2")
    train(case_config, "--resume", *changes)
    training = read_checkpoint(tmp_path / "run" / "model_0000002.pth").training
    assert training is not None
    assert training["optimizer"]["param_groups"][0]["momentum"] == 0.5


@pytest.mark.slow
def test_a_validation_that_was_cut_off_is_done_after_resuming(
    case_config: Path, tmp_path: Path
) -> None:
    pairs = ("SOLVER.EVAL_PERIOD", "2", "SOLVER.MAX_ITER", "2")
    train(case_config, *pairs)
    path = tmp_path / "run" / "metrics.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    train(case_config, *pairs, "--resume")
    assert [("loss" in record) for record in records(tmp_path / "run")] == [True, True, False]


@pytest.mark.slow
def test_two_processes_score_every_keyframe_once(case_config: Path, tmp_path: Path) -> None:
    pairs = ["--config-file", str(case_config), "TEST.VIDEOS_PER_BATCH", "4", "OUTPUT_DIR"]
    load_command("test").main([*pairs, str(tmp_path / "one")])
    torchrun("test", 2, *pairs, str(tmp_path / "two"))
    one, two = (
        np.load(tmp_path / name / "inference/jhmdb/predictions.npz") for name in ("one", "two")
    )
    for name in ("videos", "frames", "owner", "boxes", "det_scores", "labels"):
        np.testing.assert_array_equal(one[name], two[name])
    np.testing.assert_allclose(one["scores"], two["scores"], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "ranks"), [(signal.SIGTERM, 0), (signal.SIGINT, 0), (signal.SIGTERM, 2)]
)
def test_a_signal_saves_and_the_run_goes_on(
    case_config: Path, tmp_path: Path, number: signal.Signals, ranks: int
) -> None:
    run = tmp_path / "run"
    command = [*(launcher(ranks) if ranks else [sys.executable]), "-m", "stclip", "train"]
    command += ["--config-file", str(case_config), *SMALL, "SOLVER.MAX_ITER", "100000"]
    command += ["DATALOADER.NUM_WORKERS", "2", "SOLVER.CHECKPOINT_PERIOD", "100000"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 120
    metrics = run / "metrics.jsonl"
    while not (metrics.exists() and metrics.read_text()) and time.monotonic() < deadline:
        time.sleep(0.1)
    # As a terminal or a batch system does it: everybody gets the signal, and launchers, such as
    # timeout or torchrun, pass theirs on.
    for group in [*(children(process.pid) if ranks else [process.pid]), process.pid]:
        os.killpg(group, number)
        time.sleep(0.1)  # what arrives while the first is being noted would be one signal
    _, messages = process.communicate(timeout=120)
    assert process.returncode == (1 if ranks else 128 + number), messages
    assert "--resume" in messages
    assert ranks or "Traceback" not in messages
    (saved,) = run.glob("model_*.pth")
    done = int(saved.stem.split("_")[1])
    assert [record["iteration"] for record in records(run)] == list(range(1, done + 1))
    train(case_config, "SOLVER.MAX_ITER", str(done + 1), "--resume")
    assert len(losses(run)) == done + 1
