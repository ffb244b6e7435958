"""The only file that opens frames: folders of pictures, archives of pictures, and video files.

Frames count from 1 everywhere, as the file names of frame folders do.
"""

from __future__ import annotations

import io
import math
import os
import struct
import zlib
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from PIL import Image, UnidentifiedImageError

from stclip.data.frame_names import FrameNames
from stclip.data.frame_table import FrameTable, table_of_packets
from stclip.data.frames import FrameList, Picture, Video
from stclip.errors import UserError

__all__ = [
    "FrameArchive",
    "FrameFolder",
    "FrameList",
    "Picture",
    "Video",
    "VideoFile",
    "open_video",
]

AV_TIME_BASE = 1_000_000  # units of a container's times in a second
# What Pillow and zipfile raise for files that are cut short or damaged.
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, BadZipFile)


class _Pictures(Video):
    """A video whose frames are picture files, found by the number that ends their name."""

    def __init__(self, path: str | Path, name: str | None, files: Iterable[str]) -> None:
        super().__init__(path, name)
        self._files = FrameNames(self.path, files)

    def __len__(self) -> int:
        return self._files.last

    @property
    def size(self) -> tuple[int, int]:
        first = self._files.first
        if not first:
            raise UserError(f"{self.path}: no frame in it")
        try:
            (data,) = self._contents([first])
            return Image.open(io.BytesIO(data)).size
        except _BROKEN as error:
            raise self._broken(first, error) from error

    def missing(self, expected: int = 0) -> list[int]:
        return self._files.missing(max(len(self), expected))

    def frame_at(self, seconds: float, fps: float) -> int:
        return round(seconds * fps) + 1

    def _decode(self, frames: list[int]) -> list[Picture]:
        for number in frames:
            if number not in self._files:
                raise UserError(
                    f"{self.path}: frame {number} is not there; {len(self._files)} frames are, "
                    f"the last of them {len(self)}"
                )
        pictures: list[Picture] = []
        try:
            for data in self._contents(frames):
                pictures.append(np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
        except _BROKEN as error:
            raise self._broken(frames[len(pictures)], error) from error
        return pictures

    @abstractmethod
    def _contents(self, frames: Iterable[int]) -> Iterator[bytes]:
        """The bytes of the picture files of some frames that are there."""

    def _broken(self, number: int, error: BaseException) -> UserError:
        detail = "not a picture" if isinstance(error, UnidentifiedImageError) else str(error)
        return UserError(
            f"{self.path / self._files[number]}: this picture cannot be decoded ({detail}); "
            "is the file cut short? Extract the frame again"
        )


class FrameFolder(_Pictures):
    """A folder of pictures named by frame number (``00001.png``, ``name_000001.jpg``).

    Raises:
        UserError: no such folder, a frame 0, or two pictures of one number.
    """

    def __init__(self, path: str | Path, name: str | None = None) -> None:
        try:
            files = os.listdir(path)
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
        super().__init__(path, name, files)

    def _contents(self, frames: Iterable[int]) -> Iterator[bytes]:
        for number in frames:
            yield (self.path / self._files[number]).read_bytes()


class FrameArchive(_Pictures):
    """A zip file of pictures named by frame number; folders inside it do not matter.

    Raises:
        UserError: no such file, not a zip file, a frame 0, or two pictures of one number.
    """

    def __init__(self, path: str | Path, name: str | None = None) -> None:
        try:
            with ZipFile(path) as archive:
                files = archive.namelist()
        except (OSError, BadZipFile) as error:
            raise UserError(f"{path}: not a readable zip file: {error}") from error
        super().__init__(path, name, files)

    def _contents(self, frames: Iterable[int]) -> Iterator[bytes]:
        # Opened for each read: an open archive must not be shared by processes.
        with ZipFile(self.path) as archive:
            for number in frames:
                yield archive.read(self._files[number])


@dataclass(frozen=True)
class Header:
    """What a video file says of itself at its beginning.

    Attributes:
        size: width and height in pixels.
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
    without decoding them, says where each one is; reading seeks to the key frame before it. Where a
    file has no reliable stamps (AVI keeps the order of decoding only), frames are counted from
    the start.

    Args:
        path: the file.
        name: see ``Video``.
        span: of a long file, the part that is wanted, in seconds on the file's own clock: no packet
            outside is read, and frame 1 is one at or before its beginning. A hint: where a file has
            no reliable stamps, all its frames count.

    Raises:
        UserError: no such file. What is wrong inside a file is found at its first use.
    """

    def __init__(
        self, path: str | Path, name: str | None = None, span: tuple[float, float] | None = None
    ) -> None:
        super().__init__(path, name)
        self._span = span
        if not self.path.is_file():
            raise UserError(f"{path}: no such video file")

    def __len__(self) -> int:
        return len(self.table)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.header.size

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
            return Header((stream.codec_context.width, stream.codec_context.height), start, end)

    @cached_property
    def table(self) -> FrameTable:
        """When every frame is shown; made at the first use, by reading all packets of the span."""
        with self._opened() as (container, stream):
            table = None
            if container.format.name != "avi":
                packets = self._packets(container, stream)
                table = table_of_packets(packets, float(stream.time_base or 0))
            rate = float(stream.average_rate or 25)
        if table is not None:
            return table
        with self._opened() as (container, stream):
            count = sum(1 for _ in container.decode(stream))
        if count == 0:
            raise UserError(f"{self.path}: no frame of this video can be decoded")
        none = np.zeros(0, dtype=np.int64)
        return FrameTable(np.arange(count) / rate, none, none)

    def _packets(
        self, container: InputContainer, stream: VideoStream, seek: bool = True
    ) -> list[tuple[int | None, bool]]:
        """Stamp, and whether decoding can start there, of each picture of the span."""
        low, high = -math.inf, math.inf
        sought = False
        if self._span is not None:
            unit = float(stream.time_base or 1)
            low, high = (seconds / unit for seconds in self._span)
            sought = seek and low > (stream.start_time or 0)
            if sought:
                container.seek(math.floor(low), stream=stream)
        found: list[tuple[int | None, bool]] = []
        for packet in container.demux(stream):
            if packet.size and not packet.is_discard:
                if packet.dts is not None and packet.dts > high:
                    break  # no later packet is shown before this one
                found.append((packet.pts, packet.is_keyframe))
        if self._span is None or any(stamp is None for stamp, _ in found):
            return found
        # After a seek pictures may come that need others from before it.
        first = min((stamp for stamp, is_key in found if stamp is not None and is_key), default=0)
        if sought and first > low:  # some containers seek to a later place than they were asked to
            with self._opened() as (container, stream):
                return self._packets(container, stream, seek=False)
        return [row for row in found if row[0] is not None and first <= row[0] <= high]

    def _decode(self, frames: list[int]) -> list[Picture]:
        if frames and not 1 <= frames[0] <= frames[-1] <= len(self):
            wrong = frames[0] if frames[0] < 1 else frames[-1]
            raise UserError(f"{self.path}: frame {wrong} is not there; {len(self)} frames are")
        wanted = [frame - 1 for frame in frames]
        if not len(self.table.stamps):
            found = self._counted(wanted)
        else:
            found = self._sought(wanted, seek=True)
            # Some containers seek to a later place than they were asked to.
            if len(found) < len(wanted):
                found = self._sought(wanted, seek=False)
        for position in wanted:
            if position not in found:
                raise UserError(
                    f"{self.path}: frame {position + 1} cannot be decoded; is the file damaged?"
                )
        return [found[position] for position in wanted]

    def _counted(self, wanted: list[int]) -> dict[int, Picture]:
        """Frames by 0-based position in the order they come out of the decoder."""
        found: dict[int, Picture] = {}
        with self._opened() as (container, stream):
            for position, frame in enumerate(container.decode(stream)):
                if position in wanted:
                    found[position] = _rgb(frame)
                if position >= wanted[-1]:
                    break
        return found

    def _sought(self, wanted: list[int], seek: bool) -> dict[int, Picture]:
        """Frames by 0-based position, recognised by their time stamps; not all may be found."""
        table = self.table
        found: dict[int, Picture] = {}
        left = list(reversed(wanted))
        with self._opened() as (container, stream):
            while left:
                if seek:
                    start = table.start_for(left[-1])
                    container.seek(int(table.stamps[start]), stream=stream)
                for frame in container.decode(stream):
                    position = table.position(frame.pts)
                    if position > left[-1]:
                        return found
                    if position < left[-1]:
                        continue
                    found[left.pop()] = _rgb(frame)
                    # Decoding on is cheaper than seeking, unless a key frame lies in between.
                    if not left or (seek and table.start_for(left[-1]) > position + 1):
                        break
                else:
                    return found
        return found

    @contextmanager
    def _opened(self) -> Iterator[tuple[InputContainer, VideoStream]]:
        """The container and its first video stream; PyAV's errors become UserErrors."""
        try:
            with av.open(str(self.path)) as container:
                if not container.streams.video:
                    raise UserError(f"{self.path}: no video in this file")
                stream = container.streams.video[0]
                stream.codec_context.thread_count = 1  # the loader's workers use the other cores
                yield container, stream
        except av.FFmpegError as error:
            raise UserError(
                f"{self.path}: this video cannot be read ({error.strerror or error}); is the file "
                "cut short or damaged?"
            ) from error


def _rgb(frame: VideoFrame) -> Picture:
    return frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False)


def open_video(path: str | Path, name: str | None = None) -> Video:
    """The video that lies at ``path``: a folder of pictures, a zip file of them, or a video file.

    Raises:
        UserError: nothing is there, or it cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        return FrameFolder(path, name)
    if path.suffix.lower() == ".zip":
        return FrameArchive(path, name)
    if path.is_file():
        return VideoFile(path, name)
    raise UserError(f"{path}: neither a folder of frames nor a video file is there")
