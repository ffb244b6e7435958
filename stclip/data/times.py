"""What voting along tracks needs of a dataset: when keyframes are shown, whose boxes there are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from stclip.data.annotations import DetectionDataset, Keyframe
from stclip.data.chunks import visible_boxes
from stclip.structures import Detections


def with_times(
    detections: Detections, dataset: DetectionDataset, annotated: bool = False
) -> Detections:
    """The detections of a test with the seconds of their keyframes, and the persons if known.

    Args:
        detections: of all keyframes of ``dataset``, in their order.
        dataset: what was tested.
        annotated: whether its annotated boxes were, whose persons it may know.

    Raises:
        UserError: a video cannot be read.
    """
    seconds = persons = None
    if dataset.fps:
        times = [
            dataset.videos[key.video].seconds_at(key.frame, dataset.fps[key.video])
            for key in detections.keys
        ]
        seconds = torch.tensor(times, dtype=torch.float64)
    if annotated and any(keyframe.persons for keyframe in dataset.keyframes):
        counts = torch.bincount(detections.owner, minlength=len(detections.keys)).tolist()
        numbers = [
            _tested_persons(dataset, keyframe, count)
            for keyframe, count in zip(dataset.keyframes, counts, strict=True)
        ]
        persons = torch.from_numpy(np.concatenate(numbers))
    return replace(detections, seconds=seconds, persons=persons)


def _tested_persons(dataset: DetectionDataset, keyframe: Keyframe, count: int) -> NDArray[np.int64]:
    """The persons of the boxes that were tested: those that are not empty in the picture."""
    _, valid = visible_boxes(keyframe.boxes, dataset.videos[keyframe.key.video].size)
    if not keyframe.persons or len(valid) != count:  # a picture of another size than the first
        return np.zeros(count, dtype=np.int64)
    return np.array(keyframe.persons, dtype=np.int64)[valid]
