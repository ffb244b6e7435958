from dataclasses import replace

import pytest
import torch

from stclip.structures import ClipBatch, Detections, FrameKey
from tests.helpers import random_batch


def test_laying_end_to_end_keeps_what_indices_point_at() -> None:
    a = random_batch([1, 0], frames=4, seed=1, video="a")
    b = random_batch([2], frames=9, seed=2, video="b")
    both = ClipBatch.cat([a, b])
    assert len(both) == 3
    assert both.keys == (*a.keys, *b.keys)
    assert both.owner.tolist() == [0, 2, 2]
    assert torch.equal(both.frames[both.keyframe[2]], b.frames[b.keyframe[0]])
    assert torch.equal(both.frames[both.window[2, 3]], b.frames[b.window[0, 3]])
    assert both.window[0].tolist() == [0, 1, 2, 3, -1, -1, -1, -1, -1]
    assert torch.equal(both.frame_boxes[1:], b.frame_boxes)


def test_fields_must_agree_in_length() -> None:
    batch = random_batch([1])
    with pytest.raises(AssertionError, match="N rows"):
        replace(batch, owner=torch.zeros(2, dtype=torch.long))


def test_the_layout_follows_from_owners_and_windows() -> None:
    layout = random_batch([2, 0, 1]).layout
    assert layout.active.tolist() == [0, 2]
    assert layout.row.tolist() == [0, 0, 1]
    assert layout.place.tolist() == [0, 1, 0]
    assert (layout.most, layout.padded, layout.short) == (2, True, False)
    assert random_batch([1, 1], frames=4).layout.short
    assert random_batch([0]).layout.most == 0


def test_labels_must_be_there_for_all_or_none() -> None:
    with pytest.raises(AssertionError, match="labels"):
        ClipBatch.cat([random_batch([1], classes=3), random_batch([1])])


def test_boxes_in_the_frames_must_be_there_for_all_or_none() -> None:
    batch = random_batch([1])
    without = replace(batch, frame_boxes=None)
    assert ClipBatch.cat([without, without]).frame_boxes is None
    with pytest.raises(AssertionError, match="frame_boxes"):
        ClipBatch.cat([batch, without])


def test_moving_keeps_everything() -> None:
    batch = random_batch([1, 2], classes=3)
    moved = batch.to(torch.device("meta"))
    assert moved.labels is not None
    assert moved.labels.device.type == "meta"
    assert moved.keys == batch.keys
    assert moved.layout.row.device.type == "meta"
    assert moved.layout.most == 2
    assert batch.layout.row.device.type == "cpu"


def test_detections_laid_end_to_end() -> None:
    part = Detections(
        keys=(FrameKey("v", 1), FrameKey("v", 2)),
        owner=torch.tensor([1]),
        boxes=torch.zeros(1, 4),
        det_scores=torch.ones(1),
        scores=torch.zeros(1, 3),
    )
    both = Detections.cat([part, part])
    assert len(both) == 2
    assert both.owner.tolist() == [1, 3]
