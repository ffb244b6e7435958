import os
from pathlib import Path

import pytest
import torch

from stclip.data.loaders import BatchLoader
from stclip.engine.infer import infer, merge
from stclip.structures import ClipBatch, Detections, FrameKey
from tests.helpers import random_batch, tiny_model


class Chunks:
    """Chunks of one keyframe each."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> ClipBatch:
        return random_batch([2], seed=index, video=f"walk/{index}")


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_workers_leave_no_file_open() -> None:
    """A shared tensor that is kept keeps a descriptor: 1,024 of them end a long run."""
    model, before = tiny_model().eval(), len(os.listdir("/proc/self/fd"))
    loader = BatchLoader(Chunks(12), workers=1)
    detections = infer(model, loader, torch.randn(3, 64), device=torch.device("cpu"))
    assert len(detections) == 24
    assert len(os.listdir("/proc/self/fd")) - before < 20  # the worker's own pipes


def test_scores_by_group() -> None:
    model, loader, vocabulary = tiny_model().eval(), [Chunks(1)[0]], torch.randn(3, 64)
    device = torch.device("cpu")
    logits = model(loader[0], vocabulary).logits
    plain = infer(model, loader, vocabulary, device=device)
    torch.testing.assert_close(plain.scores, logits.softmax(dim=1))
    groups = ["person", "pose", "pose"]
    found = infer(model, loader, vocabulary, device=device, groups=groups)
    torch.testing.assert_close(found.scores[:, 1:], logits[:, 1:].softmax(dim=1))
    torch.testing.assert_close(found.scores[:, 0], logits[:, 0].sigmoid())


def test_merging_brings_keyframes_into_the_asked_order() -> None:
    keys = [FrameKey("v", 1), FrameKey("v", 2), FrameKey("w", 1)]
    local = Detections(
        keys=(keys[2], keys[0], keys[1]),
        owner=torch.tensor([0, 0, 2]),
        boxes=torch.arange(12.0).reshape(3, 4),
        det_scores=torch.tensor([0.1, 0.2, 0.3]),
        scores=torch.eye(3),
    )
    merged = merge(local, keys)
    assert merged is not None
    assert merged.keys == tuple(keys)
    assert merged.owner.tolist() == [1, 2, 2]
    assert merged.det_scores.tolist() == pytest.approx([0.3, 0.1, 0.2])


def test_a_keyframe_that_was_not_scored_is_noticed() -> None:
    none = infer(tiny_model(), [], torch.randn(3, 64), device=torch.device("cpu"))
    with pytest.raises(AssertionError, match="0 keyframes scored of 1"):
        merge(none, [FrameKey("v", 1)])
