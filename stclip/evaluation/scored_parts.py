"""What a test has scored so far, on disk: no more than the last seconds of it stay in memory, and a
test that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import time
import uuid
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stclip.errors import UserError, reporting
from stclip.evaluation.predictions import read_predictions, write_predictions
from stclip.files import atomic_path, read_json, retire, write_json
from stclip.structures import Detections, FrameKey

logger = logging.getLogger(__name__)

_RUN = "run.json"
# A part is written once it has this many seconds behind it, or this many keyframes.
_SECONDS, _KEYFRAMES = 10.0, 4096


def fingerprint(words: Iterable[str], arrays: Iterable[NDArray[np.generic]]) -> str:
    """SHA-256 of everything that scores follow from: only equal tests go on from each other."""
    digest = hashlib.sha256()
    for word in words:
        digest.update(word.encode() + b"\0")
    for array in arrays:
        digest.update(f"{array.dtype.str} {array.shape}\0".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


class ScoredParts:
    """A folder of parts, each the detections of some whole batches. Several processes may share it.

    Args:
        folder: of this test alone.
        vocabulary: C class names.

    Attributes:
        names: the parts that this process found, or wrote itself.
    """

    def __init__(self, folder: str | Path, vocabulary: Sequence[str]) -> None:
        self.folder = Path(folder)
        self._vocabulary = tuple(vocabulary)
        self.names: list[str] = []
        self._waiting: list[Detections] = []
        self._since = time.monotonic()

    def prepare(self, print_: str) -> None:
        """Make the folder, or leave it if it is of an equal test; one of another test is renamed.

        One process does this before any calls ``done``.

        Args:
            print_: the ``fingerprint`` of this test.

        Raises:
            UserError: the folder cannot be written.
        """
        path = self.folder / _RUN
        if path.exists():
            found = None
            with reporting(lambda error: logger.warning("%s", error)):
                found = read_json(path)
            if isinstance(found, dict) and found.get("fingerprint") == print_:
                return
            logger.warning("%s: of a test with other settings, weights or data", self.folder)
        retire(self.folder)
        write_json(path, {"fingerprint": print_})

    def done(self, keyframes: Collection[FrameKey]) -> set[FrameKey]:
        """The keyframes that are in the parts; a damaged part counts as none and is deleted.

        One process does this, before any adds a part.

        Args:
            keyframes: those of this test; others, or one twice, can only come from damage.
        """
        left = set(keyframes)
        self.names = []
        for path in sorted(self.folder.glob("part-*.npz")):
            try:
                found, labels = read_predictions(path)
                keys = set(found.keys)
                if labels != self._vocabulary or len(keys) < len(found.keys) or not keys <= left:
                    raise UserError(f"{path}: not a part of this test")
            except UserError as error:
                logger.warning("%s; its keyframes are scored anew", error)
                path.unlink()
                continue
            left -= keys
            self.names.append(path.name)
        return set(keyframes) - left

    def add(self, detections: Detections) -> None:
        """Keep the detections of a batch.

        Raises:
            UserError: a part is due and cannot be written.
        """
        self._waiting.append(detections)
        keyframes = sum(len(each.keys) for each in self._waiting)
        if keyframes >= _KEYFRAMES or time.monotonic() - self._since >= _SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what was added and is not yet written.

        Raises:
            UserError: it cannot be written.
        """
        self._since = time.monotonic()
        if not self._waiting:
            return
        name = f"part-{uuid.uuid4().hex}.npz"
        with atomic_path(self.folder / name) as temporary:
            write_predictions(temporary, self._vocabulary, Detections.cat(self._waiting))
        self.names.append(name)
        self._waiting = []

    def read(self, names: Iterable[str] | None = None) -> list[Detections]:
        """Some parts.

        Args:
            names: those that all processes have in ``names``; by default those of this one.

        Raises:
            UserError: a part cannot be read.
        """
        # By name: the folder's listing on a disk of the network may lack what others just wrote.
        names = self.names if names is None else names
        return [read_predictions(self.folder / name)[0] for name in names]

    def remove(self) -> None:
        """Delete the folder, once its content stands elsewhere."""
        shutil.rmtree(self.folder)
