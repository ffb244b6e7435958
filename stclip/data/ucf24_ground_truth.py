"""UCF101-24's annotations, from either of the files that they are released in.

DATA.md, "UCF101-24's files", has the formats.

``UCF101v2-GT.pkl`` (the format of ACT-detector) holds everything, the train and test lists too.
``pyannot.pkl`` (the corrected annotations) is a dict ``{class/video: {"annotations": [{"label",
"sf", "ef", "boxes"}, ...], "numf", "label"}}``: labels from 0, frames sf to ef - 1 counted from 0,
boxes (n, 4) xywh in unsigned bytes or words. Its lists are ``trainlist01.txt`` and
``testlist01.txt``, as they come with it (``class/video`` a line) or with UCF101
(``class/video.avi``, and perhaps a number; all 101 classes).
"""

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stclip.data.jhmdb_ground_truth import GroundTruth, spelt
from stclip.data.labels import read_video_list
from stclip.data.safe_pickle import load_pickle
from stclip.data.selection import Part
from stclip.data.tube_file import TubeFile, parse_act, whole_number
from stclip.errors import Report, UserError, fail, reporting
from stclip.structures import Tube
from stclip.structures.boxes import LARGEST

logger = logging.getLogger(__name__)

# The 24 classes; the files number them in this order.
CLASSES = (
    "Basketball", "BasketballDunk", "Biking", "CliffDiving", "CricketBowling", "Diving", "Fencing",
    "FloorGymnastics", "GolfSwing", "HorseRiding", "IceDancing", "LongJump", "PoleVault",
    "RopeClimbing", "SalsaSpin", "SkateBoarding", "Skiing", "Skijet", "SoccerJuggling", "Surfing",
    "TennisSwing", "TrampolineJumping", "VolleyballSpiking", "WalkingWithDog",
)  # fmt: skip
# What the text encoder reads for each, and label files say: "Ice Dancing".
PROMPTS = {name: re.sub(r"(?<!^)(?=[A-Z])", " ", name) for name in CLASSES}

# Where annotations, lists and detections may lie in the folder of the dataset.
PLACES = ("", "annotations", "splitfiles")
_PARTS: tuple[Part, ...] = ("train", "test")


def find_file(root: Path, name: str) -> Path | None:
    """A file in the folder of the dataset or one of its PLACES; None if it is in none."""
    return next((root / place / name for place in PLACES if (root / place / name).is_file()), None)


def read_tube_file(path: str | Path, report: Report = fail) -> TubeFile:
    """Read ``pyannot.pkl``, with the lists of videos beside it, or a pickle of ACT-detector.

    Args:
        path: the file.
        report: gets what is wrong with a video's tubes, which are then left out.

    Raises:
        UserError: a file cannot be read, or is not in its format.
    """
    path = Path(path)
    content = load_pickle(path)
    values = list(content.values()) if isinstance(content, dict) else []
    if values and all(isinstance(entry, dict) and "annotations" in entry for entry in values):
        return _parse_pyannot(path, content, report)
    return parse_act(path, content, report)


def read_ground_truth(
    path: str | Path,
    part: Part,
    all_names: Sequence[str] | None = None,
    report: Report = fail,
) -> GroundTruth:
    """The annotations of one part of official split 1; videos without boxes are left out.

    Args:
        path: ``pyannot.pkl`` or ``UCF101v2-GT.pkl``.
        part: which videos.
        all_names: ALL_LABEL's names; None calls the classes as the project's label files do.
        report: gets what is wrong with a video's tubes, which are then left out.

    Raises:
        UserError: the file cannot be read, is in neither format, or does not fit ``all_names``.
    """
    file = read_tube_file(path, report)
    names = worded(file, all_names)
    keyframes = {video: file.keyframes(video, names) for video in file.videos(part)}
    annotated = {video: frames for video, frames in keyframes.items() if frames}
    return GroundTruth(file.path, annotated, file.lengths, {}, dict(file.sizes))


def worded(file: TubeFile, all_names: Sequence[str] | None) -> dict[str, str]:
    """What to call each class of a tube file: its name or its prompt, as ALL_LABEL has it.

    If ALL_LABEL has edited texts, its order says which class each of them is.

    Raises:
        UserError: ALL_LABEL has other classes.
    """
    prompts = [PROMPTS.get(name, name) for name in file.labels]
    if all_names is None:
        return dict(zip(file.labels, prompts, strict=True))
    own = max(prompts, file.labels, key=lambda names: len(set(names) & set(all_names)))
    return dict(zip(file.labels, spelt(own, all_names, file.path), strict=True))


def _parse_pyannot(path: Path, content: dict[str, Any], report: Report) -> TubeFile:
    tubes: dict[str, list[Tube]] = {}
    lengths: dict[str, int] = {}
    uneven: list[str] = []
    for video, entry in content.items():
        tubes[video], lengths[video] = [], 0
        with reporting(report):
            tubes[video], lengths[video] = _entry(entry, video, path, uneven)
    if uneven:
        logger.warning(
            "%s: %d tubes have more or fewer boxes than frames from sf to ef - 1; what both cover "
            "is used (first: %s)", path, len(uneven), uneven[0],
        )  # fmt: skip
    lists = {part: _listed(path, part, tubes) for part in _PARTS}
    parts = {part: [videos] for part, videos in lists.items() if videos is not None}
    return TubeFile(path, CLASSES, tubes, lengths, parts)


def _entry(entry: Any, video: str, path: Path, uneven: list[str]) -> tuple[list[Tube], int]:
    """The tubes of a video, and its frames."""
    try:
        found = (_tube(row, video, uneven) for row in entry["annotations"])
        return [tube for tube in found if tube is not None], whole_number(entry["numf"])
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: {video}: not in the format of pyannot.pkl ({type(error).__name__}: {error})"
        ) from error


def _tube(row: Any, video: str, uneven: list[str]) -> Tube | None:
    label, first, end = (whole_number(row[name]) for name in ("label", "sf", "ef"))
    if not 0 <= label < len(CLASSES):
        raise ValueError(f"label {label}: 0 to {len(CLASSES) - 1} were expected")
    if first < 0:
        raise ValueError(f"sf {first}: frames count from 0")
    # Unsigned bytes would overflow in the sum.
    wide = np.asarray(row["boxes"], dtype=np.float64)
    if wide.ndim != 2 or wide.shape[1] != 4 or not (np.abs(wide) <= LARGEST).all():
        raise ValueError(f"boxes of shape {wide.shape}: (n, 4) of finite numbers were expected")
    boxes = wide.astype(np.float32)
    boxes[:, 2:] += boxes[:, :2]
    count = min(len(boxes), max(end - first, 0))
    if len(boxes) != end - first:
        uneven.append(f"{video}, frames {first} to {end - 1} with {len(boxes)} boxes")
    if count == 0:
        return None
    return Tube(CLASSES[label], np.arange(first, first + count) + 1, boxes[:count])


def _listed(path: Path, part: Part, known: dict[str, list[Tube]]) -> list[str] | None:
    """The annotated videos of the list of a part; None if there is no such list."""
    name = f"{part}list01.txt"
    roots = [path.parent] if path.parent.name not in PLACES else [path.parent, path.parent.parent]
    file = next((found for root in roots if (found := find_file(root, name))), None)
    if file is None:
        return None
    listed = [line.split()[0].removesuffix(".avi") for line in read_video_list(file)]
    videos = [video for video in listed if video in known]
    if not videos:
        raise UserError(
            f"{file}: none of its {len(listed)} videos is in {path}, the first is {listed[0]!r}; "
            "class/video was expected, as in Basketball/v_Basketball_g01_c01"
        )
    return videos
