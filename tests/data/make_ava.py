"""Writes small AVA datasets in the files and layouts that people hold."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image
from yacs.config import CfgNode

from stclip.config import load_config
from tests.data.make import numbered, write_video
from tests.helpers import REPOSITORY

CONFIG = REPOSITORY / "configs" / "ava" / "split_1.yaml"

RATE = 25
# What the made films show: second 899 up to 907, each frame its number from 1.
FIRST, LAST = 899, 907
COUNT = (LAST - FIRST) * RATE
GOP = {"bf": "3", "g": "30", "b_strategy": "0"}


def number_at(index: int) -> int:
    """The number of the picture of a frame from 1, as AVA's are counted: 30 to a second from 900.

    A picture is shown from the 30th of a second on that is nearest to its time.
    """
    times = [FIRST - 900 + n / RATE for n in range(COUNT)]
    come = [int(np.ceil(time * 30 - 0.5 - 1e-9)) for time in times]
    return max(n for n, place in enumerate(come, start=1) if place <= index - 1)


def write_film(path: Path, sound_first: bool = False, rate: int = RATE) -> Path:
    """A whole film: little happens before second 899. Its first four pictures show 201 to 204."""
    path.parent.mkdir(parents=True, exist_ok=True)
    before = [2 if sound_first else 0, 300, 600, 898]
    times = [*(rate * second for second in before), *range(FIRST * rate, LAST * rate)]
    return write_video(
        path,
        times,
        rate=rate,
        options=GOP,
        numbers=[201, 202, 203, 204, *range(1, len(times) - 3)],
        sound=range(2) if sound_first else None,
    )


def write_cut(path: Path, keep_stamps: bool = False) -> Path:
    """Seconds 900 on, from 0 or with the film's stamps."""
    path.parent.mkdir(parents=True, exist_ok=True)
    numbers = range(RATE + 1, COUNT + 1)
    start = 900 * RATE if keep_stamps else 0
    times = range(start, start + len(numbers))
    return write_video(path, times, options=GOP, numbers=numbers)


def write_frame_folder(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for index in range(1, 30 * (LAST - 900) + 1):
        picture = Image.fromarray(numbered(number_at(index)))
        picture.save(folder / f"{folder.name}_{index:06d}.jpg", quality=95)
    return folder


def write_clips(folder: Path, seconds: Iterable[int] = range(901, LAST)) -> Path:
    folder.mkdir(parents=True)
    for second in seconds:
        first = (second - FIRST) * RATE + 1
        path = folder / f"{second}.mp4"
        write_video(path, range(RATE), options=GOP, numbers=range(first, first + RATE))
    return folder


def write_dataset(root: Path) -> Path:
    """Two films to train on, one of which shows an unseen class of split 1, and one to test."""
    ava = root / "ava"
    write_film(ava / "videos" / "seen.mkv")
    write_cut(ava / "videos_15min" / "other.mp4")
    write_film(ava / "videos" / "unseen.mp4")
    write_clips(ava / "clips" / "trainval" / "-val_1")
    rows = {
        "train": [
            "seen,0902,0.25,0.1,0.75,0.9,12,0",
            "seen,0902,0.1,0.0,0.2,1.0,11,1",
            "seen,0902,0.25,0.1,0.75,0.9,17,0",
            "seen,0903,0.25,0.1,0.75,0.9,14,0",
            "other,0904,0.25,0.1,0.75,0.9,80,0",
            "unseen,0902,0.25,0.1,0.75,0.9,12,0",
            "unseen,0904,0.25,0.1,0.75,0.9,16,0",
        ],
        "val": [
            "-val_1,0902,0.25,0.1,0.75,0.9,12,0",
            "-val_1,0902,0.25,0.1,0.75,0.9,79,0",
            "-val_1,0902,0.0,0.0,0.25,0.5,9,1",
            "-val_1,0903,0.25,0.1,0.75,0.9,12,0",
            "-val_1,0904,0.25,0.1,0.75,0.9,4,0",
        ],
    }
    boxes = [
        "-val_1,0902,0.250,0.100,0.750,0.900,,0.95",
        "-val_1,0902,0.000,0.000,0.250,0.500,,0.81",
        "-val_1,0902,0.500,0.500,0.750,0.750,,0.79",
        "-val_1,0903,0.250,0.100,0.750,0.900,,0.99",
        "-val_1,0905,0.250,0.100,0.750,0.900,,0.9",
        "-val_1,0906,0.250,0.100,0.750,0.900,,0.1",
    ]
    (ava / "annotations").mkdir()
    for part, lines in rows.items():
        write_lines(ava / "annotations" / f"ava_{part}_v2.2.csv", lines)
    excluded = ava / "annotations" / "ava_val_excluded_timestamps_v2.2.csv"
    write_lines(excluded, ["-val_1,0903"])
    write_lines(ava / "annotations" / "ava_val_predicted_boxes.csv", boxes)
    return ava


def write_lines(path: Path, lines: Iterable[str]) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def config(root: Path, *pairs: str) -> CfgNode:
    """Split 1 on a small CPU model, for the dataset of ``write_dataset``."""
    return load_config(CONFIG, [*settings(root), *pairs])


def settings(root: Path) -> list[str]:
    labels = REPOSITORY / "data" / "label_splits" / "ava"
    values = {
        "ALL_LABEL": labels / "all_label.txt",
        "ALL_GROUP": labels / "all_group.txt",
        "TRAIN_LABEL": labels / "split_1" / "train_label.txt",
        "TEST_LABEL": labels / "split_1" / "test_label.txt",
        "DATASETS.DATA_DIR": root,
        "DATALOADER.NUM_WORKERS": 0,
        "MODEL.DEVICE": "cpu",
        "MODEL.CLIP": "puppet",
    }
    return [str(word) for pair in values.items() for word in pair]
