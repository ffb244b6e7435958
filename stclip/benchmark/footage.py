"""What ``stclip detect`` costs on a video, part by part."""

from __future__ import annotations

import cProfile
import pstats
import tempfile
import time
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from stclip.benchmark.work import MODELS, Work, build
from stclip.detector import Detector
from stclip.engine.events import peak_memory_mb
from stclip.footage.annotated import AnnotatedVideo, draw_persons
from stclip.footage.detectors import load_detector
from stclip.footage.given import Detected
from stclip.footage.pipeline import Detection, Settings
from stclip.footage.scoring import Scorer
from stclip.footage.source import Source, open_source
from stclip.models.baselines import Baseline
from stclip.models.clip import CLIP, CLIPSizes
from stclip.tracking import Tracker

WIDTH, HEIGHT, FPS = 1280, 720, 25


def write_moving_video(path: Path, seconds: float) -> None:
    """A video of 1280 x 720 in which things move, so that it costs what a real one costs."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(60, 200, (HEIGHT // 16, 2 * WIDTH // 16, 3), dtype=np.uint8)
    backdrop = Image.fromarray(coarse).resize((2 * WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(round(seconds * FPS)):
            left = 2 * number % WIDTH
            picture = backdrop.crop((left, 0, left + WIDTH, HEIGHT))
            draw = ImageDraw.Draw(picture)
            for thing in range(8):
                x, y = (number * (3 + thing)) % WIDTH, 60 + 80 * thing
                draw.ellipse((x, y, x + 90, y + 60), fill=(30 * thing, 90, 240 - 30 * thing))
            container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode())


class _SomePersons:
    """Detects for the time that it takes, and always gives the same persons."""

    def __init__(self, persons: int) -> None:
        self._detector = load_detector("nanodet", "cpu", 0.15)
        left = np.linspace(20, WIDTH - 180, persons)
        boxes = np.stack([left, left * 0 + 200, left + 140, left * 0 + 560], axis=1)
        self._found = boxes.astype(np.float32), np.full(persons, 0.9, dtype=np.float32)

    def __call__(
        self, frames: NDArray[np.uint8]
    ) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        self._detector(frames)
        return [self._found for _ in frames]


def model_of(name: str, model: str) -> Detector:
    """ST-CLIP (stclip) or CLIP without training (frame_crop) with random weights."""
    work = Work(kind="infer", model=model)
    if name == "stclip":
        return Detector(build(work, torch.device("cpu")), work.labels)
    torch.manual_seed(0)
    clip = CLIP(CLIPSizes(**MODELS[model])).eval()
    return Detector(Baseline(clip, frame=True, crop=True), work.labels)


def measure_detect(
    name: str, model: str, persons: int, seconds: float, precision: str
) -> dict[str, Any]:
    """Go through a video as ``stclip detect`` does.

    Args:
        name: stclip or frame_crop.
        model: a key of MODELS.
        persons: in every frame.
        seconds: length of the video.
        precision: fp32, bf16 or fp16.

    Returns:
        ``real_time``: seconds of the whole a second of video; ``parts``: the same of each part,
        which add up to the whole but for what is between them; ``other_share``: that of all but the
        model; ``peak_memory_mb``.
    """
    detector = model_of(name, model)
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        write_moving_video(folder / "video.mp4", seconds)
        find = Detected(_SomePersons(persons), 0.15)
        Tracker(FPS)  # what is slow the first time, by its imports
        find(next(iter(open_source(folder / "video.mp4"))))
        detection = Detection(
            open_source(folder / "video.mp4"), detector, detector.labels, find, Settings(), {},
            precision=precision,
        )  # fmt: skip
        profile = cProfile.Profile()
        start = time.perf_counter()
        profile.runcall(detection.save, folder / "out")
        whole = time.perf_counter() - start
    stats: Any = pstats.Stats(profile)
    spent = {key: value[3] for key, value in stats.stats.items()}  # with all that they call

    def of(*functions: Any) -> float:
        codes = [function.__code__ for function in functions]
        keys = [(code.co_filename, code.co_firstlineno, code.co_name) for code in codes]
        return float(sum(spent.get(key, 0.0) for key in keys)) / seconds

    draw = of(draw_persons)
    parts = {
        "decode": of(Source.__iter__),
        "detect": of(Detected.__call__),
        "track": of(Tracker.update),
        "score": of(Scorer.push, Scorer.flush),
        "draw": draw,
        "encode": of(AnnotatedVideo.add, AnnotatedVideo.close) - draw,
    }
    return {
        "real_time": whole / seconds,
        "parts": parts,
        "other_share": 1 - parts["score"] * seconds / whole,
        "peak_memory_mb": peak_memory_mb(detector.device),
    }
