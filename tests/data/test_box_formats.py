import numpy as np
import pytest

from stclip.data.box_formats import check_boxes, guess_format, readings
from stclip.errors import UserError

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


def test_one_empty_box_among_few_is_no_other_format():
    boxes, sizes = people(6)
    boxes[2, 2:] = boxes[2, :2]
    assert guess_format(boxes, sizes) is None
    boxes[2, 2:] = 5  # inverted
    assert guess_format(boxes, sizes) is None


def check(boxes, sizes):
    check_boxes(boxes, sizes, "found.json", lambda index: f"frame {index}", "are left out")


@pytest.mark.parametrize(
    ("turn", "words"),
    [
        (to_size, "200 boxes look like x, y, width, height \\(frame"),
        (lambda b: b / (320, 240, 320, 240), "200 boxes look like x1, y1, x2, y2, as shares"),
        (
            lambda b: np.where(np.arange(200)[:, None] < 5, b * -1, b),
            "5 of 200 boxes have x2 <= x1",
        ),
    ],
)
def test_boxes_of_another_format_are_refused(turn, words):
    boxes, sizes = people()
    with pytest.raises(UserError, match=f"^found.json: {words}"):
        check(turn(boxes), sizes)


@pytest.mark.parametrize(("total", "empty", "said"), [(200, 2, True), (4000, 3, False)])
def test_a_few_empty_boxes_are_counted_unless_they_are_negligible(total, empty, said, caplog):
    boxes, sizes = people(total)
    boxes[7 : 7 + empty, 2] = boxes[7 : 7 + empty, 0]
    check(boxes, sizes)
    text = f"found.json: {empty} of {total} boxes are empty and are left out (first: frame 7, ("
    assert (text in caplog.text) == said


def test_boxes_of_larger_pictures_are_told_of(caplog):
    boxes, sizes = people()
    check(boxes, sizes)
    assert not caplog.records
    check(boxes * 2, sizes)
    assert "reach more than 2 pixels over the edge of their picture" in caplog.text
    assert "another resolution" in caplog.text
