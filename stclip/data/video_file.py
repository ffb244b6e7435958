"""Opens video files.

Frames count from 1 everywhere, as the file names of frame folders do.
"""

from __future__ import annotations

import hashlib
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
from av.video.stream import VideoStream

from stclip.data.decoding import Decoder, packets, quarter_turns
from stclip.data.frame_table import (
    FrameTable,
    table_at_constant_rate,
    table_of_packets,
    table_of_pictures,
)
from stclip.data.frames import Picture, Video
from stclip.errors import UserError

AV_TIME_BASE = 1_000_000  # units of a container's times in a second
MAX_PIXELS = 1 << 27  # of a picture, refused before it is decoded: 16384 x 8192


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

    def missing(self, expected: int = 0) -> list[int]:
        """The frames past the end, up to the expected one."""
        return list(range(len(self) + 1, expected + 1))

    def frame_at(self, seconds: float, fps: float) -> int:
        """The frame whose time is nearest; one past the end from an interval after it on."""
        interval = self.table.mean_interval or 1 / fps
        return self.table.nearest(self.table.seconds[0] + seconds, interval)

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
        """What the time stamps tell that somebody should know, a text each: nothing mostly."""
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
        # Titles and names in other encodings than UTF-8 are common, and nobody reads them here.
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
