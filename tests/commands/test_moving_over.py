"""The published implementation's command lines and configs, as processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stclip.cli import add_reference_options, config_parser, reference_pairs, run
from stclip.config import load_config
from stclip.config.load import flatten
from tests.commands.conftest import CASE
from tests.helpers import REPOSITORY, load_command
from tests.test_config import RELEASED


def call(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command line, after ``python``."""
    return subprocess.run(
        [sys.executable, *words],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.fixture
def released(tmp_path: Path, reference_checkpoint: Path) -> Path:
    """The released yaml; only its paths, and the length of the training, are those of the case."""
    data = CASE / "data"
    text = RELEASED
    for old, new in (
        ("data/jhmdb/annotations/all_label.txt", f"{data}/jhmdb/annotations/all_label.txt"),
        ("benchmarks/label_split_1", f"{data}/split"),
        ("data/output/dense_serial_debug", f"{tmp_path}/run"),
        ("NUM_WORKERS: 8", "NUM_WORKERS: 0"),
        ("MODEL:\n", f"MODEL:\n  WEIGHT: {reference_checkpoint}\n"),
    ):
        assert text.count(old) >= 1, old
        text = text.replace(old, new)
    path = tmp_path / "STCLIP.yaml"
    path.write_text(text)
    return path


CASE_KEYS = ("DATASETS.DATA_DIR", str(CASE / "data"), "MODEL.DEVICE", "cpu")
# The training of train_3steps.json.
THREE_STEPS = (
    *("SOLVER.BASE_LR", "0.01", "SOLVER.WARMUP_ON", "False"),
    *("SOLVER.MAX_ITER", "3", "SOLVER.VIDEOS_PER_BATCH", "27"),
)


def test_the_released_yaml_is_the_config_of_the_conformance_case(
    released: Path, case_config: Path
) -> None:
    """With which ``test_conformance.py`` trains and tests as the reference did."""
    ours = dict(flatten(load_config(case_config)))
    theirs = dict(flatten(load_config(released, [*CASE_KEYS, *THREE_STEPS])))
    assert {key for key in ours if ours[key] != theirs[key]} == {
        *("SOLVER.STEPS", "SOLVER.CHECKPOINT_PERIOD", "SOLVER.EVAL_PERIOD")  # beyond its 3 steps
    }


@pytest.mark.slow
def test_the_released_yaml_tests_as_the_reference_did(released: Path, tmp_path: Path) -> None:
    done = call(
        f"{REPOSITORY}/tools/test_net.py",
        *("--local_rank=0", "--config-file", str(released), *CASE_KEYS),
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("no effect here") == 1
    expected = json.loads((CASE / "expected/frame_map.json").read_text())
    metrics = json.loads((tmp_path / "run/inference/jhmdb/metrics.json").read_text())
    assert metrics["frame_mAP@0.5"] == pytest.approx(expected["0.5"]["mAP"], abs=0.01)


@pytest.mark.slow
def test_torch_distributed_launch(released: Path, tmp_path: Path) -> None:
    """With what its users write behind it, and two processes."""
    launch = ("-m", "torch.distributed.launch", "--nproc_per_node=2", "--master_port=29517")
    done = call(
        *launch,
        f"{REPOSITORY}/tools/train_net.py",
        *("--config-file", str(released), "--transfer", "--use-tfboard", "--skip-val-in-train"),
        *("--seed", "5", *CASE_KEYS, *THREE_STEPS, "SOLVER.VIDEOS_PER_BATCH", "4"),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "run/model_0000003.pth").exists()
    assert "SEED: 5\n" in (tmp_path / "run/config.yaml").read_text()
    for line in ("no effect here", "--transfer: nothing to do", "--use-tfboard: nothing to do"):
        assert done.stderr.count(line) == 1, line


@pytest.mark.parametrize("spelling", ["--local-rank=1", "--local_rank=1"])
def test_the_local_rank_is_taken(monkeypatch: pytest.MonkeyPatch, spelling: str) -> None:
    monkeypatch.setenv("LOCAL_RANK", "7")
    monkeypatch.delenv("LOCAL_RANK")
    parser = config_parser(None)
    add_reference_options(parser, training=False)
    args = parser.parse_intermixed_args(["--config-file", "a.yaml", spelling, "SEED", "3"])
    assert args.opts == ["SEED", "3"]
    assert reference_pairs(args) == []
    assert os.environ["LOCAL_RANK"] == "1"


@pytest.mark.parametrize("command", ["train", "test"])
def test_without_a_config_the_configs_are_named(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(lambda: load_command(command).main([]))
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert "--config-file" in line
    assert "jhmdb/{split_1,split_2,split_3,split_4," in line
    assert "base" not in line


def test_a_training_without_the_head(
    released: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    main = load_command("train").main
    with pytest.raises(SystemExit) as stopped:
        run(lambda: main(["--config-file", str(released), "--no-head", *CASE_KEYS]))
    assert stopped.value.code == 2
    assert "--no-head: ST-CLIP has no separate head" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
