"""What is seen of a run of the work: its batches, what they hold, and what it took."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from stclip.benchmark.cost_flops import Load, Sizes, count_flops
from stclip.structures import ClipBatch


class Watched:
    """A loader's batches, with the time that was spent waiting for each, and what was in them.

    Args:
        batches: the loader, or an iterator over it that goes on from run to run.
        sizes: of the model that the batches go to.
        classes: C.
        training: whether the backward pass counts too.
    """

    def __init__(
        self, batches: Iterable[ClipBatch], sizes: Sizes, classes: int, training: bool
    ) -> None:
        self._batches, self._sizes = batches, sizes
        self._classes, self._training = classes, training
        self.waits: list[float] = []
        self.boxes = 0
        self.flops: Counter[str] = Counter()

    def __iter__(self) -> Iterator[ClipBatch]:
        """The batches."""
        start = time.perf_counter()
        for batch in self._batches:
            self.waits.append(time.perf_counter() - start)
            self.boxes += len(batch.boxes)
            load = Load.of(batch, self._classes)
            self.flops.update(count_flops(self._sizes, load, self._training))
            yield batch
            start = time.perf_counter()
        self.waits.append(time.perf_counter() - start)


@dataclass
class Outcome:
    """One run.

    Attributes:
        seconds: of all of it.
        waits: seconds that this process waited for each batch.
        boxes: persons, over all processes.
        memory_mb: the most that this process held so far.
        flops: operations by part of the model, over all processes.
    """

    seconds: float
    waits: list[float]
    boxes: int
    memory_mb: float
    flops: dict[str, int]

    @property
    def data_share(self) -> float:
        """The part of the time that went into waiting for the loader."""
        return sum(self.waits) / self.seconds

    @property
    def later_data_share(self) -> float:
        """The same without the first batch, which no other work can hide: that of a long run."""
        if len(self.waits) < 2:
            return 0.0
        return sum(self.waits[1:]) / (self.seconds - self.waits[0])
