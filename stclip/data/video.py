"""The only file that opens frames: folders of pictures, archives of pictures, and video files.

Frames count from 1 everywhere, as the file names of frame folders do.
"""

from __future__ import annotations

import io
import os
import re
import struct
import zlib
from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from zipfile import BadZipFile, ZipFile

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

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

# 00001.png, or anything_000001.jpg as ffmpeg users name them. Hidden files are none of ours.
_FRAME_NAME = re.compile(r"(?!\.)(?:.*_)?(\d+)\.(?:png|jpe?g|bmp|webp)", re.IGNORECASE)
# What Pillow and zipfile raise for files that are cut short or damaged.
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, BadZipFile)


class _Pictures(Video):
    """A video whose frames are picture files, found by the number that ends their name."""

    def __init__(self, path: str | Path, name: str | None, files: Iterable[str]) -> None:
        super().__init__(path, name)
        self._files: dict[int, str] = {}
        for file in files:
            match = _FRAME_NAME.fullmatch(PurePosixPath(file).name)
            if match is None:
                continue
            number = int(match[1])
            if number == 0:
                raise UserError(f"{path}: {file}: frames count from 1; rename the files")
            if number in self._files:
                raise UserError(
                    f"{path}: {self._files[number]} and {file} are both frame {number}; "
                    "keep one of them"
                )
            self._files[number] = file
        self._length = max(self._files, default=0)

    def __len__(self) -> int:
        return self._length

    @property
    def size(self) -> tuple[int, int]:
        if not self._files:
            raise UserError(f"{self.path}: no frame in it")
        first = min(self._files)
        try:
            (data,) = self._contents([first])
            return Image.open(io.BytesIO(data)).size
        except _BROKEN as error:
            raise self._broken(first, error) from error

    def missing(self, expected: int = 0) -> list[int]:
        last = max(len(self), expected)
        if last == len(self._files):  # the numbers are distinct and from 1: none can be missing
            return []
        return [number for number in range(1, last + 1) if number not in self._files]

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
class _FrameTable:
    """The frames of a video file in the order they are shown.

    Attributes:
        size: width and height in pixels.
        seconds: (n,) float64 since the first frame, ascending.
        stamps: the n presentation time stamps, ascending; empty if the file's cannot be relied
            on, and frames have to be counted from the start.
        starts: 0-based frames where decoding can start, ascending.
    """

    size: tuple[int, int]
    seconds: NDArray[np.float64]
    stamps: list[int]
    starts: list[int]


class VideoFile(Video):
    """A video file (mp4, avi, mkv, webm, ...), frame-exact.

    Frame n is the n-th picture shown. A table of time stamps, made once by reading the packets
    without decoding them, says where each one is; reading seeks to the key frame before it. Where a
    file has no reliable stamps (AVI keeps the order of decoding only), frames are counted from
    the start.

    Raises:
        UserError: no such file. What is wrong inside a file is found at its first use.
    """

    def __init__(self, path: str | Path, name: str | None = None) -> None:
        super().__init__(path, name)
        if not self.path.is_file():
            raise UserError(f"{path}: no such video file")

    def __len__(self) -> int:
        return len(self._table.seconds)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self._table.size

    def missing(self, expected: int = 0) -> list[int]:
        """The frames past the end, up to the expected one."""
        return list(range(len(self) + 1, expected + 1))

    def frame_at(self, seconds: float, fps: float) -> int:
        """The frame whose time is nearest; one past the end from an interval after it on."""
        times = self._table.seconds
        interval = times[-1] / (len(times) - 1) if len(times) > 1 else 1 / fps
        if seconds > times[-1] + interval:  # a wrong file or unit should not go unnoticed
            return len(times) + 1
        return int(np.abs(times - seconds).argmin()) + 1

    @cached_property
    def _table(self) -> _FrameTable:
        with self._opened() as (container, stream):
            size = (stream.codec_context.width, stream.codec_context.height)
            packets = [p for p in container.demux(stream) if p.size and not p.is_discard]
            stamps = sorted(p.pts for p in packets if p.pts is not None)
            keys = {p.pts for p in packets if p.is_keyframe}
            reliable = (
                container.format.name != "avi"
                and len(set(stamps)) == len(packets) > 0
                # Pictures before the first key frame depend on others that the file has not.
                and stamps[0] in keys
            )
            unit = float(stream.time_base or 0)
            rate = float(stream.average_rate or 25)
        if reliable:
            seconds = (np.array(stamps, dtype=np.float64) - stamps[0]) * unit
            starts = [position for position, stamp in enumerate(stamps) if stamp in keys]
            return _FrameTable(size, seconds, stamps, starts)
        with self._opened() as (container, stream):
            count = sum(1 for _ in container.decode(stream))
        if count == 0:
            raise UserError(f"{self.path}: no frame of this video can be decoded")
        return _FrameTable(size, np.arange(count) / rate, [], [])

    def _decode(self, frames: list[int]) -> list[Picture]:
        if frames and not 1 <= frames[0] <= frames[-1] <= len(self):
            wrong = frames[0] if frames[0] < 1 else frames[-1]
            raise UserError(f"{self.path}: frame {wrong} is not there; {len(self)} frames are")
        wanted = [frame - 1 for frame in frames]
        if not self._table.stamps:
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
        stamps, starts = self._table.stamps, self._table.starts
        positions = {stamp: position for position, stamp in enumerate(stamps)}
        found: dict[int, Picture] = {}
        left = list(reversed(wanted))
        with self._opened() as (container, stream):
            while left:
                if seek:
                    start = starts[bisect_right(starts, left[-1]) - 1]
                    container.seek(stamps[start], stream=stream)
                for frame in container.decode(stream):
                    position = -1 if frame.pts is None else positions.get(frame.pts, -1)
                    if position > left[-1]:
                        return found
                    if position < left[-1]:
                        continue
                    found[left.pop()] = _rgb(frame)
                    # Decoding on is cheaper than seeking, unless a key frame lies in between.
                    if not left or (
                        seek and starts[bisect_right(starts, left[-1]) - 1] > position + 1
                    ):
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
