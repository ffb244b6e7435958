from dataclasses import replace

import pytest
import torch

from stclip.errors import UserError
from stclip.evaluation.voting import of_vocabulary, soft_voting, track_voting, voted
from stclip.structures import Detections
from tests.evaluation.make import detections

BOX = (0.0, 0.0, 10.0, 10.0)


def test_soft_voting_by_hand():
    keys = [("v", 1), ("v", 2), ("w", 1), ("empty", 1)]
    persons = [
        (0, (0, 0, 1, 1), 0.9, [0.8, 0.2]),
        (0, (0, 0, 2, 2), 0.1, [0.6, 0.4]),
        (1, (0, 0, 3, 3), 0.5, [0.1, 0.9]),
        (2, (0, 0, 4, 4), 0.5, [0.3, 0.7]),
    ]
    found = detections(keys, persons, 2)
    voted = soft_voting(found)
    expected = torch.tensor([[0.5, 0.5], [0.5, 0.5], [0.5, 0.5], [0.3, 0.7]])
    torch.testing.assert_close(voted.scores, expected)
    assert voted.scores.dtype == torch.float32
    assert voted.keys == found.keys
    for name in ("owner", "boxes", "det_scores"):
        assert torch.equal(getattr(voted, name), getattr(found, name))
    torch.testing.assert_close(soft_voting(voted).scores, voted.scores)  # voting twice is once


def test_soft_voting_joins_a_video_that_comes_in_pieces():
    parts = [detections([("v", i)], [(0, BOX, 1.0, [float(i)])], 1) for i in range(1, 4)]
    parts.insert(1, detections([("w", 1)], [(0, BOX, 1.0, [7.0])], 1))
    assert soft_voting(Detections.cat(parts)).scores.tolist() == [[2], [7], [2], [2]]
    assert soft_voting(detections([("v", 1)], [], 3)).scores.shape == (0, 3)


def crossing(frames=20, fps=10):
    """Two persons who cross: the one from the left runs, the other waves; both scores wobble.

    In some keyframes there is something else as well, which the detector is not sure of.
    """
    persons = []
    for n in range(frames):
        wobble = 0.4 if n % 2 else 0.0
        persons.append((n, (5 * n, 0, 5 * n + 40, 80), 0.9, [0.9 - wobble, 0.1 + wobble]))
        persons.append((n, (100 - 5 * n, 10, 140 - 5 * n, 90), 0.8, [0.2, 0.8]))
        if n % 5 == 0:
            persons.append((n, (200, 0, 240, 80), 0.3, [0.5, 0.5]))
    found = detections([("v", n + 1) for n in range(frames)], persons, 2)
    return replace(found, seconds=torch.arange(frames).double() / fps)


def test_track_voting_keeps_persons_apart_that_video_voting_mixes():
    found = crossing()
    left, right = found.det_scores == 0.9, found.det_scores == 0.8
    along = voted(found, "track", 100.0)
    torch.testing.assert_close(along.scores[left], torch.tensor([[0.7, 0.3]]).expand(20, 2))
    torch.testing.assert_close(along.scores[right], found.scores[right])
    other = ~(left | right)  # of no track
    assert torch.equal(along.scores[other], found.scores[other])
    assert along.scores.dtype == torch.float32
    assert along.keys == found.keys
    for name in ("owner", "boxes", "det_scores", "seconds"):
        assert torch.equal(getattr(along, name), getattr(found, name))
    mixed = voted(found, "video", 100.0)
    torch.testing.assert_close(mixed.scores[left][0], found.scores.mean(dim=0))
    assert (mixed.scores == mixed.scores[0]).all()
    assert voted(found, "none", 100.0) is found


def test_the_window_of_track_voting():
    """0.2 s at 10 a second: the keyframe and its two neighbours, at an end one of them."""
    found = crossing()
    left = found.det_scores == 0.9
    along = track_voting(found, 0.2).scores[left][:, 0].tolist()
    middle = [(0.9 + 0.5 + 0.9) / 3 if n % 2 else (0.5 + 0.9 + 0.5) / 3 for n in range(20)]
    assert along == pytest.approx([0.7, *middle[1:-1], 0.7])


def test_tracks_are_of_one_video_in_the_order_of_time():
    """Keyframes of two videos that come mixed, and backwards."""
    keys = [(video, n) for n in range(4, 0, -1) for video in "ab"]
    persons = [(i, BOX, 1.0, [float(n == 1 or video == "b")]) for i, (video, n) in enumerate(keys)]
    found = detections(keys, persons, 1)
    seconds = torch.tensor([n / 10 for _, n in keys], dtype=torch.float64)
    along = track_voting(replace(found, seconds=seconds), 100.0).scores[:, 0].tolist()
    assert along == [0.25, 1.0] * 4


def test_annotated_persons_are_the_tracks(caplog):
    """Two persons change places from one keyframe to the next; the third is of no known person."""
    far = (50.0, 0.0, 60.0, 10.0)
    persons = [(n, box, 1.0, [float(i)]) for n in (0, 1) for i, box in enumerate((BOX, far))]
    found = detections([("v", 1), ("v", 2)], [*persons, (1, BOX, 1.0, [9.0])], 1)
    found = replace(found, seconds=torch.tensor([0.0, 1.0], dtype=torch.float64))
    known = replace(found, persons=torch.tensor([1, 2, 2, 1, 0]))
    assert track_voting(known, 2.0).scores[:, 0].tolist() == [0.5, 0.5, 0.5, 0.5, 9.0]
    assert not caplog.records
    nobody = replace(found, persons=torch.zeros(5, dtype=torch.long))
    assert torch.equal(track_voting(nobody, 2.0).scores, found.scores)
    assert "none of the 5 boxes is part of a track" in caplog.text


def test_track_voting_without_times_or_boxes():
    with pytest.raises(UserError, match="unknown when the keyframes are shown"):
        track_voting(detections([("v", 1)], [(0, BOX, 1.0, [1.0])], 1), 2.0)
    empty = replace(detections([("v", 1)], [], 3), seconds=torch.zeros(1, dtype=torch.float64))
    assert track_voting(empty, 2.0).scores.shape == (0, 3)
    empty = replace(detections([], [], 3), seconds=torch.zeros(0, dtype=torch.float64))
    assert track_voting(empty, 2.0).scores.shape == (0, 3)


def test_scores_of_some_classes():
    found = detections([("v", 1)], [(0, BOX, 0.9, (0.2, 0.5, 0.3)), (0, BOX, 0.8, (1, 0, 0))], 3)
    some = of_vocabulary(found, "abc", "cb")
    assert torch.equal(some.scores, torch.tensor([[0.3, 0.5], [0.0, 0.0]]))
    assert some.keys == found.keys
    shares = of_vocabulary(found, "abc", "cb", renormalise=True).scores
    torch.testing.assert_close(shares, torch.tensor([[0.375, 0.625], [0.0, 0.0]]))
    nobody = detections([("v", 1)], [], 3)
    assert of_vocabulary(nobody, "abc", "a", renormalise=True).scores.shape == (0, 1)


def test_renormalised_scores_are_the_softmax_over_fewer_classes():
    logits = 5 * torch.randn(7, 6, generator=torch.Generator().manual_seed(0))
    found = detections([("v", 1)], [(0, BOX, 1.0, row) for row in logits.softmax(1).tolist()], 6)
    some = of_vocabulary(found, "abcdef", "eb", renormalise=True)
    torch.testing.assert_close(some.scores, logits[:, [4, 1]].softmax(dim=1))
    none = detections([("v", 1)], [(0, BOX, 1.0, (0.9, 0.8))], 2)
    with pytest.raises(UserError, match=r"1 of 1 boxes do not sum to 1 .*1\.7"):
        of_vocabulary(none, "ab", "a", renormalise=True)
