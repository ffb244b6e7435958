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
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
from av.container import InputContainer
from av.filter import Graph
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from stclip.data.frames import RULE, FrameArchive, FrameFolder, Picture, Video
from stclip.data.video import AV_TIME_BASE, MAX_PIXELS, upright
from stclip.errors import UserError
from stclip.files import check_regular

logger = logging.getLogger(__name__)

DEFAULT_FPS = 25.0  # of pictures, which carry no time
_STREAM = re.compile(r"(rtsp|rtsps|rtmp|http|https|udp|tcp|srt)://", re.IGNORECASE)
_OPEN_SECONDS, _READ_SECONDS = 10.0, 10.0  # a network stream that gives nothing for so long is lost
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


class Source:
    """Frames in order, and what is known of them before and after.

    Attributes:
        name: what results are called.
        location: the path, address or number that was given.
        fps: frames a second; the mean if they vary.
        duration: seconds; None if the source does not say.
        live: whether frames are lost if nobody takes them.
        damaged: packets that could not be decoded so far.
        dropped: frames that came faster than they were taken (live sources).
    """

    live = False

    def __init__(self, name: str, location: str, fps: float, duration: float | None) -> None:
        self.name, self.location = name, location
        self.fps, self.duration = fps, duration
        self.damaged = self.dropped = 0

    def __iter__(self) -> Iterator[Frame]:
        raise NotImplementedError

    @property
    def expected(self) -> int | None:
        """About how many frames there are; None if nothing is known."""
        return None if self.duration is None else max(round(self.duration * self.fps), 1)


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
        UserError: nothing is there, or no video is in it.
    """
    text = str(location)
    if not start < end:
        raise UserError(f"--start {start:g}, --end {end:g}: a start before the end expected")
    if text == "-":
        return FileSource(sys.stdin.buffer, "stdin", text, start, end)
    if text.isdecimal():
        return LiveSource(text, f"camera-{text}", fps)
    if _STREAM.match(text):
        return LiveSource(text, _name_of_address(text), fps)
    path = Path(text)
    check_regular(path)
    try:
        if path.is_dir():
            return PictureSource(FrameFolder(path), fps or DEFAULT_FPS, start, end)
        if path.suffix.lower() == ".zip" and path.exists():
            return PictureSource(FrameArchive(path), fps or DEFAULT_FPS, start, end)
        if path.exists():
            return FileSource(path, path.stem, text, start, end)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    raise UserError(
        f"{text}: there is no such file or folder; give a video file, a folder or zip file of "
        "pictures, a camera number, an address (rtsp://, http://) or - for standard input"
    )


class PictureSource(Source):
    """A folder or a zip file of pictures at a constant rate."""

    def __init__(self, video: Video, fps: float, start: float, end: float) -> None:
        if not len(video):
            raise UserError(f"{video.path}: no frames in it; {RULE}")
        super().__init__(video.name, str(video.path), fps, len(video) / fps)
        self._video, self._start, self._end = video, start, end

    def __iter__(self) -> Iterator[Frame]:
        for number in range(1, len(self._video) + 1):
            seconds = (number - 1) / self.fps
            if seconds >= self._end:
                return
            if seconds >= self._start:
                (image,) = self._video.read([number])
                yield Frame(number, seconds, image)


class ArraySource(Source):
    """Frames in memory, from any iterable: it is gone through once.

    Args:
        frames: (h, w, 3) uint8 RGB arrays, or pairs of seconds and such an array.
        fps: frames a second of arrays without times.
        name: what results are called.
    """

    def __init__(self, frames: Iterable[Any], fps: float | None, name: str = "frames") -> None:
        super().__init__(name, "(frames in memory)", fps or DEFAULT_FPS, None)
        self._frames = frames

    def __iter__(self) -> Iterator[Frame]:
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
            yield Frame(number, float(seconds), image)


class FileSource(Source):
    """A video file or a container on standard input, decoded once from its beginning.

    Times are the file's own. Damaged packets are skipped and counted; what lies before the first
    key frame is skipped. Interlaced video is deinterlaced, rotated video is turned, and if the size
    changes on the way, frames are scaled to the first one's.
    """

    def __init__(
        self, file: Path | BinaryIO, name: str, location: str, start: float, end: float
    ) -> None:
        self._file, self.start, self._end = file, start, end
        opened = _open(file, location)
        super().__init__(name, location, *_facts(*opened))
        self._opened = None if isinstance(file, Path) else opened  # standard input comes once
        if self._opened is None:
            opened[0].close()

    def __iter__(self) -> Iterator[Frame]:
        opened = self._opened or _open(self._file, self.location)
        with closing(opened[0]) as container:
            yield from self._frames(container, opened[1])

    def _frames(self, container: InputContainer, stream: VideoStream) -> Iterator[Frame]:
        origin = (container.start_time or 0) / AV_TIME_BASE
        clock = _Clock(origin, 1 / self.fps, container.format.name == "avi")
        number, size = 0, None
        if self.start > 5 and isinstance(self._file, Path):
            self._approach(container, origin)
        for decoded in _deinterlaced(self._decoded(container, stream), stream):
            seconds = clock.seconds(decoded)
            if seconds >= self._end:
                break
            number += 1
            if seconds < self.start:
                continue
            if size is None:
                size = decoded.width, decoded.height
            elif size != (decoded.width, decoded.height):
                decoded = decoded.reformat(*size)
            yield Frame(number, seconds, upright(decoded))
        if not number:
            raise UserError(f"{self.location}: no frame of this video can be decoded; damaged?")

    def _approach(self, container: InputContainer, origin: float) -> None:
        """Seek near the start, to a key frame before it."""
        try:
            container.seek(int((origin + self.start - 2) * AV_TIME_BASE))
        except av.FFmpegError:
            logger.info("%s: cannot seek; reading from the beginning", self.location)

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
        location: a camera number or an address.
        name: what results are called.
        fps: frames a second, if the source does not say.
        attempts: how often a lost connection is tried again before giving up.
        wait: seconds before the first of these attempts; then twice as long each time.
        buffered: frames that wait at most.
    """

    live = True

    def __init__(
        self,
        location: str,
        name: str,
        fps: float | None,
        attempts: int = 8,
        wait: float = 1.0,
        buffered: int = 8,
    ) -> None:
        self._attempts, self._wait = attempts, wait
        self._frames: deque[Frame] = deque(maxlen=buffered)
        self._ready = threading.Condition()
        self._ended: str | None = None
        self._stop = False
        self._container, stream = _open(location, location)
        rate = stream.guessed_rate or stream.average_rate
        super().__init__(name, location, float(rate or fps or DEFAULT_FPS), None)

    def __iter__(self) -> Iterator[Frame]:
        thread = threading.Thread(target=self._read, daemon=True)
        thread.start()
        try:
            while True:
                with self._ready:
                    while not self._frames and self._ended is None:
                        self._ready.wait(0.5)
                    if not self._frames:
                        break
                    frame = self._frames.popleft()
                yield frame
        finally:
            self._stop = True
            thread.join(timeout=_READ_SECONDS)
        if self._ended:
            logger.warning("%s: %s", self.location, self._ended)

    def _read(self) -> None:
        number, begun, ended = 0, time.monotonic(), ""
        failures = 0
        while not self._stop:
            try:
                stream = _video_stream(self._container, self.location)
                for decoded in _deinterlaced(self._container.decode(stream), stream):
                    if self._stop:
                        return
                    failures = 0
                    number += 1
                    frame = Frame(number, time.monotonic() - begun, upright(decoded))
                    with self._ready:
                        self.dropped += len(self._frames) == self._frames.maxlen
                        self._frames.append(frame)
                        self._ready.notify()
                reason = "it ended"
            except (av.FFmpegError, UserError) as error:
                reason = str(getattr(error, "strerror", None) or error)
            self._container.close()
            if not self._reconnect(reason, failures):
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
                self._container = _open(self.location, self.location)[0]
                return True
            except UserError as error:
                reason = str(error)
        return False


class _Clock:
    """Seconds of each frame from the start of the video, ascending whatever the file says."""

    def __init__(self, origin: float, interval: float, avi: bool) -> None:
        self._shift, self._interval, self._avi = -origin, interval, avi
        self._last = -math.inf

    def seconds(self, frame: VideoFrame) -> float:
        # An AVI has no time stamps; those that FFmpeg makes up count in the order of decoding.
        stamp = frame.dts if self._avi else frame.pts
        if self._avi and stamp is not None and self._last == -math.inf:
            self._shift = -float(stamp * (frame.time_base or 0))
        if stamp is None or frame.time_base is None:
            found = self._last + self._interval if self._last > -math.inf else 0.0
        else:
            found = float(stamp * frame.time_base) + self._shift
            if found <= self._last:  # the clock was set back, as where recordings are joined
                self._shift += self._last + self._interval - found
                found = self._last + self._interval
        self._last = max(found, 0.0) if self._last == -math.inf else found
        return self._last


def _open(file: Path | BinaryIO | str, location: str) -> tuple[InputContainer, VideoStream]:
    """The container and its video; a camera number opens that camera."""
    options, form, timeout = {}, None, None
    target: Any = str(file) if isinstance(file, Path) else file
    if isinstance(file, str) and file.isdecimal():
        target, form = f"/dev/video{file}", "v4l2"
        if not Path(target).exists():
            raise UserError(f"camera {file}: there is no {target}; is a camera connected?")
    elif isinstance(file, str):
        timeout = (_OPEN_SECONDS, _READ_SECONDS)
        options = {"rtsp_transport": "tcp"} if file.lower().startswith("rtsp") else {}
    try:
        container = av.open(
            target, format=form, options=options, timeout=timeout, metadata_errors="replace"
        )
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{location}: cannot be read as a video ({reason})") from error
    try:
        return container, _video_stream(container, location)
    except UserError:
        container.close()
        raise


def _video_stream(container: InputContainer, location: str) -> VideoStream:
    """The largest video that is no cover picture."""
    cover = av.stream.Disposition.attached_pic
    found = [
        stream
        for stream in container.streams.video
        if stream.codec_context is not None and not stream.disposition & cover
    ]
    if not found:
        raise UserError(
            f"{location}: no video in this file"
            + (", only sound or a cover picture" if len(container.streams) else "")
        )
    stream = max(found, key=lambda s: s.codec_context.width * s.codec_context.height)
    if stream.codec_context.width * stream.codec_context.height > MAX_PIXELS:
        raise UserError(
            f"{location}: its frames are {stream.codec_context.width} x "
            f"{stream.codec_context.height}, more than {MAX_PIXELS} pixels; scale the video down"
        )
    stream.thread_type = "AUTO"
    return stream


def _facts(container: InputContainer, stream: VideoStream) -> tuple[float, float | None]:
    """Frames a second and seconds, as the header says."""
    rate = stream.average_rate or stream.guessed_rate
    duration = None
    if stream.duration and stream.time_base:
        duration = float(stream.duration * stream.time_base)
    elif container.duration:
        duration = container.duration / AV_TIME_BASE
    fps = float(rate) if rate and 0 < rate <= 1000 else DEFAULT_FPS
    return fps, duration


def _deinterlaced(frames: Iterator[VideoFrame], stream: VideoStream) -> Iterator[VideoFrame]:
    """The frames, with those that are interlaced made whole; progressive ones stay untouched."""
    graph: Graph | None = None
    for frame in frames:
        if graph is None and not frame.interlaced_frame:
            yield frame
            continue
        if graph is None:
            graph = _yadif(frame, stream)
        graph.push(frame)
        yield from _pulled(graph)
    if graph is not None:
        graph.push(None)
        yield from _pulled(graph)


def _yadif(frame: VideoFrame, stream: VideoStream) -> Graph:
    graph = Graph()
    unit = frame.time_base or stream.time_base or Fraction(1, 25)
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=unit
    )
    deinterlace = graph.add("yadif", "mode=send_frame:deint=interlaced")
    sink = graph.add("buffersink")
    source.link_to(deinterlace)
    deinterlace.link_to(sink)
    graph.configure()
    return graph


def _pulled(graph: Graph) -> Iterator[VideoFrame]:
    while True:
        try:
            yield graph.vpull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return


def _name_of_address(address: str) -> str:
    """A file name for an address, without user, password and query."""
    host = re.sub(r"^\w+://(?:[^@/]*@)?", "", address).partition("?")[0]
    return re.sub(r"[^\w.-]+", "_", host).strip("_.") or "stream"
