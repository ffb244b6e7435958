"""Frames and crops as the image encoder takes them, computed as rarely as possible."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from stclip.data.frames import Picture, Video
from stclip.data.store import PictureStore, Stored
from stclip.data.transforms import Prepare, as_decoded, crop_box, preprocess, rounded
from stclip.errors import UserError


@dataclass
class Frame:
    """A preprocessed frame.

    Attributes:
        pixels: (3, S, S) uint8, or (height, width, 3) where the device resizes.
        width: of the frame as it was decoded, in pixels.
        height: of the same.
    """

    pixels: Tensor
    width: int
    height: int
    _source: bytes | None  # what the store knows it by
    _picture: Picture | None  # None if it has not been decoded


class FrameReader:
    """Reads frames and crops of one video after the other.

    Frames that ``keep`` keeps or that the store holds are not decoded again.

    Args:
        store: where to look first and to put what was made; None for no such place.
            Its method must distinguish one ``prepare`` from another.
        prepare: makes (3, S, S) uint8 of a picture and S, as ``preprocess`` does. Must be
            picklable. With ``as_decoded`` frames are not resized, and crops are not made.
    """

    def __init__(self, store: PictureStore | None = None, prepare: Prepare = preprocess) -> None:
        self._store = store
        self._prepare = prepare
        self._video: Video | None = None
        self.resizes = prepare is not as_decoded
        self._size = 0
        self._shape: tuple[int, int] | None = None  # width and height of the video's frames
        self._reached = 0  # the last frame of the video that was decoded
        self._frames: dict[int, Frame] = {}

    def frames(self, video: Video, numbers: Sequence[int], size: int) -> dict[int, Frame]:
        """Preprocessed frames by number.

        Args:
            video: where they are; it stays open until ``keep`` closes it.
            numbers: distinct and 1-based.
            size: S, side in pixels.

        Raises:
            UserError: a frame cannot be read.
        """
        if video is not self._video or size != self._size:
            self.keep(())
            video.keep_open(True)
            self._video, self._size, self._reached = video, size, 0
            self._shape = None
        lacking = [number for number in numbers if number not in self._frames]
        sources = video.fingerprints(lacking) if self._store is not None else None
        source_of = dict(zip(lacking, sources, strict=True)) if sources is not None else {}
        for number, source in source_of.items():
            assert self._store is not None
            entry = self._store.get(source, size)
            if entry is not None:
                self._frames[number] = Frame(entry.pixels, entry.width, entry.height, source, None)
        absent = {number for number in lacking if number not in self._frames}
        # In a file read in sequence, frames that are stored are decoded too: seeking back later,
        # for a person who is not stored, would cost more.
        further = self._reached if absent and video.in_sequence else max(numbers, default=0)
        wanted = [number for number in numbers if number in absent or number > further]
        for number, picture in self._decode(wanted):
            if number not in absent:
                self._frames[number]._picture = picture
                continue
            height, width = picture.shape[:2]
            frame = Frame(
                self._prepare(picture, size),
                width,
                height,
                source_of.get(number),
                picture,
            )
            self._put(frame, frame.pixels)
            self._frames[number] = frame
        self._check_size(video, numbers)
        return {number: self._frames[number] for number in numbers}

    def _check_size(self, video: Video, numbers: Sequence[int]) -> None:
        """Boxes are meant for one size; those of other frames would be lost or misplaced."""
        for number in numbers:
            frame = self._frames[number]
            if self._shape is None:  # to ask a file for its size would decode one more picture
                own = (frame.width, frame.height)
                self._shape = own if video.in_sequence else video.size
            if (frame.width, frame.height) != self._shape:
                width, height = self._shape
                raise UserError(
                    f"{video.path}: frame {number} has {frame.width} x {frame.height} pixels, "
                    f"others {width} x {height}; boxes are meant for one size: write or extract "
                    "the video again"
                )

    def crops(self, wanted: Sequence[tuple[int, NDArray[np.floating]]]) -> list[Tensor]:
        """Persons cut out and preprocessed, (3, S, S) uint8 each.

        Args:
            wanted: the number of a frame that was just read, and a box (4,) in it, xyxy in pixels.

        Raises:
            UserError: a frame cannot be read.
        """
        found: dict[int, Tensor] = {}
        for row, (number, box) in enumerate(wanted):
            source = self._frames[number]._source
            if self._store is not None and source is not None:
                entry = self._store.get(source, self._size, rounded(box))
                if entry is not None:
                    found[row] = entry.pixels
        numbers = {number for row, (number, _) in enumerate(wanted) if row not in found}
        lacking = sorted(n for n in numbers if self._frames[n]._picture is None)
        for number, picture in self._decode(lacking):
            self._frames[number]._picture = picture
        for row, (number, box) in enumerate(wanted):
            if row not in found:
                frame = self._frames[number]
                assert frame._picture is not None
                found[row] = self._prepare(crop_box(frame._picture, box), self._size)
                self._put(frame, found[row], box)
        return [found[row] for row in range(len(wanted))]

    def keep(self, numbers: Collection[int]) -> None:
        """Forget all frames but those that will be read next; with none, close the video too."""
        self._frames = {n: frame for n, frame in self._frames.items() if n in numbers}
        if not numbers and self._video is not None:
            self._video.keep_open(False)
            self._video = None

    def _decode(self, numbers: Sequence[int]) -> Iterator[tuple[int, Picture]]:
        """Some frames of the video, with their numbers."""
        assert self._video is not None or not numbers, "frames() first"
        if self._video is not None and numbers:
            self._reached = max(self._reached, *numbers)
            yield from zip(numbers, self._video.read(numbers), strict=True)

    def _put(self, frame: Frame, pixels: Tensor, box: NDArray[np.floating] | None = None) -> None:
        if self._store is not None and frame._source is not None:
            entry = Stored(pixels, frame.width, frame.height)
            self._store.put(frame._source, entry, None if box is None else rounded(box))
