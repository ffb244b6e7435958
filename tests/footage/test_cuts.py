"""Cuts, and labels that do not hide each other."""

import numpy as np
import pytest

from stclip.footage.annotated import draw_persons
from stclip.footage.cuts import Cuts

SCENE = np.random.default_rng(0).integers(0, 256, (6, 8, 3)).repeat(20, 0).repeat(20, 1)
SCENE = (SCENE * 0.8).astype(np.uint8)  # so that it can be brighter
OTHER = SCENE[::-1, ::-1]


@pytest.mark.parametrize(
    ("image", "cut"),
    [
        (SCENE, False),
        (SCENE + np.uint8(50), False),
        (np.roll(SCENE, 4, axis=1), False),
        (OTHER, True),
        (np.zeros_like(SCENE), True),
        (SCENE.repeat(5, 0).repeat(5, 1), False),
    ],
    ids=["still", "flash", "moves", "other", "black", "larger"],
)
def test_cuts(image: np.ndarray, cut: bool) -> None:
    is_cut = Cuts(30)
    assert not is_cut(SCENE)
    assert is_cut(image) == cut
    never = Cuts(255)
    assert not never(SCENE)
    assert not never(image)


@pytest.mark.parametrize("top", [60, 0, 180], ids=["middle", "top", "bottom"])
def test_labels_do_not_hide_each_other(top: int) -> None:
    picture = np.zeros((240, 320, 3), np.uint8)
    colours = [(250, 0, 0), (0, 250, 0), (0, 0, 250)]
    boxes = np.array([[100, top, 140, top + 60]] * 2 + [[300, top, 330, top + 60]], float)
    draw_persons(picture, boxes, ["1 walk", "2 walk", "3 walk"], colours)
    areas = [int((picture == colour).all(axis=2).sum()) for colour in colours]
    assert min(areas) > 300
