"""Builds the J-HMDB dataset, and others in its layout, from whatever files there are.

DATA.md, "J-HMDB", says what is needed.

Everything is looked for under ``<DATA_DIR>/<name>``: annotations and detections there or in
``annotations/``; frames as ``videos/<video>/00001.png`` (flattened), or in class folders as the
official archives have them, ``Rename_Images/<class>/<video>/00001.png`` and
``ReCompress_Videos/<class>/<video>.avi``.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from stclip.data.annotations import DetectionDataset
from stclip.data.class_videos import check_sizes, find_videos, read_lines
from stclip.data.jhmdb_ground_truth import GroundTruth, beside, read_ground_truth
from stclip.data.proposals import Proposals, read_coco_detections
from stclip.data.selection import Part, Selection
from stclip.errors import Report, UserError, fail
from stclip.structures import FrameKey

logger = logging.getLogger(__name__)

OFFICIAL = "jhmdb"
# Datasets in this layout that the project draws, and the commands that do it.
DRAWN = {
    "puppet": "stclip puppet draw --setting standard",
    "puppet_crowd": "stclip puppet draw --setting crowd",
    "puppet_context": "stclip puppet draw --setting context",
}
NAMES = (OFFICIAL, *DRAWN)
PICKLE = "JHMDB-GT.pkl"
DETECTIONS = "jhmdb_faster_RCNN_person.json"
_JSON = {"train": "jhmdb_train_gt_min.json", "test": "jhmdb_test_gt_min.json"}
_FOLDERS = ("videos", "Rename_Images", "ReCompress_Videos")
# HMDB51, which J-HMDB is cut from, was released at this rate.
_FPS = 30.0
# Split 1: videos and annotated frames of each part.
_COUNTS = {"train": (660, 22713), "test": (268, 9139)}
_DETECTED = 9114  # test frames that the released detections cover


def build_jhmdb(
    data_dir: str | Path,
    selection: Selection,
    all_names: Sequence[str],
    detections: str | None,
    name: str = OFFICIAL,
    report: Report = fail,
) -> DetectionDataset:
    """The keyframes that a selection asks for, with their videos found on disk.

    Args:
        data_dir: the folder that holds ``<name>/``.
        selection: the part (of official split 1) and which of its videos.
        all_names: ALL_LABEL's names.
        detections: a .json or .jsonl file of person boxes, ``""`` for the dataset's own; None reads
            none.
        name: one of NAMES.
        report: gets what is wrong with a row or video, which is then left out.

    Raises:
        UserError: annotations, detections, videos or frames are missing or malformed, or no video
            is left. All missing videos and frames are reported in one message.
    """
    root = Path(data_dir) / name
    truth = _ground_truth(root, selection.part, all_names, report)
    chosen = selection.choose(truth.video_labels(), str(truth.path))
    keyframes = [keyframe for video in chosen for keyframe in truth.keyframes[video]]
    if selection.part == "train":
        keyframes = [keyframe for keyframe in keyframes if len(keyframe.boxes)]
    proposals, path = None, None
    if detections is not None:
        path = Path(detections) if detections else _own_detections(root)
        found = _proposals(root, path, truth, chosen, report)
        if not detections:
            _warn_coverage(root, truth, found)
        keys = {keyframe.key for keyframe in keyframes}
        proposals = {key: rows for key, rows in found.items() if key in keys}
        if not proposals:
            logger.warning("%s: no detection for any of the %d keyframes", root, len(keys))
    lengths = {video: truth.lengths[video] for video in chosen}
    remedy = _remedy(root, "put them there")
    videos = find_videos(root, _FOLDERS, lengths, "00001.png", remedy, report)
    remedy = _remedy(root, "take the pictures as they were released, or boxes of their size")
    check_sizes(videos, truth.sizes, truth.path, remedy, report)
    return DetectionDataset(name, videos, keyframes, proposals, sources=(truth.path, path))


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
    if name in DRAWN and not root.is_dir():
        raise UserError(f"{key} {name}: {root} is not there; draw it: {DRAWN[name]} --out {root}")


def _ground_truth(root: Path, part: Part, all_names: Sequence[str], report: Report) -> GroundTruth:
    path = beside(root, _JSON[part]) or beside(root, PICKLE)
    if path is None:
        raise UserError(
            f"DATASETS.DATA_DIR {root.parent}: neither {_JSON[part]} nor {PICKLE} is in {root} or "
            f"{root / 'annotations'}; {_remedy(root, 'put one of them there')}"
        )
    truth = read_ground_truth(path, part, all_names, report)
    videos, frames = len(truth.keyframes), sum(map(len, truth.keyframes.values()))
    # A small test set is none of our business, a nearly whole J-HMDB is a damaged one.
    nearly_whole = root.name == OFFICIAL and 2 * videos > _COUNTS[part][0]
    if nearly_whole and (videos, frames) != _COUNTS[part]:
        logger.warning(
            "%s: %d %s videos with %d frames; split 1 of J-HMDB has %d with %d",
            path, videos, part, frames, *_COUNTS[part],
        )  # fmt: skip
    return truth


def _warn_coverage(root: Path, truth: GroundTruth, found: Mapping[FrameKey, Proposals]) -> None:
    """Compare with the released detections, where the whole test part is there."""
    keys = {keyframe.key for video in truth.keyframes.values() for keyframe in video}
    covered = len(keys & found.keys())
    if root.name == OFFICIAL and len(keys) == _COUNTS["test"][1] and covered != _DETECTED:
        logger.warning(
            "%s: detections for %d of the %d test frames; the released file has them for %d",
            beside(root, DETECTIONS), covered, len(keys), _DETECTED,
        )  # fmt: skip


def _remedy(root: Path, otherwise: str) -> str:
    """What to do about a file that is not in the dataset's folder."""
    command = DRAWN.get(root.name)
    if command is None:
        return f"{otherwise} (see DATA.md)"
    return f"remove {root} and draw it anew: {command} --out {root}"


def _own_detections(root: Path) -> Path:
    path = beside(root, DETECTIONS)
    if path is None:
        raise UserError(
            f"DATASETS.DATA_DIR {root.parent}: {DETECTIONS} is not in {root} or "
            f"{root / 'annotations'}; {_remedy(root, 'put it there')}, name another file in "
            "DATASETS.DETECTIONS, or set TEST.BOXES to ground_truth"
        )
    return path


def _proposals(
    root: Path, path: Path, truth: GroundTruth, chosen: Collection[str], report: Report
) -> dict[FrameKey, Proposals]:
    if path.suffix == ".jsonl":
        return read_lines(path, truth.lengths, _FPS, chosen, f"{truth.path}", report)
    image_ids = dict(truth.image_ids)
    # A file of detections may cover the other part as well, which is no mistake.
    for name in _JSON.values():
        other = beside(root, name)
        if other is not None and other != truth.path:
            image_ids = {**read_ground_truth(other, "train", None, report).image_ids, **image_ids}
    if not image_ids:
        raise UserError(
            f"{path}: its image ids mean nothing without {_JSON['test']}, which is not beside "
            f"{truth.path}; put it there, or give detections as .jsonl, or set TEST.BOXES to "
            "ground_truth"
        )
    return read_coco_detections(path, image_ids, f"{truth.path}", report)
