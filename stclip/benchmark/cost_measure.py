"""What a run's time is taken in: the yardstick, the rate of matrix products; and its spread."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torchvision.models import vit_b_16

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

        The model is made anew each time, so that the work has the memory to itself meanwhile.
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
        out = torch.empty_like(left)
        products = (lambda: torch.mm(left, right, out=out), lambda: linear(left, right))
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
    """The processor's name, where the system tells."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
