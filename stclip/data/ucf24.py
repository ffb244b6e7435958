"""UCF101-24 from whatever files there are (DATA.md, "UCF101-24").

Everything is looked for under ``<DATA_DIR>/ucf24``: annotations, lists and detections there, in
``annotations/`` or in ``splitfiles/``; frames as ``rgb-images/<class>/<video>/00001.jpg``, or the
original ``<class>/<video>.avi`` in ``videos/``, ``UCF-101/`` or ``UCF101/``.

``UCF101v2-GT.pkl`` is in the format of ACT-detector. ``pyannot.pkl`` counts labels and frames from
0, and its boxes are xywh in unsigned bytes or words; its lists of videos are ``trainlist01.txt``
and ``testlist01.txt``, as they come with it or with UCF101.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stclip.data.annotations import DetectionDataset, GroundTruth, Request
from stclip.data.class_videos import check_sizes, find_file, find_videos, read_lines
from stclip.data.fields import format_of, whole_number
from stclip.data.frames import Video
from stclip.data.labels import Part, match_names, read_video_list
from stclip.data.safe_pickle import load_pickle
from stclip.data.tubes import TubeFile, parse_act
from stclip.errors import Report, UserError, fail, reporting
from stclip.structures import Tube
from stclip.structures.boxes import LARGEST

logger = logging.getLogger(__name__)

NAME = "ucf24"
# The first that is there is read.
ANNOTATIONS = ("UCF101v2-GT.pkl", "pyannot.pkl")
DETECTIONS = "ucf24_person_detections.jsonl"
_FOLDERS = ("rgb-images", "videos", "UCF-101", "UCF101")
_FPS = 25.0
_SIZE = (320, 240)  # of every video of UCF101, which pyannot.pkl does not say
# Split 1: videos of each part; annotated frames (of the corrected annotations), and boxes.
_COUNTS = {"train": 2284, "test": 910}
_FRAMES, _BOXES = {"train": 340_336, "test": 138_527}, {"test": 170_580}
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


def build_ucf24(request: Request) -> DetectionDataset:
    """The keyframes that are asked for (of official split 1), with their videos found on disk.

    These are the annotated frames, and for testing also every frame that has detections: outside
    of the tubes they are false positives.

    Raises:
        UserError: annotations, detections, videos or frames are missing or malformed, or no video
            is left. All missing videos and frames are reported in one message.
    """
    root, part, report = request.data_dir / NAME, request.part, request.report
    truth = _ground_truth(root, part, request.labels.all, report)
    path = None if request.detections is None else _detections(root, request.detections)
    chosen = request.choose(truth.video_labels(), str(truth.path))
    # What the annotations say about the length is only compared: decoders may differ by a frame.
    needed = {video: truth.keyframes[video][-1].key.frame for video in chosen}
    remedy = "put them there (see DATA.md)"
    videos = find_videos(root, _FOLDERS, needed, "00001.jpg", remedy, report)
    _warn_lengths(truth, videos)
    stated = truth.sizes
    if truth.path.name == "pyannot.pkl" and 2 * len(truth.keyframes) > _COUNTS[part]:
        stated = dict.fromkeys(videos, _SIZE)
    check_sizes(videos, stated, truth.path, "take the pictures as they were released", report)
    keyframes = [keyframe for video in chosen for keyframe in truth.keyframes[video]]
    fps = dict.fromkeys(videos, _FPS)
    dataset = DetectionDataset(NAME, videos, keyframes, sources=(truth.path, None), fps=fps)
    if path is None:
        return dataset
    lengths = {**truth.lengths, **{video: len(found) for video, found in videos.items()}}
    proposals = read_lines(path, lengths, _FPS, chosen, f"{truth.path}", report)
    if not proposals:
        logger.warning("%s: no detection in any of the %d videos", path, len(videos))
    return dataset.with_proposals(proposals, path)


def _ground_truth(root: Path, part: Part, all_names: Sequence[str], report: Report) -> GroundTruth:
    path = next((found for name in ANNOTATIONS if (found := find_file(root, name, PLACES))), None)
    if path is None:
        raise UserError(
            f"DATASETS.DATA_DIR {root.parent}: neither {' nor '.join(ANNOTATIONS)} is in "
            f"{_places(root)}; put one of them there (see DATA.md)"
        )
    file = read_tube_file(path, report)
    annotated = [video for video in file.videos(part) if file.tubes[video]]
    truth = file.ground_truth(annotated, worded(file, all_names))
    count = len(truth.keyframes)
    # A small test set is fine; one that is nearly all of UCF101-24 is probably damaged.
    if count != _COUNTS[part] and 2 * count > _COUNTS[part]:
        logger.warning(
            "%s: %d %s videos; split 1 of UCF101-24 has %d", path, count, part, _COUNTS[part]
        )
    elif count == _COUNTS[part] and path.name == "pyannot.pkl":
        _warn_frames(path, truth, part)
    return truth


def _warn_frames(path: Path, truth: GroundTruth, part: Part) -> None:
    """Compare the annotated frames and boxes of all videos with those of the release."""
    keyframes = [keyframe for video in truth.keyframes.values() for keyframe in video]
    frames = sum(1 for keyframe in keyframes if len(keyframe.boxes))
    boxes = sum(len(keyframe.boxes) for keyframe in keyframes)
    if (frames, boxes) != (_FRAMES[part], _BOXES.get(part, boxes)):
        logger.warning(
            "%s: %d annotated frames with %d boxes in the %s videos; split 1 of UCF101-24 has %d%s",
            path, frames, boxes, part, _FRAMES[part],
            f" with {_BOXES[part]}" if part in _BOXES else "",
        )  # fmt: skip


def _warn_lengths(truth: GroundTruth, videos: Mapping[str, Video]) -> None:
    other = [video for video, found in videos.items() if len(found) != truth.lengths[video]]
    if other:
        first = other[0]
        logger.warning(
            "%d of %d videos have another number of frames than %s says (first: %s has %d, not "
            "%d); were all frames extracted, at the rate of the video?",
            len(other), len(videos), truth.path, first, len(videos[first]), truth.lengths[first],
        )  # fmt: skip


def _detections(root: Path, detections: str) -> Path:
    path = Path(detections) if detections else find_file(root, DETECTIONS, PLACES)
    if path is None:
        raise UserError(
            f"DATASETS.DATA_DIR {root.parent}: {DETECTIONS} is not in {_places(root)}; the dataset "
            "has no person boxes of its own: name your detector's file in DATASETS.DETECTIONS (see "
            "DATA.md), or set TEST.BOXES to ground_truth"
        )
    if path.suffix != ".jsonl":
        raise UserError(
            f"DATASETS.DETECTIONS: {path}: UCF101-24 has no image ids that a {path.suffix} file "
            "could refer to; give detections as .jsonl (see DATA.md)"
        )
    return path


def _places(root: Path) -> str:
    return ", ".join(str(root / place) for place in PLACES)


def read_tube_file(path: str | Path, report: Report = fail) -> TubeFile:
    """Read ``pyannot.pkl``, with the lists of videos next to it, or a pickle of ACT-detector.

    Raises:
        UserError: a file cannot be read, or is not in its format.
    """
    path = Path(path)
    content = load_pickle(path)
    values = list(content.values()) if isinstance(content, dict) else []
    if values and all(isinstance(entry, dict) and "annotations" in entry for entry in values):
        return _parse_pyannot(path, content, report)
    return parse_act(path, content, report)


def worded(file: TubeFile, all_names: Sequence[str] | None) -> dict[str, str]:
    """What to call each class of a tube file: its name or its prompt, as ALL_LABEL has it.

    If ALL_LABEL has edited texts, its order says which class each of them is; a UserError if it has
    other classes. Without ALL_LABEL classes are called as in the project's label files.
    """
    prompts = [PROMPTS.get(name, name) for name in file.labels]
    if all_names is None:
        return dict(zip(file.labels, prompts, strict=True))
    own = max(prompts, file.labels, key=lambda names: len(set(names) & set(all_names)))
    return dict(zip(file.labels, match_names(own, all_names, file.path), strict=True))


def _parse_pyannot(path: Path, content: dict[str, Any], report: Report) -> TubeFile:
    tubes: dict[str, list[Tube]] = {}
    lengths: dict[str, int] = {}
    uneven: list[str] = []
    for video, entry in content.items():
        tubes[video], lengths[video] = [], 0
        with reporting(report), format_of("pyannot.pkl", f"{path}: {video}"):
            found = [_tube(row, video, uneven) for row in entry["annotations"]]
            length = whole_number(entry["numf"])
            tubes[video], lengths[video] = [tube for tube in found if tube is not None], length
    if uneven:
        logger.warning(
            "%s: %d tubes have more or fewer boxes than frames from sf to ef - 1; what both cover "
            "is used (first: %s)", path, len(uneven), uneven[0],
        )  # fmt: skip
    lists = {part: _listed(path, part, tubes) for part in _PARTS}
    parts = {part: [videos] for part, videos in lists.items() if videos is not None}
    return TubeFile(path, CLASSES, tubes, lengths, parts)


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
    file = find_file(path.parent, name, PLACES)
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
