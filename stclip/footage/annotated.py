"""The video with boxes, numbers and actions drawn in, as an mp4 that every browser plays."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av.audio.resampler import AudioResampler
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from stclip.data.frames import Picture
from stclip.footage.events import EventRule
from stclip.footage.pipeline import Step
from stclip.footage.records import Boxes, colour_of
from stclip.footage.scoring import Scored
from stclip.footage.source import FileSource, Source

logger = logging.getLogger(__name__)

LONGEST_SIDE = 1280  # larger videos are scaled down: what waits to be drawn is held in memory
_UNIT = Fraction(1, 90000)
_PLAIN_AUDIO = ("aac", "mp3")  # what browsers play in an mp4; everything else becomes aac


class AnnotatedVideo:
    """Draws and writes frames as they come, some later than they came.

    A score is known some frames after its moment, and is averaged with later ones; frames wait for
    that. Times of the frames are those of the source.

    Args:
        path: of the mp4; written there, so give a temporary name.
        source: where the frames come from; sound is copied if it is a file.
        actions: names that are shown, the first of the labels.
        rule: window and threshold of the votes.
        wait: seconds that a frame waits for its scores.
    """

    def __init__(
        self, path: Path, source: Source, actions: Sequence[str], rule: EventRule, wait: float
    ) -> None:
        self._actions, self._rule = list(actions), rule
        self._wait = wait + rule.window / 2
        self._queue: deque[tuple[float, Picture, Boxes, float]] = deque()
        self._scores: dict[int, deque[tuple[float, NDArray[np.float32]]]] = {}
        self._container = av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"})
        self._stream: Any = None
        self._rate = Fraction(source.fps).limit_denominator(1001)
        self._sound = _Sound.of(source, self._container)
        self._last = -1

    def add(self, step: Step) -> None:
        """Take a frame with its persons, and whatever scores are known by now."""
        for moment in step.scored:
            self._learn(moment)
        height, width = step.frame.image.shape[:2]
        scale = min(1.0, LONGEST_SIDE / max(height, width))
        image: Picture = step.frame.image
        if scale < 1:
            size = round(width * scale), round(height * scale)
            image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
        self._queue.append((step.frame.seconds, image, step.persons, scale))
        while self._queue and self._queue[0][0] + self._wait <= step.frame.seconds:
            self._write(*self._queue.popleft())

    def learn(self, moments: Sequence[Scored]) -> None:
        """Scores that came after the last frame."""
        for moment in moments:
            self._learn(moment)

    def close(self) -> None:
        """Write what waits, and finish the file."""
        while self._queue:
            self._write(*self._queue.popleft())
        if self._stream is not None:
            self._container.mux(self._stream.encode())
        if self._sound is not None:
            self._sound.copy(float("inf"))
        self._container.close()

    def _learn(self, moment: Scored) -> None:
        for number, scores in zip(moment.ids.tolist(), moment.scores, strict=True):
            self._scores.setdefault(number, deque()).append((moment.seconds, scores))

    def _label(self, track: int, seconds: float) -> str:
        """Number, and the best action with its voted score where that is enough for an event."""
        known = self._scores.get(track)
        if not known:
            return str(track)
        half = self._rule.window / 2
        while len(known) > 1 and known[0][0] < seconds - 2 * half - 10:
            known.popleft()
        near = [scores for time, scores in known if abs(time - seconds) <= half]
        if not near:
            return str(track)
        voted = np.mean(near, axis=0)[: len(self._actions)]
        best = int(voted.argmax())
        if voted[best] < self._rule.threshold * self._rule.keep:
            return str(track)
        return f"{track} {self._actions[best]} {voted[best]:.2f}"

    def _write(self, seconds: float, image: Picture, persons: Boxes, scale: float) -> None:
        picture = np.ascontiguousarray(image).copy()
        for row in np.flatnonzero(persons.ids > 0):
            track = int(persons.ids[row])
            draw_person(
                picture, persons.boxes[row] * scale, self._label(track, seconds), colour_of(track)
            )
        height, width = picture.shape[0] // 2 * 2, picture.shape[1] // 2 * 2
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture[:height, :width]), "rgb24")
        frame.pts = max(round(seconds / _UNIT), self._last + 1)
        frame.time_base = _UNIT
        self._last = frame.pts
        if self._stream is None:
            self._stream = self._container.add_stream(
                "libx264", rate=self._rate, options={"crf": "23", "preset": "veryfast"}
            )
            self._stream.width, self._stream.height = width, height
            self._stream.pix_fmt = "yuv420p"
            self._stream.codec_context.time_base = _UNIT
        self._container.mux(self._stream.encode(frame))
        if self._sound is not None:
            self._sound.copy(seconds)


def draw_person(
    picture: Picture, box: NDArray[np.floating], text: str, colour: tuple[int, int, int]
) -> None:
    """Draw a box and its label into a picture (h, w, 3), in place."""
    height, width = picture.shape[:2]
    thick = max(1, round(max(height, width) / 400))
    x1, y1, x2, y2 = (round(float(value)) for value in box)
    cv2.rectangle(picture, (x1, y1), (x2, y2), colour, thick)
    label = _text(text, max(12, round(max(height, width) / 55)), colour)
    top = y1 - label.shape[0] if y1 >= label.shape[0] else y1
    left = max(0, min(x1, width - label.shape[1]))
    part = picture[max(top, 0) : top + label.shape[0], left : left + label.shape[1]]
    part[:] = label[: part.shape[0], : part.shape[1]]


@lru_cache(maxsize=512)
def _text(text: str, size: int, colour: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Text on a coloured ground, (h, w, 3)."""
    font = ImageFont.load_default(size)
    left, _, right, _ = font.getbbox(text)
    picture = Image.new("RGB", (int(right - left) + size // 2, int(size * 1.4)), colour)
    dark = (0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]) < 140
    ImageDraw.Draw(picture).text(
        (size // 4 - left, size * 0.1), text, fill=(255, 255, 255) if dark else (0, 0, 0), font=font
    )
    return np.array(picture)


class _Sound:
    """Copies the sound of a file, up to the time that the pictures have reached."""

    def __init__(self, container: Any, stream: Any, target: Any) -> None:
        self._container, self._stream, self._target = container, stream, target
        origin = (container.start_time or 0) / 1_000_000
        self._origin = origin
        self._copies = stream.codec_context.name in _PLAIN_AUDIO
        if self._copies:
            self._out = target.add_stream_from_template(stream)
        else:
            self._out = target.add_stream("aac", rate=stream.codec_context.sample_rate or 44100)
            self._resampler = AudioResampler("fltp", "stereo", self._out.rate)
        self._packets = container.demux(stream)
        self._held: Any = None
        self._ended = False

    @classmethod
    def of(cls, source: Source, target: Any) -> _Sound | None:
        """The sound of a file that has some."""
        path = Path(source.location)
        if not isinstance(source, FileSource) or not path.is_file() or source.start > 0:
            return None
        try:
            container = av.open(str(path), metadata_errors="replace")
            if container.streams.audio and container.streams.audio[0].codec_context is not None:
                return cls(container, container.streams.audio[0], target)
            container.close()
        except (av.FFmpegError, ValueError, OSError) as error:
            logger.warning("%s: its sound cannot be kept (%s)", path, error)
        return None

    def copy(self, seconds: float) -> None:
        """All sound up to a time; infinity for all, and the end."""
        while not self._ended:
            try:
                packet = self._held or next(self._packets, None)
                self._held = None
                if packet is None or packet.dts is None:
                    self._end()
                    return
                if float(packet.dts * packet.time_base) - self._origin > seconds:
                    self._held = packet
                    return
                self._mux(packet)
            except av.FFmpegError as error:
                logger.warning("sound is left out from here on: %s", error)
                self._ended = True
        if self._ended:
            self._container.close()

    def _mux(self, packet: Any) -> None:
        if self._copies:
            shift = round(self._origin / packet.time_base)
            packet.pts = None if packet.pts is None else packet.pts - shift
            packet.dts -= shift
            packet.stream = self._out
            self._target.mux(packet)
            return
        for frame in packet.decode():
            for part in self._resampler.resample(frame):
                part.pts = None
                self._target.mux(self._out.encode(part))

    def _end(self) -> None:
        self._ended = True
        if not self._copies:
            for part in self._resampler.resample(None):
                part.pts = None
                self._target.mux(self._out.encode(part))
            self._target.mux(self._out.encode(None))
        self._container.close()
