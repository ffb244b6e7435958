"""Where in a video file every frame is: what reading one frame-exactly needs to know."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class FrameTable:
    """The frames of a video file, or of a part of it, in the order they are shown.

    Attributes:
        seconds: (n,) float64, the time that each frame is shown at on the file's own clock,
            ascending.
        stamps: (n,) int64 presentation time stamps, ascending; empty if the file's cannot be relied
            on, and frames have to be counted from the start.
        starts: 0-based frames where decoding can start, ascending.
    """

    seconds: NDArray[np.float64]
    stamps: NDArray[np.int64]
    starts: NDArray[np.int64]

    def __len__(self) -> int:
        """How many frames there are."""
        return len(self.seconds)

    @property
    def mean_interval(self) -> float | None:
        """Seconds from one frame to the next, on average; None if there is one frame only."""
        count = len(self) - 1
        return float(self.seconds[-1] - self.seconds[0]) / count if count else None

    @property
    def interval(self) -> float | None:
        """The median, which a few long gaps do not change."""
        return float(np.median(np.diff(self.seconds))) if len(self) > 1 else None

    def nearest(self, seconds: float, interval: float) -> int:
        """The 1-based frame whose time is nearest.

        Args:
            seconds: on the file's own clock.
            interval: how much later than the last frame, or earlier than the first, is too much.

        Returns:
            n + 1 after the end, 0 before the beginning.
        """
        if seconds > self.seconds[-1] + interval:  # a wrong file or unit should not go unnoticed
            return len(self) + 1
        if seconds < self.seconds[0] - interval:
            return 0
        return int(np.abs(self.seconds - seconds).argmin()) + 1

    def sampled(self, seconds: float, rate: float) -> int:
        """The 1-based frame that ``ffmpeg -r rate`` puts at a time: the last one that has come.

        A frame comes at the sample that is nearest to its time.

        Args:
            seconds: of the sample, on the file's own clock.
            rate: samples a second.

        Returns:
            n + 1 after the end, 0 before the beginning: more than a frame's interval away.
        """
        interval = self.interval or 1 / rate
        if seconds > self.seconds[-1] + interval:
            return len(self) + 1
        if seconds < self.seconds[0] - interval:
            return 0
        come = np.searchsorted(self.seconds, seconds + 0.5 / rate + 1e-6, side="right")
        return max(int(come), 1)

    def position(self, stamp: int | None) -> int:
        """The 0-based frame with a time stamp; -1 if there is none."""
        if stamp is None:
            return -1
        place = int(np.searchsorted(self.stamps, stamp))
        return place if place < len(self.stamps) and self.stamps[place] == stamp else -1

    def start_for(self, position: int) -> int:
        """The last frame, up to a 0-based one, where decoding can start."""
        return int(self.starts[bisect_right(self.starts, position) - 1])


def table_of_packets(packets: Sequence[tuple[int | None, bool]], unit: float) -> FrameTable | None:
    """The table that the packets of a video stream make, one picture each.

    Args:
        packets: presentation time stamp, and whether decoding can start here, in any order.
        unit: seconds of a stamp's unit.

    Returns:
        None if the stamps do not tell all frames apart, or the first picture needs others that are
        not there.
    """
    stamps = sorted(stamp for stamp, _ in packets if stamp is not None)
    keys = {stamp for stamp, is_key in packets if is_key}
    if not (len(set(stamps)) == len(packets) > 0 and stamps[0] in keys):
        return None
    array = np.array(stamps, dtype=np.int64)
    starts = [position for position, stamp in enumerate(stamps) if stamp in keys]
    seconds = array.astype(np.float64) * np.float64(unit)
    return FrameTable(seconds, array, np.array(starts, dtype=np.int64))
