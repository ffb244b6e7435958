"""Draw the sample dataset, train on it, and test on unseen and seen classes. Needs no download.

Example:
    python tools/quickstart.py

Every run writes to a new folder, output/quickstart-<n>; the dataset in data/sample is drawn once.
"""

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from stclip.cli import Parser, run
from stclip.config import load_config
from stclip.engine.checkpoint import checkpoint_path

ROOT = Path(__file__).resolve().parents[1]
CONFIG = "configs/sample/split_1.yaml"


def main(argv: list[str] | None = None) -> int:
    """Run the commands that a person would type, and sum up."""
    Parser(description="Train and test on the drawn sample.").parse_args(argv)
    cfg = load_config(ROOT / CONFIG)
    if not (ROOT / cfg.DATASETS.DATA_DIR).exists():
        call("tools/prepare_sample.py", "--out", cfg.DATASETS.DATA_DIR)
    output = free_folder("output/quickstart")
    call("tools/train_net.py", "--config-file", CONFIG, "OUTPUT_DIR", output)
    weight = str(checkpoint_path(output, cfg.SOLVER.MAX_ITER))
    common = ("--config-file", CONFIG, "MODEL.WEIGHT", weight, "OUTPUT_DIR")
    call("tools/test_net.py", *common, f"{output}/unseen")
    call("tools/test_net.py", *common, f"{output}/seen", "TEST_LABEL", cfg.TRAIN_LABEL)
    summarise(ROOT / output)
    return 0


def call(*words: str) -> None:
    """Run one of the tools from the repository's folder, showing the command first."""
    print(f"\n$ python {shlex.join(words)}", flush=True)
    status = subprocess.run([sys.executable, *words], cwd=ROOT, check=False).returncode
    if status:
        sys.exit(status)  # the tool has said why


def free_folder(stem: str) -> str:
    """``stem``-<n> with the first number that is not taken."""
    number = 1
    while (ROOT / f"{stem}-{number}").exists():
        number += 1
    return f"{stem}-{number}"


def summarise(folder: Path) -> None:
    """Print what came out of the run."""
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    losses = [record["loss"] for record in records]
    tenth = max(1, len(losses) // 10)
    first, last = (sum(part) / tenth for part in (losses[:tenth], losses[-tenth:]))
    print(f"\nmean loss of the first {tenth} iterations {first:.3f}, of the last {last:.3f}")
    for name in ("unseen", "seen"):
        metrics = read_metrics(folder / name)
        classes, value = len(metrics["per_class"]), metrics["frame_mAP@0.5"]
        print(f"frame mAP at 0.5 on the {classes} {name} classes: {value:.2f}")
    print(
        "The sample's CLIP has random weights and knows no words. On unseen classes, with two test "
        "videos each that are right or wrong as a whole, the number is luck (about 17 if every box "
        "were guessed by itself) and says nothing about the method."
    )
    print(f"Everything is in {folder.relative_to(ROOT)}.")


def read_metrics(folder: Path) -> dict[str, Any]:
    """metrics.json of a test run."""
    metrics: dict[str, Any] = json.loads((folder / "inference/jhmdb/metrics.json").read_text())
    return metrics


if __name__ == "__main__":
    run(main)
