import shutil
from pathlib import Path

import pytest
import torch

from tests.helpers import GOLDEN, conformance_state, load_command

CASE = GOLDEN / "jhmdb_tiny"


@pytest.fixture(scope="session")
def reference_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of the conformance case, in the reference's format."""
    path = tmp_path_factory.mktemp("reference") / "reference.pth"
    torch.save({"model": conformance_state(CASE / "state_dict_shapes.json")}, path)
    return path


@pytest.fixture
def case_config(tmp_path: Path, reference_checkpoint: Path) -> Path:
    """A yaml for the conformance case; its training is the one of train_3steps.json."""
    return write_config(tmp_path, reference_checkpoint)


@pytest.fixture(scope="session")
def shared_test(tmp_path_factory: pytest.TempPathFactory, reference_checkpoint: Path) -> Path:
    """OUTPUT_DIR of the conformance case's test; for tests that only read it."""
    config = write_config(tmp_path_factory.mktemp("test"), reference_checkpoint)
    assert load_command("test").main(["--config-file", str(config)]) == 0
    return config.parent / "run"


@pytest.fixture
def tested(shared_test: Path, case_config: Path) -> Path:
    """The same as a copy in the folder of ``case_config``."""
    return Path(shutil.copytree(shared_test, case_config.parent / "run"))


def write_config(folder: Path, checkpoint: Path) -> Path:
    data = CASE / "data"
    path = folder / "case.yaml"
    path.write_text(
        f"""
OUTPUT_DIR: {folder / "run"}
ALL_LABEL: {data}/jhmdb/annotations/all_label.txt
TRAIN_LABEL: {data}/split/train_label.txt
TEST_LABEL: {data}/split/test_label.txt
TRAIN_VIDEO: {data}/split/train_video.txt
TEST_VIDEO: {data}/split/test_video.txt
MODEL: {{WEIGHT: {checkpoint}, DEVICE: cpu}}
DATASETS: {{DATA_DIR: {data}}}
DATALOADER: {{NUM_WORKERS: 0}}
SOLVER:
  BASE_LR: 0.01
  WARMUP_ON: false
  STEPS: []
  MAX_ITER: 3
  VIDEOS_PER_BATCH: 27
"""
    )
    return path
