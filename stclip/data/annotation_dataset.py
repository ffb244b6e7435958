"""Datasets from files in our own annotations format: opens the videos, finds the frames."""

from collections.abc import Collection, Mapping
from dataclasses import replace
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
from stclip.errors import Report, UserError, fail
from stclip.structures import FrameKey

NAME = "annotations"


def build_annotation_dataset(
    path: str | Path,
    selection: Selection,
    all_names: Collection[str],
    detections: str | None,
    groups: Mapping[str, str] | None = None,
) -> DetectionDataset:
    """The keyframes of an annotations file that a selection asks for.

    For training these are the keyframes with boxes. For testing every annotated keyframe, and every
    frame that has detections, so that videos without any ground truth can be scored too.

    Args:
        path: the annotations file.
        selection: which of its videos.
        all_names: ALL_LABEL's names; a box with any other label is an error.
        detections: a .jsonl or COCO-like .json file of person boxes; None reads none.
        groups: ALL_GROUP's group of each name; the file's own must not be others.

    Raises:
        UserError: the files are not as they should be, no video is left, or a video or frame is
            missing.
    """
    file = read_annotations(path)
    video_labels = file.video_labels()
    known = set(all_names)
    for name in sorted(set().union(*video_labels.values())):
        if name not in known:
            raise UserError(
                f"{path}: label {name!r} is not in ALL_LABEL; {choices(name, all_names)}"
            )
    for name, group in file.groups.items():
        if groups is not None and groups.get(name, group) != group:
            raise UserError(
                f"{path}: label {name!r} has the group {group!r}, but ALL_GROUP says "
                f"{groups[name]!r}; make the two agree"
            )
    chosen = selection.choose(video_labels, str(path))
    dataset = open_annotations(file, chosen)
    if selection.part == "train":
        annotated = [keyframe for keyframe in dataset.keyframes if len(keyframe.boxes)]
        return replace(dataset, keyframes=annotated)
    if detections is None:
        return dataset
    found = with_proposals(dataset, annotation_proposals(detections, file, dataset))
    return replace(found, sources=(file.path, Path(detections)))


def open_annotations(
    file: AnnotationFile, chosen: Collection[str] | None = None
) -> DetectionDataset:
    """All annotated keyframes of an annotations file, or those of the chosen videos.

    Raises:
        UserError: videos or frames are missing, of another size than the file says, or annotated
            twice.
    """
    ids = sorted(file.videos if chosen is None else chosen)
    videos = {id_: open_entry(file, file.videos[id_]) for id_ in ids}
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
        key = locate_keyframe(videos[entry.video], file.videos[entry.video], entry.timestamp)
        if key in keyframes:
            raise UserError(
                f"{file.path}: frame {key.frame} of video {key.video} is annotated twice (the "
                f"second time at {entry.timestamp} s); put its boxes into one keyframe"
            )
        keyframes[key] = Keyframe(key, entry.boxes, entry.labels)
    return DetectionDataset(
        NAME, videos, [keyframes[key] for key in sorted(keyframes)], sources=(file.path, None)
    )


def with_proposals(
    dataset: DetectionDataset, proposals: Mapping[FrameKey, Proposals]
) -> DetectionDataset:
    """The dataset with detected persons; every frame that has some becomes a keyframe."""
    keyframes = {keyframe.key: keyframe for keyframe in dataset.keyframes}
    for key in proposals:
        keyframes.setdefault(key, Keyframe(key, np.zeros((0, 4), np.float32), ()))
    return DetectionDataset(
        dataset.name, dataset.videos, [keyframes[key] for key in sorted(keyframes)], proposals
    )


def open_entry(file: AnnotationFile, entry: VideoEntry) -> Video:
    """Open a video of an annotations file.

    Raises:
        UserError: it is not there, cannot be read, or is of another size than the file says.
    """
    try:
        video = open_video(entry.path, entry.id)
        size = video.size
    except UserError as error:
        raise UserError(f"{file.path}: video {entry.id!r}: {error}") from error
    if size != entry.size:
        raise UserError(
            f"{file.path}: video {entry.id!r} has size {list(entry.size)}, but {entry.path} is "
            f"{size[0]} wide and {size[1]} high as shown; write {list(size)} if the boxes are "
            "pixels of that, or fetch the video that they were drawn in"
        )
    return video


def locate_keyframe(video: Video, entry: VideoEntry, seconds: float) -> FrameKey:
    """The frame of a video at a time.

    Raises:
        UserError: the video is shorter.
    """
    frame = video.frame_at(seconds, entry.fps)
    if frame > len(video):
        raise UserError(
            f"video {entry.id!r} has {len(video)} frames at {entry.fps:g} a second, so none at "
            f"{seconds} s"
        )
    return FrameKey(entry.id, frame)


def annotation_proposals(
    path: str, file: AnnotationFile, dataset: DetectionDataset, report: Report = fail
) -> dict[FrameKey, Proposals]:
    """The detected persons of a file, in the videos of a dataset.

    Args:
        path: a .jsonl or COCO-like .json file.
        file: the annotations file that names the videos.
        dataset: its opened videos; boxes in others are left out.
        report: gets what is wrong with a row, which is then left out.

    Raises:
        UserError: the file cannot be read, or a row is not as it should be.
    """
    if not path.endswith(".jsonl"):
        ids = _image_ids(file, dataset)
        ids_from = f"{file.path} (the id of its keyframes)"
        found = read_coco_detections(path, ids, ids_from, report)
        return {key: rows for key, rows in found.items() if key.video in dataset.videos}

    def locate(name: str, seconds: float | None, frame: int | None) -> FrameKey | None:
        if name not in file.videos:
            raise UserError(f"video {name!r} is unknown; {choices(name, file.videos)}")
        if name not in dataset.videos:
            return None
        if seconds is not None:
            return locate_keyframe(dataset.videos[name], file.videos[name], seconds)
        assert frame is not None
        if frame > len(dataset.videos[name]):
            raise UserError(
                f"video {name!r} has no frame {frame}, only {len(dataset.videos[name])}"
            )
        return FrameKey(name, frame)

    return read_jsonl_detections(path, locate, report)


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
            ids[entry.id] = locate_keyframe(video, file.videos[entry.video], entry.timestamp)
        else:
            ids[entry.id] = FrameKey(entry.video, 0)
    return ids
