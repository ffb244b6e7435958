"""The video with boxes, numbers and actions drawn in, as an mp4 that every browser plays."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.container import InputContainer, OutputContainer
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from stclip.data.frames import Picture
from stclip.data.video import AV_TIME_BASE
from stclip.footage.events import EventRule
from stclip.footage.records import Boxes, colour_of
from stclip.footage.scoring import Scored, Step
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
        path: of the mp4, where nothing stands until ``close``.
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
        self._path, self._part = path, path.with_name(f".{path.name}.part")
        options = {"movflags": "+faststart"}
        self._container = av.open(str(self._part), "w", format="mp4", options=options)
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

    def close(self, moments: Sequence[Scored] = ()) -> bool:
        """Write what waits, and finish the file; of a video without frames none is left.

        Args:
            moments: scores that came after the last frame.

        Returns:
            Whether there is a video.
        """
        for moment in moments:
            self._learn(moment)
        try:
            while self._queue:
                self._write(*self._queue.popleft())
            if self._stream is None:
                return False
            self._container.mux(self._stream.encode())
            if self._sound is not None:
                # For as long as the last frame shows.
                self._sound.copy(float(self._last * _UNIT + 1 / self._rate))
                self._sound.end()
            self._container.close()
            os.replace(self._part, self._path)
            return True
        finally:
            self.discard()

    def discard(self) -> None:
        """Leave nothing open, and nothing of a video that could not be finished."""
        if self._sound is not None:
            self._sound.close()
        with suppress(av.FFmpegError, ValueError):  # it is not complete
            self._container.close()
        self._part.unlink(missing_ok=True)

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
        shown = sorted(np.flatnonzero(persons.ids > 0), key=lambda row: int(persons.ids[row]))
        tracks = [int(persons.ids[row]) for row in shown]
        draw_persons(
            picture,
            persons.boxes[shown] * scale,
            [self._label(track, seconds) for track in tracks],
            [colour_of(track) for track in tracks],
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


def draw_persons(
    picture: Picture,
    boxes: NDArray[np.floating],
    texts: Sequence[str],
    colours: Sequence[tuple[int, int, int]],
) -> None:
    """Draw boxes and their labels into a picture (h, w, 3), in place.

    A label stands above its box, or below it, or inside at the top or bottom, wherever the picture
    has room and no label of a person before stands.
    """
    height, width = picture.shape[:2]
    thick = max(1, round(max(height, width) / 400))
    corners = [[round(float(value)) for value in box] for box in boxes]
    for (x1, y1, x2, y2), colour in zip(corners, colours, strict=True):
        cv2.rectangle(picture, (x1, y1), (x2, y2), colour, thick)
    taken: list[tuple[int, int, int, int]] = []
    for (x1, y1, _, y2), text, colour in zip(corners, texts, colours, strict=True):
        label = _text(text, max(12, round(max(height, width) / 55)), colour)
        tall, wide = label.shape[:2]
        left = max(0, min(x1, width - wide))
        tops = [top for top in (y1 - tall, y2, y1, y2 - tall) if 0 <= top <= height - tall]
        places = [(left, top, left + wide, top + tall) for top in tops or [max(y1, 0)]]
        place = next((p for p in places if not any(_overlap(p, q) for q in taken)), places[0])
        taken.append(place)
        part = picture[place[1] : place[3], place[0] : place[2]]
        part[:] = label[: part.shape[0], : part.shape[1]]


def _overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


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

    def __init__(self, container: InputContainer, target: OutputContainer, start: float) -> None:
        self._container, self._target, self._start = container, target, start
        stream = container.streams.audio[0]
        self._origin = Fraction(container.start_time or 0, AV_TIME_BASE)
        self._resampler: AudioResampler | None = None
        self._out: Any
        if stream.codec_context.name in _PLAIN_AUDIO:
            self._out = target.add_stream_from_template(stream)
        else:
            self._out = target.add_stream("aac", rate=stream.codec_context.sample_rate or 44100)
            self._resampler = AudioResampler("fltp", "stereo", self._out.rate)
        self._packets: Iterator[Any] | None = container.demux(stream)
        self._held: Any = None

    @classmethod
    def of(cls, source: Source, target: OutputContainer) -> _Sound | None:
        """The sound of a file on a disk, if it has some."""
        if not isinstance(source, FileSource):
            return None
        try:
            container = source.open_sound()
            if container is None:
                return None
            if container.streams.audio and container.streams.audio[0].codec_context is not None:
                return cls(container, target, source.start)
            container.close()
        except (av.FFmpegError, ValueError, OSError) as error:
            logger.warning("%s: its sound cannot be kept (%s)", source.location, error)
        return None

    def copy(self, seconds: float) -> None:
        """All sound up to a time."""
        while self._packets is not None:
            try:
                packet = self._held or next(self._packets, None)
                self._held = None
                if packet is None or packet.dts is None:  # the end
                    self._packets = None
                    return
                time = packet.dts * packet.time_base - self._origin
                if time > seconds:
                    self._held = packet
                    return
                if time >= self._start or not self._start:  # an encoder begins a little before 0
                    self._mux(packet)
            except av.FFmpegError as error:
                logger.warning("sound is left out from here on: %s", error)
                self._packets = None

    def end(self) -> None:
        """Write what the encoder holds."""
        if self._resampler is not None:
            with suppress(av.FFmpegError):  # nothing was put in
                self._encode(None)
            self._target.mux(self._out.encode(None))

    def close(self) -> None:
        """Close the file that it comes from; again does nothing."""
        self._container.close()

    def _mux(self, packet: Any) -> None:
        shift = round(self._origin / packet.time_base)
        if self._resampler is None:
            packet.pts = None if packet.pts is None else packet.pts - shift
            packet.dts -= shift
            packet.stream = self._out
            self._target.mux(packet)
            return
        for frame in packet.decode():
            frame.pts = None if frame.pts is None else frame.pts - shift
            self._encode(frame)

    def _encode(self, frame: AudioFrame | None) -> None:
        assert self._resampler is not None
        for part in self._resampler.resample(frame):
            self._target.mux(self._out.encode(part))
