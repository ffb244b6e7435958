"""Reports what is wrong with a dataset before training on it (stclip validate)."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from stclip.data import findings as kinds
from stclip.data.annotations import DetectionDataset
from stclip.data.checks import IOU, guess_format, lay_end_to_end, readings, recall, share_found
from stclip.data.findings import Findings, Kind
from stclip.data.frames import Video
from stclip.data.labels import Labels, choices
from stclip.data.proposals import NO_PROPOSALS
from stclip.errors import Report, UserError, reporting
from stclip.structures import FrameKey
from stclip.structures.boxes import are_empty, area
from stclip.structures.groups import POSE

Boxes = NDArray[np.float32]
_EDGE = 2.0  # pixels over the edge of a picture that are tolerated
_CHUNK = 32  # frames that are decoded at once


def unchecked(findings: Findings) -> Callable[[Kind], Report]:
    """What readers hand their mistakes to, without those that are looked for below."""

    def report(kind: Kind) -> Report:
        if kind in (kinds.EMPTY, kinds.UNKNOWN_LABELS):
            return lambda error: None
        return findings.report(kind)

    return report


def usable(part: str, dataset: DetectionDataset, findings: Findings) -> DetectionDataset:
    """The dataset without the videos whose length or size cannot be found out.

    What is unusual about the times of the others is noted.
    """
    videos: dict[str, Video] = {}
    for name, video in tqdm(dataset.videos.items(), desc=f"opening {part}", disable=None):
        with reporting(findings.report(kinds.VIDEOS)):
            if min(len(video), *video.size) < 1:
                raise UserError(f"{video.path}: there is no frame in it")
            for text in video.irregularities():
                findings.add(kinds.TIMES, f"{video.path}: {text}")
            videos[name] = video
    keyframes = [keyframe for keyframe in dataset.keyframes if keyframe.key.video in videos]
    return replace(dataset, videos=videos, keyframes=keyframes)


def check_boxes(part: str, dataset: DetectionDataset, findings: Findings) -> None:
    """Look at annotated and detected boxes: their format, and whether they lie in the pictures."""
    used = {keyframe.key.video for keyframe in dataset.keyframes}
    sizes = {video: dataset.videos[video].size for video in used}
    lengths = {video: len(dataset.videos[video]) for video in used}
    for keyframe in dataset.keyframes:
        if keyframe.key.frame > lengths[keyframe.key.video]:
            findings.add(
                kinds.PAST_END,
                f"{part}: frame {keyframe.key.frame} of {keyframe.key.video}, which has "
                f"{lengths[keyframe.key.video]}",
            )
    annotated = [(keyframe.key, keyframe.boxes) for keyframe in dataset.keyframes]
    _check_boxes(f"{part}, annotated", annotated, sizes, kinds.EMPTY, findings)
    if dataset.proposals is not None:
        found = [(key, rows.boxes) for key, rows in dataset.proposals.items() if key.video in sizes]
        _check_boxes(f"{part}, detected", found, sizes, kinds.EMPTY_DETECTIONS, findings)
        for key, rows in dataset.proposals.items():
            wrong = rows.scores[(rows.scores < 0) | (rows.scores > 1)]
            if len(wrong):
                findings.add(
                    kinds.SCORES,
                    f"{part}: {key.video} frame {key.frame}: {len(wrong)}, such as {wrong[0]:g}",
                )


def _check_boxes(
    where: str,
    rows: Sequence[tuple[FrameKey, Boxes]],
    size_of: Mapping[str, tuple[int, int]],
    if_empty: Kind,
    findings: Findings,
) -> None:
    rows = [(key, boxes) for key, boxes in rows if len(boxes)]
    if not rows:
        return
    found, sizes, owner = lay_end_to_end(rows, size_of)
    boxes = found.astype(np.float64)
    meant = guess_format(boxes, sizes)
    if meant is not None:
        findings.add(kinds.READING, f"{where}: {len(boxes)} boxes look like {meant}")
    empty = are_empty(boxes)
    low, high = np.maximum(boxes[:, :2], 0), np.minimum(boxes[:, 2:], sizes)
    inside = area(np.concatenate([low, high], axis=1)) / np.maximum(area(boxes), 1e-9)
    over = (boxes[:, :2] < -_EDGE).any(axis=1) | (boxes[:, 2:] > sizes + _EDGE).any(axis=1)
    outside = ~empty & (inside < 0.5)
    wrong = ((if_empty, empty), (kinds.OUTSIDE, outside), (kinds.EDGE, over & ~empty & ~outside))
    for kind, mask in wrong:
        for index in np.flatnonzero(mask):
            key = rows[owner[index]][0]
            place = 1 + index - np.searchsorted(owner, owner[index])
            numbers = ", ".join(f"{value:g}" for value in boxes[index])
            width, height = size_of[key.video]
            findings.add(
                kind,
                f"{where}: {key.video} frame {key.frame}, box {place}: ({numbers}) in "
                f"{width} x {height}",
            )


def check_labels(part: str, dataset: DetectionDataset, labels: Labels, findings: Findings) -> None:
    """Look at the labels of the annotated boxes.

    Args:
        part: train, test, or another name for messages; train has the stricter rules of training.
        dataset: its keyframes.
        labels: the class names; of TRAIN_LABEL or TEST_LABEL each must have a box.
        findings: gets the mistakes.
    """
    counts = count_labels(dataset)
    for name in sorted(set(counts) - set(labels.all)):
        few = findings.counts.get(kinds.UNKNOWN_LABELS, 0) < findings.keep
        hint = f"; {choices(name, labels.all)}" if few else ""  # takes long among many names
        findings.add(kinds.UNKNOWN_LABELS, f"{part}: {name!r} of {counts[name]} boxes{hint}")
    if counts:  # a test set may have no ground truth at all
        for name in {"train": labels.train, "test": labels.test}.get(part, ()):
            if not counts[name]:
                known = part == "test" and name in labels.train
                findings.add(kinds.NOT_TESTED if known else kinds.NO_SAMPLE, f"{part}: {name!r}")
    if part != "train":
        return
    wanted, groups = set(labels.train), labels.groups
    poses = {name for name in wanted if (groups or {}).get(name) == POSE}
    for keyframe in dataset.keyframes:
        for number, names in enumerate(keyframe.labels, start=1):
            where = f"{part}: {keyframe.key.video} frame {keyframe.key.frame}, box {number}"
            mine = sorted(wanted & set(names))
            if not names:
                findings.add(kinds.NO_LABEL, where)
            elif len(mine) > 1 and groups is None:
                findings.add(kinds.SEVERAL_LABELS, f"{where}: {', '.join(mine)}")
        for number, mine in keyframe.with_several(poses):
            where = f"{part}: {keyframe.key.video} frame {keyframe.key.frame}, box {number}"
            findings.add(kinds.SEVERAL_POSES, f"{where}: {', '.join(mine)}")


def count_labels(dataset: DetectionDataset) -> Counter[str]:
    """How many annotated boxes have each label."""
    return Counter(
        name for frame in dataset.keyframes for names in frame.labels for name in set(names)
    )


def check_overlap(part: str, dataset: DetectionDataset, findings: Findings) -> None:
    """See that annotated and detected boxes are of the same persons."""
    if dataset.proposals is None:
        return
    share = recall(dataset)
    if share is None or share >= IOU:
        return
    keyframes = dataset.keyframes
    others = {name: share_found(keyframes, rows) for name, rows in _readings(dataset).items()}
    best, reached = max(others.items(), key=lambda item: item[1] or 0.0)
    text = f"{part}: {share:.1%} of the annotated boxes overlap a detection by IoU {IOU:g}"
    if reached is not None and reached >= IOU:
        findings.add(kinds.NO_OVERLAP, f"{text}; read as {best}, {reached:.1%} would")
    else:
        findings.add(kinds.LOW_RECALL if share else kinds.NO_OVERLAP, text)


def _readings(dataset: DetectionDataset) -> dict[str, dict[FrameKey, Boxes]]:
    """The detections of the annotated keyframes, read in each other way."""
    found: dict[str, dict[FrameKey, Boxes]] = {}
    for keyframe in dataset.keyframes:
        rows = (dataset.proposals or {}).get(keyframe.key, NO_PROPOSALS).boxes
        size = np.array([dataset.videos[keyframe.key.video].size], dtype=np.float32)
        for name, boxes in readings(rows, size.repeat(len(rows), axis=0)).items():
            found.setdefault(name, {})[keyframe.key] = boxes.astype(np.float32)
    return found


def check_frames(
    part: str, dataset: DetectionDataset, findings: Findings, amount: int | None
) -> int:
    """Decode frames, and see that they can be, and have the size of their video.

    Args:
        part: for messages.
        dataset: its videos and keyframes.
        findings: gets the mistakes.
        amount: so many keyframes, evenly spread; None decodes every frame of every video.

    Returns:
        How many frames were decoded.
    """
    if amount is None:
        wanted = {name: list(range(1, len(v) + 1)) for name, v in dataset.videos.items()}
    else:
        keys = [keyframe.key for keyframe in dataset.keyframes]
        count = min(amount, len(keys))
        chosen = (keys[index * len(keys) // count] for index in range(count))
        wanted = {
            video: [key.frame for key in group]
            for video, group in groupby(chosen, key=lambda key: key.video)
        }
    decoded = 0
    total = sum(map(len, wanted.values()))
    with tqdm(total=total, desc=f"decoding {part}", unit="frame", disable=None) as progress:
        for name, frames in wanted.items():
            video = dataset.videos[name]
            gone = set(video.missing(max(frames, default=0)))  # which is said elsewhere
            for chunk in _chunks([frame for frame in frames if frame not in gone]):
                video.keep_open(True)  # anew: what cannot be decoded closes it
                decoded += _decode(part, name, video, chunk, findings)
                progress.update(len(chunk))
            video.keep_open(False)
    return decoded


def _decode(part: str, name: str, video: Video, frames: list[int], findings: Findings) -> int:
    try:
        pictures = video.read(frames)
    except UserError as error:
        if len(frames) > 1:  # which of them it is
            return sum(_decode(part, name, video, [frame], findings) for frame in frames)
        findings.add(kinds.UNDECODABLE, f"{part}: {error}")
        return 0
    width, height = video.size
    for frame, picture in zip(frames, pictures, strict=True):
        if picture.shape[:2] != (height, width):
            findings.add(
                kinds.SIZES,
                f"{part}: {name} frame {frame} is {picture.shape[1]} x {picture.shape[0]}, the "
                f"first one {width} x {height}",
            )
    return len(frames)


def _chunks(frames: list[int]) -> Iterator[list[int]]:
    for start in range(0, len(frames), _CHUNK):
        yield frames[start : start + _CHUNK]


def check_split(train: DetectionDataset, test: DetectionDataset, findings: Findings) -> None:
    """See that no video is in both parts, by where its frames lie."""
    trained = {video.path.resolve(): name for name, video in train.videos.items()}
    for name, video in test.videos.items():
        if video.path.resolve() in trained:
            findings.add(
                kinds.SHARED_VIDEOS, f"{video.path}: {trained[video.path.resolve()]} and {name}"
            )
