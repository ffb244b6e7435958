import math

import numpy as np
import pytest

from stclip.evaluation.frame_map import frame_map
from stclip.evaluation.result_csv import DetectionRows
from stclip.puppet.experiment.outcomes import (
    chance_map,
    difference,
    draw_counts,
    match_classes,
    resampled_map,
)
from stclip.structures import FrameKey
from tests.evaluation.make import Frame, annotated, detections, rows

LABELS = ["sit", "wave", "run"]
BOX = (0.0, 0.0, 10.0, 10.0)


def random_case(seed, videos=5, frames=4, persons=2):
    """Ground truth of frames, and rows with distinct scores: near boxes, far boxes, all classes."""
    rng = np.random.default_rng(seed)
    truth, entries = [], []
    for video in range(videos):
        for frame in range(1, frames + 1):
            people = []
            for person in range(persons):
                x = 40.0 * person
                box = (x, 0.0, x + 20, 30.0)
                people.append((box, LABELS[rng.integers(len(LABELS))]))
                for shift in rng.uniform(-14, 14, rng.integers(0, 3)):
                    shifted = (x + shift, 0.0, x + shift + 20, 30.0)
                    entries += [
                        (f"v{video}", frame, shifted, label, rng.uniform())
                        for label in range(len(LABELS))
                    ]
            truth.append(annotated(f"v{video}", frame, *people))
    return truth, rows(*entries)


def copied(truth, detections, counts):
    """The slow way: a data set that holds each video as often as it was drawn."""
    names = {f"v{video}": [f"v{video}#{c}" for c in range(n)] for video, n in enumerate(counts)}
    frames = [
        Frame(FrameKey(copy, frame.key.frame), frame.boxes, frame.labels)
        for frame in truth
        for copy in names[frame.key.video]
    ]
    keys, origin = [], []
    for row, key_index in enumerate(detections.frame):
        key = detections.keys[key_index]
        for copy in names[key.video]:
            keys.append(FrameKey(copy, key.frame))
            origin.append(row)
    distinct = list(dict.fromkeys(keys))
    return frames, DetectionRows(
        tuple(distinct),
        np.array([distinct.index(key) for key in keys], dtype=np.int64),
        detections.boxes[origin],
        detections.labels[origin],
        detections.scores[origin],
    )


@pytest.mark.parametrize("seed", range(4))
def test_equals_copying_the_videos(seed):
    truth, detections = random_case(seed)
    videos = [f"v{i}" for i in range(5)]
    counts = draw_counts(5, 12, seed)
    found = resampled_map(match_classes(truth, detections, LABELS, videos), counts)
    for value, row in zip(found, counts, strict=True):
        expected = frame_map(*copied(truth, detections, row), LABELS, [0.5])["frame_mAP@0.5"]
        assert value == pytest.approx(expected, abs=1e-4)


def test_the_first_draw_is_the_test_set():
    truth, detections = random_case(9)
    counts = draw_counts(5, 0, 0)
    assert counts.tolist() == [[1] * 5]
    found = resampled_map(
        match_classes(truth, detections, LABELS, [f"v{i}" for i in range(5)]), counts
    )
    assert found == pytest.approx([frame_map(truth, detections, LABELS)["frame_mAP@0.5"]], abs=1e-4)


def test_draws():
    counts = draw_counts(7, 50, 3)
    assert counts.shape == (51, 7)
    assert (counts.sum(axis=1) == 7).all()
    assert (counts == draw_counts(7, 50, 3)).all()
    assert (counts != draw_counts(7, 50, 4)).any()


def test_by_hand():
    """Video a has its person found first, video b has a false positive between and then a hit."""
    truth = [annotated("a", 1, (BOX, "sit")), annotated("b", 1, (BOX, "sit"))]
    far = (50.0, 50.0, 60.0, 60.0)
    detections = rows(("a", 1, BOX, 0, 0.9), ("b", 1, far, 0, 0.8), ("b", 1, BOX, 0, 0.7))
    (matches,) = match_classes(truth, detections, ["sit"], ["a", "b"])
    assert matches.hit.tolist() == [True, False, True]
    assert matches.video.tolist() == [0, 1, 1]
    assert matches.truths.tolist() == [1, 1]
    found = resampled_map([matches], np.array([[1, 1], [2, 0], [0, 2]]))
    # a, b: (1 + 2/3) / 2. a, a: 1. b, b: two false positives, then 1/3 and 2/4; envelope 1/2.
    assert found == pytest.approx([100 * 5 / 6, 100, 50], abs=1e-4)


def test_a_class_that_a_draw_lacks_is_left_out():
    truth = [annotated("a", 1, (BOX, "sit")), annotated("b", 1, (BOX, "run"))]
    detections = rows(("a", 1, BOX, 0, 0.9))
    matches = match_classes(truth, detections, ["sit", "run"], ["a", "b", "c"])
    found = resampled_map(matches, np.array([[1, 1, 1], [3, 0, 0], [0, 3, 0], [0, 0, 3]]))
    assert found[:3] == pytest.approx([50, 100, 0])
    assert math.isnan(found[3])


def test_difference():
    """Two splits; ours has two seeds in each. The same draws move both methods together."""
    ours = [[np.array([50.0, 40, 60]), np.array([54.0, 44, 64])], [np.array([30.0, 20, 40])] * 2]
    other = [[np.array([42.0, 32, 52])], [np.array([30.0, 20, 40])]]
    interval = difference(ours, other)
    assert interval.estimate == pytest.approx(5)  # (52 - 42 + 30 - 30) / 2
    assert interval.low == pytest.approx(5)
    assert interval.high == pytest.approx(5)
    wide = difference([[np.array([10.0, *np.arange(101)])]], [[np.zeros(102)]])
    assert (wide.estimate, wide.low, wide.high) == pytest.approx((10, 2.5, 97.5))


def test_chance_is_about_one_in_the_number_of_classes():
    classes = ["a", "b", "c", "d"]
    truth = [annotated(f"v{i}", 1, (BOX, classes[i % 4])) for i in range(400)]
    keys = [(f"v{i}", 1) for i in range(400)]
    found = detections(keys, [(i, BOX, 1.0, (0.0,) * 4) for i in range(400)], 4)
    value, per_class = chance_map(truth, found, classes)
    assert value == pytest.approx(25, abs=4)
    assert value == pytest.approx(sum(per_class.values()) / 4)
    assert chance_map(truth, found, classes) == (value, per_class)
    one, _ = chance_map(
        truth[::4], detections(keys[::4], [(i, BOX, 1.0, (0.0,)) for i in range(100)], 1), ["a"]
    )
    assert one == pytest.approx(100)  # nothing to choose between


def test_chance_without_any_box():
    value, per_class = chance_map(
        [annotated("v", 1, (BOX, "a"))], detections([("v", 1)], [], 2), ["a", "b"]
    )
    assert value == 0
    assert per_class == {"a": 0.0}
