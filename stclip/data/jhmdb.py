"""Builds the J-HMDB dataset, and others in its layout, from whatever files there are (data.md).

Everything is looked for under ``<DATA_DIR>/<name>``: annotations and detections there or in
``annotations/``; frames as ``videos/<video>/00001.png`` (flattened), or in class folders as the
official archives have them, ``Rename_Images/<class>/<video>/00001.png`` and
``ReCompress_Videos/<class>/<video>.avi``.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from stclip.data.annotations import DetectionDataset
from stclip.data.jhmdb_ground_truth import GroundTruth, beside, read_ground_truth
from stclip.data.labels import choices
from stclip.data.proposals import Proposals, read_coco_detections, read_jsonl_detections
from stclip.data.puppet.settings import COMMANDS
from stclip.data.selection import Part, Selection
from stclip.data.video import Video, open_video
from stclip.errors import UserError
from stclip.structures import FrameKey

logger = logging.getLogger(__name__)

OFFICIAL = "jhmdb"
# The datasets in this layout: J-HMDB itself, and those that the project draws.
NAMES = (OFFICIAL, *COMMANDS)
PICKLE = "JHMDB-GT.pkl"
DETECTIONS = "jhmdb_faster_RCNN_person.json"
_JSON = {"train": "jhmdb_train_gt_min.json", "test": "jhmdb_test_gt_min.json"}
_FOLDERS = ("videos", "Rename_Images", "ReCompress_Videos")
_SUFFIXES = (".avi", ".mp4", ".zip")
# HMDB51, which J-HMDB is cut from, was released at this rate.
_FPS = 30.0
# Split 1: videos and annotated frames of each part.
_COUNTS = {"train": (660, 22713), "test": (268, 9139)}


def build_jhmdb(
    data_dir: str | Path,
    selection: Selection,
    all_names: Sequence[str],
    detections: str | None,
    name: str = OFFICIAL,
) -> DetectionDataset:
    """The keyframes that a selection asks for, with their videos found on disk.

    Args:
        data_dir: the folder that holds ``<name>/``.
        selection: the part (of official split 1) and which of its videos.
        all_names: ALL_LABEL's names.
        detections: a .json or .jsonl file of person boxes, ``""`` for the dataset's own; None reads
            none.
        name: one of NAMES.

    Raises:
        UserError: annotations, detections, videos or frames are missing or malformed, or no video
            is left. All missing videos and frames are reported in one message.
    """
    root = Path(data_dir) / name
    truth = _ground_truth(root, selection.part, all_names)
    chosen = selection.choose(truth.video_labels(), str(truth.path))
    keyframes = [keyframe for video in chosen for keyframe in truth.keyframes[video]]
    if selection.part == "train":
        keyframes = [keyframe for keyframe in keyframes if len(keyframe.boxes)]
    proposals = None
    if detections is not None:
        found = _proposals(root, detections, truth, chosen)
        keys = {keyframe.key for keyframe in keyframes}
        proposals = {key: rows for key, rows in found.items() if key in keys}
        if not proposals:
            logger.warning("%s: no detection for any of the %d keyframes", root, len(keys))
    videos = _find_videos(root, {video: truth.lengths[video] for video in chosen})
    return DetectionDataset(name, videos, keyframes, proposals)


def check_drawn(data_dir: str | Path, name: str, key: str) -> None:
    """Check that a dataset that the project draws is there.

    Args:
        data_dir: the folder that holds ``<name>/``.
        name: of any dataset.
        key: the config key that names it, for the error message.

    Raises:
        UserError: it is not; the message has the command that draws it.
    """
    root = Path(data_dir) / name
    if name in COMMANDS and not root.is_dir():
        raise UserError(
            f"{key} {name}: {root} is not there; draw it: {COMMANDS[name]} --out {root}"
        )


def _ground_truth(root: Path, part: Part, all_names: Sequence[str]) -> GroundTruth:
    path = beside(root, _JSON[part]) or beside(root, PICKLE)
    if path is None:
        raise UserError(
            f"DATASETS.DATA_DIR {root.parent}: neither {_JSON[part]} nor {PICKLE} is in {root} or "
            f"{root / 'annotations'}; {_remedy(root, 'put one of them there')}"
        )
    truth = read_ground_truth(path, part, all_names)
    videos, frames = len(truth.keyframes), sum(map(len, truth.keyframes.values()))
    # A small test set is none of our business, a nearly whole J-HMDB is a damaged one.
    nearly_whole = root.name == OFFICIAL and 2 * videos > _COUNTS[part][0]
    if nearly_whole and (videos, frames) != _COUNTS[part]:
        logger.warning(
            "%s: %d %s videos with %d frames; split 1 of J-HMDB has %d with %d",
            path, videos, part, frames, *_COUNTS[part],
        )  # fmt: skip
    return truth


def _find_videos(root: Path, lengths: Mapping[str, int]) -> dict[str, Video]:
    """Open the videos and see that all their frames are there, without decoding any."""
    videos: dict[str, Video] = {}
    absent: list[str] = []
    gaps: list[tuple[str, list[int]]] = []
    for key, length in lengths.items():
        path = _find_video(root, key)
        if path is None:
            absent.append(key)
            continue
        videos[key] = open_video(path, key)
        missing = videos[key].missing(expected=length)
        if missing:
            gaps.append((f"{path}", missing))
    if not absent and not gaps:
        return videos
    parts = []
    if absent:
        parts.append(
            f"{len(absent)} of {len(lengths)} videos are missing, the first is {absent[0]}"
        )
    if gaps:
        parts.append(
            f"{sum(len(missing) for _, missing in gaps)} frames of {len(gaps)} videos are missing, "
            f"the first is frame {gaps[0][1][0]} of {gaps[0][0]}"
        )
    raise UserError(
        f"DATASETS.DATA_DIR {root.parent}: {'; '.join(parts)}; looked for [class/]video/00001.png "
        f"and [class/]video{'|'.join(_SUFFIXES)} in {', '.join(_FOLDERS)} of {root}; "
        f"{_remedy(root, 'put them there')}"
    )


def _remedy(root: Path, otherwise: str) -> str:
    """What to do about a file that is not in the dataset's folder."""
    command = COMMANDS.get(root.name)
    if command is None:
        return f"{otherwise} (see DATA.md)"
    return f"remove {root} and draw it anew: {command} --out {root}"


def _find_video(root: Path, key: str) -> Path | None:
    folder, _, video = key.rpartition("/")
    for place in _FOLDERS:
        for parent in (root / place, root / place / folder):
            if (parent / video).is_dir():
                return parent / video
            for suffix in _SUFFIXES:
                if (parent / f"{video}{suffix}").is_file():
                    return parent / f"{video}{suffix}"
    return None


def _proposals(
    root: Path, detections: str, truth: GroundTruth, chosen: Collection[str]
) -> dict[FrameKey, Proposals]:
    path = Path(detections) if detections else beside(root, DETECTIONS)
    if path is None:
        raise UserError(
            f"DATASETS.DATA_DIR {root.parent}: {DETECTIONS} is not in {root} or "
            f"{root / 'annotations'}; {_remedy(root, 'put it there')}, name another file in "
            "DATASETS.DETECTIONS, or set TEST.BOXES to ground_truth"
        )
    if path.suffix == ".jsonl":
        return _from_lines(path, truth, chosen)
    image_ids = dict(truth.image_ids)
    # A file of detections may cover the other part as well, which is no mistake.
    for name in _JSON.values():
        other = beside(root, name)
        if other is not None and other != truth.path:
            image_ids = {**read_ground_truth(other, "train").image_ids, **image_ids}
    if not image_ids:
        raise UserError(
            f"{path}: its image ids mean nothing without {_JSON['test']}, which is not beside "
            f"{truth.path}; put it there, or give detections as .jsonl, or set TEST.BOXES to "
            "ground_truth"
        )
    return read_coco_detections(path, image_ids, f"{truth.path}")


def _from_lines(
    path: Path, truth: GroundTruth, chosen: Collection[str]
) -> dict[FrameKey, Proposals]:
    names = {name: video for video in truth.lengths for name in (video, video.rpartition("/")[2])}
    used = set(chosen)

    def locate(name: str, seconds: float | None, frame: int | None) -> FrameKey | None:
        if name not in names:
            raise UserError(f"video {name!r} is not in {truth.path}; {choices(name, names)}")
        video = names[name]
        number = round(seconds * _FPS) + 1 if seconds is not None else frame
        assert number is not None
        if number > truth.lengths[video]:
            raise UserError(
                f"video {name!r} has {truth.lengths[video]} frames ({_FPS:g} a second), no frame "
                f"{number}"
            )
        return FrameKey(video, number) if video in used else None

    return read_jsonl_detections(path, locate)
