"""A small dataset in J-HMDB's layout, drawn here, so that every command runs without a download.

It shows that the parts work together; it is not a benchmark.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from stclip.data.sample_figures import HEIGHT, LABELS, WIDTH, draw_video
from stclip.files import write_text

TRAIN_VIDEOS, TEST_VIDEOS = 3, 2  # of each class
FRAMES = (15, 20)  # fewest and most of a video


def draw_sample(folder: str | Path, seed: int = 0) -> None:
    """Draw the dataset into ``folder``/jhmdb, a folder that is not there yet.

    Args:
        folder: what DATASETS.DATA_DIR will be.
        seed: of everything but the classes; equal seeds give equal files.
    """
    root = Path(folder) / "jhmdb"
    images: dict[str, list[dict[str, Any]]] = {"train": [], "test": []}
    annotations: dict[str, list[dict[str, Any]]] = {"train": [], "test": []}
    detections: list[dict[str, Any]] = []
    test_list: list[str] = []
    per_class = TRAIN_VIDEOS + TEST_VIDEOS
    for index in tqdm(range(len(LABELS) * per_class), desc="drawing", unit="video", disable=None):
        action, number = divmod(index, per_class)
        part = "train" if number < TRAIN_VIDEOS else "test"
        name = f"drawn_{LABELS[action]}_{number + 1}"
        (root / "videos" / name).mkdir(parents=True)
        rng = np.random.default_rng([seed, index])
        frames = int(rng.integers(FRAMES[0], FRAMES[1] + 1))
        for frame, (picture, box) in enumerate(draw_video(LABELS[action], frames, rng), start=1):
            picture.save(root / "videos" / name / f"{frame:05d}.png")
            image_id = 1000 * (index + 1) + frame
            images[part].append(_image(image_id, name, frame))
            annotations[part].append(_annotation(image_id, action + 1, box))
            if part == "test":
                detections += _detect(image_id, box, rng)
                test_list.append(f"{LABELS[action]}/{name}/{frame:05d}.txt")
    _write_lines(root / "annotations" / "all_label.txt", LABELS)
    _write_lines(root / "annotations" / "testlist.txt", test_list)
    for part in images:
        text = json.dumps(
            {
                "categories": [{"supercategory": "person", "id": 1, "name": "person"}],
                "annotations": annotations[part],
                "images": images[part],
            }
        )
        write_text(root / "annotations" / f"jhmdb_{part}_gt_min.json", text)
    write_text(root / "jhmdb_faster_RCNN_person.json", json.dumps(detections))


def _detect(image_id: int, box: list[int], rng: np.random.Generator) -> list[dict[str, Any]]:
    """What a detector might say: mostly the figure, a few misses, now and then something else."""
    found = []
    if rng.uniform() > 0.04:
        jittered = (np.array(box) + rng.normal(0, 3, 4)).round()
        found.append((jittered, rng.uniform(0.85, 0.9999)))
    if rng.uniform() < 0.15:
        x, y = rng.integers(0, WIDTH - 40), rng.integers(0, HEIGHT - 50)
        other = np.array([x, y, x + rng.integers(15, 40), y + rng.integers(25, 50)])
        found.append((other, rng.uniform(0.05, 0.5)))
    return [
        {"image_id": image_id, "category_id": 0, "bbox": [int(v) for v in b], "score": f"{s:.7f}"}
        for b, s in found
    ]


def _image(image_id: int, name: str, frame: int) -> dict[str, Any]:
    return {
        "id": image_id,
        "img_path": f"{name}/{frame:05d}.png",
        "height": HEIGHT,
        "width": WIDTH,
        "movie": name,
        "timestamp": f"{frame:05d}",
    }


def _annotation(image_id: int, action_id: int, box: list[int]) -> dict[str, Any]:
    return {
        "id": 1000 * image_id + 1,
        "image_id": image_id,
        "category_id": 1,
        "action_ids": [action_id],
        "person_id": 1,
        "bbox": box,
        "area": (box[2] - box[0]) * (box[3] - box[1]),
        "keypoints": [],
        "iscrowd": 0,
    }


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    write_text(path, "\n".join(lines) + "\n")
