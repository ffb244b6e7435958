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
