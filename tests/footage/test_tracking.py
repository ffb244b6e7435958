"""Numbers of persons from frame to frame, and labels that do not hide each other."""

import numpy as np
import pytest

from stclip.footage.annotated import draw_persons
from stclip.footage.records import Boxes
from stclip.footage.source import Frame
from stclip.footage.tracking import Cuts, Tracker

SCENE = np.random.default_rng(0).integers(0, 256, (6, 8, 3)).repeat(20, 0).repeat(20, 1)
SCENE = (SCENE * 0.8).astype(np.uint8)  # so that it can be brighter
OTHER = SCENE[::-1, ::-1]


def follow(
    tracker: Tracker, number: int, *found: tuple[float, float], image=SCENE, seconds=None
) -> list[int]:
    """The numbers of persons 30 x 60 pixels large in a frame, each given as (left, score)."""
    boxes = np.array([[x, 20, x + 30, 80] for x, _ in found], np.float32).reshape(-1, 4)
    scores = np.array([score for _, score in found], np.float32)
    seconds = (number - 1) / 10 if seconds is None else seconds
    persons = tracker.update(Boxes.untracked(boxes, scores), Frame(number, seconds, image))
    np.testing.assert_array_equal(persons.boxes, boxes)
    return persons.ids.tolist()


def test_people_keep_their_numbers() -> None:
    tracker = Tracker(fps=10)
    for n in range(1, 30):
        found = [(10 + 3 * n, 0.9)] if 10 <= n < 20 else [(200 - 2 * n, 0.8), (10 + 3 * n, 0.9)]
        ids = follow(tracker, n, *found)
        assert ids == ([2] if 10 <= n < 20 else [1, 2])  # 1 is out of sight for a second


def test_a_number_needs_a_sure_box_at_first_and_two_frames_later() -> None:
    tracker = Tracker(fps=10, threshold=0.5)
    assert follow(tracker, 1, (10, 0.45), (80, 0.55)) == [0, 1]
    assert follow(tracker, 2, (10, 0.55), (80, 0.25)) == [0, 1]
    assert follow(tracker, 3, (10, 0.55), (80, 0.25)) == [2, 1]


def test_who_leaves_is_not_replaced_by_an_unsure_box_nearby() -> None:
    tracker = Tracker(fps=10)
    for n in range(1, 6):
        assert follow(tracker, n, (10 + 5 * n, 0.9), (60, 0.25)) == [1, 0]
    assert follow(tracker, 6, (60, 0.25)) == [0]


def test_times_count_not_frames() -> None:
    """A person is found again where its speed says, however many frames were dropped."""
    tracker = Tracker(fps=10)
    for n in range(1, 11):
        follow(tracker, n, (5 * n, 0.9))
    assert follow(tracker, 11, (100, 0.9), seconds=1.9) == [1]


def test_a_cut_ends_every_track() -> None:
    tracker = Tracker(fps=10)
    assert follow(tracker, 1, (10, 0.9)) == [1]
    assert follow(tracker, 2, (10, 0.9)) == [1]
    assert follow(tracker, 3, (10, 0.9), image=OTHER) == [2]
    assert follow(tracker, 4, (10, 0.9), image=OTHER) == [2]


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
