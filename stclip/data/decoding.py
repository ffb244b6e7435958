"""What is done with an open video file: listing its packets, decoding, turning upright."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence

import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from stclip.data.frame_table import FrameTable
from stclip.data.frames import Picture


class Decoder:
    """The pictures of one open file. Those of ascending reads are decoded once.

    Args:
        container: the file, just opened; ``close`` closes it.
        stream: its video.
        table: where its frames are.
        seek: look for frames by their time stamps, from the key frame before them; otherwise all
            are gone through from the start.
    """

    def __init__(
        self, container: InputContainer, stream: VideoStream, table: FrameTable, seek: bool
    ) -> None:
        self._container = container
        self._stream = stream
        self._table = table
        self._seek = seek
        self._frames: Iterator[VideoFrame] = container.decode(stream)
        self._last = -1  # the 0-based picture that came out last
        self._held: VideoFrame | None = None  # and it itself
        self._sought = False
        self._process = os.getpid()

    @property
    def is_foreign(self) -> bool:
        """Whether it came with a fork from another process, which has its place in the file."""
        return self._process != os.getpid()

    def reaches(self, position: int) -> bool:
        """Whether a 0-based picture can be read."""
        return not self.is_foreign and (self._seek or position >= self._last)

    def read(self, wanted: Sequence[int]) -> dict[int, Picture]:
        """Pictures by ascending 0-based number; those that do not come out are left out."""
        found: dict[int, Picture] = {}
        for position in wanted:
            if self._seek:
                self._approach(position)
            frame = self._next(position)
            if frame is None:
                break
            found[position] = upright(frame)
        return found

    def close(self) -> None:
        """Close the file; nothing can be read any more."""
        self._container.close()

    def _approach(self, position: int) -> None:
        """Seek, but where decoding on is cheaper: no key frame lies in between."""
        start = self._table.start_for(position)
        if self._sought and self._last < position and start <= self._last + 1:
            return
        self._container.seek(int(self._table.stamps[start]), stream=self._stream)
        self._frames = self._container.decode(self._stream)
        self._last, self._held, self._sought = -1, None, True

    def _next(self, position: int) -> VideoFrame | None:
        """Decode up to a picture; None if it does not come."""
        counted = not len(self._table.stamps)
        if position == self._last:
            return self._held
        for frame in self._frames:
            place = self._last + 1 if counted else self._table.position(frame.pts)
            self._last, self._held = max(self._last, place), frame
            if place == position:
                return frame
            if place > position:
                return None
        # Nothing comes after the end, whatever is asked for.
        self._last, self._held = len(self._table), None
        return None


def packets(
    container: InputContainer,
    stream: VideoStream,
    span: tuple[float, float] | None,
    seek: bool = True,
) -> list[tuple[int | None, bool]] | None:
    """Stamp, and whether decoding can start there, of each picture of a span of a file.

    Args:
        container: the file, just opened.
        stream: its video.
        span: in seconds on the file's own clock; None for all of it.
        seek: begin reading near the span; otherwise at the start of the file.

    Returns:
        None if seeking led past the beginning of the span: open the file anew, and do not seek.
    """
    low, high = -math.inf, math.inf
    sought = False
    vp8 = stream.codec_context.name in ("vp8", "libvpx")
    if span is not None:
        unit = float(stream.time_base or 1)
        low, high = (seconds / unit for seconds in span)
        sought = seek and low > (stream.start_time or 0)
        if sought:
            container.seek(math.floor(low), stream=stream)
    found: list[tuple[int | None, bool]] = []
    for packet in container.demux(stream):
        if packet.size and not packet.is_discard and not (vp8 and _is_hidden(packet)):
            if packet.dts is not None and packet.dts > high:
                break  # no later packet is shown before this one
            found.append((packet.pts, packet.is_keyframe))
    if span is None or any(stamp is None for stamp, _ in found):
        return found
    # After a seek pictures may come that need others from before it.
    first = min((stamp for stamp, is_key in found if stamp is not None and is_key), default=0)
    if sought and first > low:  # some containers seek to a later place than they were asked to
        return None
    return [row for row in found if row[0] is not None and first <= row[0] <= high]


def _is_hidden(packet: Packet[VideoStream]) -> bool:
    """Whether a VP8 packet is not shown: it is an alternate reference (RFC 6386, 9.1)."""
    return not memoryview(packet)[0] & 0x10


def upright(frame: VideoFrame) -> Picture:
    """A decoded frame as players show it: (h, w, 3) uint8 RGB.

    Telephones store what they film as the sensor lies, with a note by how much to turn it. Turns
    other than quarter ones, which no camera notes, are not carried out.
    """
    picture = frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False)
    turns = quarter_turns(frame)
    return np.ascontiguousarray(np.rot90(picture, turns)) if turns else picture


def quarter_turns(frame: VideoFrame) -> int:
    """How many quarter turns counter-clockwise the file wants a frame to be shown with: 0 to 3."""
    turns, rest = divmod(frame.rotation, 90)
    return turns % 4 if rest == 0 else 0
