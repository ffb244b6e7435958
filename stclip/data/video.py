"""Folders and archives of pictures, and the opening of whatever kind of video lies at a path.

picture_files.py decodes the pictures, video_file.py video files; no other file does. Frames count
from 1 everywhere, as the file names of frame folders do.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from stclip.data.frame_names import RULE, FrameNames
from stclip.data.frames import FrameList, Picture, Video
from stclip.data.picture_files import decode_picture, largest_file, picture_size
from stclip.data.video_file import VideoFile
from stclip.errors import UserError
from stclip.files import check_regular

__all__ = [
    "FrameArchive",
    "FrameFolder",
    "FrameList",
    "Picture",
    "Video",
    "VideoFile",
    "open_video",
]

# What zipfile raises for archives that are damaged, encrypted or compressed in ways it lacks.
_BAD_ZIP = (OSError, ValueError, EOFError, RuntimeError, zlib.error, BadZipFile)


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

    def frame_at(self, seconds: float, fps: float) -> int:
        return round(seconds * fps) + 1

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


def open_video(path: str | Path, name: str | None = None) -> Video:
    """The video that lies at ``path``: a folder of pictures, a zip file of them, or a video file.

    Raises:
        UserError: nothing is there, or it cannot be read.
    """
    path = Path(path)
    check_regular(path)
    try:
        if path.is_dir():
            return FrameFolder(path, name)
        if path.exists():
            return (FrameArchive if path.suffix.lower() == ".zip" else VideoFile)(path, name)
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    raise UserError(f"{path}: neither a folder of frames nor a video file is there")
