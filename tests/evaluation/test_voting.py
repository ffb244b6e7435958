import pytest
import torch

from stclip.errors import UserError
from stclip.evaluation.voting import of_vocabulary, soft_voting
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
