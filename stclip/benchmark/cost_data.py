"""What reading costs: the loader alone, and its steps."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm
from yacs.config import CfgNode

from stclip.benchmark.cost_measure import Clock, Spread, timed
from stclip.config import load_config
from stclip.data.annotations import DetectionDataset
from stclip.data.build import build_test_loader
from stclip.data.transforms import crop_box, preprocess
from stclip.data.windows import split_into_chunks, window
from stclip.engine.distributed import choose_device
from stclip.models.build import needs_of

_CPU = choose_device("cpu")


def measure_loader(
    datasets: Mapping[str, DetectionDataset],
    workers: Sequence[int],
    image_size: int,
    chunk: int,
    repeats: int,
    clock: Clock,
    pairs: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Read every dataset with every number of workers, and its steps in this process.

    Args:
        datasets: by how their frames are stored.
        workers: values of DATALOADER.NUM_WORKERS.
        image_size: side of frames and crops in pixels.
        chunk: TEST.VIDEOS_PER_BATCH.
        repeats: runs of each, after one that is not counted.
        clock: its yardstick is taken around every run.
        pairs: further config keys and values.

    Returns:
        For each run: source, workers, ms and u per keyframe (median, min and max); and of the
        steps without workers, decode_ms, preprocess_ms and crop_ms per keyframe, in milliseconds
        of this process's processor time.
    """
    rows: list[dict[str, Any]] = []
    total = len(datasets) * len(workers)
    with tqdm(total=total, desc="data", unit="case", disable=None, leave=False) as progress:
        for source, dataset in datasets.items():
            steps = dict.fromkeys(("decode_ms", "preprocess_ms", "crop_ms"), 0.0)
            words = ["TEST.MAX_PERSONS", "0", "TEST.VIDEOS_PER_BATCH", str(chunk)]
            cfg = load_config(None, [*words, "MODEL.DEVICE", "cpu", *pairs])
            _steps(cfg, dataset, image_size, steps)
            for number in workers:
                cfg = cfg.clone()
                cfg.defrost()
                cfg.DATALOADER.NUM_WORKERS = number
                cfg.freeze()
                found = _loader(cfg, dataset, image_size, repeats, clock)
                rows.append({"source": source, "workers": number, **found})
                progress.update()
            rows[-len(workers)].update({name: round(value, 3) for name, value in steps.items()})
    return rows


def _loader(
    cfg: CfgNode, dataset: DetectionDataset, image_size: int, repeats: int, clock: Clock
) -> dict[str, float]:
    """Milliseconds and u per keyframe of reading all of a dataset, workers started and ended."""
    seconds: list[float] = []

    def read() -> None:
        for _ in build_test_loader(cfg, dataset, needs_of(cfg, image_size)):
            pass

    read()
    clock.take()
    first = len(clock.moments) - 1
    for _ in range(repeats):
        seconds.append(timed(read, _CPU) / len(dataset.keyframes))
        clock.take()
    ratios = [value / clock.around(first + n).yardstick for n, value in enumerate(seconds)]
    milliseconds = Spread.of([1000 * value for value in seconds])
    return {
        **milliseconds.fields("ms_per_keyframe", 3),
        **Spread.of(ratios).fields("u_per_keyframe", 4),
    }


def _steps(
    cfg: CfgNode, dataset: DetectionDataset, image_size: int, steps: dict[str, float]
) -> None:
    """Add up what decoding, frames and crops take, chunk by chunk, each chunk by itself."""
    temporal, resize = cfg.MODEL.TEMPORAL, cfg.DATALOADER.RESIZE
    keys = [keyframe.key for keyframe in dataset.keyframes]

    @contextmanager
    def step(name: str) -> Iterator[None]:
        start = time.process_time()
        yield
        steps[name] += 1000 * (time.process_time() - start) / len(keys)

    for rows in split_into_chunks(keys, cfg.TEST.VIDEOS_PER_BATCH):
        video = dataset.videos[keys[rows.start].video]
        windows = [
            window(keys[row].frame, len(video), temporal.FRAMES, temporal.STRIDE) for row in rows
        ]
        numbers = sorted({keys[row].frame for row in rows}.union(*windows))
        with step("decode_ms"):
            pictures = dict(zip(numbers, video.read(numbers), strict=True))
        with step("preprocess_ms"):
            for picture in pictures.values():
                preprocess(picture, image_size, resize)
        with step("crop_ms"):
            for row in rows:
                for box in dataset.keyframes[row].boxes:
                    preprocess(crop_box(pictures[keys[row].frame], box), image_size, resize)
