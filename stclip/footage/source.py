"""Frames of a video in the order in which they are shown, each decoded once.

A source is whatever people have: a video file, a folder or a zip file of pictures, a camera, a
network stream, standard input, or arrays in memory. It can be damaged, cut short or endless.
"""

from __future__ import annotations

import logging
import math
import re
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from stclip.data.frames import RULE, FrameArchive, FrameFolder, Picture, Video
from stclip.data.video import AV_TIME_BASE, upright
from stclip.errors import UserError
from stclip.files import check_regular
from stclip.footage.decoding import (
    ADDRESS,
    DEFAULT_FPS,
    READ_SECONDS,
    Clock,
    deinterlaced,
    facts_of,
    open_container,
    open_sound,
    picture_of,
    video_stream,
    without_password,
)

logger = logging.getLogger(__name__)

_LONGEST_WAIT = 30.0  # between two attempts to reach a camera again
_MOST_FAILURES = 1000  # packets in a row that cannot be read, after which nothing more is tried


@dataclass(frozen=True)
class Frame:
    """One frame.

    Attributes:
        number: from 1, in the order shown.
        seconds: when it is shown, from the start of the video as players count; of a camera, since
            the first frame.
        image: (h, w, 3) uint8 RGB, upright.
    """

    number: int
    seconds: float
    image: Picture


# When a frame is shown, and what gives its picture, which is not called outside of the wanted part.
Shown = tuple[float, Callable[[], Picture]]


class Source(ABC):
    """Frames in order, and what is known of them before and after.

    Attributes:
        name: what results are called.
        location: the path, address or number that was given; without the password of an address.
        fps: frames a second; the mean if they vary.
        duration: seconds; None if the source does not say.
        start: seconds before this are skipped.
        end: nothing from this second on is read.
        damaged: packets that could not be decoded so far.
        dropped: frames that came faster than they were taken (live sources).
    """

    def __init__(
        self,
        name: str,
        location: str,
        fps: float,
        duration: float | None,
        start: float = 0.0,
        end: float = math.inf,
    ) -> None:
        if not start < end:
            raise UserError(f"start {start:g}, end {end:g}: a start before the end expected")
        self.name, self.location = name, location
        self.fps, self.duration = fps, duration
        self.start, self.end = start, end
        self.damaged = self.dropped = 0

    def __iter__(self) -> Iterator[Frame]:
        """The frames from ``start`` to ``end``, numbered as if there were neither."""
        found = False
        for number, (seconds, picture) in enumerate(self._shown(), start=1):
            if seconds >= self.end:
                break
            if seconds >= self.start:
                found = True
                yield Frame(number, seconds, picture())
        if not found:
            part = "" if self.start == 0 else f" from second {self.start:g}"
            part += "" if self.end == math.inf else f" before second {self.end:g}"
            raise UserError(f"{self.location}: no frame{part} can be decoded; damaged, too short?")

    @abstractmethod
    def _shown(self) -> Iterator[Shown]:
        """All frames, each decoded once."""

    @property
    def expected(self) -> int | None:
        """About how many frames come; None if nothing is known."""
        if self.duration is None:
            return None
        return max(round((min(self.duration, self.end) - self.start) * self.fps), 1)


def open_source(
    location: str | Path, fps: float | None = None, start: float = 0.0, end: float = math.inf
) -> Source:
    """The source at a path, address or camera number.

    Args:
        location: a video file, a folder or zip file of pictures, a camera number, an address
            (rtsp://, http:// ...), or ``-`` for a video on standard input.
        fps: frames a second of pictures; ignored where frames carry times.
        start: seconds before this are skipped.
        end: nothing from this second on is read.

    Raises:
        UserError: nothing is there, or no video is in it; or the start is not before the end.
    """
    text = str(location)
    if text == "-":
        return FileSource(sys.stdin.buffer, name_of(text), text, start, end)
    if text.isdecimal():
        return LiveSource(text, name_of(text), fps, start, end)
    if ADDRESS.match(text):
        name = name_of(text)
        if text.lower().startswith("http"):  # a file on a server, which has an end, or a stream
            file = FileSource(text, name, text, start, end)
            if file.duration is not None:
                return file
        return LiveSource(text, name, fps, start, end)
    path = Path(text)
    check_regular(path)
    try:
        if path.is_dir():
            return PictureSource(FrameFolder(path), fps or DEFAULT_FPS, start, end)
        if path.suffix.lower() == ".zip" and path.exists():
            return PictureSource(FrameArchive(path), fps or DEFAULT_FPS, start, end)
        if path.exists():
            return FileSource(path, name_of(path), text, start, end)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    raise nothing_at(text)


def name_of(location: str | Path) -> str:
    """What the results of a location are called."""
    text = str(location)
    if text == "-":
        return "stdin"
    if text.isdecimal():
        return f"camera-{text}"
    if ADDRESS.match(text):
        return _name_of_address(text)
    return Path(text).stem


def is_missing(location: str | Path) -> bool:
    """Whether a path names nothing; what is not a path may be there."""
    text = str(location)
    elsewhere = text == "-" or text.isdecimal() or ADDRESS.match(text)
    return not elsewhere and not Path(text).exists()


def nothing_at(location: str | Path) -> UserError:
    """The error for a path that names nothing."""
    return UserError(
        f"{location}: there is no such file or folder; give a video file, a folder or zip file of "
        "pictures, a camera number, an address (rtsp://, http://) or - for standard input"
    )


class PictureSource(Source):
    """A folder or a zip file of pictures at a constant rate."""

    def __init__(self, video: Video, fps: float, start: float, end: float) -> None:
        if not len(video):
            raise UserError(f"{video.path}: no frames in it; {RULE}")
        super().__init__(video.name, str(video.path), fps, len(video) / fps, start, end)
        self._video = video

    def _shown(self) -> Iterator[Shown]:
        for number in range(1, len(self._video) + 1):
            yield (number - 1) / self.fps, partial(self._picture, number)

    def _picture(self, number: int) -> Picture:
        (image,) = self._video.read([number])
        return image


class ArraySource(Source):
    """Frames in memory, from any iterable: it is gone through once.

    Args:
        frames: (h, w, 3) uint8 RGB arrays, or pairs of seconds and such an array.
        fps: frames a second of arrays without times.
        start: see ``Source``.
        end: likewise.
    """

    def __init__(
        self,
        frames: Iterable[Any],
        fps: float | None,
        start: float = 0.0,
        end: float = math.inf,
    ) -> None:
        super().__init__("frames", "(frames in memory)", fps or DEFAULT_FPS, None, start, end)
        self._frames = frames

    def _shown(self) -> Iterator[Shown]:
        shape, last = None, -math.inf
        for number, item in enumerate(self._frames, start=1):
            seconds, image = item if isinstance(item, tuple) else ((number - 1) / self.fps, item)
            image = np.asarray(image)
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
                raise UserError(
                    f"frame {number}: an array (height, width, 3) of uint8 RGB expected, found "
                    f"{image.shape} of {image.dtype}"
                )
            if shape not in (None, image.shape) or not seconds > last:
                raise UserError(
                    f"frame {number}: all frames must have one size and ascending times; found "
                    f"{image.shape} at {seconds:g} s after {shape} at {last:g} s"
                )
            shape, last = image.shape, seconds
            yield float(seconds), partial(np.asarray, image)


class FileSource(Source):
    """A video file, on a disk, a server or standard input, decoded once from its beginning.

    Times are the file's own. Damaged packets are skipped and counted; what lies before the first
    key frame is skipped. Interlaced video is deinterlaced, rotated video is turned, and if the size
    changes on the way, frames are scaled to the first one's.

    Args:
        file: what to open.
        name: what results are called.
        location: what messages and results call the file.
        start: see ``Source``.
        end: likewise.
        formats: of a file from a stranger, the only ones that are taken (``open_container``).
    """

    def __init__(
        self,
        file: Path | str | BinaryIO,
        name: str,
        location: str,
        start: float,
        end: float,
        formats: Sequence[str] = (),
    ) -> None:
        self._file, self._formats = file, formats
        opened = open_container(file, without_password(location), formats)
        super().__init__(name, without_password(location), *facts_of(*opened), start, end)
        # Standard input cannot be opened a second time.
        self._opened = None if isinstance(file, Path | str) else opened
        if self._opened is None:
            opened[0].close()

    def _shown(self) -> Iterator[Shown]:
        container, stream = self._opened or open_container(self._file, self.location, self._formats)
        with closing(container):
            origin = (container.start_time or 0) / AV_TIME_BASE
            clock = Clock(origin, 1 / self.fps, container.format.name == "avi")
            size: tuple[int, int] | None = None
            for frame in deinterlaced(self._decoded(container, stream), stream):
                size = size or (frame.width, frame.height)
                yield clock.seconds(frame), partial(picture_of, frame, size)

    def open_sound(self) -> InputContainer | None:
        """The container once more, for its sound; None of what is not on a disk."""
        return open_sound(self._file, self._formats) if isinstance(self._file, Path) else None

    def _decoded(self, container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
        """What can be decoded."""
        packets = container.demux(stream)
        failures = 0  # in a row
        while failures < _MOST_FAILURES:
            frames: list[VideoFrame] = []
            try:
                packet = next(packets, None)
                if packet is None:
                    return
                frames = packet.decode()
                failures = 0
            except av.error.EOFError:
                break
            except (av.FFmpegError, IndexError) as error:
                # IndexError: damage that looks like a stream which the header does not have.
                failures += 1
                self.damaged += 1
                if self.damaged == 1:
                    logger.warning(
                        "%s: damaged (%s); what cannot be decoded is skipped",
                        self.location, getattr(error, "strerror", None) or error,
                    )  # fmt: skip
                packets = container.demux(stream)  # an error ends the one before
            yield from frames
        with suppress(av.FFmpegError):  # what the decoder still holds
            yield from stream.codec_context.decode(None)


class LiveSource(Source):
    """A camera or network stream: a thread decodes, and old frames give way to new ones.

    Args:
        address: a camera number or an address.
        name: what results are called.
        fps: frames a second, if the source does not say.
        start: see ``Source``; seconds count from the first frame.
        end: likewise.
        attempts: how often a lost connection is tried again before giving up.
        wait: seconds before the first of these attempts; then twice as long each time.
        buffered: frames that wait at most.
    """

    def __init__(
        self,
        address: str,
        name: str,
        fps: float | None,
        start: float = 0.0,
        end: float = math.inf,
        attempts: int = 8,
        wait: float = 1.0,
        buffered: int = 8,
    ) -> None:
        self._address, self._attempts, self._wait = address, attempts, wait
        self._frames: deque[tuple[float, VideoFrame]] = deque(maxlen=buffered)
        self._ready = threading.Condition()
        self._ended: str | None = None
        self._stop = False
        self._container, stream = open_container(address, without_password(address))
        rate = float(stream.guessed_rate or stream.average_rate or fps or DEFAULT_FPS)
        super().__init__(name, without_password(address), rate, None, start, end)

    def _shown(self) -> Iterator[Shown]:
        thread = threading.Thread(target=self._read, daemon=True)
        thread.start()
        try:
            while True:
                with self._ready:
                    while not self._frames and self._ended is None:
                        self._ready.wait(0.5)
                    if not self._frames:
                        break
                    seconds, frame = self._frames.popleft()
                yield seconds, partial(upright, frame)
        finally:
            self._stop = True
            thread.join(timeout=READ_SECONDS)
        logger.warning("%s: %s", self.location, self._ended)

    def _read(self) -> None:
        """What the thread does: decode until nothing comes any more, or nobody wants more."""
        begun, failures, ended = time.monotonic(), 0, ""
        while not self._stop:
            try:
                stream = video_stream(self._container, self.location)
                for decoded in deinterlaced(self._container.decode(stream), stream):
                    failures = 0
                    with self._ready:
                        self.dropped += len(self._frames) == self._frames.maxlen
                        self._frames.append((time.monotonic() - begun, decoded))
                        self._ready.notify()
                    if self._stop:
                        break
                reason = "it ended"
            except (av.FFmpegError, UserError) as error:
                reason = str(getattr(error, "strerror", None) or error)
            self._container.close()
            if not self._stop and not self._reconnect(reason, failures):
                ended = f"{reason}; given up after {self._attempts} attempts to reach it again"
                break
            failures += 1
        with self._ready:
            self._ended = ended
            self._ready.notify()

    def _reconnect(self, reason: str, failures: int) -> bool:
        """Try to open the source again, waiting longer each time."""
        for attempt in range(failures, self._attempts):
            pause = min(self._wait * 2**attempt, _LONGEST_WAIT)
            logger.warning("%s: %s; trying again in %g s", self.location, reason, pause)
            deadline = time.monotonic() + pause
            while time.monotonic() < deadline:
                if self._stop:
                    return False
                time.sleep(min(0.1, pause))
            try:
                self._container = open_container(self._address, self.location)[0]
                return True
            except UserError as error:
                reason = str(error)
        return False


def _name_of_address(address: str) -> str:
    """A file name for an address, without user, password and query."""
    host = without_password(address).partition("://")[2].partition("?")[0]
    return re.sub(r"[^\w.-]+", "_", host).strip("_.") or "stream"
