"""How well scores tell people who do something else (docs/evaluation.md, "Something else")."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from stclip.evaluation.frame_map import (
    AnnotatedFrame,
    Floats,
    Integers,
    Metrics,
    TruthBoxes,
    best_matches,
    first_claims,
)
from stclip.evaluation.result_csv import DetectionRows

IOU = 0.5
RECALL = 0.5


def rejection(
    ground_truth: Iterable[AnnotatedFrame], rows: DetectionRows, labels: Sequence[str]
) -> Metrics:
    """Whether low scores go to the people who do nothing of the vocabulary.

    Args:
        ground_truth: every annotated frame of the evaluated videos, with all of its persons.
        rows: the detections. The rows of one frame with the same coordinates are one box.
        labels: the vocabulary, in the order of the rows' label indices.

    Returns:
        Nothing unless there are boxes of people with a label of the vocabulary and of people with
        another one, and nobody has several labels. Else ``rejection``: ``auroc`` in percent, of
        "does something else" with minus the highest score of a box as the score; ``precision`` in
        percent and ``threshold``, of the boxes with at least the highest score at which half of the
        people with a label of the vocabulary are found with it, None if that is never reached; and
        ``boxes_inside`` and ``boxes_outside``, how many boxes the first is computed from.
    """
    frames = list(ground_truth)
    annotated = [set(names) for frame in frames for names in frame.labels]
    others = sorted(set().union(*annotated).difference(labels))
    if not others or any(len(names) > 1 for names in annotated):
        return {}
    truth = TruthBoxes.of_frames(frames, [*labels, *others])
    counts = [len(boxes) for boxes in truth.boxes]
    frame = np.concatenate(truth.frame)
    by_frame = np.argsort(frame, kind="stable")
    action = np.repeat(np.arange(len(counts)), counts)[by_frame]
    best = best_rows(rows)
    numbers = np.array([truth.frames.get(key, -1) for key in rows.keys], dtype=np.int64)
    person, overlap = best_matches(
        rows.boxes[best],
        numbers[rows.frame[best]],
        np.concatenate(truth.boxes)[by_frame],
        frame[by_frame],
    )
    does = np.where(overlap >= IOU, action[person], -1)
    scores = rows.scores[best]
    inside, outside = (does >= 0) & (does < len(labels)), does >= len(labels)
    if not inside.any() or not outside.any():
        return {}
    order = np.argsort(-scores, kind="stable")
    found = np.cumsum(first_claims(person[order], (does == rows.labels[best])[order]))
    ends = np.flatnonzero(np.diff(scores[order], append=-np.inf))  # of runs of equal scores
    enough = ends[found[ends] >= RECALL * sum(counts[: len(labels)])]
    precision, threshold = None, None
    if len(enough):
        last = int(enough[0])
        precision, threshold = 100 * float(found[last]) / (last + 1), float(scores[order[last]])
    return {
        "rejection": {
            "auroc": 100 * auroc(-scores[outside], -scores[inside]),
            "precision": precision,
            "threshold": threshold,
            "boxes_inside": int(inside.sum()),
            "boxes_outside": int(outside.sum()),
        }
    }


def best_rows(rows: DetectionRows) -> Integers:
    """(b,) of every box its row with the highest score, of equal ones the first label's."""
    place = np.column_stack([rows.frame, rows.boxes])
    box = np.unique(place, axis=0, return_inverse=True)[1].reshape(-1)
    order = np.lexsort((rows.labels, -rows.scores, box))
    _, first = np.unique(box[order], return_index=True)
    return order[first].astype(np.int64)


def auroc(positive: Floats, negative: Floats) -> float:
    """The share of pairs in which the positive's score is the higher one; equal ones count half."""
    ranked = np.sort(negative)
    below = np.searchsorted(ranked, positive, "left") + np.searchsorted(ranked, positive, "right")
    return float(below.mean() / 2 / len(negative))
