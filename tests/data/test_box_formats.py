import numpy as np
import pytest

from stclip.data.box_formats import guess_format, readings

SIZE = (320, 240)


def people(count=200, seed=0):
    """Boxes as detectors make them: upright, anywhere in the picture."""
    rng = np.random.default_rng(seed)
    wide, high = rng.uniform(20, 90, count), rng.uniform(60, 150, count)
    x, y = rng.uniform(0, SIZE[0] - wide), rng.uniform(0, SIZE[1] - high)
    return np.stack([x, y, x + wide, y + high], axis=1), np.tile(np.array(SIZE, float), (count, 1))


def to_size(boxes):
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def to_centre(boxes):
    return np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], axis=1)


def test_pixels_are_what_they_seem():
    assert guess_format(*people()) is None


def test_a_few_boxes_over_the_edge_are_no_other_format():
    boxes, sizes = people()
    boxes[:15] -= 30
    assert guess_format(boxes, sizes) is None


def test_nothing_is_guessed_of_no_boxes():
    assert guess_format(np.zeros((0, 4)), np.zeros((0, 2))) is None


def test_nothing_is_guessed_of_noise():
    boxes, sizes = people()
    assert guess_format(boxes[:, ::-1] * 5 - 100, sizes) is None


@pytest.mark.parametrize(
    ("turn", "name"),
    [
        (to_size, "x, y, width, height"),
        (lambda boxes: boxes[:, [2, 3, 0, 1]], "x2, y2, x1, y1"),
        (lambda boxes: boxes[:, [1, 0, 3, 2]], "y1, x1, y2, x2"),
    ],
)
def test_other_formats_in_pixels(turn, name):
    boxes, sizes = people()
    assert guess_format(turn(boxes), sizes) == name
    np.testing.assert_allclose(readings(turn(boxes), sizes)[name], boxes)


@pytest.mark.parametrize(
    ("turn", "name"), [(lambda boxes: boxes, "x1, y1, x2, y2"), (to_size, "x, y, width, height")]
)
def test_shares_of_the_picture(turn, name):
    boxes, sizes = people()
    turned = turn(boxes) / np.array([*SIZE, *SIZE])
    full = f"{name}, as shares (0 to 1) of the picture"
    assert guess_format(turned, sizes) == full
    np.testing.assert_allclose(readings(turned, sizes)[full], boxes)


def test_centres_are_one_of_the_readings():
    boxes, sizes = people()
    found = readings(to_centre(boxes), sizes)["centre x, centre y, width, height"]
    np.testing.assert_allclose(found, boxes)
