"""Batches in their order, read by worker processes."""

import atexit
import signal
import threading
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from stclip.data.annotations import DetectionDataset, Keyframe, multi_hot
from stclip.data.chunks import ChunkKeyframe, make_chunk, needed_frames
from stclip.data.proposals import NO_PROPOSALS, Proposals
from stclip.data.reading import FrameReader
from stclip.data.windows import (
    ShuffledStream,
    choose_persons,
    micro_batch_positions,
    order_in_runs,
)
from stclip.errors import UserError, machine_fault
from stclip.structures import ClipBatch, Needs
from stclip.structures.boxes import area, clip

# Loader processes that may be running, of this process.
_WORKERS: weakref.WeakSet[BaseProcess] = weakref.WeakSet()


class Samples(Protocol):
    """Batches by number. Must be picklable: workers may get a copy."""

    def __len__(self) -> int:
        """The number of batches."""

    def __getitem__(self, index: int) -> ClipBatch:
        """One batch; a UserError if a frame cannot be read."""


@dataclass
class TrainSamples:
    """The micro-batches that one process trains on.

    Attributes:
        dataset: keyframes with boxes.
        vocabulary: C class names.
        several_labels: a box may have more than one of them.
        needs: what the model looks at.
        max_persons: boxes of a keyframe at most, drawn at random.
        seed: of the order and of that draw.
        start_iteration: the iteration of the first micro-batch.
        iterations: how many follow.
        batch: keyframes of an iteration, over all processes and steps.
        steps: accumulation steps of an iteration.
        rank: of this process.
        world_size: processes.
        reader: reads frames and crops.
    """

    dataset: DetectionDataset
    vocabulary: Sequence[str]
    several_labels: bool
    needs: Needs
    max_persons: int
    seed: int
    start_iteration: int
    iterations: int
    batch: int
    steps: int
    rank: int
    world_size: int
    reader: FrameReader

    def __post_init__(self) -> None:
        self._stream = ShuffledStream(len(self.dataset.keyframes), self.seed)
        self._columns = {name: column for column, name in enumerate(self.vocabulary)}

    def __len__(self) -> int:
        """The number of micro-batches."""
        return self.iterations * self.steps

    def __getitem__(self, index: int) -> ClipBatch:
        """One micro-batch, labels multi-hot over the vocabulary."""
        positions = micro_batch_positions(
            index, self.start_iteration, self.batch, self.steps, self.rank, self.world_size
        )
        return ClipBatch.cat([self._chunk(position) for position in positions])

    def _chunk(self, position: int) -> ClipBatch:
        keyframe = self.dataset.keyframes[self._stream[position]]
        chosen = choose_persons(len(keyframe.boxes), self.max_persons, self.seed, position)
        item = ChunkKeyframe(
            keyframe.key,
            Proposals.annotated(keyframe.boxes[chosen]),
            multi_hot(keyframe, self._columns, self.several_labels)[chosen],
        )
        video = self.dataset.videos[keyframe.key.video]
        return make_chunk(video, [item], self.needs, self.reader)


@dataclass
class TestSamples:
    """The chunks that one process tests.

    Attributes:
        dataset: keyframes, with proposals if ``detected``.
        chunks: runs of ``dataset.keyframes``, each of one video.
        needs: what the model looks at.
        detected: use the proposals; otherwise the annotated boxes, with a score of 1.
        threshold: proposals that score lower are left out.
        max_persons: the first so many of the others are used; 0 for all.
        reader: reads frames and crops, and remembers the frames that the next chunk shares with
            the last one.
    """

    dataset: DetectionDataset
    chunks: Sequence[range]
    needs: Needs
    detected: bool
    threshold: float
    max_persons: int
    reader: FrameReader

    def __len__(self) -> int:
        """The number of chunks."""
        return len(self.chunks)

    def __getitem__(self, index: int) -> ClipBatch:
        """One chunk, without labels."""
        keyframes = [self.dataset.keyframes[row] for row in self.chunks[index]]
        items = [ChunkKeyframe(keyframe.key, self._persons(keyframe)) for keyframe in keyframes]
        video = self.dataset.videos[keyframes[0].key.video]
        return make_chunk(video, items, self.needs, self.reader, self._frames_after(index))

    def _frames_after(self, index: int) -> range:
        """From the first to the last frame of the next chunk, if it is of the same video."""
        if index + 1 == len(self.chunks):
            return range(0)
        keys = [self.dataset.keyframes[row].key for row in self.chunks[index + 1]]
        name = keys[0].video
        if name != self.dataset.keyframes[self.chunks[index].start].key.video:
            return range(0)
        length = len(self.dataset.videos[name])
        centres = [key.frame for key in keys if 1 <= key.frame <= length]
        needed = needed_frames(self.needs, centres, length)
        # With a stride also those in between, which the chunk after that can need.
        return range(needed[0], needed[-1] + 1) if needed else range(0)

    def _persons(self, keyframe: Keyframe) -> Proposals:
        if not self.detected:
            return Proposals.annotated(keyframe.boxes)
        assert self.dataset.proposals is not None
        found = self.dataset.proposals.get(keyframe.key, NO_PROPOSALS)
        return found.select(self.threshold, self.max_persons)


def one_keyframe_a_video(dataset: DetectionDataset) -> list[Keyframe]:
    """Samples for training on whole videos: one of each, whatever its number of keyframes.

    Args:
        dataset: its keyframes have boxes; those of a video lie in a row or not.

    Returns:
        For each video its first keyframe, with the largest box of each different label in the
        video: where its persons do different things, each of these is a target of its own. What
        counts of a box is what lies in the picture: a box outside of it would be dropped later.

    Raises:
        UserError: the size of a video cannot be read.
    """
    first: dict[str, Keyframe] = {}
    sizes: dict[str, tuple[int, int]] = {}
    best: dict[str, dict[tuple[str, ...], tuple[float, NDArray[np.float32]]]] = {}
    for keyframe in dataset.keyframes:
        name = keyframe.key.video
        if name not in first:
            first[name], best[name], sizes[name] = keyframe, {}, dataset.videos[name].size
        width, height = sizes[name]
        areas = area(clip(keyframe.boxes, height, width)).tolist()
        found = best[name]
        for visible, box, names in zip(areas, keyframe.boxes, keyframe.labels, strict=True):
            if names not in found or visible > found[names][0]:
                found[names] = visible, box
    return [
        Keyframe(keyframe.key, np.stack([box for _, box in best[name].values()]), tuple(best[name]))
        for name, keyframe in first.items()
    ]


class BatchLoader:
    """Iterates over batches that worker processes read ahead; each iteration starts over.

    Args:
        samples: the batches.
        workers: processes that read; 0 reads in this one.
        pin_memory: put the batches into page-locked memory, for a GPU.
        in_runs: each worker reads a run of neighbouring samples, which share frames; the batches of
            the runs then come in turn. Otherwise all come in their order.

    Raises:
        UserError: while iterating, any error raised in a worker, with its message unchanged.
    """

    def __init__(
        self, samples: Samples, workers: int, pin_memory: bool = False, in_runs: bool = False
    ) -> None:
        self.samples = samples
        # Workers run with one torch thread each; torch sets that itself.
        self._loader: DataLoader[ClipBatch | _Failure] = DataLoader(
            _Guarded(samples),
            batch_size=None,
            sampler=order_in_runs(len(samples), workers) if in_runs else None,
            num_workers=workers,
            collate_fn=_unchanged,
            pin_memory=pin_memory,
            worker_init_fn=_leave_signals_to_the_parent,
            # Persistent workers live as long as anything holds an error raised in one of them.
            persistent_workers=False,
            # Without its own the loader would draw its base seed from the global generator, and
            # a resumed run would continue with other random numbers than an uninterrupted one.
            generator=torch.Generator(),
        )

    def __len__(self) -> int:
        """The number of batches."""
        return len(self.samples)

    def __iter__(self) -> Iterator[ClipBatch]:
        """The batches."""
        batches: Iterator[ClipBatch | _Failure] = iter(())
        try:
            batches = iter(self._loader)
            _WORKERS.update(getattr(batches, "_workers", ()))
            for item in batches:
                if isinstance(item, _Failure):
                    raise UserError(item.message)
                yield item
        except (RuntimeError, OSError, EOFError) as error:
            message = machine_fault(error)
            if isinstance(error, ConnectionError | EOFError):  # it was killed while it sent a batch
                message = machine_fault(RuntimeError(f"DataLoader worker (pid unknown): {error!r}"))
            if message is None:
                raise
            # torch's handler would raise an error for the killed process wherever we are by then.
            _let_children_end_quietly()
            raise UserError(message) from error
        finally:
            # An error would hold them until the garbage collector comes, which cannot tell the
            # workers to end and waits for them in vain, ten seconds.
            del batches


@dataclass(frozen=True)
class _Failure:
    """A UserError on its way from a worker, where torch would wrap it in a traceback's text."""

    message: str


class _Guarded(Dataset[ClipBatch | _Failure]):
    def __init__(self, samples: Samples) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> ClipBatch | _Failure:
        try:
            return self._samples[index]
        except UserError as error:
            return _Failure(str(error))
        except (MemoryError, OSError) as error:
            return _Failure(f"a loader process failed: {machine_fault(error)}")


def _unchanged(item: Any) -> Any:
    return item


def _let_children_end_quietly() -> None:
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


@atexit.register  # before multiprocessing's own, which would wait for them forever
def end_workers() -> None:
    """Kill the loader processes that are left, which take no other signal, before this one ends.

    Some are left when an error still holds the loop that they were reading for.
    """
    running = [worker for worker in _WORKERS if worker.pid is not None and worker.is_alive()]
    if running:  # torch's handler would raise an error for each
        _let_children_end_quietly()
    for worker in running:
        worker.kill()
        worker.join()


def _leave_signals_to_the_parent(worker: int) -> None:
    """A terminal or a batch system signals the whole group; the parent must still get to save."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
