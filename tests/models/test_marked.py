"""A person shown in the whole frame."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from stclip.models.clip import normalize_pixels
from stclip.models.marked import BLUR, Outside, mark
from stclip.structures import ClipBatch
from tests.helpers import random_batch

SIDE = 48


def by_loop(batch: ClipBatch, outside: Outside) -> Tensor:
    """A pixel at a time, blurred by scipy."""
    assert batch.frame_boxes is not None
    blur = {"sigma": BLUR * SIDE, "mode": "constant", "truncate": 9}
    total = gaussian_filter(np.ones((SIDE, SIDE)), **blur)  # what of the blur is in the frame
    pictures = []
    for owner, (x1, y1, x2, y2) in zip(batch.owner, batch.frame_boxes.tolist(), strict=True):
        frame = batch.frames[batch.keyframe[owner]]
        picture = torch.zeros_like(frame)
        for channel, colour in enumerate((123, 117, 104)):
            rest = np.full((SIDE, SIDE), colour)
            if outside == "blur":
                rest = np.rint(
                    gaussian_filter(frame[channel].numpy().astype(float), **blur) / total
                )
            for y in range(SIDE):
                for x in range(SIDE):
                    inside = x1 < x + 1 and x < x2 and y1 < y + 1 and y < y2
                    picture[channel, y, x] = int(frame[channel, y, x] if inside else rest[y, x])
        pictures.append(picture)
    return torch.stack(pictures)


@pytest.mark.parametrize("outside", ["blur", "mask"])
def test_equals_the_loop(outside: Outside) -> None:
    batch = random_batch([2, 0, 1])
    batch.frame_boxes[1] = torch.tensor([-20.0, 10.0, 7.5, 60.0])  # reaches over the edge
    found, expected = mark(batch, outside).int(), by_loop(batch, outside).int()
    assert found.shape == (3, 3, SIDE, SIDE)
    differs = (found - expected).abs()
    assert differs.max() <= (1 if outside == "blur" else 0)
    assert (differs > 0).float().mean() < 0.01  # float32 against float64, before rounding


@pytest.mark.parametrize("outside", ["blur", "mask"])
def test_of_the_person_every_pixel_stays(outside: Outside) -> None:
    batch = replace(random_batch([1]), frame_boxes=torch.tensor([[8.0, 4.0, 24.0, 40.0]]))
    frame, found = batch.frames[0], mark(batch, outside)[0]
    assert torch.equal(found[:, 4:40, 8:24], frame[:, 4:40, 8:24])
    around = torch.ones(SIDE, SIDE, dtype=torch.bool)
    around[4:40, 8:24] = False
    assert (
        found[:, around].float().std(dim=1).max() < 10 < frame[:, around].float().std(dim=1).min()
    )
    if outside == "mask":
        assert normalize_pixels(found)[:, around].abs().max() < 0.01


def test_an_even_frame_stays_even_up_to_its_edges() -> None:
    batch = random_batch([1])
    batch.frames[:] = 200
    assert torch.equal(mark(batch, "blur"), batch.frames[:1])


@pytest.mark.parametrize("box", [[-30.0, 5.0, -2.0, 40.0], [5.0, 48.0, 20.0, 70.0]])
def test_a_person_beside_the_square_leaves_the_frame_as_it_is(box: list[float]) -> None:
    batch = replace(random_batch([1]), frame_boxes=torch.tensor([box]))
    assert torch.equal(mark(batch, "mask"), batch.frames[:1])


def test_a_thin_box_has_a_pixel() -> None:
    batch = replace(random_batch([1]), frame_boxes=torch.tensor([[5.6, 5.6, 5.9, 5.9]]))
    kept = (mark(batch, "mask") == batch.frames[:1]).all(dim=1)[0]
    assert kept.nonzero().tolist() == [[5, 5]]


def test_autocast_does_not_change_the_picture() -> None:
    batch = random_batch([2, 1])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = mark(batch, "blur")
    assert torch.equal(found, mark(batch, "blur"))


def test_without_boxes_it_says_what_is_missing() -> None:
    with pytest.raises(AssertionError, match=r"Needs\.frame_boxes"):
        mark(replace(random_batch([1]), frame_boxes=None), "blur")
