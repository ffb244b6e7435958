"""Opening what holds a video, and its frames as they come out of a decoder."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av
from av.container import InputContainer
from av.filter import Graph
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from stclip.data.frames import Picture
from stclip.data.video import AV_TIME_BASE, MAX_PIXELS, upright
from stclip.errors import UserError

DEFAULT_FPS = 25.0  # of pictures, which carry no time
ADDRESS = re.compile(r"(rtsp|rtsps|rtmp|http|https|udp|tcp|srt)://", re.IGNORECASE)
OPEN_SECONDS, READ_SECONDS = 10.0, 10.0  # a network stream that gives nothing for so long is lost


class Clock:
    """Seconds of each frame from the start of the video, ascending whatever the file says."""

    def __init__(self, origin: float, interval: float, avi: bool) -> None:
        self._shift, self._interval, self._avi = -origin, interval, avi
        self._last = -math.inf

    def seconds(self, frame: VideoFrame) -> float:
        """The time of the next frame."""
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


def open_container(
    file: Path | BinaryIO | str, location: str, formats: Sequence[str] = ()
) -> tuple[InputContainer, VideoStream]:
    """The container and its video; a camera number opens that camera.

    Args:
        file: what to open.
        location: what errors call it.
        formats: of files from strangers, FFmpeg's names of those that are taken. Playlists and the
            like, which make FFmpeg open other files and addresses, are not to be among them.

    Raises:
        UserError: it cannot be opened, or has no video.
    """
    options, form, timeout = _restricted(formats), None, None
    target: Any = str(file) if isinstance(file, Path) else file
    if isinstance(file, str) and file.isdecimal():
        target, form = f"/dev/video{file}", "v4l2"
        if not Path(target).exists():
            raise UserError(f"camera {file}: there is no {target}; is a camera connected?")
    elif isinstance(file, str):
        timeout = (OPEN_SECONDS, READ_SECONDS)
        options |= {"rtsp_transport": "tcp"} if file.lower().startswith("rtsp") else {}
    try:
        container = av.open(
            target, format=form, options=options, timeout=timeout, metadata_errors="replace"
        )
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        if formats:  # which FFmpeg calls an invalid argument
            reason = f"{', '.join(formats)} are taken here; is the file whole?"
        raise UserError(f"{location}: cannot be read as a video ({reason})") from error
    try:
        return container, video_stream(container, location)
    except UserError:
        container.close()
        raise


def open_sound(file: Path, formats: Sequence[str] = ()) -> InputContainer:
    """The container of a file on a disk once more, whatever is in it; see ``open_container``."""
    return av.open(str(file), options=_restricted(formats), metadata_errors="replace")


def _restricted(formats: Sequence[str]) -> dict[str, str]:
    if not formats:
        return {}
    return {"format_whitelist": ",".join(formats), "protocol_whitelist": "file"}


def video_stream(container: InputContainer, location: str) -> VideoStream:
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


def facts_of(container: InputContainer, stream: VideoStream) -> tuple[float, float | None]:
    """Frames a second and seconds, as the header says."""
    rate = stream.average_rate or stream.guessed_rate
    duration = None
    if stream.duration and stream.time_base:
        duration = float(stream.duration * stream.time_base)
    elif container.duration:
        duration = container.duration / AV_TIME_BASE
    fps = float(rate) if rate and 0 < rate <= 1000 else DEFAULT_FPS
    return fps, duration


def picture_of(frame: VideoFrame, size: tuple[int, int]) -> Picture:
    """A decoded frame, scaled to the stored size of the first one."""
    return upright(frame if size == (frame.width, frame.height) else frame.reformat(*size))


def deinterlaced(frames: Iterator[VideoFrame], stream: VideoStream) -> Iterator[VideoFrame]:
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


def without_password(address: str) -> str:
    """An address as it may be shown and written; anything else unchanged."""
    return re.sub(r"^(\w+://)[^@/]*@", r"\1", address) if ADDRESS.match(address) else address
