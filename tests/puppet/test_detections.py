import random

import pytest

from stclip.puppet.draw.detections import detect

WIDTH, HEIGHT = 160, 120
BOXES = [(20, 30, 45, 100), (80, 20, 120, 110)]
FRAMES = 4000


def overlap(a, b):
    wide = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    high = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = sum((x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (a, b))
    return wide * high / (areas - wide * high)


@pytest.fixture(scope="module")
def frames():
    rng = random.Random(0)
    return [detect(rng, BOXES, WIDTH, HEIGHT) for _ in range(FRAMES)]


def test_errors_are_as_frequent_as_a_detector_makes_them(frames):
    found = [d for frame in frames for d in frame]
    persons = [max(overlap(d.box, box) for box in BOXES) for d in found if d.score > 0.6]
    others = [max(overlap(d.box, box) for box in BOXES) for d in found if d.score <= 0.6]
    assert len(persons) / (2 * FRAMES) == pytest.approx(0.96, abs=0.01)
    assert len(others) / FRAMES == pytest.approx(0.1, abs=0.03)
    assert sum(persons) / len(persons) == pytest.approx(0.85, abs=0.05)
    assert sum(value > 0.5 for value in persons) / len(persons) > 0.99
    assert max(others) < 0.3


def test_the_best_score_comes_first(frames):
    for frame in frames:
        scores = [d.score for d in frame]
        assert scores == sorted(scores, reverse=True)
        assert all(0 < score < 1 for score in scores)


@pytest.mark.parametrize("box", [(0, 0, 1, 1), (158, 118, 159, 119), (0, 0, 159, 119)])
def test_boxes_stay_in_the_frame(box):
    rng = random.Random(0)
    for _ in range(300):
        for found in detect(rng, [box], WIDTH, HEIGHT):
            x1, y1, x2, y2 = found.box
            assert 0 <= x1 < x2 <= WIDTH - 1
            assert 0 <= y1 < y2 <= HEIGHT - 1


def test_an_empty_frame():
    rng = random.Random(0)
    assert {len(detect(rng, [], WIDTH, HEIGHT)) for _ in range(200)} == {0, 1}
