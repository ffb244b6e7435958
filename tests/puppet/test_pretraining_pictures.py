"""Pictures for the small CLIP's training."""

import itertools
import random

import numpy as np
import pytest
import torch

from stclip.errors import UserError
from stclip.puppet import pretraining_pictures
from stclip.puppet.draw.chance import Chance
from stclip.puppet.pretraining_pictures import (
    ALL_ACTIONS,
    draw_cache,
    draw_trial,
    scene_samples,
)
from tests.helpers import InThisProcess


def test_samples_of_a_scene():
    kinds = set()
    for index in range(12):
        samples = list(scene_samples(0, index, 48))
        assert len(samples) == 5
        again = list(scene_samples(0, index, 48))
        for (pixels, shown), (same, _) in zip(samples, again, strict=True):
            assert pixels.shape == (3, 48, 48)
            assert pixels.dtype == torch.uint8
            assert torch.equal(pixels, same)
            assert 1 <= len(shown.people) <= 4
            assert {looks.action for looks in shown.people} <= set(ALL_ACTIONS)
            kinds.add(len(shown.people))
        assert all(len(shown.people) == 1 for _, shown in samples[4:])
    assert len(kinds) > 1
    assert not torch.equal(next(scene_samples(0, 0, 48))[0], next(scene_samples(1, 0, 48))[0])


def test_who_is_in_the_square():
    # Frames are 160 x 120, and what is kept of them lies between the columns 20 and 140.
    assert pretraining_pictures._in_the_square((60, 10, 90, 100))
    assert pretraining_pictures._in_the_square((10, 10, 31, 100))
    assert not pretraining_pictures._in_the_square((8, 10, 31, 100))
    assert not pretraining_pictures._in_the_square((130, 10, 151, 100))


def test_jittered_boxes_stay_near_and_inside():
    chance = Chance(random.Random(0))
    boxes = np.array(
        [pretraining_pictures._jittered(chance, (100, 20, 158, 118)) for _ in range(200)]
    )
    assert boxes.shape == (200, 4)
    assert (np.abs(boxes - [100, 20, 158, 118]) <= 0.08 * np.array([58, 98, 58, 98]) + 1e-4).all()
    assert boxes[:, 2].max() <= 159
    assert boxes[:, 3].max() <= 119
    assert np.unique(boxes[:, 0]).size > 100


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(pretraining_pictures, "_SCENES_PER_PART", 3)
    monkeypatch.setattr(pretraining_pictures, "SAMPLES_PER_PART", 15)


def test_a_cache_is_drawn_once_and_completed(tmp_path, small_parts, monkeypatch):
    monkeypatch.setattr(pretraining_pictures, "ProcessPoolExecutor", InThisProcess)
    cache = draw_cache(tmp_path, 20, seed=0, size=32, workers=1)
    assert len(cache) == 30  # whole parts
    expected = list(itertools.chain.from_iterable(scene_samples(0, i, 32) for i in range(6)))
    pixels = cache.read(range(30))
    for row, (picture, shown) in enumerate(expected):
        assert torch.equal(pixels[row], picture)
        assert cache.shown[row] == shown
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("part_*")}
    (tmp_path / "part_0001.json").unlink()  # as if it had been interrupted there
    assert draw_cache(tmp_path, 20, seed=0, size=32, workers=1).shown == cache.shown
    for path, time in times.items():
        assert (path.stat().st_mtime_ns == time) == ("part_0000" in path.name)
    with pytest.raises(UserError, match=r"cache\.json: found \{'seed': 0.*'seed': 1.*remove"):
        draw_cache(tmp_path, 20, seed=1, size=32, workers=1)


@pytest.mark.parametrize("look", ["pretrain", "benchmark"])
@pytest.mark.parametrize("others", [False, True])
def test_trials(look, others):
    trial = draw_trial(look, others, 1, seed=0, size=32)
    assert trial.frames.shape == (21, 3, 32, 32)
    assert len(trial.crops) == len(trial.actions) == len(trial.frame_of)
    assert (len(trial.actions) > 21) == others
    assert set(trial.actions) == set(pretraining_pictures.ACTIONS)
    assert set(trial.frame_of) == set(range(21))
