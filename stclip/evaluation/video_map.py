"""Video mAP (docs/evaluation.md, "Video mAP"): linking boxes to tubes, and matching the tubes.

Linking: in every frame of a video and for every class, boxes that overlap a higher-scoring one are
dropped, and the ten best of the others kept. Frame after frame, each live tube then takes the
highest-scoring box that no other tube has taken and that overlaps the tube's last box enough;
boxes that no tube takes begin new ones. Tubes choose in the order of their mean scores so far, the
older one first of equals. All classes of many videos are linked at the same time: a Python loop
runs over frames, not over classes, tubes or boxes.

Matching: tubes are matched as boxes are for frame mAP.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from stclip.evaluation.frame_map import (
    Floats,
    Integers,
    Metrics,
    average_precision,
    check_thresholds,
    first_claims,
    mean,
)
from stclip.evaluation.result_csv import DetectionRows
from stclip.structures import Tube
from stclip.structures.boxes import paired_iou

# The mean over these is reported as "0.5:0.95".
RANGE = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
RANGE_NAME = "0.5:0.95"

Tubes = Mapping[str, Sequence[Tube]]

NMS_IOU = 0.3  # boxes that overlap a better one by more than this are dropped
TOP_BOXES = 10  # boxes of a frame and class that are kept
LINK_IOU = 0.2  # a tube continues with a box that overlaps its last one by at least this
MAX_GAP = 5  # a tube has ended when so many frames had no box for it
MIN_FRAMES = 15  # shorter tubes are dropped, unless the video is shorter too
MIN_SCORE = 0.01  # tubes that score less are dropped

_BATCH = 400_000  # rows that are linked at once, which bounds the memory


def video_map(
    ground_truth: Tubes,
    detections: Tubes,
    labels: Sequence[str],
    iou_thresholds: Sequence[float] = (0.2, 0.5, 0.75),
) -> Metrics:
    """Video mAP of ``detections`` against ``ground_truth``.

    A detected tube matches the ground-truth tube of its video and class that it overlaps most
    (``tube_iou``), under the rules of frame mAP: by descending score, and a best match that is
    already taken does not fall through.

    Args:
        ground_truth: the tubes of every evaluated video, those without detections included.
        detections: the tubes found, by video; equal scores rank by the video's name, then in their
            order.
        labels: the evaluated classes; tubes of others are left out on both sides.
        iou_thresholds: a match needs at least this IoU.

    Returns:
        ``video_mAP@T`` in percent for each threshold T: the mean over the classes that have ground
        truth, None if none has. ``video_mAP@0.5:0.95``: the mean of those at 0.5, 0.55 ... 0.95.
        ``per_class@T``: {class: AP in percent, None without ground truth}, also for 0.5:0.95.
        ``per_class``: the same at 0.5, or at the first threshold if 0.5 is not asked for.
        ``iou_thresholds``: ascending. ``ground_truth_tubes``: {class: count}. ``tubes``: how many
        detected ones took part.

    Raises:
        UserError: a threshold outside (0, 1], or none.
    """
    thresholds = check_thresholds(iou_thresholds)
    wanted = sorted({*thresholds, *RANGE})
    per_class: dict[float, dict[str, float | None]] = {t: {} for t in wanted}
    all_truths, all_found = _by_class(ground_truth), _by_class(detections)
    counts, taken = {}, 0
    for name in labels:
        found = _match(all_truths.get(name, {}), all_found.get(name, {}))
        total = sum(len(tubes) for tubes in all_truths.get(name, {}).values())
        for threshold in wanted:
            hits = first_claims(found.best, found.overlap >= threshold)
            value = average_precision(found.scores, hits, total)
            per_class[threshold][name] = 100 * value if total else None
        counts[name] = total
        taken += len(found.scores)
    ranges = {name: mean(per_class[t][name] for t in RANGE) for name in labels}
    metrics: Metrics = {f"video_mAP@{t:g}": mean(per_class[t].values()) for t in thresholds}
    metrics[f"video_mAP@{RANGE_NAME}"] = mean(ranges.values())
    metrics["per_class"] = per_class[0.5 if 0.5 in thresholds else thresholds[0]]
    metrics.update({f"per_class@{t:g}": per_class[t] for t in thresholds})
    metrics[f"per_class@{RANGE_NAME}"] = ranges
    metrics["iou_thresholds"] = list(thresholds)
    metrics["ground_truth_tubes"] = counts
    metrics["tubes"] = taken
    return metrics


def precision_and_recall(
    ground_truth: Tubes,
    detections: Tubes,
    labels: Sequence[str],
    iou_thresholds: Sequence[float] = (0.2, 0.5),
) -> Metrics:
    """How many of the tubes found are right, and how many of the true ones are found.

    For tubes that were decided on, such as events: their scores only settle which of two that match
    one true tube counts. Matching and arguments are those of ``video_map``.

    Returns:
        ``precision@T`` and ``recall@T`` in percent over all classes, None of nothing; ``tubes`` and
        ``ground_truth_tubes``: how many there are.
    """
    thresholds = check_thresholds(iou_thresholds)
    all_truths, all_found = _by_class(ground_truth), _by_class(detections)
    hits = dict.fromkeys(thresholds, 0)
    taken = total = 0
    for name in labels:
        found = _match(all_truths.get(name, {}), all_found.get(name, {}))
        taken += len(found.scores)
        total += sum(len(tubes) for tubes in all_truths.get(name, {}).values())
        for threshold in thresholds:
            hits[threshold] += int(first_claims(found.best, found.overlap >= threshold).sum())
    metrics: Metrics = {"tubes": taken, "ground_truth_tubes": total}
    for threshold, right in hits.items():
        metrics[f"precision@{threshold:g}"] = 100 * right / taken if taken else None
        metrics[f"recall@{threshold:g}"] = 100 * right / total if total else None
    return metrics


class _Matches(NamedTuple):
    """The tubes found of one class, by descending score.

    Attributes:
        scores: (n,)
        best: (n,) the number of the true tube of its video that each overlaps most, -1 for none.
        overlap: (n,) by how much.
    """

    scores: Floats
    best: Integers
    overlap: Floats


def _match(truths: Tubes, found: Tubes) -> _Matches:
    """The tubes of one class, compared."""
    tubes = [(tube, video) for video, some in found.items() for tube in some]
    scores = np.array([tube.score for tube, _ in tubes], dtype=np.float64)
    order = np.argsort(-scores, kind="stable")
    total, numbers = 0, {}  # of the first ground truth of each video
    for video, some in truths.items():
        numbers[video] = total
        total += len(some)
    best = np.full(len(tubes), -1, dtype=np.int64)
    overlap = np.zeros(len(tubes))
    for row, index in enumerate(order.tolist()):
        tube, video = tubes[index]
        if video in truths:
            ious = [tube_iou(tube, truth) for truth in truths[video]]
            best[row] = numbers[video] + int(np.argmax(ious))
            overlap[row] = max(ious)
    return _Matches(scores[order], best, overlap)


def tube_iou(a: Tube, b: Tube) -> float:
    """Spatio-temporal IoU, as MultiSports computes it.

    The mean spatial IoU over the frames that both have, times the temporal IoU (tmax - tmin) /
    (union extent): tmin and tmax bound the overlap in time, and the union reaches from the first
    frame of either to the last. Extents are differences of frame numbers, without + 1, so tubes
    that share one frame only have 0; but two tubes of one and the same frame have the spatial IoU.
    """
    low, high = max(a.first, b.first), min(a.last, b.last)
    union = max(a.last, b.last) - min(a.first, b.first)
    if high < low or (high == low and union):
        return 0.0
    _, of_a, of_b = np.intersect1d(a.frames, b.frames, assume_unique=True, return_indices=True)
    if not len(of_a):
        return 0.0
    ious = paired_iou(a.boxes[of_a].astype(np.float64), b.boxes[of_b].astype(np.float64))
    return float(ious.mean()) * ((high - low) / union if union else 1.0)


def _by_class(tubes: Tubes) -> dict[str, dict[str, list[Tube]]]:
    """{label: {video: its tubes of that label}}, with the videos in order."""
    sorted_: dict[str, dict[str, list[Tube]]] = {}
    for video in sorted(tubes):
        for tube in tubes[video]:
            sorted_.setdefault(tube.label, {}).setdefault(video, []).append(tube)
    return sorted_


def link_tubes(
    rows: DetectionRows, labels: Sequence[str], lengths: Mapping[str, int] | None = None
) -> dict[str, list[Tube]]:
    """The tubes of every video of ``rows``.

    A tube's score is the mean of its boxes' scores; its frames are those in which it has a box, and
    its length is from the first of them to the last, gaps included.

    Args:
        rows: the detections; those with a score that is not positive are dropped, and equal scores
            rank in their order.
        labels: the class names that the rows' labels count in.
        lengths: frames of the videos, for ``MIN_FRAMES``. Where a video is not there, it ends with
            the last frame that has a row.

    Returns:
        {video: tubes}, by class and then by the frame that they begin in; every video that has a
        row is a key.
    """
    names = sorted({key.video for key in rows.keys})
    number = {name: i for i, name in enumerate(names)}
    video_of_key = np.array([number[key.video] for key in rows.keys], dtype=np.int32)
    frame_of_key = np.array([key.frame for key in rows.keys], dtype=np.int64)
    last = np.zeros(len(names), dtype=np.int64)
    np.maximum.at(last, video_of_key, frame_of_key)
    length = np.array([(lengths or {}).get(name, last[i]) for i, name in enumerate(names)])
    tubes: dict[str, list[Tube]] = {name: [] for name in names}
    with tqdm(total=len(names), desc="linking", unit="video", disable=None) as bar:
        for videos, chosen in _batches(rows, video_of_key, len(names)):
            video = video_of_key[rows.frame[chosen]].astype(np.int64)
            boxes = _Boxes(
                group=video * len(labels) + rows.labels[chosen],
                frame=frame_of_key[rows.frame[chosen]],
                box=rows.boxes[chosen],
                score=rows.scores[chosen],
            )
            for group, tube in _tubes(_suppress(boxes), labels, np.minimum(length, MIN_FRAMES)):
                tubes[names[group // len(labels)]].append(tube)
            bar.update(videos)
    return tubes


def why_no_tube(rows: DetectionRows) -> str:
    """What keeps all boxes of a csv from becoming tubes, to be put after "no tube"."""
    if not len(rows):
        return " because the file has no rows"
    best = rows.scores.max()
    if best < MIN_SCORE:
        return (
            f": tubes that score less than {MIN_SCORE:g} are dropped, and its best box has {best:g}"
        )
    frames: dict[str, list[int]] = {}
    for key in rows.keys:
        frames.setdefault(key.video, []).append(key.frame)
    gaps = [gap for numbers in frames.values() for gap in np.diff(sorted(numbers)).tolist()]
    if not gaps or np.median(gaps) > MAX_GAP:
        apart = f"{np.median(gaps):g} apart" if gaps else "one a video"
        return (
            f": a tube ends after {MAX_GAP} frames without a box, and its frames are {apart}; "
            "detections in (nearly) every frame are needed"
        )
    return (
        f": none of {MIN_FRAMES} frames (or of the video's length) that scores {MIN_SCORE:g} or "
        "more; do its boxes overlap from frame to frame?"
    )


@dataclass(frozen=True)
class _Boxes:
    """Boxes of several groups; a group is a class of a video.

    Attributes:
        group: (n,) of each box.
        frame: (n,)
        box: (n, 4) xyxy.
        score: (n,)
    """

    group: Integers
    frame: Integers
    box: Floats
    score: Floats

    def take(self, order: NDArray[np.integer] | NDArray[np.bool_]) -> _Boxes:
        return _Boxes(self.group[order], self.frame[order], self.box[order], self.score[order])


def _batches(
    rows: DetectionRows, video_of_key: NDArray[np.int32], videos: int
) -> Iterator[tuple[int, Integers]]:
    """The rows with a positive score, some whole videos at a time, and how many videos."""
    kept = np.flatnonzero(rows.scores > 0)
    video = video_of_key[rows.frame[kept]]
    kept = kept[np.argsort(video, kind="stable")]
    ends = np.cumsum(np.bincount(video, minlength=videos))
    first = start = 0
    for i, end in enumerate(ends.tolist()):
        if i + 1 == videos or ends[i + 1] - start > _BATCH:
            yield i + 1 - first, kept[start:end]
            first, start = i + 1, end


def _suppress(boxes: _Boxes) -> _Boxes:
    """The best boxes of each group and frame, by frame, group and descending score.

    In each round every cell (a group's boxes in a frame) keeps the best box that is left, and drops
    those that overlap it.
    """
    boxes = boxes.take(np.lexsort((-boxes.score, boxes.group, boxes.frame)))
    kept = np.zeros(len(boxes.group), dtype=bool)
    left = np.arange(len(boxes.group))
    for _ in range(TOP_BOXES):
        if not len(left):
            break
        is_first = _starts(boxes.frame[left], boxes.group[left])
        best = left[is_first][np.cumsum(is_first) - 1]  # of the cell of each box that is left
        kept[left[is_first]] = True
        overlap = paired_iou(boxes.box[left], boxes.box[best])
        left = left[~is_first & (overlap <= NMS_IOU)]
    return boxes.take(kept)


def _starts(*columns: Integers) -> NDArray[np.bool_]:
    """(n,) whether a row differs from the one before it in any of the columns."""
    starts = np.ones(len(columns[0]), dtype=bool)
    starts[1:] = np.logical_or.reduce([column[1:] != column[:-1] for column in columns])
    return starts


def _rank(group: Integers) -> Integers:
    """(n,) the place of each row among its group's; the rows of a group are neighbours."""
    starts = _starts(group)
    position = np.arange(len(group), dtype=np.int64)
    first: Integers = position[starts][np.cumsum(starts) - 1]
    return position - first


def _tubes(boxes: _Boxes, labels: Sequence[str], minimum: Integers) -> Iterator[tuple[int, Tube]]:
    """The tubes of some groups that are long and good enough, with the number of their group."""
    if not len(boxes.group):
        return
    owner = _link(boxes)
    by_tube = np.argsort(owner, kind="stable")  # and so still by frame in each tube
    first = np.flatnonzero(_starts(owner[by_tube]))
    last = np.append(first[1:], len(owner)) - 1
    frame, box = boxes.frame[by_tube], boxes.box[by_tube].astype(np.float32)
    group = boxes.group[by_tube][first]
    score = np.add.reduceat(boxes.score[by_tube], first) / (last - first + 1)
    long_enough = frame[last] - frame[first] + 1 >= minimum[group // len(labels)]
    chosen = np.flatnonzero(long_enough & (score >= MIN_SCORE))
    chosen = chosen[np.lexsort((frame[first[chosen]], group[chosen]))]
    for tube in chosen.tolist():
        span = slice(first[tube], last[tube] + 1)
        name = labels[group[tube] % len(labels)]
        yield int(group[tube]), Tube(name, frame[span], box[span], float(score[tube]))


def _link(boxes: _Boxes) -> Integers:
    """(n,) the number of the tube that each box belongs to; the boxes come from ``_suppress``."""
    owner = np.zeros(len(boxes.group), dtype=np.int64)
    total = np.zeros(len(boxes.group))  # of tube t: the sum of its scores, how many, its last box
    count = np.zeros(len(boxes.group), dtype=np.int64)
    tail = np.zeros(len(boxes.group), dtype=np.int64)
    tubes = 0
    live = np.zeros(0, dtype=np.int64)
    bounds = np.append(np.flatnonzero(_starts(boxes.frame)), len(owner)).tolist()
    for start, end in pairwise(bounds):
        live = live[boxes.frame[start] - boxes.frame[tail[live]] <= MAX_GAP]
        order = np.lexsort((live, -total[live] / count[live], boxes.group[tail[live]]))
        claims = _claim(boxes, live[order], tail, start, end)
        new = np.flatnonzero(claims < 0)
        claims[new] = np.arange(tubes, tubes + len(new))
        tubes += len(new)
        live = np.concatenate([live, claims[new]])
        owner[start:end] = claims
        total[claims] += boxes.score[start:end]
        count[claims] += 1
        tail[claims] = np.arange(start, end)
    return owner


def _claim(boxes: _Boxes, live: Integers, tail: Integers, start: int, end: int) -> Integers:
    """Which live tube takes each of a frame's boxes, -1 for none.

    Args:
        boxes: all boxes.
        live: tubes, by group and in the order in which they choose.
        tail: the last box of each tube.
        start: the frame's first box.
        end: after its last.
    """
    claims = np.full(end - start, -1, dtype=np.int64)
    group = boxes.group[start:end]
    present, first, count = np.unique(group, return_index=True, return_counts=True)
    place = np.minimum(np.searchsorted(present, boxes.group[tail[live]]), len(present) - 1)
    chooses = present[place] == boxes.group[tail[live]]
    live, place = live[chooses], place[chooses]
    if not len(live):
        return claims
    # (tubes, boxes of the fullest group): the group's boxes in this frame by descending score
    candidate = first[place][:, None] + np.arange(count.max())
    exists = np.arange(count.max()) < count[place][:, None]
    tube, column = np.nonzero(exists)
    overlap = paired_iou(boxes.box[tail[live[tube]]], boxes.box[start + candidate[tube, column]])
    fits = np.zeros(exists.shape, dtype=bool)
    fits[tube, column] = overlap >= LINK_IOU
    turn = _rank(place)
    for number in range(int(turn.max()) + 1):
        choosing = np.flatnonzero(turn == number)
        free = fits[choosing] & (claims[np.minimum(candidate[choosing], end - start - 1)] < 0)
        choosing, choice = choosing[free.any(axis=1)], free.argmax(axis=1)[free.any(axis=1)]
        claims[candidate[choosing, choice]] = live[choosing]
    return claims
