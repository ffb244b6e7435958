"""Datasets from files in our own annotations format: opens the videos, finds the frames."""

from collections.abc import Collection
from pathlib import Path

import numpy as np

from stclip.data.annotations import (
    AnnotationFile,
    DetectionDataset,
    Keyframe,
    VideoEntry,
    read_annotations,
)
from stclip.data.labels import choices
from stclip.data.proposals import Proposals, read_coco_detections, read_jsonl_detections
from stclip.data.selection import Selection
from stclip.data.video import Video, open_video
from stclip.errors import UserError
from stclip.structures import FrameKey

NAME = "annotations"


def build_annotation_dataset(
    path: str | Path, selection: Selection, all_names: Collection[str], detections: str | None
) -> DetectionDataset:
    """The keyframes of an annotations file that a selection asks for.

    For training these are the keyframes with boxes. For testing every annotated keyframe, and every
    frame that has detections, so that videos without any ground truth can be scored too.

    Args:
        path: the annotations file.
        selection: which of its videos.
        all_names: ALL_LABEL's names; a box with any other label is an error.
        detections: a .jsonl or COCO-like .json file of person boxes; None reads none.

    Raises:
        UserError: the files are not as they should be, no video is left, or a video or frame is
            missing.
    """
    file = read_annotations(path)
    video_labels = file.video_labels()
    for name in sorted(set().union(*video_labels.values())):
        if name not in all_names:
            raise UserError(
                f"{path}: label {name!r} is not in ALL_LABEL; {choices(name, all_names)}"
            )
    chosen = selection.choose(video_labels, str(path))
    dataset = open_annotations(file, chosen)
    if selection.part == "train":
        annotated = [keyframe for keyframe in dataset.keyframes if len(keyframe.boxes)]
        return DetectionDataset(NAME, dataset.videos, annotated)
    if detections is None:
        return dataset
    proposals = _proposals(detections, file, dataset)
    keyframes = {keyframe.key: keyframe for keyframe in dataset.keyframes}
    for key in proposals:
        keyframes.setdefault(key, Keyframe(key, np.zeros((0, 4), np.float32), ()))
    return DetectionDataset(
        NAME, dataset.videos, [keyframes[key] for key in sorted(keyframes)], proposals
    )


def open_annotations(
    file: AnnotationFile, chosen: Collection[str] | None = None
) -> DetectionDataset:
    """All annotated keyframes of an annotations file, or those of the chosen videos.

    Raises:
        UserError: videos or frames are missing, of another size than the file says, or annotated
            twice.
    """
    ids = sorted(file.videos if chosen is None else chosen)
    videos = {id_: _open(file, file.videos[id_]) for id_ in ids}
    gaps = {id_: frames for id_, video in videos.items() if (frames := video.missing())}
    if gaps:
        first = next(iter(gaps))
        raise UserError(
            f"{file.path}: {sum(map(len, gaps.values()))} frames of {len(gaps)} videos are "
            f"missing, the first is frame {gaps[first][0]} of {videos[first].path}"
        )
    keyframes: dict[FrameKey, Keyframe] = {}
    for entry in file.keyframes:
        if entry.video not in videos:
            continue
        key = _key(videos[entry.video], file.videos[entry.video], entry.timestamp)
        if key in keyframes:
            raise UserError(
                f"{file.path}: frame {key.frame} of video {key.video} is annotated twice (the "
                f"second time at {entry.timestamp} s); put its boxes into one keyframe"
            )
        keyframes[key] = Keyframe(key, entry.boxes, entry.labels)
    return DetectionDataset(NAME, videos, [keyframes[key] for key in sorted(keyframes)])


def _open(file: AnnotationFile, entry: VideoEntry) -> Video:
    try:
        video = open_video(entry.path, entry.id)
        size = video.size
    except UserError as error:
        raise UserError(f"{file.path}: video {entry.id!r}: {error}") from error
    if size != entry.size:
        raise UserError(
            f"{file.path}: video {entry.id!r} has size {list(entry.size)}, but {entry.path} is "
            f"{size[0]} wide and {size[1]} high; the boxes are pixels, so the two must agree"
        )
    return video


def _key(video: Video, entry: VideoEntry, seconds: float) -> FrameKey:
    frame = video.frame_at(seconds, entry.fps)
    if frame > len(video):
        raise UserError(
            f"video {entry.id!r} has {len(video)} frames at {entry.fps:g} a second, so none at "
            f"{seconds} s"
        )
    return FrameKey(entry.id, frame)


def _proposals(
    path: str, file: AnnotationFile, dataset: DetectionDataset
) -> dict[FrameKey, Proposals]:
    if not path.endswith(".jsonl"):
        ids = _image_ids(file, dataset)
        found = read_coco_detections(path, ids, f"{file.path} (the id of its keyframes)")
        return {key: rows for key, rows in found.items() if key.video in dataset.videos}

    def locate(name: str, seconds: float | None, frame: int | None) -> FrameKey | None:
        if name not in file.videos:
            raise UserError(f"video {name!r} is unknown; {choices(name, file.videos)}")
        if name not in dataset.videos:
            return None
        if seconds is not None:
            return _key(dataset.videos[name], file.videos[name], seconds)
        assert frame is not None
        if frame > len(dataset.videos[name]):
            raise UserError(
                f"video {name!r} has no frame {frame}, only {len(dataset.videos[name])}"
            )
        return FrameKey(name, frame)

    return read_jsonl_detections(path, locate)


def _image_ids(file: AnnotationFile, dataset: DetectionDataset) -> dict[int | str, FrameKey]:
    """The keyframe of every id; frame 0, which is none, in videos that are not used."""
    ids: dict[int | str, FrameKey] = {}
    for entry in file.keyframes:
        if entry.id is None:
            continue
        if entry.id in ids:
            raise UserError(f"{file.path}: keyframe id {entry.id!r} stands there twice")
        if entry.video in dataset.videos:
            video = dataset.videos[entry.video]
            ids[entry.id] = _key(video, file.videos[entry.video], entry.timestamp)
        else:
            ids[entry.id] = FrameKey(entry.video, 0)
    return ids
