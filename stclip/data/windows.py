"""Which frames surround a keyframe, and which keyframes go into which batch: arithmetic only.

Nothing here has a state. What stands at a position of the endless shuffled stream depends on the
seed and the position alone, so neither the number of workers or processes nor a restart changes a
batch.
"""

from collections.abc import Sequence

import numpy as np

from stclip.structures import FrameKey

# Keep the two kinds of random numbers apart that are drawn from one seed.
_SHUFFLE, _PERSONS = 0, 1


def window(t: int, n: int, length: int, stride: int = 1) -> list[int]:
    """The ``length`` frames around frame ``t`` of a video of ``n``, from 1 (method.md section 3).

    They are ``stride`` apart, ``t - length // 2 * stride`` onwards, shifted by whole frames, no
    further than needed, so that all stay inside the video. With a stride above 1, ``t`` itself may
    then not be among them. Where they do not fit, the window is the frames of the video that lie a
    multiple of ``stride`` from ``t``: fewer than ``length``; with a stride of 1, the whole video.
    """
    assert 1 <= t <= n, f"frame {t} of a video of {n} frames"
    assert length >= 1, f"a window of {length} frames"
    assert stride >= 1, f"a stride of {stride} frames"
    span = (length - 1) * stride + 1
    if span > n:
        return list(range((t - 1) % stride + 1, n + 1, stride))
    first = max(1, min(t - length // 2 * stride, n - span + 1))
    return list(range(first, first + span, stride))


def spread(n: int, length: int) -> list[int]:
    """The 1-based frames in the middles of ``length`` equal parts of a video of ``n``.

    A video shorter than that gives some of its frames more than once.
    """
    assert n >= 1, f"a video of {n} frames"
    assert length >= 1, f"{length} parts"
    return [(2 * part + 1) * n // (2 * length) + 1 for part in range(length)]


class ShuffledStream:
    """The numbers 0..count-1 in a new order every epoch, one epoch after the other without end."""

    def __init__(self, count: int, seed: int) -> None:
        assert count > 0, "nothing to shuffle"
        self._count = count
        self._seed = seed
        self._epoch = -1
        self._order = np.zeros(0, dtype=np.int64)

    def __getitem__(self, position: int) -> int:
        """The number at a position, counted from 0."""
        epoch, offset = divmod(position, self._count)
        if epoch != self._epoch:  # a memo, not a state: neighbours share their epoch
            generator = np.random.default_rng((self._seed, _SHUFFLE, epoch))
            self._epoch, self._order = epoch, generator.permutation(self._count)
        return int(self._order[offset])


def choose_persons(count: int, limit: int, seed: int, position: int) -> list[int]:
    """At most ``limit`` of ``count`` persons, ascending, drawn anew for each position of the
    stream.
    """
    if count <= limit:
        return list(range(count))
    generator = np.random.default_rng((seed, _PERSONS, position))
    return sorted(generator.choice(count, size=limit, replace=False).tolist())


def micro_batch_positions(
    index: int, start_iteration: int, batch: int, steps: int, rank: int, world_size: int
) -> range:
    """The positions of the stream that make one micro-batch of one process.

    An iteration takes ``batch`` consecutive positions; each process takes a run of them, and each
    of its ``steps`` accumulation steps a run of that. ``index`` counts the micro-batches from 0 at
    ``start_iteration``.
    """
    assert batch % (steps * world_size) == 0, f"{batch} over {steps} steps, {world_size} processes"
    iteration, step = divmod(index, steps)
    size = batch // (steps * world_size)
    first = (start_iteration + iteration) * batch + (rank * steps + step) * size
    return range(first, first + size)


def split_into_chunks(keys: Sequence[FrameKey], size: int) -> list[range]:
    """Runs of at most ``size`` consecutive keyframes that share their video."""
    assert size >= 1, f"chunks of {size}"
    chunks: list[range] = []
    for index, key in enumerate(keys):
        last = chunks[-1] if chunks else range(0)
        if 0 < len(last) < size and keys[last.start].video == key.video:
            chunks[-1] = range(last.start, index + 1)
        else:
            chunks.append(range(index, index + 1))
    return chunks


def run_of(part: int, parts: int, count: int) -> range:
    """One of ``parts`` runs of 0..count-1; the first ones are longer by one where they must be."""
    length, longer = divmod(count, parts)
    first = part * length + min(part, longer)
    return range(first, first + length + (part < longer))


def order_in_runs(count: int, workers: int) -> list[int]:
    """An order of 0..count-1 that gives each worker a run of neighbours, in their order.

    Workers are dealt the numbers in turn, so those of the runs alternate.
    """
    runs = [run_of(worker, max(workers, 1), count) for worker in range(max(workers, 1))]
    return [run[place] for place in range(len(runs[0])) for run in runs if place < len(run)]
