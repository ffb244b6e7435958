"""A benchmark small enough for a test: the conformance case's videos, and a random CLIP."""

import shutil

from safetensors.torch import save_file

from tests.helpers import GOLDEN, tiny_model

DATA = GOLDEN / "jhmdb_tiny" / "data"


def small_benchmark(folder):
    """Write data and configs of split 1 into a folder; gives the folder of the configs."""
    shutil.copytree(DATA, folder / "data")
    split = folder / "data" / "split"
    lists = folder / "data" / "jhmdb" / "lists"
    lists.mkdir()
    for vocabulary, part in (("seen", "train"), ("unseen", "test")):
        shutil.copy(split / f"{part}_video.txt", lists / f"split_1_test_{vocabulary}.txt")
    shutil.copy(split / "train_video.txt", lists / "split_1_train_seen.txt")
    save_file(tiny_model(lora_rank=0).clip.state_dict(), folder / "clip.safetensors")
    configs = folder / "configs"
    configs.mkdir()
    (configs / "split_1.yaml").write_text(
        f"""
ALL_LABEL: {folder}/data/jhmdb/annotations/all_label.txt
TRAIN_LABEL: {split}/train_label.txt
TEST_LABEL: {split}/test_label.txt
TRAIN_VIDEO: {lists}/split_1_train_seen.txt
TEST_VIDEO: {lists}/split_1_test_unseen.txt
MODEL: {{CLIP: {folder}/clip.safetensors, DEVICE: cpu, LORA: {{RANK: 2}}}}
DATASETS: {{DATA_DIR: {folder}/data}}
DATALOADER: {{NUM_WORKERS: 0}}
SOLVER: {{MAX_ITER: 3, VIDEOS_PER_BATCH: 4, WARMUP_ON: false}}
"""
    )
    return configs
