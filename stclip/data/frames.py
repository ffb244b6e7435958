"""Videos whose frames are pictures: what a video is, and folders, archives and lists of pictures.

Frames count from 1 everywhere, as the file names of frame folders do. This file and video.py (video
files) are the only ones that decode anything.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import struct
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import ClassVar
from zipfile import BadZipFile, ZipFile

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION, TiffImageFile

from stclip.errors import UserError
from stclip.files import check_regular

Picture = NDArray[np.uint8]
# The default of DATALOADER.MAX_PIXELS.
MAX_PIXELS = 2**26

# 00001.png, frame0001.tif, img-0001.jpg, or anything_000001.jpg as ffmpeg users name them. Hidden
# files are skipped.
_FRAME_NAME = re.compile(
    r"(?!\.)(?:.*[^0-9])?([0-9]+)\.(?:png|jpe?g|bmp|webp|tiff?)", re.IGNORECASE
)
_DIGITS = 9  # of a frame's number, leading zeros aside
RULE = "frames are pictures whose names end in their number, from 1 on (00001.png)"

# No format of which Pillow runs another program (EPS: Ghostscript).
FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF")
# What Pillow raises for files that are cut short, damaged or not pictures at all.
BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, OverflowError,
          TypeError, KeyError, IndexError, MemoryError)  # fmt: skip
_ORIENTATION = 0x0112  # of EXIF
_SIDEWAYS = (5, 6, 7, 8)
# Modes that Pillow's convert turns into RGB as they are meant; alpha is left out.
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
# What zipfile raises for archives that are damaged, encrypted or compressed in ways it lacks.
_BAD_ZIP = (OSError, ValueError, EOFError, RuntimeError, zlib.error, BadZipFile)


class Video(ABC):
    """The frames of one video, read by number.

    Attributes:
        path: the folder or file.
        name: how messages and results call it; the file's name without its ending by default.
        in_sequence: whether frames are decoded one after the other, so that going back costs more
            than going on.
        max_pixels: larger pictures are refused before they are decoded.
    """

    in_sequence: ClassVar[bool] = False
    max_pixels: int = MAX_PIXELS

    def __init__(self, path: str | Path, name: str | None) -> None:
        self.path = Path(path)
        self.name = self.path.stem if name is None else name

    @abstractmethod
    def __len__(self) -> int:
        """The number of frames."""

    @property
    @abstractmethod
    def size(self) -> tuple[int, int]:
        """Width and height in pixels as shown, for which one picture is decoded at most."""

    def missing(self, expected: int = 0) -> list[int]:
        """Frames up to the last, or the expected one, that are not there; none is decoded."""
        return list(range(len(self) + 1, expected + 1))

    def frame_at(self, seconds: float, fps: float) -> int:
        """The frame shown so long after the first one; past the end if the time is.

        Args:
            seconds: time since the first frame.
            fps: frames a second, used where the frames carry no time themselves.
        """
        return round(seconds * fps) + 1

    def picture_seconds(self, fps: float) -> NDArray[np.float64]:
        """When each picture that is stored is shown, in seconds since the first one.

        Pictures are what a decoder yields, in its order. They are the frames, but of a file that
        repeats some.

        Args:
            fps: as in ``frame_at``.
        """
        return np.arange(len(self)) / fps

    @property
    def delay(self) -> float:
        """Seconds from where players begin to count to the first frame."""
        return 0.0

    def seconds_at(self, frame: int, fps: float) -> float:
        """The time from the first frame to another one, which is there.

        Args:
            frame: its 1-based number.
            fps: frames a second, used where the frames carry no time themselves.
        """
        return (frame - 1) / fps

    def irregularities(self) -> list[str]:
        """What is unusual about when the frames are shown, a text each, without decoding them."""
        return []

    def read(self, frames: Sequence[int]) -> list[Picture]:
        """Decode frames; each distinct one is decoded once.

        Args:
            frames: 1-based numbers, in any order, with or without repetition.

        Returns:
            For each of ``frames`` its picture, (h, w, 3) uint8 RGB; do not write to it.

        Raises:
            UserError: a frame is not there or cannot be decoded; the file is named.
        """
        distinct = sorted(set(frames))
        pictures = dict(zip(distinct, self._decode(distinct), strict=True))
        return [pictures[frame] for frame in frames]

    def fingerprints(self, frames: Sequence[int]) -> list[bytes] | None:
        """For each frame bytes that are equal only if what is stored of it is equal.

        They follow from the files' content alone, not from names or dates. None if there is no file
        to read anew.

        Args:
            frames: 1-based numbers.

        Raises:
            UserError: a frame is not there or cannot be read.
        """
        return None

    def keep_open(self, keep: bool) -> None:  # noqa: B027 (most kinds have nothing to keep)
        """Whether the file stays open from one ``read`` to the next; False closes it.

        While it does, ascending reads decode each frame of a video file once. Pictures in files of
        their own are opened one by one whatever is said here.
        """

    @abstractmethod
    def _decode(self, frames: list[int]) -> list[Picture]:
        """Pictures of distinct ascending frame numbers."""


class FrameList(Video):
    """Frames that a program has already.

    Args:
        frames: (h, w, 3) uint8 RGB each, all of one size.
        name: how messages call them.

    Raises:
        UserError: no frame, or frames that are not such arrays.
    """

    def __init__(self, frames: Sequence[Picture], name: str = "frames") -> None:
        super().__init__(name, name)
        if len(frames) == 0:
            raise UserError(f"{name}: no frame; give at least one")
        for index, frame in enumerate(frames):
            shape, kind = getattr(frame, "shape", None), getattr(frame, "dtype", type(frame))
            rgb = shape is not None and len(shape) == 3 and shape[2] == 3 and 0 not in shape
            if not rgb or kind != np.uint8 or shape != frames[0].shape:
                raise UserError(
                    f"{name}[{index}]: (height, width, 3) of uint8, all of one size, was expected; "
                    f"found shape {shape} of {kind}"
                )
        self._frames = frames

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        height, width = self._frames[0].shape[:2]
        return width, height

    def _decode(self, frames: list[int]) -> list[Picture]:
        for number in frames:
            if not 1 <= number <= len(self):
                raise UserError(f"{self.name}: frame {number} is not there; {len(self)} are")
        return [self._frames[number - 1] for number in frames]


class FrameNames:
    """The picture file of every frame of a video.

    A dataset can have ten million such files (AVA at 30 frames a second), so names that follow from
    the number are not kept.

    Args:
        path: the folder or archive, for messages.
        files: names in it; those that are no frames do not matter.

    Raises:
        UserError: a frame 0, or two pictures of one number.
    """

    def __init__(self, path: Path, files: Iterable[str]) -> None:
        found: dict[int, str] = {}
        for file in files:
            match = _FRAME_NAME.fullmatch(PurePosixPath(file).name)
            if match is None:
                continue
            if len(match[1].lstrip("0")) > _DIGITS:
                raise UserError(f"{path}: {file:.100}: at most {_DIGITS} digits; {RULE}")
            number = int(match[1])
            if number == 0:
                raise UserError(f"{path}: {file}: frames count from 1; rename the files")
            if number in found:
                raise UserError(
                    f"{path}: {found[number]} and {file} are both frame {number}; keep one of them"
                )
            found[number] = file
        self._numbers: NDArray[np.int64] = np.array(sorted(found), dtype=np.int64)
        self._before = self._after = ""
        self._digits = 0
        if found:
            name = found[int(self._numbers[0])]
            self._before, digits, self._after = re.split(r"([0-9]+)(?=\.\w+$)", name)
            self._digits = len(digits)
        self._others = {n: file for n, file in found.items() if file != self._regular(n)}
        # The lowest and the highest number; 0 if there is no frame.
        self.first, self.last = min(found, default=0), max(found, default=0)

    def __len__(self) -> int:
        """How many frames there are."""
        return len(self._numbers)

    def __contains__(self, number: int) -> bool:
        """Whether a frame is there."""
        place = int(np.searchsorted(self._numbers, number))
        return place < len(self._numbers) and int(self._numbers[place]) == number

    def __getitem__(self, number: int) -> str:
        """The file of a frame that is there."""
        return self._others.get(number) or self._regular(number)

    def missing(self, last: int) -> list[int]:
        """The numbers from 1 to ``last`` that are not there."""
        if last == len(self) == self.last:  # distinct and from 1: none can be missing
            return []
        there = set(self._numbers.tolist())
        return [number for number in range(1, last + 1) if number not in there]

    def _regular(self, number: int) -> str:
        return f"{self._before}{number:0{self._digits}d}{self._after}"


class _Pictures(Video):
    """A video whose frames are picture files, found by the number that ends their name."""

    def __init__(self, path: str | Path, name: str | None, files: Iterable[str]) -> None:
        super().__init__(path, name)
        self._files = FrameNames(self.path, files)
        self._size: tuple[int, int] | None = None

    def __len__(self) -> int:
        return self._files.last

    @property
    def size(self) -> tuple[int, int]:
        first = self._files.first
        if not first:
            raise UserError(f"{self.path}: no frame in it; {RULE}")
        if self._size is None:
            (data,) = self._contents([first])
            self._size = picture_size(data, self._file(first), self.max_pixels)
        return self._size

    def missing(self, expected: int = 0) -> list[int]:
        return self._files.missing(max(len(self), expected))

    def fingerprints(self, frames: Sequence[int]) -> list[bytes]:
        """See ``Video``; the picture files are read."""
        self._check(frames)
        return [hashlib.sha256(data).digest() for data in self._contents(frames)]

    def _check(self, frames: Iterable[int]) -> None:
        for number in frames:
            if number not in self._files:
                raise UserError(
                    f"{self.path}: frame {number} is not there; {len(self._files)} frames are, "
                    f"from {self._files.first} to {len(self)}; {RULE}"
                )

    def _decode(self, frames: list[int]) -> list[Picture]:
        self._check(frames)
        return [
            decode_picture(data, self._file(number), self.max_pixels)
            for number, data in zip(frames, self._contents(frames), strict=True)
        ]

    @abstractmethod
    def _contents(self, frames: Iterable[int]) -> Iterator[bytes]:
        """The bytes of the picture files of some frames that are there."""

    def _file(self, number: int) -> str:
        """The file of a frame, for messages."""
        return str(self.path / self._files[number])


class FrameFolder(_Pictures):
    """A folder of pictures named by frame number (``00001.png``, ``name_000001.jpg``).

    Raises:
        UserError: no such folder, a frame 0, or two pictures of one number.
    """

    def __init__(self, path: str | Path, name: str | None = None) -> None:
        try:
            files = os.listdir(path)
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            raise UserError(f"{path}: cannot be read: {error}") from error
        super().__init__(path, name, files)

    def _contents(self, frames: Iterable[int]) -> Iterator[bytes]:
        for number in frames:
            file = self.path / self._files[number]
            check_regular(file)
            try:
                _check_bytes(str(file), file.stat().st_size, self.max_pixels)
                data = file.read_bytes()
            except OSError as error:
                raise UserError(f"{file}: cannot be read: {error.strerror or error}") from error
            yield data


class FrameArchive(_Pictures):
    """A zip file of pictures named by frame number; folders inside it do not matter.

    Raises:
        UserError: no such file, not a zip file, a frame 0, or two pictures of one number.
    """

    def __init__(self, path: str | Path, name: str | None = None) -> None:
        check_regular(path)
        try:
            with ZipFile(path) as archive:
                files = archive.namelist()
        except _BAD_ZIP as error:
            raise UserError(f"{path}: not a readable zip file: {error}") from error
        super().__init__(path, name, files)

    def _contents(self, frames: Iterable[int]) -> Iterator[bytes]:
        # Opened for each read: an open archive must not be shared by processes.
        where = str(self.path)
        try:
            with ZipFile(self.path) as archive:
                for number in frames:
                    where = self._file(number)
                    member = archive.getinfo(self._files[number])
                    # zipfile itself reads no more than this size, whatever lies there.
                    _check_bytes(where, member.file_size, self.max_pixels)
                    yield archive.read(member)
        except UserError:
            raise
        except _BAD_ZIP as error:
            raise UserError(
                f"{where}: cannot be read from the archive ({error}); write the archive again, "
                "without encryption"
            ) from error


def _check_bytes(where: str, size: int, max_pixels: int) -> None:
    most = largest_file(max_pixels)
    if size > most:
        raise UserError(
            f"{where}: {size} bytes; a picture of at most {max_pixels} pixels "
            f"(DATALOADER.MAX_PIXELS) has at most {most}"
        )


def largest_file(max_pixels: int) -> int:
    """The bytes of the largest file that so many pixels need: 16 bits of four channels each."""
    return 8 * max_pixels + 2**20


def picture_size(data: bytes, where: str, max_pixels: int) -> tuple[int, int]:
    """Width and height as shown, from the header alone.

    Args:
        data: the file's content.
        where: the file, for messages.
        max_pixels: DATALOADER.MAX_PIXELS.

    Raises:
        UserError: it is not a picture of one of the formats, is damaged or too large.
    """
    try:
        picture = _open(data, where, max_pixels)
        width, height = picture.size
        turned = picture.getexif().get(_ORIENTATION) in _SIDEWAYS
    except BROKEN as error:
        raise _broken(where, error) from error
    return (height, width) if turned else (width, height)


def decode_picture(data: bytes, where: str, max_pixels: int) -> Picture:
    """Decode a picture file, turned as its EXIF orientation says.

    Of 16-bit gray values the upper 8 bits are taken, as Pillow does for 16-bit colours.

    Args:
        data: the file's content.
        where: the file, for messages.
        max_pixels: DATALOADER.MAX_PIXELS.

    Returns:
        (h, w, 3) uint8 RGB.

    Raises:
        UserError: as ``picture_size``; or the values have no certain meaning (floats, 32 bits), or
            there are several pictures in the file.
    """
    try:
        picture = _open(data, where, max_pixels)
        count = getattr(picture, "n_frames", 1)
        if picture.format != "MPO" and count > 1:
            raise UserError(f"{where}: {count} pictures in one file; one a file was expected")
        if picture.mode in ("I", "I;16", "I;16B", "I;16L") and _is_16_bit(picture):
            values = np.asarray(ImageOps.exif_transpose(picture))
            gray = (values.astype(np.int64) >> 8).astype(np.uint8)
            return np.repeat(gray[:, :, None], 3, axis=2)
        if picture.mode not in _MODES:
            raise UserError(
                f"{where}: pixel values of kind {picture.mode} (Pillow's name), whose range is not "
                "known; write it with 8 bits a channel"
            )
        return np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
    except BROKEN as error:
        raise _broken(where, error) from error


def _open(data: bytes, where: str, max_pixels: int) -> Image.Image:
    try:
        picture = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise _too_large(where, str(error), max_pixels) from error
    width, height = picture.size
    if width * height > max_pixels:
        raise _too_large(where, f"{width} x {height} pixels", max_pixels)
    return picture


def _is_16_bit(picture: Image.Image) -> bool:
    """Whether gray values are 0 (black) to 65535 (white)."""
    if isinstance(picture, TiffImageFile):
        tags = picture.tag_v2
        return tags.get(BITSPERSAMPLE) == (16,) and tags.get(PHOTOMETRIC_INTERPRETATION) == 1
    return picture.format == "PNG"  # mode I of older Pillows


def _too_large(where: str, found: str, max_pixels: int) -> UserError:
    return UserError(
        f"{where}: {found}; at most {max_pixels} pixels were expected "
        "(DATALOADER.MAX_PIXELS); make it smaller or raise the key"
    )


def _broken(where: str, error: BaseException) -> UserError:
    if isinstance(error, UserError):
        return error
    detail = (
        f"not a picture of the formats {', '.join(FORMATS)}"
        if isinstance(error, UnidentifiedImageError)
        else str(error) or type(error).__name__
    )
    return UserError(
        f"{where}: this picture cannot be decoded ({detail}); is the file cut short? Extract the "
        "frame again"
    )
