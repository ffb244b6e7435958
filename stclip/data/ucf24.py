"""Builds the UCF101-24 dataset from whatever files there are (DATA.md, "UCF101-24").

Everything is looked for under ``<DATA_DIR>/ucf24``: annotations, lists and detections there, in
``annotations/`` or in ``splitfiles/``; frames as ``rgb-images/<class>/<video>/00001.jpg``, or the
original ``<class>/<video>.avi`` in ``videos/``, ``UCF-101/`` or ``UCF101/``.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from stclip.data.annotations import DetectionDataset, Keyframe
from stclip.data.class_videos import check_sizes, find_videos, read_lines
from stclip.data.jhmdb_ground_truth import GroundTruth
from stclip.data.selection import Part, Selection
from stclip.data.ucf24_ground_truth import PLACES, find_file, read_ground_truth
from stclip.data.video import Video
from stclip.errors import Report, UserError, fail
from stclip.structures import FrameKey

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


def build_ucf24(
    data_dir: str | Path,
    selection: Selection,
    all_names: Sequence[str],
    detections: str | None,
    report: Report = fail,
) -> DetectionDataset:
    """The keyframes that a selection asks for, with their videos found on disk.

    These are the annotated frames, and for testing also every frame that has detections: outside
    of the tubes they are false positives.

    Args:
        data_dir: the folder that holds ``ucf24/``.
        selection: the part (of official split 1) and which of its videos.
        all_names: ALL_LABEL's names.
        detections: a .jsonl file of person boxes, ``""`` for the dataset's own; None reads none.
        report: gets what is wrong with a row or video, which is then left out.

    Raises:
        UserError: annotations, detections, videos or frames are missing or malformed, or no video
            is left. All missing videos and frames are reported in one message.
    """
    root = Path(data_dir) / NAME
    truth = _ground_truth(root, selection.part, all_names, report)
    path = None if detections is None else _detections(root, detections)
    chosen = selection.choose(truth.video_labels(), str(truth.path))
    annotated = {keyframe.key: keyframe for video in chosen for keyframe in truth.keyframes[video]}
    # What the annotations say about the length is only compared: decoders may differ by a frame.
    needed = {video: truth.keyframes[video][-1].key.frame for video in chosen}
    remedy = "put them there (see DATA.md)"
    videos = find_videos(root, _FOLDERS, needed, "00001.jpg", remedy, report)
    _warn_lengths(truth, videos)
    stated = truth.sizes
    if truth.path.name == "pyannot.pkl" and 2 * len(truth.keyframes) > _COUNTS[selection.part]:
        stated = dict.fromkeys(videos, _SIZE)
    check_sizes(videos, stated, truth.path, "take the pictures as they were released", report)
    sources = (truth.path, path)
    if path is None:
        return DetectionDataset(NAME, videos, list(annotated.values()), sources=sources)
    lengths = {**truth.lengths, **{video: len(found) for video, found in videos.items()}}
    proposals = read_lines(path, lengths, _FPS, chosen, f"{truth.path}", report)
    if not proposals:
        logger.warning("%s: no detection in any of the %d videos", path, len(videos))
    keys = sorted(annotated.keys() | proposals.keys())
    return DetectionDataset(
        NAME,
        videos,
        [annotated.get(key, _unannotated(key)) for key in keys],
        proposals,
        sources=sources,
    )


def _unannotated(key: FrameKey) -> Keyframe:
    return Keyframe(key, np.zeros((0, 4), np.float32), ())


def _ground_truth(root: Path, part: Part, all_names: Sequence[str], report: Report) -> GroundTruth:
    path = next((found for name in ANNOTATIONS if (found := find_file(root, name))), None)
    if path is None:
        raise UserError(
            f"DATASETS.DATA_DIR {root.parent}: neither {' nor '.join(ANNOTATIONS)} is in "
            f"{_places(root)}; put one of them there (see DATA.md)"
        )
    truth = read_ground_truth(path, part, all_names, report)
    count = len(truth.keyframes)
    # A small test set is none of our business, a nearly whole UCF101-24 is a damaged one.
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
    path = Path(detections) if detections else find_file(root, DETECTIONS)
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
