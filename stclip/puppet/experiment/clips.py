"""Test clips with what a model says about their persons, for the report."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.ops import box_iou

from stclip.data.annotations import DetectionDataset, Keyframe
from stclip.evaluation.pictures import mark_persons
from stclip.evaluation.report import ClipView, PersonVerdict
from stclip.structures import Detections, FrameKey

_TAGS = "ABCDEFGHIJ"


def view_clip(
    dataset: DetectionDataset, video: str, detections: Detections, labels: Sequence[str]
) -> ClipView:
    """A clip with the scores of its persons, averaged over the frames.

    A person is a row of the annotation, which keeps its place over a clip. In each frame the
    person's scores are those of the box that overlaps the annotated one most, at least by half.

    Args:
        dataset: the test set.
        video: a key of its videos.
        detections: of the whole test.
        labels: the vocabulary of their scores.
    """
    keyframes = [keyframe for keyframe in dataset.keyframes if keyframe.key.video == video]
    found = _of_frames(detections, {keyframe.key for keyframe in keyframes})
    boxes: list[dict[int, Tensor]] = []  # of each frame: person -> box to draw
    scores: dict[int, list[Tensor]] = {}
    for keyframe in keyframes:
        matches = _match(keyframe, *found[keyframe.key])
        boxes.append({person: box for person, (box, _) in matches.items()})
        for person, (_, score) in matches.items():
            scores.setdefault(person, []).append(score)
    count = max((len(keyframe.boxes) for keyframe in keyframes), default=0)
    truths = {p: k.labels[p] for k in reversed(keyframes) for p in range(len(k.labels))}
    persons = [
        _verdict(_TAGS[person % len(_TAGS)], truths[person], scores.get(person, []), labels)
        for person in range(count)
    ]
    numbers = [keyframe.key.frame for keyframe in keyframes]
    frames = [
        mark_persons(
            Image.fromarray(np.asarray(picture)),
            [(box.tolist(), persons[p].tag, persons[p].right) for p, box in sorted(of.items())],
        )
        for picture, of in zip(dataset.videos[video].read(numbers), boxes, strict=True)
    ]
    return ClipView(video, frames, persons)


def first_clips(dataset: DetectionDataset, labels: Sequence[str], count: int) -> list[str]:
    """The first video of each class in the order of the vocabulary, at most ``count`` of them.

    A video's class is what its first person does, who is the main one.
    """
    chosen: dict[str, str] = {}
    for keyframe in dataset.keyframes:
        for name in keyframe.labels[0] if keyframe.labels else ():
            chosen.setdefault(name, keyframe.key.video)
    return list(dict.fromkeys(chosen[name] for name in labels if name in chosen))[:count]


def _of_frames(
    detections: Detections, keys: set[FrameKey]
) -> dict[FrameKey, tuple[Tensor, Tensor]]:
    """For each of some frames the boxes (n, 4) and class scores (n, C) found there."""
    rows = {key: row for row, key in enumerate(detections.keys) if key in keys}
    return {
        key: (
            detections.boxes[detections.owner == rows.get(key, -1)],
            detections.scores[detections.owner == rows.get(key, -1)],
        )
        for key in keys
    }


def _match(keyframe: Keyframe, boxes: Tensor, scores: Tensor) -> dict[int, tuple[Tensor, Tensor]]:
    """For each annotated person that a box overlaps by half, that box and its scores."""
    if not len(boxes) or not len(keyframe.boxes):
        return {}
    overlap, best = box_iou(torch.from_numpy(keyframe.boxes).float(), boxes.float()).max(dim=1)
    return {
        person: (boxes[best[person]], scores[best[person]])
        for person in range(len(keyframe.boxes))
        if overlap[person] >= 0.5
    }


def _verdict(
    tag: str, truth: tuple[str, ...], scores: list[Tensor], labels: Sequence[str]
) -> PersonVerdict:
    name = ", ".join(truth)
    if not set(truth) & set(labels):
        return PersonVerdict(tag, name, (), None, "not among the names")
    if not scores:
        return PersonVerdict(tag, name, (), None, "no box found this person")
    every = torch.stack(scores)
    mean = every.mean(dim=0)
    top = mean.topk(min(2, len(labels)))
    guesses = [
        (labels[i], v) for v, i in zip(top.values.tolist(), top.indices.tolist(), strict=True)
    ]
    right_frames = sum(labels[i] in truth for i in every.argmax(dim=1).tolist())
    note = f"(right in {right_frames} of {len(every)} frames)"
    return PersonVerdict(tag, name, guesses, guesses[0][0] in truth, note)
