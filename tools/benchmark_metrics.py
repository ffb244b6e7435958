"""Measure the time and memory of tools/evaluate.py on made files of full size.

    python tools/benchmark_metrics.py video-map ava --json metrics.json

video-map: a result csv of the size of UCF101-24's test part, 910 videos of 180 frames with 3
persons and 24 classes. ava: detections of the size of AVA's validation part, 57,408 seconds with 3
persons and 80 classes. --share makes a part of the videos only. The files are written into a
temporary folder (up to 1 GB), and the metric is computed in a process of its own.
"""

if __name__ == "__main__":
    import signals  # noqa: F401 (before the imports that take seconds)


import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from stclip.cli import Parser, run
from stclip.errors import UserError
from stclip.files import write_json

PERSONS = 3
UCF_VIDEOS, UCF_FRAMES, UCF_CLASSES = 910, 180, 24
AVA_VIDEOS, AVA_CLASSES, AVA_SECONDS = 64, 80, range(902, 1799)


def main(argv: list[str] | None = None) -> int:
    """Command line; see the head of this file."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("metrics", nargs="+", choices=("video-map", "ava"), metavar="METRIC")
    parser.add_argument("--share", type=float, default=1.0, help="of the videos (default: 1)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write the numbers here")
    args = parser.parse_args(argv)
    if not 0 < args.share <= 1:
        raise UserError(f"--share {args.share:g}: a number above 0 and at most 1 was expected")
    if args.json is not None and args.json.exists():
        raise UserError(f"{args.json}: exists already; choose another name")
    found = {name: measure(name, args.share, args.seed) for name in args.metrics}
    if args.json is not None:
        machine = {"machine": platform.platform(), "numpy": np.__version__}
        write_json(args.json, {**machine, "share": args.share, **found})
    return 0


def measure(name: str, share: float, seed: int) -> dict[str, Any]:
    """Make the files of one metric, compute it, print and return what it took."""
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        rows = (make_ucf if name == "video-map" else make_ava)(folder, share, rng)
        truth = next(folder.glob("truth.*"))
        tool = Path(__file__).with_name("evaluate.py")
        command = [sys.executable, str(tool), name, "--ground-truth", str(truth)]
        command += ["--detections", str(folder / "found.csv"), "--json", str(folder / "out.json")]
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - start
        if process.returncode:
            raise UserError(f"tools/evaluate.py {name}: failed, see above")
        metrics = json.loads((folder / "out.json").read_text(encoding="utf-8"))
        size = (folder / "found.csv").stat().st_size
    found = {
        "rows": rows,
        "file_gb": round(size / 1e9, 3),
        "seconds": round(seconds, 1),
        "processor_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_memory_gb": round(usage.ru_maxrss * 1024 / 1e9, 2),
        "mAP": next(value for key, value in metrics.items() if key.endswith("_mAP@0.5")),
    }
    print(f"{name}: {json.dumps(found)}")
    return found


def make_ucf(folder: Path, share: float, rng: np.random.Generator) -> int:
    """Write truth.json (tubes) and found.csv; the number of rows."""
    labels = [f"class {number}" for number in range(UCF_CLASSES)]
    videos = [f"class/v_class_g{v // 7:02d}_c{v:04d}" for v in range(round(UCF_VIDEOS * share))]
    tubes = []
    with open(folder / "found.csv", "w", encoding="utf-8", newline="\r\n") as file:
        for video in tqdm(videos, desc="making", unit="video", disable=None):
            walks = [walk(UCF_FRAMES, rng) for _ in range(PERSONS)]
            label = int(rng.integers(UCF_CLASSES))
            first, last = sorted(rng.choice(UCF_FRAMES, 2, replace=False).tolist())
            rows = [[t + 1, *walks[0][t].tolist()] for t in range(first, last + 1)]
            tubes.append({"video": video, "label": labels[label], "boxes": rows})
            for t in range(UCF_FRAMES):
                boxes = [walk_[t] + rng.normal(0, 2, 4) for walk_ in walks]
                write_rows(file.write, f"{video},{t + 1:04d}", boxes, UCF_CLASSES, label, rng)
    truth = {"labels": labels, "nframes": dict.fromkeys(videos, UCF_FRAMES), "ground_truth": tubes}
    write_json(folder / "truth.json", truth)
    return len(videos) * UCF_FRAMES * PERSONS * UCF_CLASSES


def make_ava(folder: Path, share: float, rng: np.random.Generator) -> int:
    """Write truth.csv and found.csv; the number of rows."""
    videos = [f"video_{number:06d}" for number in range(max(1, round(AVA_VIDEOS * share)))]
    with (
        open(folder / "found.csv", "w", encoding="utf-8", newline="\r\n") as file,
        open(folder / "truth.csv", "w", encoding="utf-8", newline="\r\n") as truth,
    ):
        for video in tqdm(videos, desc="making", unit="video", disable=None):
            for second in AVA_SECONDS:
                corners = rng.uniform(0, 0.5, (PERSONS, 2))
                boxes = np.concatenate([corners, corners + rng.uniform(0.2, 0.5, (PERSONS, 2))], 1)
                labels = rng.integers(AVA_CLASSES, size=PERSONS)
                for person, (box, label) in enumerate(zip(boxes, labels, strict=True)):
                    text = ",".join(f"{value:.3f}" for value in box)
                    for number in {int(label) + 1, int(label) // 5 + 1}:
                        truth.write(f"{video},{second:04d},{text},{number},{person}\n")
                found = list(boxes + rng.normal(0, 0.02, boxes.shape))
                key = f"{video},{second:04d}"
                write_rows(file.write, key, found, AVA_CLASSES, int(labels[0]), rng)
    return len(videos) * len(AVA_SECONDS) * PERSONS * AVA_CLASSES


def walk(frames: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Boxes (frames, 4) of a person who moves about a picture of 320 x 240."""
    centre = rng.uniform((60, 60), (260, 180)) + np.cumsum(rng.normal(0, 1.5, (frames, 2)), axis=0)
    half = rng.uniform((20, 40), (40, 60))
    return np.concatenate([centre - half, centre + half], axis=1)


def write_rows(
    write: Callable[[str], object],
    key: str,
    boxes: list[NDArray[np.float64]],
    classes: int,
    label: int,
    rng: np.random.Generator,
) -> None:
    """One frame's rows; the class that is right scores more than most."""
    scores = rng.random((len(boxes), classes)) ** 4
    scores[:, label] += 0.3
    for box, row in zip(boxes, scores.tolist(), strict=True):
        start = key + "".join(f",{value:.5f}" for value in box)
        write("".join(f"{start},{c},{score:.5f}\n" for c, score in enumerate(row, start=1)))


if __name__ == "__main__":
    run(main)
