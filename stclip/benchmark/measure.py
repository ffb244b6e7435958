"""Units that times are given in, counts of operations, and what reading data costs."""

from __future__ import annotations

import math
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import vit_b_16
from tqdm import tqdm
from yacs.config import CfgNode

from stclip.config import load_config
from stclip.data.annotations import DetectionDataset
from stclip.data.build import build_test_loader
from stclip.data.transforms import crop_box, preprocess
from stclip.data.windows import split_into_chunks, window
from stclip.engine.distributed import choose_device
from stclip.models.build import needs_of
from stclip.models.fast import linear

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# Rows of the square matrices: enough for the full rate, and well under a second.
MATRIX_SIZE = {"cpu": 2048, "cuda": 8192}
# Of the yardstick, between the runs; beyond it the machine did something else meanwhile.
STEADY = 1.15


def timed(function: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call, the device's work included."""
    start = time.perf_counter()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


class Yardstick:
    """The unit u: one float32 forward of torchvision's vit_b_16, batch 1.

    Args:
        device: where.
        model: makes another one than vit_b_16.
        image_size: side of its picture in pixels.
    """

    def __init__(
        self,
        device: torch.device,
        model: Callable[[], nn.Module] = vit_b_16,
        image_size: int = 224,
    ) -> None:
        self._model, self._device, self._size = model, device, image_size

    @torch.inference_mode()
    def seconds(self) -> float:
        """Median of nine, after one that is not counted.

        The model is rebuilt each time, so that it takes no memory during the work.
        """
        with torch.device("meta"):  # initialising it would take longer than the yardstick
            model = self._model().eval()
        model.to_empty(device=self._device)
        for parameter in model.parameters():
            parameter.normal_(std=0.02)
        image = torch.randn(1, 3, self._size, self._size, device=self._device)
        values = [timed(lambda: model(image), self._device) for _ in range(10)]
        return statistics.median(values[1:])


class MatrixRate:
    """How fast the device multiplies square matrices of one dtype, PyTorch's way or the models'.

    Args:
        device: where.
        precision: fp32, bf16 or fp16.
        size: rows of the matrices; by default what suits the device.
    """

    def __init__(self, device: torch.device, precision: str, size: int | None = None) -> None:
        self._device, self._dtype = device, DTYPES[precision]
        self._size = size or MATRIX_SIZE[device.type]

    @torch.inference_mode()
    def flops_per_second(self) -> float:
        """The faster one's median of five, after one that is not counted."""
        left, right = (
            torch.randn(self._size, self._size, device=self._device, dtype=self._dtype)
            for _ in range(2)
        )
        # F.linear, not torch.mm, which in 16 bits leaves some processors to a loop.
        products = (lambda: F.linear(left, right), lambda: linear(left, right))
        medians = []
        for product in products:
            values = [timed(product, self._device) for _ in range(6)]
            medians.append(statistics.median(values[1:]))
        return 2 * self._size**3 / min(medians)


@dataclass(frozen=True)
class Units:
    """Yardstick and matrix rate of one moment."""

    yardstick: float
    matrix_rate: float


class Clock:
    """Takes both units before and after every run.

    Args:
        yardstick: the one.
        matrix_rate: the other.
    """

    def __init__(self, yardstick: Yardstick, matrix_rate: MatrixRate) -> None:
        self._yardstick, self._matrix_rate = yardstick, matrix_rate
        self.moments: list[Units] = []

    def take(self) -> None:
        """Take both now."""
        rate = self._matrix_rate.flops_per_second()
        self.moments.append(Units(self._yardstick.seconds(), rate))

    def around(self, run: int) -> Units:
        """The means of what was taken before and after the run of that number, from 0."""
        pair = self.moments[run : run + 2]
        assert len(pair) == 2, f"{len(self.moments)} moments for run {run}"
        return Units(
            statistics.mean(units.yardstick for units in pair),
            statistics.mean(units.matrix_rate for units in pair),
        )

    @property
    def steady(self) -> bool:
        """Whether the yardstick stayed within 15 %."""
        values = [units.yardstick for units in self.moments]
        return max(values) <= STEADY * min(values)


@dataclass(frozen=True)
class Spread:
    """Median, lowest and highest of some runs."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of at least one value."""
        return cls(statistics.median(values), min(values), max(values))

    def fields(self, name: str, digits: int) -> dict[str, float]:
        """As fields of a JSON object: ``name``, ``name_min`` and ``name_max``."""
        values = {name: self.median, f"{name}_min": self.low, f"{name}_max": self.high}
        return {key: round(value, digits) for key, value in values.items()}


def _of_linear(rows: Sequence[int], weight: Sequence[int], *_: object, **__: object) -> int:
    """2 N I O, from the shapes (N, I) and (O, I)."""
    return 2 * math.prod(rows) * weight[0]


# What ``stclip.models.fast`` calls and the counter does not know.
_OTHER_PRODUCTS = (
    {torch.ops.mkldnn._linear_pointwise: _of_linear}
    if hasattr(torch.ops.mkldnn, "_linear_pointwise")
    else {}
)


def count_flops(model: nn.Module, run: Callable[[], object]) -> dict[str, int]:
    """Floating-point operations of the products in ``run``, which calls ``model``.

    A product of (m, k) and (k, n) counts 2 m k n, elementwise operations count nothing. Attention
    is computed as two products: the counter does not know the CPU's fused kernel, and counts what
    the backward pass of others computes again.

    Args:
        model: is neither compiled nor recomputes activations, which would not count or count twice.
        run: a test or a training; torch's counter makes it slow.

    Returns:
        The operations by direct part of the model; ``towers`` is the rest of the forward pass, and
        ``backward`` the backward pass of all.
    """
    counter = FlopCounterMode(display=False, custom_mapping=_OTHER_PRODUCTS)
    modules = {"towers": model, **dict(model.named_children())}
    parts = dict.fromkeys(modules, 0)
    starts: list[int] = []

    def enter(*_: object) -> None:
        starts.append(counter.get_total_flops())

    def leave(name: str) -> Callable[..., None]:
        def hook(*_: object) -> None:
            parts[name] += counter.get_total_flops() - starts.pop()

        return hook

    hooks = []
    for name, module in modules.items():
        hooks.append(module.register_forward_pre_hook(enter))
        hooks.append(module.register_forward_hook(leave(name)))
    try:
        with counter, sdpa_kernel(SDPBackend.MATH):
            run()
    finally:
        for hook in hooks:
            hook.remove()
    forward = parts.pop("towers")
    rest = {
        "towers": forward - sum(parts.values()),
        "backward": counter.get_total_flops() - forward,
    }
    return parts | rest


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
            keys = ["TEST.MAX_PERSONS", "0", "TEST.VIDEOS_PER_BATCH", str(chunk)]
            cfg = load_config(None, [*keys, "MODEL.DEVICE", "cpu", *pairs])
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
        seconds.append(timed(read, choose_device("cpu")) / len(dataset.keyframes))
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
        if resize == "device":
            continue
        with step("preprocess_ms"):
            for picture in pictures.values():
                preprocess(picture, image_size, resize)
        with step("crop_ms"):
            for row in rows:
                for box in dataset.keyframes[row].boxes:
                    preprocess(crop_box(pictures[keys[row].frame], box), image_size, resize)


def machine(device: torch.device) -> dict[str, str | int]:
    """What a result says about where it was taken."""
    cuda = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if cuda else cpu_name(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def cpu_name() -> str:
    """The processor's name, where the system says it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
