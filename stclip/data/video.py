"""Opens frames: folders of pictures, archives of pictures; video_file.py: video files.

No other file does. Frames count from 1 everywhere, as the file names of frame folders do.
"""

from __future__ import annotations

import hashlib
import io
import os
import struct
import zlib
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import numpy as np
from PIL import Image, UnidentifiedImageError

from stclip.data.frame_names import FrameNames
from stclip.data.frames import FrameList, Picture, Video
from stclip.data.video_file import VideoFile
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

    def fingerprints(self, frames: Sequence[int]) -> list[bytes]:
        """See ``Video``; the picture files are read."""
        self._check(frames)
        found: list[bytes] = []
        try:
            for data in self._contents(frames):
                found.append(hashlib.sha256(data).digest())
        except _BROKEN as error:
            raise self._broken(frames[len(found)], error) from error
        return found

    def _check(self, frames: Iterable[int]) -> None:
        for number in frames:
            if number not in self._files:
                raise UserError(
                    f"{self.path}: frame {number} is not there; {len(self._files)} frames are, "
                    f"the last of them {len(self)}"
                )

    def _decode(self, frames: list[int]) -> list[Picture]:
        self._check(frames)
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
