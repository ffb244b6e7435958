"""Video files, read frame-exactly, and the opening of whatever kind of video lies at a path.

Frames count from 1 everywhere, as the file names of frame folders do.
"""

from __future__ import annotations

import hashlib
import math
import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from stclip.data.frame_table import (
    FrameTable,
    table_at_constant_rate,
    table_of_packets,
    table_of_pictures,
)
from stclip.data.frames import FrameArchive, FrameFolder, Picture, Video
from stclip.errors import UserError
from stclip.files import check_regular

AV_TIME_BASE = 1_000_000  # units of a container's times in a second
MAX_PIXELS = 1 << 27  # of a picture, refused before it is decoded: 16384 x 8192


def open_video(path: str | Path, name: str | None = None) -> Video:
    """The video that lies at ``path``: a folder of pictures, a zip file of them, or a video file.

    Raises:
        UserError: nothing is there, or it cannot be read.
    """
    path = Path(path)
    check_regular(path)
    try:
        if path.is_dir():
            return FrameFolder(path, name)
        if path.exists():
            return (FrameArchive if path.suffix.lower() == ".zip" else VideoFile)(path, name)
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    raise UserError(f"{path}: neither a folder of frames nor a video file is there")


@dataclass(frozen=True)
class Header:
    """What a video file says of itself at its beginning.

    Attributes:
        size: width and height in pixels, as the pictures are stored.
        start: when the earliest of its streams, sound included, begins on the file's own clock, in
            seconds; players and ``ffmpeg -ss`` count from there.
        end: a time on that clock that nothing is later than; None if the file does not say.
    """

    size: tuple[int, int]
    start: float
    end: float | None


class VideoFile(Video):
    """A video file (mp4, avi, mkv, webm, ...), frame-exact.

    Frame n is the n-th picture shown. A table of time stamps, made once by reading the packets
    without decoding them, says where each one is; reading seeks to the key frame before it. Where
    packets have no reliable stamps, all pictures are decoded once for theirs, and counted from the
    start. In an AVI, which has a constant rate and may skip pictures, frame n is what
    ``ffmpeg -i FILE %05d.png`` calls n. Pictures that are stored on their side are turned as the
    file says.

    Args:
        path: the file.
        name: see ``Video``.
        span: of a long file, the part that is wanted, in seconds on the file's own clock: no packet
            outside is read, and frame 1 is one at or before its beginning. A hint: where a file has
            no reliable stamps, all its frames count.

    Raises:
        UserError: no such file. What is wrong inside a file is found at its first use.
    """

    in_sequence = True

    def __init__(
        self, path: str | Path, name: str | None = None, span: tuple[float, float] | None = None
    ) -> None:
        super().__init__(path, name)
        self._span = span
        self._keep = False
        self._decoder: Decoder | None = None
        self._foreign: list[Decoder] = []
        if not self.path.is_file():
            raise UserError(f"{path}: no such video file")

    def __len__(self) -> int:
        return len(self.table)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels, as shown; where a file may be turned, a frame is decoded."""
        width, height = self.header.size
        return (height, width) if self._turned else (width, height)

    @cached_property
    def _turned(self) -> bool:
        """Whether the pictures are shown on their side; one file has one way up."""
        with self._opened() as (container, stream):
            if container.format.name == "avi":  # has no place for such a note
                return False
            first = next(container.decode(stream), None)
            return first is not None and quarter_turns(first) % 2 == 1

    def frame_at(self, seconds: float, fps: float) -> int:
        """The frame whose time is nearest; one past the end from an interval after it on."""
        interval = self.table.mean_interval or 1 / fps
        return self.table.nearest(self.table.seconds[0] + seconds, interval)

    def picture_seconds(self, fps: float) -> NDArray[np.float64]:
        """See ``Video``."""
        table = self.table
        frames = np.searchsorted(table.pictures, np.arange(int(table.pictures[-1]) + 1))
        return np.asarray(table.seconds[frames] - table.seconds[0])

    @property
    def delay(self) -> float:
        """See ``Video``; an AVI, which has no time stamps, begins with its first frame."""
        with self._opened() as (container, _):
            counted = container.format.name == "avi"
        return 0.0 if counted else float(self.table.seconds[0]) - self.header.start

    def seconds_at(self, frame: int, fps: float) -> float:
        """The time from the first frame to another one, by their time stamps."""
        return float(self.table.seconds[frame - 1] - self.table.seconds[0])

    @cached_property
    def header(self) -> Header:
        """Read without going through the file."""
        with self._opened() as (container, stream):
            start = (container.start_time or 0) / AV_TIME_BASE
            # Matroska counts its duration from 0, others from the start: the later end holds.
            end = start + container.duration / AV_TIME_BASE if container.duration else None
            size = (stream.codec_context.width, stream.codec_context.height)
            if 0 in size:
                raise UserError(f"{self.path}: does not say how large its pictures are; damaged?")
            return Header(size, start, end)

    @cached_property
    def table(self) -> FrameTable:
        """When every frame is shown; made at the first use, by reading all packets of the span."""
        with self._opened() as (container, stream):
            unit = float(stream.time_base or 0)
            rate = float(stream.guessed_rate or stream.average_rate or 25)
            counted = container.format.name == "avi"
            packets = [] if counted else self._packets(container, stream)
        table = table_of_packets(packets, unit)
        if table is not None and (not table.cut or self._begins_with(int(table.stamps[0]))):
            return table
        with self._opened() as (container, stream):
            # An AVI has no other stamps than those of decoding; others are made up for it.
            stamps = [frame.dts if counted else frame.pts for frame in container.decode(stream)]
        if not stamps:
            raise UserError(f"{self.path}: no frame of this video can be decoded")
        make = table_at_constant_rate if counted else table_of_pictures
        return make(stamps, unit, rate)

    def _begins_with(self, stamp: int) -> bool:
        """Whether this is the first picture that comes out of a decoder."""
        with self._opened() as (container, stream):
            first = next(container.decode(stream), None)
            return first is not None and first.pts == stamp

    def irregularities(self) -> list[str]:
        """What is unusual about the time stamps, a text each."""
        table, found = self.table, []
        repeated = len(table) - len(np.unique(table.pictures))
        if repeated:
            found.append(
                f"{repeated} of {len(table)} frames were skipped when it was made, the first is "
                f"frame {int(np.flatnonzero(np.diff(table.pictures) == 0)[0]) + 2}; a neighbour is "
                "repeated for each"
            )
        if table.cut:
            found.append(f"{table.cut} pictures before the first key frame cannot be decoded")
        usual = table.interval
        gaps = np.flatnonzero(np.diff(table.seconds) > 1.5 * (usual or 0))
        if len(gaps):
            longest = float(np.diff(table.seconds).max())
            found.append(
                f"{len(gaps)} gaps between its frames, which are mostly {usual:.3f} s apart: the "
                f"first after frame {int(gaps[0]) + 1}, the longest of {longest:.3f} s"
            )
        return found

    def _packets(
        self, container: InputContainer, stream: VideoStream
    ) -> list[tuple[int | None, bool]]:
        """Stamp, and whether decoding can start there, of each picture of the span."""
        found = packets(container, stream, self._span)
        if found is not None:
            return found
        with self._opened() as (container, stream):
            return packets(container, stream, self._span, seek=False) or []

    def keep_open(self, keep: bool) -> None:
        """See ``Video``; the file's place is where the last reading stopped."""
        self._keep = keep
        if not keep:
            self._leave()

    def _leave(self) -> None:
        """Close the decoder, if there is one; one that is another process's is only put aside.

        Freeing that would wait for threads which exist in the process that made it alone.
        """
        if self._decoder is not None and self._decoder.is_foreign:
            self._foreign.append(self._decoder)
        elif self._decoder is not None:
            self._decoder.close()
        self._decoder = None

    def fingerprints(self, frames: Sequence[int]) -> list[bytes]:
        """See ``Video``; the whole file is read at the first call."""
        self._check(frames)
        table = self.table
        first = np.searchsorted(table.pictures, self._pictures(frames))  # of those that repeat it
        times = table.seconds[first].tolist()  # not numbers: they depend on the span
        return [self._digest + struct.pack("<d", time) for time in times]

    def _pictures(self, frames: Sequence[int]) -> list[int]:
        """The 0-based pictures of frames."""
        return [int(self.table.pictures[frame - 1]) for frame in frames]

    @cached_property
    def _digest(self) -> bytes:
        digest = hashlib.sha256()
        try:
            with open(self.path, "rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
            return digest.digest()
        except OSError as error:
            raise UserError(f"{self.path}: cannot be read: {error.strerror or error}") from error

    def _check(self, frames: Iterable[int]) -> None:
        for frame in frames:
            if not 1 <= frame <= len(self):
                raise UserError(f"{self.path}: frame {frame} is not there; {len(self)} frames are")

    def _decode(self, frames: list[int]) -> list[Picture]:
        self._check(frames)
        wanted = self._pictures(frames)
        try:
            found = self._read(sorted(set(wanted))) if wanted else {}
        finally:
            self.keep_open(self._keep)
        for frame, picture in zip(frames, wanted, strict=True):
            if picture not in found:
                raise UserError(
                    f"{self.path}: frame {frame} cannot be decoded; is the file damaged?"
                )
        return [found[picture] for picture in wanted]

    def _read(self, wanted: list[int]) -> dict[int, Picture]:
        """Pictures by 0-based number, from the open file if it can be; not all may be found."""
        found: dict[int, Picture] = {}
        table = self.table
        with self._errors():
            if self._decoder is not None and self._decoder.reaches(wanted[0]):
                found = self._decoder.read(wanted)
            # Some containers seek to a later place than they were asked to.
            for seek in (True, False) if len(table.stamps) else (False,):
                if len(found) < len(wanted):
                    self._leave()
                    self._decoder = Decoder(*self._open(), table, seek)
                    found = self._decoder.read(wanted)
        return found

    def __getstate__(self) -> dict[str, Any]:
        # An open file cannot go to another process.
        return {**self.__dict__, "_decoder": None, "_foreign": []}

    @contextmanager
    def _opened(self) -> Iterator[tuple[InputContainer, VideoStream]]:
        """The container and its first video stream; PyAV's errors become UserErrors."""
        with self._errors():
            container, stream = self._open()
            with container:
                yield container, stream

    def _open(self) -> tuple[InputContainer, VideoStream]:
        # Titles and names in other encodings than UTF-8 are common, and are not used here.
        container = av.open(str(self.path), metadata_errors="replace")
        # Of a codec that is not known there is no context.
        if not container.streams.video or container.streams.video[0].codec_context is None:
            container.close()
            raise UserError(f"{self.path}: no video that can be decoded in this file")
        stream = container.streams.video[0]
        context = stream.codec_context
        if context.width * context.height > MAX_PIXELS:
            container.close()
            raise UserError(
                f"{self.path}: its pictures are {context.width} x {context.height}, which is more "
                f"than {MAX_PIXELS} pixels; scale the video down, or is the file damaged?"
            )
        context.options = {"max_pixels": str(MAX_PIXELS)}  # a stream may change its size
        context.thread_count = 1  # the loader's workers use the other cores
        return container, stream

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except av.FFmpegError as error:
            self.keep_open(False)  # what stopped in the middle cannot go on
            raise UserError(
                f"{self.path}: this video cannot be read ({error.strerror or error}); is the file "
                "cut short or damaged?"
            ) from error


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

    The file was just opened, and ``span`` is in seconds on its own clock; None for all of it. With
    ``seek`` reading begins near the span: None comes back if that led past its beginning.
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

    Files from mobile phones say by how much to rotate the stored pictures. Only quarter turns are
    carried out, since no camera writes others.
    """
    picture = frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False)
    turns = quarter_turns(frame)
    return np.ascontiguousarray(np.rot90(picture, turns)) if turns else picture


def quarter_turns(frame: VideoFrame) -> int:
    """How many quarter turns counter-clockwise the file wants a frame to be shown with: 0 to 3."""
    turns, rest = divmod(frame.rotation, 90)
    return turns % 4 if rest == 0 else 0
