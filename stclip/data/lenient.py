"""Reads what can be read of files in our own formats, and collects what is wrong with the rest.

``annotation_dataset`` reads the same files for a run, and stops at the first mistake.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from stclip.data import findings as kinds
from stclip.data.annotation_dataset import (
    NAME,
    annotation_proposals,
    locate_keyframe,
    open_entry,
    with_proposals,
)
from stclip.data.annotations import DetectionDataset, Keyframe, parse_annotations
from stclip.data.findings import Findings
from stclip.data.frames import Video
from stclip.data.selection import Selection
from stclip.errors import UserError, reporting
from stclip.files import read_json
from stclip.structures import FrameKey


def read_leniently(
    path: str | Path,
    detections: str | None,
    findings: Findings,
    selection: Selection | None = None,
    groups: Mapping[str, str] | None = None,
) -> DetectionDataset | None:
    """What can be read of an annotations file and of its videos; the rest goes to the findings.

    Args:
        path: a file in our annotations format.
        detections: a .jsonl or COCO-like .json file of person boxes; None reads none.
        findings: gets the mistakes.
        selection: which of its videos; None takes all.
        groups: ALL_GROUP's group of each name.

    Returns:
        The dataset, boxes as they stand in the files; None if nothing can be made of the file.
    """
    try:
        report = findings.report(kinds.FORMAT)
        file = parse_annotations(read_json(path), Path(path), report, empty_boxes=True)
    except UserError as error:
        findings.add(kinds.UNREADABLE, str(error))
        return None
    for name, group in file.groups.items():
        if groups is not None and groups.get(name, group) != group:
            findings.add(kinds.GROUPS, f"{path}: {name!r} is {group!r}, not {groups[name]!r}")
    chosen = list(file.videos)
    if selection is not None:
        with reporting(findings.report(kinds.UNREADABLE)):
            chosen = selection.choose(file.video_labels(), str(path))
    videos: dict[str, Video] = {}
    for id_ in tqdm(sorted(chosen), desc="opening videos", unit="video", disable=None):
        with reporting(findings.report(kinds.VIDEOS)):
            videos[id_] = open_entry(file, file.videos[id_])
            if missing := videos[id_].missing():
                findings.add(
                    kinds.MISSING,
                    f"{path}: video {id_!r}: {len(missing)} frames, the first is frame "
                    f"{missing[0]} of {videos[id_].path}",
                )
    keyframes: dict[FrameKey, Keyframe] = {}
    located = []
    for entry in file.keyframes:
        if entry.video not in videos:
            continue
        with reporting(findings.report(kinds.PAST_END)):
            key = locate_keyframe(videos[entry.video], file.videos[entry.video], entry.timestamp)
            located.append(entry)
            if key in keyframes:
                findings.add(
                    kinds.TWICE, f"{path}: frame {key.frame} of {key.video} ({entry.timestamp} s)"
                )
            keyframes.setdefault(key, Keyframe(key, entry.boxes, entry.labels))
    dataset = DetectionDataset(NAME, videos, [keyframes[key] for key in sorted(keyframes)])
    if detections is None:
        return dataset
    try:
        known = replace(file, keyframes=located)
        report = findings.report(kinds.DETECTIONS)
        return with_proposals(dataset, annotation_proposals(detections, known, dataset, report))
    except UserError as error:
        findings.add(kinds.UNREADABLE, str(error))
        return dataset
