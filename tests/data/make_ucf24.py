"""Writes a small UCF101-24 in the formats that people hold."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from yacs.config import CfgNode

from stclip.config.defaults import get_cfg_defaults
from stclip.data.ucf24 import CLASSES
from tests.data.make import numbered, write_video
from tests.helpers import REPOSITORY

LABELS = REPOSITORY / "data" / "label_splits" / "ucf24"
WIDTH, HEIGHT = 320, 240

# video -> frames; its tubes as (sf, ef, boxes xywh): a tube has one box for each of sf .. ef - 1.
VIDEOS = {
    "Basketball/v_Basketball_g08_c01": 9,
    "Skiing/v_Skiing_g09_c02": 6,
    "IceDancing/v_IceDancing_g01_c01": 12,
    "GolfSwing/v_GolfSwing_g02_c03": 4,
}
TRAIN, TEST = list(VIDEOS)[:2], list(VIDEOS)[2:]
TUBES: dict[str, list[tuple[int, int, np.ndarray]]] = {
    # 200 + 100 does not fit into a byte
    TRAIN[0]: [(2, 5, np.array([[200, 180, 100, 60]] * 3, np.uint8))],
    TRAIN[1]: [(0, 6, np.array([[10, 20, 30, 40 + n] for n in range(6)], np.uint8))],
    # two people, together in frames 5 and 6
    TEST[0]: [
        (1, 6, np.array([[10, 20, 30, 100]] * 5, np.uint8)),
        (4, 8, np.array([[260 + n, 20, 30, 200] for n in range(4)], np.uint16)),
    ],
    TEST[1]: [(0, 4, np.array([[50, 60, 70, 80]] * 4, np.uint16))],
}


def class_of(video: str) -> str:
    return video.split("/")[0]


def pyannot() -> dict[str, Any]:
    """What pyannot.pkl holds; its numbers are numpy's, of few bits."""
    return {
        video: {
            "annotations": [
                {
                    "label": np.uint8(CLASSES.index(class_of(video))),
                    "sf": np.uint8(first),
                    "ef": np.uint8(end),
                    "boxes": boxes,
                }
                for first, end, boxes in TUBES[video]
            ],
            "numf": np.uint16(count),
            "label": np.uint8(CLASSES.index(class_of(video))),
        }
        for video, count in VIDEOS.items()
    }


def act_pickle() -> dict[str, Any]:
    """What UCF101v2-GT.pkl holds."""
    tubes: dict[str, Any] = {}
    for video, rows in TUBES.items():
        arrays = []
        for first, _, boxes in rows:
            frames = 1 + first + np.arange(len(boxes))[:, None]
            corners = boxes[:, :2].astype(np.float32)
            sides = boxes[:, 2:].astype(np.float32)
            arrays.append(np.hstack([frames, corners, corners + sides]).astype(np.float32))
        tubes[video] = {CLASSES.index(class_of(video)): arrays}
    return {
        "labels": list(CLASSES),
        "gttubes": tubes,
        "nframes": dict(VIDEOS),
        "resolution": dict.fromkeys(VIDEOS, (HEIGHT, WIDTH)),
        "train_videos": [TRAIN],
        "test_videos": [TEST],
    }


def dump(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol=2))
    return path


def write_lists(folder: Path, train: list[str] = TRAIN, test: list[str] = TEST) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "trainlist01.txt").write_text("".join(f"{video}\n" for video in train))
    (folder / "testlist01.txt").write_text("".join(f"{video}\n" for video in test))


def write_frames(root: Path, layout: str = "jpg") -> None:
    """The videos as folders of pictures, as .avi in class folders, or as .avi all in one folder."""
    for video, count in VIDEOS.items():
        if layout == "jpg":
            folder = root / "rgb-images" / video
            folder.mkdir(parents=True)
            for number in range(1, count + 1):
                picture = Image.fromarray(numbered(number, WIDTH, HEIGHT))
                picture.save(folder / f"{number:05d}.jpg")
            continue
        path = root / ("UCF-101" if layout == "avi" else "videos") / f"{video}.avi"
        path = path if layout == "avi" else path.parents[1] / path.name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, range(count), "mpeg4", size=(WIDTH, HEIGHT))


def detections() -> list[dict[str, Any]]:
    """In the skating video: two persons in frame 2, one in frame 12, where nobody is annotated."""
    return [
        {"video": TEST[0], "frame": 2, "box": [12, 20, 40, 118], "score": 0.9},
        {"video": TEST[0], "timestamp": 0.04, "box": [200, 20, 240, 118], "score": 0.8},
        {"video": "v_IceDancing_g01_c01", "frame": 12, "box": [1, 2, 50, 60], "score": 0.7},
        {"video": TEST[1], "frame": 1, "box": [50, 60, 120, 140], "score": 0.6},
        {"video": TRAIN[0], "frame": 1, "box": [5, 5, 10, 10], "score": 0.6},
    ]


def write_detections(path: Path, rows: list[dict[str, Any]] | None = None) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows or detections()))
    return path


def write_ucf24(root: Path, layout: str = "jpg", annotations: str = "pyannot") -> CfgNode:
    """The dataset above under ``root/data``, and a config for zero-shot split 1."""
    ucf24 = root / "data" / "ucf24"
    write_frames(ucf24, layout)
    if annotations == "pyannot":
        dump(ucf24 / "splitfiles" / "pyannot.pkl", pyannot())
        write_lists(ucf24 / "splitfiles")
    else:
        dump(ucf24 / "UCF101v2-GT.pkl", act_pickle())
    write_detections(ucf24 / "ucf24_person_detections.jsonl")
    cfg = get_cfg_defaults()
    cfg.DATASETS.DATA_DIR = str(root / "data")
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = "ucf24"
    cfg.ALL_LABEL = str(LABELS / "all_label.txt")
    cfg.TRAIN_LABEL = str(LABELS / "split_1" / "train_label.txt")
    cfg.TEST_LABEL = str(LABELS / "split_1" / "test_label.txt")
    cfg.DATALOADER.NUM_WORKERS = 0
    return cfg
