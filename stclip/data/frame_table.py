"""Where in a video file every frame is: what reading one frame-exactly needs to know."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class FrameTable:
    """The frames of a video file, or of a part of it, in the order they are shown.

    Attributes:
        seconds: (n,) float64, the time that each frame is shown at on the file's own clock,
            ascending.
        pictures: (n,) int64, the picture of each frame, counted from 0 in the order in which they
            come out of a decoder; ascending, and one is repeated where a file says so.
        stamps: (n,) int64 presentation time stamps, ascending; empty if the file's cannot be relied
            on, and pictures have to be counted from the start.
        starts: 0-based frames where decoding can start, ascending.
        cut: how many packets before the first key frame cannot be decoded and are left out.
    """

    seconds: NDArray[np.float64]
    pictures: NDArray[np.int64]
    stamps: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    starts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    cut: int = 0

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

    What comes before the first key frame, in the order of decoding or of showing, is left out: no
    decoder can make a picture of it.

    Args:
        packets: presentation time stamp, and whether decoding can start here, in the order of the
            file.
        unit: seconds of a stamp's unit.

    Returns:
        None if the stamps are not distinct.
    """
    first = next((index for index, (_, is_key) in enumerate(packets) if is_key), len(packets))
    rows = [(stamp, is_key) for stamp, is_key in packets[first:] if stamp is not None]
    if len(rows) != len(packets) - first or not rows:
        return None
    stamps = sorted(stamp for stamp, _ in rows if stamp >= rows[0][0])
    if len(set(stamps)) != len(stamps):
        return None
    keys = {stamp for stamp, is_key in rows if is_key}
    array = np.array(stamps, dtype=np.int64)
    starts = [position for position, stamp in enumerate(stamps) if stamp in keys]
    seconds = array.astype(np.float64) * np.float64(unit)
    return FrameTable(
        seconds,
        np.arange(len(array)),
        array,
        np.array(starts, dtype=np.int64),
        len(packets) - len(stamps),
    )


def table_of_pictures(stamps: Sequence[int | None], unit: float, rate: float) -> FrameTable:
    """The table of pictures that were all decoded, for files whose packets do not make one.

    Args:
        stamps: presentation time stamp of each picture, as it came out of the decoder; one that has
            none is shown an interval after the one before.
        unit: seconds of a stamp's unit.
        rate: pictures a second. Where the stamps do not ascend, they are shown at this rate.
    """
    seconds = np.zeros(len(stamps))
    for index, stamp in enumerate(stamps):
        if stamp is not None:
            seconds[index] = stamp * unit
        elif index:
            seconds[index] = seconds[index - 1] + 1 / rate
    if (np.diff(seconds) <= 0).any():
        seconds = np.arange(len(stamps)) / rate
    return FrameTable(seconds, np.arange(len(stamps)))


def table_at_constant_rate(stamps: Sequence[int | None], unit: float, rate: float) -> FrameTable:
    """The table of a file that shows pictures at a constant rate and can skip some: an AVI.

    Frames are numbered, and pictures repeated, as ``ffmpeg`` does when it extracts the file into
    picture files: the place of a skipped picture is filled by the picture before it, but the last
    of several, or a single one, by the picture after (ffmpeg 2.3 to 9.0).

    Args:
        stamps: decoding time stamp of each picture, as it came out of the decoder; the last ones
            may have none.
        unit: seconds of a stamp's unit.
        rate: frames a second.
    """
    shown: list[int] = []
    first = next((stamp for stamp in stamps if stamp is not None), 0)
    place = -1
    for picture, stamp in enumerate(stamps):
        place = place + 1 if stamp is None else round((stamp - first) * unit * rate)
        gap = place - len(shown)
        if gap < -2:  # too late to be shown at all
            continue
        shown += [max(picture - 1, 0)] * max(gap - 1, 0)
        shown += [picture] * (2 if gap >= 1 else 1)
    return FrameTable(np.arange(len(shown)) / rate, np.array(shown, dtype=np.int64))
