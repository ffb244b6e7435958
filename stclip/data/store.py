"""Preprocessed frames and crops kept on disk, from one epoch and one run to the next.

An entry is a file of its own, ``<folder>/<2 hex digits>/<32 hex digits>``: a header, then the
pixels as they are. Its name is a hash of everything that the pixels follow from, so that an entry
never goes stale: the content of the picture or video file, the box that was cut out, the size, the
versions of what decodes and resizes. Nothing is ever changed in place: an entry is written under
another name and renamed, so that any number of processes may share a folder.
"""

import hashlib
import logging
import math
import os
import struct
import time
import uuid
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import av
import PIL
import torch
from torch import Tensor

from stclip.errors import UserError

logger = logging.getLogger(__name__)

# To be raised with every change of the pixels that the same file and box give.
_VERSION = 2
_METHOD = (
    f"stclip {_VERSION}, pillow {PIL.__version__}, av {av.__version__}, torch {torch.__version__}"
)
_MAGIC = b"stclip\x00\x01"
# Magic, checksum of all that follows it, side, width and height of the picture.
_HEADER = struct.Struct("<8sI3I")
_CHECKED_FROM = len(_MAGIC) + 4
_SUBFOLDERS = 256  # two hex digits
_UNFINISHED = ".tmp-"  # begins the name of what is being written
_ABANDONED = 3600.0  # seconds after which an unfinished file counts as abandoned

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Stored:
    """One entry.

    Attributes:
        pixels: (3, S, S) uint8.
        width: of the whole picture that it was made from, in pixels.
        height: of that picture.
    """

    pixels: Tensor
    width: int
    height: int


class PictureStore:
    """A folder of preprocessed frames and crops.

    An entry that is damaged counts as none, with a warning. Where an entry cannot be written (the
    disk is full, say), a warning says so once, and nothing more is kept.

    Args:
        folder: is made if it is not there.
        limit_gb: roughly how large it may become (10^9 bytes); then nothing more is added, and the
            log says so. 0: no limit.
        method: how the pixels are made; entries of one method are not seen with another.

    Raises:
        UserError: the folder cannot be made.
    """

    def __init__(self, folder: str | Path, limit_gb: float = 0.0, method: str = "pillow") -> None:
        self._folder = Path(folder)
        self._method = method
        self._limit = int(limit_gb * 1e9)
        self._full = False
        self._limit_met = False
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"DATALOADER.STORE {folder}: this folder cannot be made "
                f"({error.strerror or error}); name another one, or '' for none"
            ) from error

    def check_limit(self, size: int) -> None:
        """See that there is room for pictures of ``size`` pixels a side.

        Raises:
            UserError: each of the subfolders, which share the limit, has too little for one.
        """
        needed = _SUBFOLDERS * (_HEADER.size + 3 * size * size)
        if self._limit and self._limit < needed:
            raise UserError(
                f"DATALOADER.STORE_GB: {self._limit / 1e9:g} keeps nothing in {self._folder}, "
                f"whose {_SUBFOLDERS} subfolders share it; pictures of {size} pixels need "
                f"{math.ceil(needed / 1e6) / 1e3:g} at least, for one in each; or 0 for no limit"
            )

    def get(self, source: bytes, size: int, box: Box | None = None) -> Stored | None:
        """An entry, or None if there is none.

        Args:
            source: the content of the picture, see ``Video.fingerprints``.
            size: S, side in pixels.
            box: the part of it, in whole pixels; None for the whole picture.
        """
        path = self._path(source, size, box)
        try:
            data = bytearray(path.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            logger.warning("%s: cannot be read (%s) and is recreated", path, error.strerror)
            return None
        if len(data) == _HEADER.size + 3 * size * size:
            magic, checksum, side, width, height = _HEADER.unpack_from(data)
            if (magic, side) == (_MAGIC, size) and checksum == _checksum(data):
                pixels = torch.frombuffer(data, dtype=torch.uint8, offset=_HEADER.size)
                return Stored(pixels.view(3, size, size), width, height)
        logger.warning("%s: this entry of DATALOADER.STORE is damaged and is recreated", path)
        return None

    def put(self, source: bytes, entry: Stored, box: Box | None = None) -> None:
        """Keep an entry; arguments as those of ``get``."""
        if self._full:
            return
        size = entry.pixels.shape[-1]
        pixels = entry.pixels.contiguous().numpy().tobytes()
        data = bytearray(_HEADER.pack(_MAGIC, 0, size, entry.width, entry.height) + pixels)
        struct.pack_into("<I", data, len(_MAGIC), _checksum(data))
        path = self._path(source, size, box)
        temporary = path.with_name(f"{_UNFINISHED}{uuid.uuid4().hex}")
        try:
            path.parent.mkdir(exist_ok=True)
            if self._limit and not self._has_room(path.parent, len(data)):
                self._log_limit()
                return
            try:
                # Without fsync, which would take longer than decoding: the checksum shows
                # if a crash of the machine has kept the name and not the data.
                temporary.write_bytes(data)
                os.replace(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)
        except OSError as error:
            self._full = True
            logger.warning(
                "DATALOADER.STORE %s: cannot be written (%s); this process adds nothing more",
                self._folder,
                error.strerror or error,
            )  # fmt: skip

    def _has_room(self, folder: Path, more: int) -> bool:
        """Whether a subfolder is smaller than its share: names are hashes, so all fill alike.

        What a process is writing does not count; what a killed one has left unfinished is deleted.
        """
        used = 0
        with os.scandir(folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # another process has taken it away
                    found = entry.stat()
                    if not entry.name.startswith(_UNFINISHED):
                        used += found.st_size
                    elif time.time() - found.st_mtime > _ABANDONED:
                        os.unlink(entry.path)
        return used + more <= self._limit / _SUBFOLDERS

    def _log_limit(self) -> None:
        if not self._limit_met:
            self._limit_met = True
            logger.info(
                "DATALOADER.STORE %s: DATALOADER.STORE_GB %g is reached; what is not in it is made "
                "anew each time",
                self._folder,
                self._limit / 1e9,
            )  # fmt: skip

    def _path(self, source: bytes, size: int, box: Box | None) -> Path:
        what = repr((_METHOD, self._method, source, size, box)).encode()
        name = hashlib.blake2b(what, digest_size=16).hexdigest()
        return self._folder / name[:2] / name


def _checksum(data: bytearray) -> int:
    return zlib.crc32(memoryview(data)[_CHECKED_FROM:])
