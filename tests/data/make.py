"""Writes small datasets and videos in the formats that people hold."""

import itertools
import json
import pickle
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import OutputContainer
from PIL import Image
from yacs.config import CfgNode

from stclip.config.defaults import get_cfg_defaults
from stclip.data.jhmdb import CLASSES

WIDTH, HEIGHT = 40, 30
BITS = 8  # squares of a numbered frame


def numbered(number: int, width: int = 128, height: int = 32) -> np.ndarray:
    """A picture that carries its number in black and white bars, which survive any codec."""
    picture = np.zeros((height, width, 3), dtype=np.uint8)
    for bit in range(BITS):
        if number >> bit & 1:
            picture[:, bit * width // BITS : (bit + 1) * width // BITS] = 255
    return picture


def number_of(picture: np.ndarray) -> int:
    height, width = picture.shape[:2]
    centres = [(2 * bit + 1) * width // (2 * BITS) for bit in range(BITS)]
    return sum((int(picture[height // 2, x].mean()) > 127) << b for b, x in enumerate(centres))


def write_video(
    path: Path,
    times: Sequence[int],
    codec: str = "libx264",
    rate: int = 25,
    options: dict[str, str] | None = None,
    numbers: Iterable[int] | None = None,
    sound: range | None = None,
    degrees: int = 0,
    size: tuple[int, int] = (128, 32),
    title: str = "",
) -> Path:
    """Frame n (from 1) shows n, or the n-th number, at ``times[n - 1] / rate`` seconds.

    In the seconds of ``sound`` there is silence. The file says that its pictures are to be turned
    counter-clockwise by so many degrees.
    """
    with av.open(str(path), "w") as container:
        if title:
            container.metadata["title"] = title
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height = size
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.time_base = Fraction(1, rate)
        if degrees:
            stream.set_display_rotation(degrees)
        if sound is not None:
            _write_silence(container, sound)
        for number, time in zip(numbers or itertools.count(1), times, strict=False):
            frame = av.VideoFrame.from_ndarray(numbered(number, *size), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def _write_silence(container: OutputContainer, seconds: range) -> None:
    stream = container.add_stream("aac", rate=8000)
    for start in range(seconds.start * 8000, seconds.stop * 8000, 1024):
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate, frame.pts, frame.time_base = 8000, start, Fraction(1, 8000)
        container.mux(stream.encode(frame))
    container.mux(stream.encode())


def write_frames(folder: Path, count: int, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(1, count + 1):
        Image.fromarray(numbered(number, *size)).save(folder / f"{number:05d}.png")
    return folder


# name -> (class, frames); the test part is the second half
VIDEOS = {"a_run": ("run", 12), "b_sit": ("sit", 5), "c_wave": ("wave", 10), "d_run": ("run", 4)}
PARTS = {"train": ("a_run", "b_sit"), "test": ("c_wave", "d_run")}


def box_of(name: str, frame: int) -> list[int]:
    return [list(VIDEOS).index(name) + 1, frame, 20 + frame, 25]


def image_id(name: str, frame: int) -> int:
    return 10000 * (list(VIDEOS).index(name) + 1) + frame


def jhmdb_json(part: str) -> dict[str, Any]:
    images, annotations = [], []
    for name in PARTS[part]:
        label, count = VIDEOS[name]
        for frame in reversed(range(1, count + 1)):
            id_ = image_id(name, frame)
            images.append(
                {"id": id_, "height": HEIGHT, "width": WIDTH, "movie": name,
                 "timestamp": f"{frame:05d}"}
            )  # fmt: skip
            annotations.append(
                {"id": id_ * 10, "image_id": id_, "action_ids": [CLASSES.index(label) + 1],
                 "bbox": box_of(name, frame), "area": 1}
            )  # fmt: skip
    return {"images": images, "annotations": annotations, "categories": []}


def jhmdb_pickle() -> dict[str, Any]:
    keys = {name: f"{label}/{name}" for name, (label, _) in VIDEOS.items()}
    tubes = {}
    for name, (label, count) in VIDEOS.items():
        rows = [[frame, *box_of(name, frame)] for frame in range(1, count + 1)]
        tubes[keys[name]] = {CLASSES.index(label): [np.array(rows, dtype=np.float32)]}
    return {
        "labels": list(CLASSES),
        "gttubes": tubes,
        "nframes": {keys[name]: count for name, (_, count) in VIDEOS.items()},
        "resolution": dict.fromkeys(keys.values(), (HEIGHT, WIDTH)),
        "train_videos": [[keys[name] for name in PARTS["train"]]],
        "test_videos": [[keys[name] for name in PARTS["test"]]],
    }


def detection_rows() -> list[dict[str, Any]]:
    """Four boxes a test frame, scores as texts; none in frame 2 of c_wave."""
    rows = []
    for name in PARTS["test"]:
        for frame in range(1, VIDEOS[name][1] + 1):
            if (name, frame) != ("c_wave", 2):
                rows += [
                    {"image_id": image_id(name, frame), "category_id": 0,
                     "bbox": [n, n, 30, 20 + n], "score": str(0.9 - n / 5)}
                    for n in range(4)
                ]  # fmt: skip
    return rows


def write_jhmdb(root: Path, layout: str = "flat", annotations: str = "json") -> CfgNode:
    """The dataset above under ``root/data``, and a config for it: run and sit are seen."""
    jhmdb = root / "data" / "jhmdb"
    for name, (label, count) in VIDEOS.items():
        if layout == "flat":
            write_frames(jhmdb / "videos" / name, count)
        elif layout == "classes":
            write_frames(jhmdb / "Rename_Images" / label / name, count)
        else:
            folder = jhmdb / "videos" / (label if layout == "avi in classes" else "")
            folder.mkdir(parents=True, exist_ok=True)
            write_video(folder / f"{name}.avi", range(count), "mpeg4", size=(WIDTH, HEIGHT))
    if annotations == "json":
        (jhmdb / "annotations").mkdir(parents=True, exist_ok=True)
        for part in PARTS:
            path = jhmdb / "annotations" / f"jhmdb_{part}_gt_min.json"
            path.write_text(json.dumps(jhmdb_json(part)))
    else:
        (jhmdb / "JHMDB-GT.pkl").write_bytes(pickle.dumps(jhmdb_pickle(), protocol=2))
    (jhmdb / "jhmdb_faster_RCNN_person.json").write_text(json.dumps(detection_rows()))
    (root / "all.txt").write_text("\n".join(CLASSES) + "\n")
    (root / "train.txt").write_text("sit\nrun\n")
    (root / "test.txt").write_text("wave\n")
    cfg = get_cfg_defaults()
    cfg.DATASETS.DATA_DIR = str(root / "data")
    cfg.ALL_LABEL, cfg.TRAIN_LABEL, cfg.TEST_LABEL = (
        str(root / f"{name}.txt") for name in ("all", "train", "test")
    )
    cfg.DATALOADER.NUM_WORKERS = 0
    return cfg
