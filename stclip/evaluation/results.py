"""The results of a test: the folder that it writes, predictions.npz, and the log of a running test.

Formats: docs/evaluation.md, "Result files".
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
import time
import uuid
import zipfile
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from stclip.errors import UserError, reporting
from stclip.evaluation.result_csv import DECIMALS, AvaForm, DetectionRows, write_result_csv
from stclip.files import atomic_path, check_regular, file_names, read_json, retire, write_json
from stclip.structures import Detections, FrameKey
from stclip.structures.boxes import LARGEST

logger = logging.getLogger(__name__)

# The arrays of predictions.npz: which kinds of numpy's they may have, and words for these.
_ARRAYS = {
    "videos": ("U", "texts"),
    "frames": ("iu", "whole numbers"),
    "owner": ("iu", "whole numbers"),
    "boxes": ("f", "numbers"),
    "det_scores": ("f", "numbers"),
    "scores": ("f", "numbers"),
    "labels": ("U", "texts"),
}
# Those that may be missing, in files of earlier versions for one.
_MORE = {"seconds": ("f", "numbers"), "persons": ("iu", "whole numbers")}
_RUN = "run.json"
# A part of the log is written when so many seconds have passed, or for so many keyframes.
_SECONDS, _KEYFRAMES = 10.0, 4096


def write_results(
    out_dir: str | Path,
    dataset: str,
    vocabulary: Sequence[str],
    detections: Detections,
    rows: DetectionRows,
    *,
    texts: Mapping[str, str] | None = None,
    ava: AvaForm | None = None,
) -> Path:
    """Write the folder ``out_dir/dataset``, whole or not at all, and return its path.

    A folder of that name is renamed to ``<dataset>.old-1`` (or the next free number) first.

    Files:
        result_<dataset>.csv: what ``write_result_csv`` writes.
        detections/<video with _ for />_<%05d frame>.txt: ``label score x1 y1 x2 y2`` with rounded
            boxes, one file for each frame that has rows; not with ``ava``. If two videos would have
            the same name there, the second one's files have ~2 after it.
        predictions.npz: what ``write_predictions`` writes.

    Args:
        out_dir: the folder of results of all datasets; made if needed.
        dataset: names the folder and the csv.
        vocabulary: C class names.
        detections: before soft voting, which cannot be undone; for predictions.npz.
        rows: for the csv and detections/, in this order; ``rows_of`` the detections, perhaps voted.
        texts: further files of the folder by name: metrics, the config.
        ava: of the AVA dataset, what its files call the keyframes and classes.

    Raises:
        UserError: the disk is full or not writable.
    """
    assert detections.scores.shape[1] == len(vocabulary), "scores: one column for each class"
    folder = Path(out_dir) / dataset
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{dataset}-", dir=folder.parent))
    try:
        filled = temporary / dataset  # made by mkdir, so that its mode follows the umask
        filled.mkdir()
        write_result_csv(filled / f"result_{dataset}.csv", rows, ava)
        if ava is None:
            _write_text_files(filled / "detections", rows)
        write_predictions(filled / "predictions.npz", vocabulary, detections)
        for name, text in (texts or {}).items():
            (filled / name).write_text(text, encoding="utf-8")
        retire(folder)
        os.rename(filled, folder)
    except OSError as error:
        raise UserError(
            f"{folder}: results cannot be written: {error.strerror or error}"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _write_text_files(folder: Path, rows: DetectionRows) -> None:
    folder.mkdir()
    lines: dict[int, list[str]] = {}
    for frame, box, label, score in rows.entries():
        corners = " ".join(str(round(value)) for value in box)
        lines.setdefault(frame, []).append(f"{label + 1} {score:.{DECIMALS}f} {corners}\n")
    names = file_names(rows.keys[frame].video for frame in lines)
    for video, name in names.items():
        if name != video.replace("/", "_"):
            logger.warning(
                "detections/%s_*.txt is of %s: another video has the plain name", name, video
            )
    for frame, text in lines.items():
        key = rows.keys[frame]
        path = folder / f"{names[key.video]}_{key.frame:05d}.txt"
        path.write_text("".join(text), encoding="utf-8")


def write_predictions(path: str | Path, vocabulary: Sequence[str], detections: Detections) -> None:
    """Write detections for ``read_predictions``; numpy.load reads it with allow_pickle=False.

    The arrays: ``videos`` (B,) and ``frames`` (B,) of the keyframes, those without persons
    included; ``owner`` (N,) into them; ``boxes`` (N, 4); ``det_scores`` (N,); ``scores`` (N, C)
    before they are multiplied by det_scores; ``labels`` (C,). Where they are known ``seconds`` (B,)
    and ``persons`` (N,).
    """
    more = {name: getattr(detections, name) for name in _MORE}
    np.savez_compressed(
        path,
        videos=np.array([key.video for key in detections.keys], dtype=np.str_),
        frames=np.array([key.frame for key in detections.keys], dtype=np.int64),
        owner=detections.owner.numpy(),
        boxes=detections.boxes.float().numpy(),
        det_scores=detections.det_scores.float().numpy(),
        scores=detections.scores.float().numpy(),
        labels=np.array(vocabulary, dtype=np.str_),
        **{name: values.numpy() for name, values in more.items() if values is not None},
    )


def read_predictions(path: str | Path) -> tuple[Detections, tuple[str, ...]]:
    """The detections that a test run wrote, before soft voting, and its vocabulary.

    Raises:
        UserError: the file cannot be read, lacks an array, or has one of the wrong kind or shape.
    """
    check_regular(path)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            more = [name for name in _MORE if name in arrays]
            found = {name: arrays[name] for name in [*_ARRAYS, *more]}
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(
            f"{path}: not the predictions of a test run ({error}); run the test again"
        ) from error
    problem = _problem(found)
    if problem is not None:
        raise UserError(f"{path}: {problem}; run the test again")
    keys = zip(found["videos"].tolist(), found["frames"].tolist(), strict=True)
    detections = Detections(
        keys=tuple(FrameKey(video, frame) for video, frame in keys),
        owner=torch.from_numpy(found["owner"].astype(np.int64)),
        boxes=torch.from_numpy(found["boxes"]),
        det_scores=torch.from_numpy(found["det_scores"]),
        scores=torch.from_numpy(found["scores"]),
        **{name: torch.from_numpy(found[name]) for name in more},
    )
    return detections, tuple(found["labels"].tolist())


def _problem(arrays: Mapping[str, NDArray[np.generic]]) -> str | None:
    """What is wrong with the arrays of a file."""
    keyframes, persons = len(arrays["videos"].ravel()), len(arrays["owner"].ravel())
    classes = len(arrays["labels"].ravel())
    for name, array in arrays.items():
        kinds, words = _ARRAYS.get(name) or _MORE[name]
        if array.dtype.kind not in kinds:
            return f"{name}: {words} were expected, found {array.dtype}"
    shapes = {
        "videos": (keyframes,),
        "frames": (keyframes,),
        "owner": (persons,),
        "boxes": (persons, 4),
        "det_scores": (persons,),
        "scores": (persons, classes),
        "labels": (classes,),
        "seconds": (keyframes,),
        "persons": (persons,),
    }
    for name, array in arrays.items():
        if array.shape != shapes[name]:
            return f"{name}: shape {shapes[name]} was expected, found {array.shape}"
    owner, frames = arrays["owner"], arrays["frames"]
    if persons and not 0 <= owner.min() <= owner.max() < keyframes:
        return f"owner: places of the {keyframes} keyframes were expected"
    if keyframes and not 1 <= frames.min() <= frames.max() <= LARGEST:
        return "frames: numbers from 1 were expected"
    if "seconds" in arrays and not np.isfinite(arrays["seconds"]).all():
        return "seconds: finite numbers were expected"
    keys = set(zip(arrays["videos"].tolist(), frames.tolist(), strict=True))
    if len(keys) < keyframes:
        return "videos, frames: a keyframe occurs twice"
    if len(set(arrays["labels"].tolist())) < classes:
        return "labels: a class occurs twice"
    return None


def fingerprint(words: Iterable[str], arrays: Iterable[NDArray[np.generic]]) -> str:
    """SHA-256 of everything that determines the scores: a test continues only its own log."""
    digest = hashlib.sha256()
    for word in words:
        digest.update(word.encode() + b"\0")
    for array in arrays:
        digest.update(f"{array.dtype.str} {array.shape}\0".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


class ScoredParts:
    """The detections of a test while it runs, and a log of them on disk.

    They stay in memory; the log is read only if the test was interrupted and continues. It is a
    folder of parts, each the detections of some whole batches, that all processes share.

    Args:
        folder: of this test alone.
        vocabulary: C class names.

    Attributes:
        detections: what this process added, or found in the log.
    """

    def __init__(self, folder: str | Path, vocabulary: Sequence[str]) -> None:
        self.folder = Path(folder)
        self._vocabulary = tuple(vocabulary)
        self.detections: list[Detections] = []
        self._logged = 0  # of ``detections``
        self._since = time.monotonic()

    def prepare(self, print_: str) -> None:
        """Make the folder, or keep it if it is of an equal test; one of another test is renamed.

        One process does this before any calls ``resume``.

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

    def resume(self, keyframes: Collection[FrameKey]) -> set[FrameKey]:
        """Take over what the log holds, and return its keyframes; a damaged part is deleted.

        One process does this, before any adds detections.

        Args:
            keyframes: those of this test; others, or one twice, can only come from damage.
        """
        left = set(keyframes)
        self.detections = []
        for path in sorted(self.folder.glob("part-*.npz")):
            try:
                found, labels = read_predictions(path)
                keys = set(found.keys)
                if labels != self._vocabulary or len(keys) < len(found.keys) or not keys <= left:
                    raise UserError(f"{path}: not a part of this test")
            except UserError as error:
                logger.warning("%s; its keyframes are scored again", error)
                path.unlink()
                continue
            left -= keys
            self.detections.append(found)
        self._logged = len(self.detections)
        return set(keyframes) - left

    def add(self, detections: Detections) -> None:
        """Add the detections of a batch.

        Raises:
            UserError: a part of the log is due and cannot be written.
        """
        self.detections.append(detections)
        keyframes = sum(len(each.keys) for each in self.detections[self._logged :])
        if keyframes >= _KEYFRAMES or time.monotonic() - self._since >= _SECONDS:
            self.flush()

    def flush(self) -> None:
        """Log what was added and is not yet logged.

        Raises:
            UserError: it cannot be written.
        """
        self._since = time.monotonic()
        if self._logged == len(self.detections):
            return
        with atomic_path(self.folder / f"part-{uuid.uuid4().hex}.npz") as temporary:
            waiting = Detections.cat(self.detections[self._logged :])
            write_predictions(temporary, self._vocabulary, waiting)
        # One for the many of the batches, which took 1.6 kB a keyframe however few its persons.
        self.detections[self._logged :] = [waiting]
        self._logged = len(self.detections)

    def remove(self) -> None:
        """Delete the log, once the results are written."""
        shutil.rmtree(self.folder)
