import numpy as np
import pytest
import torch
from PIL import Image

from stclip.data.transforms import crop_box, preprocess
from stclip.structures import ClipBatch, RawPictures
from tests.helpers import random_batch


def pictures(count: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(256, size=(count, 9, 12, 3), dtype=np.uint8)
    smooth = [Image.fromarray(c).resize((width, height), Image.Resampling.BICUBIC) for c in coarse]
    return torch.from_numpy(np.stack([np.asarray(picture) for picture in smooth]))


@pytest.mark.parametrize(
    ("fit", "interpolation", "rounded_otherwise"),
    # Where the sides shrink differently Pillow 13 sometimes takes the rows first.
    [("crop", "bicubic", 2e-3), ("squash", "bicubic", 0.2), ("squash", "bilinear", 0.2)],
)
@pytest.mark.parametrize("size", [(120, 161), (161, 90), (64, 64), (20, 50)])
def test_they_become_what_pillow_makes_of_them(size, fit, interpolation, rounded_otherwise):
    height, width = size
    frames = pictures(3, height, width)
    row = torch.tensor([2, 0, 2, 1])
    box = torch.tensor([[1, 2, width, height], [3, 3, 8, 20], [5, 4, 19, 17], [7, 7, 8, 19]])
    found = RawPictures(frames, row, box, 64, fit, interpolation).resized()
    parts = [crop_box(frames[n].numpy(), b) for n, b in zip(row, box.double().numpy(), strict=True)]
    for pixels, sources in zip(found, (frames.numpy(), parts), strict=True):
        ways = {"fit": fit, "interpolation": interpolation}
        expected = torch.stack([preprocess(picture, 64, **ways) for picture in sources])
        assert pixels.dtype == torch.uint8
        difference = (pixels.int() - expected.int()).abs()
        assert difference.max() <= 1
        assert (difference > 0).float().mean() < rounded_otherwise


def test_many_are_resized_part_by_part(monkeypatch):
    frames, row, box = pictures(5, 30, 40), torch.tensor([4, 0, 1]), torch.tensor([[2, 2, 30, 20]])
    raw = RawPictures(frames, row, box.repeat(3, 1), 16)
    expected = raw.resized()
    monkeypatch.setattr("stclip.structures.raw._AT_ONCE", 2 * 3 * 30 * 40)
    for part, whole in zip(raw.resized(), expected, strict=True):
        assert torch.equal(part, whole)


def test_batches_laid_end_to_end_keep_their_pictures_apart():
    def batch(persons, seed, height, width):
        made = random_batch(persons, seed=seed)
        count, people = len(made.frames), sum(persons)
        row = torch.arange(people) % count
        box = torch.tensor([[1, 2, 15, 20]]).repeat(people, 1) + torch.arange(people)[:, None]
        made.raw = (RawPictures(pictures(count, height, width, seed), row, box, 32),)
        made.frames, made.crops = made.frames[..., :0, :0], made.crops[..., :0, :0]
        return made

    batches = [
        batch([1, 2], 1, 40, 60),
        batch([0], 2, 40, 60),
        batch([2], 3, 50, 40),
        batch([1], 4, 40, 60),
    ]
    both = ClipBatch.cat(batches)
    assert [part.pictures.shape[1:3] for part in both.raw] == [(40, 60), (50, 40), (40, 60)]
    moved, apart = both.to(torch.device("cpu")), [b.to(torch.device("cpu")) for b in batches]
    assert moved.raw == ()
    assert len(moved.crops) == 6
    assert torch.equal(moved.frames, torch.cat([one.frames for one in apart]))
    assert torch.equal(moved.crops, torch.cat([one.crops for one in apart]))
    assert both.frames.shape[1:] == (3, 0, 0)  # the batch itself stays as it was
