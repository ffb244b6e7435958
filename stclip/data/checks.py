"""Whether boxes are what they should be: x1, y1, x2, y2 in pixels, of the persons and videos asked.

A run warns or stops here; ``stclip validate`` lists what is wrong (validation.py).
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from stclip.data.annotations import DetectionDataset, Keyframe
from stclip.data.labels import Part
from stclip.data.proposals import NO_PROPOSALS, Proposals
from stclip.errors import UserError
from stclip.structures import FrameKey
from stclip.structures.boxes import are_empty, are_visible, paired_iou
from stclip.structures.groups import POSE

logger = logging.getLogger(__name__)

Boxes = NDArray[np.floating]

# The IoU from which on a detection is of an annotated person.
IOU = 0.5
# Keyframes, evenly spread, whose annotated and detected boxes are compared when a test begins; and
# a share of found persons that no detector for this dataset has.
_COMPARED, _LITTLE = 2000, 0.1
# Boxes may reach so many pixels over the edge of a picture without being strange.
_TOLERANCE = 2.0
# Shares of boxes: below the first, pixels are doubted; another reading must fit the second.
_DOUBTFUL, _CONVINCING = 0.9, 0.98
# Up to this many odd boxes, or this share of all, are detector errors and not another format.
_FEW, _FEW_OF_ALL = 3, 0.01
# Real files have one empty box in ten thousand, which is nothing to warn of.
_NEGLIGIBLE = 0.001


def _corners_from_size(boxes: Boxes) -> Boxes:
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def _corners_from_centre(boxes: Boxes) -> Boxes:
    half = boxes[:, 2:] / 2
    return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)


# In pixels; where two readings fit equally well the first counts.
_IN_PIXELS: dict[str, Callable[[Boxes], Boxes]] = {
    "x2, y2, x1, y1": lambda boxes: boxes[:, [2, 3, 0, 1]],
    "x, y, width, height": _corners_from_size,
    "centre x, centre y, width, height": _corners_from_centre,
    "y1, x1, y2, x2": lambda boxes: boxes[:, [1, 0, 3, 2]],
}
# Of numbers from 0 to 1.
_NORMALISED: dict[str, Callable[[Boxes], Boxes]] = {
    "x1, y1, x2, y2": lambda boxes: boxes,
    **{name: _IN_PIXELS[name] for name in list(_IN_PIXELS)[1:3]},
}


def readings(boxes: Boxes, sizes: Boxes) -> dict[str, Boxes]:
    """The boxes in xyxy pixels, for each other way in which their numbers could be meant.

    Args:
        boxes: (n, 4) as they stand in the file.
        sizes: (n, 2) width and height of each box's picture.
    """
    found = {name: read(boxes) for name, read in _IN_PIXELS.items()}
    scale = np.concatenate([sizes, sizes], axis=1)
    for name, read in _NORMALISED.items():
        found[f"{name}, as shares (0 to 1) of the picture"] = read(boxes) * scale
    return found


def guess_format(boxes: Boxes, sizes: Boxes) -> str | None:
    """What the numbers seem to mean, a name of ``readings``.

    None if they can be x1, y1, x2, y2 in pixels, or nothing else fits them better.
    """
    if len(boxes) == 0:
        return None
    ways = readings(boxes, sizes)
    shares = [name for name in ways if name.endswith("picture")]
    if not look_like_shares(boxes):
        strange = (1 - _fitting(boxes, sizes)) * len(boxes)
        if strange <= (1 - _DOUBTFUL) * len(boxes) or round(strange) < 2:  # one proves nothing
            return None
        shares, ways = [], {name: ways[name] for name in _IN_PIXELS}
    fits = {name: _fitting(ways[name], sizes) for name in (shares or ways)}
    best = max(fits, key=lambda name: fits[name])
    return best if fits[best] >= _CONVINCING else None


def look_like_shares(boxes: Boxes) -> bool:
    """Whether the numbers of boxes (n, 4) are shares of a picture, from 0 to 1, and no pixels."""
    return float((np.abs(boxes) <= 1.05).all(axis=1).mean()) >= _CONVINCING


def check_boxes(
    rows: Sequence[tuple[FrameKey, NDArray[np.float32]]],
    size_of: Mapping[str, tuple[int, int]],
    where: str,
    fate: str,
) -> int:
    """Refuse boxes of another format, and warn of the few that are of no use.

    Args:
        rows: boxes (n, 4) of some frames, as they stand in a file.
        size_of: width and height of the videos; frames of others are not looked at.
        where: the file, for messages.
        fate: what happens to boxes that are empty within their picture, for messages.

    Returns:
        How many boxes are not.

    Raises:
        UserError: more than a few boxes are empty, or most seem to mean something else.
    """
    rows = [(key, boxes) for key, boxes in rows if len(boxes) and key.video in size_of]
    if not rows:
        return 0
    boxes, sizes, owner = lay_end_to_end(rows, size_of)

    def first(mask: NDArray[np.bool_]) -> tuple[str, str]:
        """Where the first box of some is, and its numbers."""
        index = int(mask.argmax())
        key = rows[owner[index]][0]
        numbers = ", ".join(f"{value:g}" for value in boxes[index])
        width, height = sizes[index]
        return f"frame {key.frame} of {key.video}", f"({numbers}) in {width:g} x {height:g}"

    empty, useless = are_empty(boxes), ~are_visible(boxes, sizes)
    meant = guess_format(boxes, sizes)
    if meant is not None or not are_few(empty):
        problem = f"{empty.sum()} of {len(boxes)} boxes have x2 <= x1 or y2 <= y1"
        if meant is not None:
            problem = f"{len(boxes)} boxes look like {meant}"
        raise UserError(
            f"{where}: {problem} ({': '.join(first(empty))}); x1, y1, x2, y2 in pixels of the "
            "picture were expected"
        )
    if useless.any():
        logger.log(
            logging.INFO if are_negligible(useless) else logging.WARNING,
            "%s: %d of %d boxes are empty within their picture and %s (first: %s, %s)",
            where, useless.sum(), len(boxes), fate, *first(useless),
        )  # fmt: skip
    over = ~_inside(boxes, sizes) & ~empty
    if over.sum() > max(_FEW, (1 - _DOUBTFUL) * len(boxes)):
        logger.warning(
            "%s: %d of %d boxes reach more than %g pixels over the edge of their picture (first: "
            "%s, %s); were they made at another resolution?",
            where, over.sum(), len(boxes), _TOLERANCE, *first(over),
        )  # fmt: skip
    return int((~useless).sum())


def check_dataset(dataset: DetectionDataset, part: Part, threshold: float, limit: int) -> None:
    """Check annotated and detected boxes, so that no result is silently wrong.

    ``threshold`` is TEST.BOX_THRESH, and ``limit`` TEST.MAX_PERSONS.

    Raises:
        UserError: the size of a video cannot be read, more than a few boxes are empty, most seem to
            mean something else, or none to train on lies in its picture.
    """
    sizes = {name: video.size for name, video in dataset.videos.items()}
    annotated = [(keyframe.key, keyframe.boxes) for keyframe in dataset.keyframes]
    fate = "are left out of training" if part == "train" else "cannot be found"
    where = f"DATASETS.{part.upper()} {dataset.sources[0] or ''}".strip()
    used = check_boxes(annotated, sizes, where, fate)
    if part == "train" and not used:
        raise UserError(
            f"{where}: none of its boxes lies in its picture, so there is no person to train on; "
            "boxes are x1, y1, x2, y2 in pixels of the picture"
        )
    if dataset.proposals is None:
        return
    where = _detections(dataset)
    found = [(key, rows.boxes) for key, rows in dataset.proposals.items()]
    check_boxes(found, sizes, where, "are left out")
    some = dataset.keyframes[:: max(len(dataset.keyframes) // _COMPARED, 1)]
    share = recall(replace(dataset, keyframes=some))
    if share is not None and share < _LITTLE:
        logger.warning(
            "%s: only %.1f%% of the annotated boxes overlap a detection by IoU 0.5, and no mAP@0.5 "
            "can be much higher; are the boxes of these videos, frames and sizes? "
            "stclip validate says more",
            where, 100 * share,
        )  # fmt: skip
    scores = np.concatenate([np.zeros(0), *(rows.scores for rows in dataset.proposals.values())])
    strange = int(((scores < 0) | (scores > 1)).sum())
    if strange:
        logger.warning(
            "%s: %d of %d scores are not from 0 to 1 (%g to %g); class scores are multiplied by "
            "them: divide percents by 100, apply the sigmoid to logits",
            where, strange, len(scores), scores.min(), scores.max(),
        )  # fmt: skip
    warn_of_choice(dataset, threshold, limit)


def warn_of_choice(dataset: DetectionDataset, threshold: float, limit: int) -> None:
    """Warn if TEST.BOX_THRESH leaves no detected person, or TEST.MAX_PERSONS not the best."""
    proposals, where = dataset.proposals or {}, _detections(dataset)
    best = max((float(rows.scores.max()) for rows in proposals.values() if len(rows)), default=None)
    if best is not None and best < threshold:
        logger.warning(
            "TEST.BOX_THRESH %g: no box of %s scores as much, the best has %g, so that nothing is "
            "tested", threshold, where, best,
        )  # fmt: skip
    worse = [key for key, rows in proposals.items() if not rows.are_best(threshold, limit)]
    if worse:
        logger.warning(
            "TEST.MAX_PERSONS %d: takes the first boxes of a frame as %s has them, which are not "
            "the best in %d of %d frames (first: frame %d of %s); sort each frame's by descending "
            "score",
            limit, where, len(worse), len(proposals), worse[0].frame, worse[0].video,
        )  # fmt: skip


def warn_of_poses(keyframes: Sequence[Keyframe], groups: Mapping[str, str]) -> None:
    """Warn of persons with several poses. Not an error: AVA's own files have some."""
    poses = {name for name, group in groups.items() if group == POSE}
    found = [(k.key, *box) for k in keyframes for box in k.with_several(poses)]
    if found:
        key, number, names = found[0]
        logger.warning(
            "DATASETS.TRAIN: %d of %d person boxes have several labels of the group pose, of which "
            "a person has one; training aims between them (first: box %d of frame %d of video %s: "
            "%s)",
            len(found), sum(len(k.boxes) for k in keyframes), number, key.frame, key.video,
            ", ".join(names),
        )  # fmt: skip


def recall(
    dataset: DetectionDataset, used: Callable[[Proposals], Proposals] = lambda found: found
) -> float | None:
    """The share of annotated boxes that a detection overlaps by IoU 0.5.

    Args:
        dataset: with proposals.
        used: which of a keyframe's detections count.

    Returns:
        0 to 1; None without annotated boxes.
    """
    assert dataset.proposals is not None
    found = {key: used(rows) for key, rows in dataset.proposals.items()}
    return share_found(dataset.keyframes, {key: rows.boxes for key, rows in found.items()})


def share_found(
    keyframes: Sequence[Keyframe], found: Mapping[FrameKey, NDArray[np.float32]]
) -> float | None:
    """The share of the annotated boxes that one of the found boxes of their frame overlaps."""
    hits = total = 0
    for keyframe in keyframes:
        rows, count = found.get(keyframe.key, NO_PROPOSALS.boxes), len(keyframe.boxes)
        pairs = paired_iou(keyframe.boxes.repeat(len(rows), axis=0), np.tile(rows, (count, 1)))
        best = pairs.reshape(count, len(rows)).max(axis=1, initial=0)
        hits += int((best >= IOU).sum())
        total += count
    return hits / total if total else None


def _detections(dataset: DetectionDataset) -> str:
    """The file of detections, for messages."""
    return f"DATASETS.DETECTIONS {dataset.sources[1] or ''}".strip()


def lay_end_to_end(
    rows: Sequence[tuple[FrameKey, NDArray[np.float32]]], size_of: Mapping[str, tuple[int, int]]
) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.int64]]:
    """Boxes of some frames (n, 4), the sizes of their pictures (n, 2), and the row of each (n,)."""
    owner = np.repeat(np.arange(len(rows)), [len(boxes) for _, boxes in rows])
    sizes = np.array([size_of[key.video] for key, _ in rows], dtype=np.float64)
    return np.concatenate([boxes for _, boxes in rows]), sizes[owner], owner


def are_few(strange: NDArray[np.bool_]) -> bool:
    """Whether strange boxes, of all (n,), may be accidents."""
    return bool(strange.sum() <= max(_FEW, _FEW_OF_ALL * len(strange)))


def are_negligible(strange: NDArray[np.bool_]) -> bool:
    """Whether strange boxes, of all (n,), are as rare as in files that are right."""
    return bool(strange.sum() <= _NEGLIGIBLE * len(strange))


def _inside(boxes: Boxes, sizes: Boxes) -> NDArray[np.bool_]:
    low = (boxes >= -_TOLERANCE).all(axis=1)
    return np.asarray(low & (boxes[:, 2:] <= sizes + _TOLERANCE).all(axis=1))


def _fitting(boxes: Boxes, sizes: Boxes) -> float:
    """The share of boxes that lie in their pictures and are not empty."""
    return float((_inside(boxes, sizes) & ~are_empty(boxes)).mean())
