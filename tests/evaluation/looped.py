"""The metric again, written as loops straight from its definition, to compare with."""

import numpy as np


def iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    intersection = width * height
    area = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return intersection / (area - intersection)


def average_precision(hits, count):
    """Hits in order of rank. Precision at every recall, interpolated, integrated step by step."""
    if count == 0:
        return float("nan")
    recalls, precisions = [0.0], []
    found = 0
    for rank, hit in enumerate(hits, 1):
        found += hit
        recalls.append(found / count)
        precisions.append(found / rank)
    total = 0.0
    for i in range(len(hits)):
        total += (recalls[i + 1] - recalls[i]) * max(precisions[i:])
    return total


def class_hits(detections, truths, threshold):
    """Greedy matching of one class.

    detections: (frame, box, score) in any order; truths: (frame, box).
    """
    taken = set()
    hits = []
    for frame, box, score in sorted(detections, key=lambda d: (-d[2], d[0])):
        if score <= 0:
            continue
        best, best_iou = None, -1.0
        for number, (truth_frame, truth_box) in enumerate(truths):
            if truth_frame == frame and iou(box, truth_box) > best_iou:
                best, best_iou = number, iou(box, truth_box)
        hit = best is not None and best_iou >= threshold and best not in taken
        if hit:
            taken.add(best)
        hits.append(hit)
    return np.array(hits, dtype=bool)


def suppressed(boxes):
    """Per-frame NMS of one class: (box, score) in, the kept ones by descending score out."""
    kept = []
    for box, score in sorted(boxes, key=lambda b: -b[1]):
        if score > 0 and all(iou(box, other) <= 0.3 for other, _ in kept):
            kept.append((box, score))
    return kept[:10]


def linked(detections, length):
    """Greedy linking of one class of one video.

    detections: (frame, box, score). Returns tubes as lists of (frame, box, score), all of them
    that are long and good enough.
    """
    frames = {}
    for frame, box, score in detections:
        frames.setdefault(frame, []).append((box, score))
    tubes = []
    for frame in range(min(frames, default=1), max(frames, default=0) + 1):
        free = suppressed(frames.get(frame, []))
        live = [tube for tube in tubes if frame - tube[-1][0] <= 5]
        live.sort(key=lambda tube: -np.mean([score for _, _, score in tube]))  # stable
        for tube in live:
            for box, score in free:
                if iou(tube[-1][1], box) >= 0.2:
                    tube.append((frame, box, score))
                    free.remove((box, score))
                    break
        tubes += [[(frame, box, score)] for box, score in free]
    return [
        tube
        for tube in tubes
        if tube[-1][0] - tube[0][0] + 1 >= min(15, length)
        and np.mean([score for _, _, score in tube]) >= 0.01
    ]


def tube_iou(a, b):
    """Tubes as {frame: box}."""
    common = sorted(set(a) & set(b))
    if not common:
        return 0.0
    spatial = sum(iou(a[frame], b[frame]) for frame in common) / len(common)
    union = max(*a, *b) - min(*a, *b)
    return spatial * (min(max(a), max(b)) - max(min(a), min(b))) / union if union else spatial
