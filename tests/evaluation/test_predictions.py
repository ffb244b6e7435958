import numpy as np
import pytest
import torch

from stclip.errors import UserError
from stclip.evaluation.predictions import chance_map, of_vocabulary, read_predictions
from stclip.evaluation.results import write_results
from tests.evaluation.make import annotated, detections

BOX = (0.0, 0.0, 10.0, 10.0)


def test_there_and_back(tmp_path):
    keys = [("walk/a", 1), ("walk/a", 2), ("run/b", 7)]
    written = detections(keys, [(0, BOX, 0.9, (0.2, 0.8)), (2, BOX, 0.5, (0.7, 0.3))], 2)
    folder = write_results(tmp_path, "puppet", ["run", "walk"], written)
    found, labels = read_predictions(folder / "predictions.npz")
    assert labels == ("run", "walk")
    assert found.keys == written.keys
    for name in ("owner", "boxes", "det_scores", "scores"):
        assert torch.equal(getattr(found, name), getattr(written, name))


def test_files_that_are_no_predictions(tmp_path):
    path = tmp_path / "predictions.npz"
    with pytest.raises(UserError, match=r"predictions\.npz: .*run the test again"):
        read_predictions(path)
    path.write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(UserError, match="run the test again"):
        read_predictions(path)
    np.savez(path, videos=np.array(["a"]), frames=np.array([1]))
    with pytest.raises(UserError, match="owner"):
        read_predictions(path)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("frames", np.array([1.5, 2.0]), "frames: whole numbers were expected, found float64"),
        ("frames", np.array([0, 1]), "frames: numbers from 1"),
        ("frames", np.array([1]), r"frames: shape \(2,\) was expected, found \(1,\)"),
        ("videos", np.array(["a", "a"]), None),
        ("frames", np.array([1, 1]), "a keyframe stands there twice"),
        ("owner", np.array([2]), "owner: places of the 2 keyframes"),
        ("owner", np.array([-1]), "owner: places of the 2 keyframes"),
        ("boxes", np.zeros((1, 5), np.float32), r"boxes: shape \(1, 4\)"),
        ("boxes", np.zeros((1, 4), np.int64), "boxes: numbers were expected, found int64"),
        ("scores", np.zeros((1, 2), np.float32), r"scores: shape \(1, 1\)"),
        ("labels", np.array([7]), "labels: texts were expected"),
    ],
)
def test_arrays_that_cannot_be_so_are_named(tmp_path, name, value, words):
    arrays = {
        "videos": np.array(["a", "a"]),
        "frames": np.array([1, 2]),
        "owner": np.array([0]),
        "boxes": np.zeros((1, 4), np.float32),
        "det_scores": np.ones(1, np.float32),
        "scores": np.ones((1, 1), np.float32),
        "labels": np.array(["run"]),
    }
    np.savez(tmp_path / "p.npz", **{**arrays, name: value})
    if words is None:
        assert len(read_predictions(tmp_path / "p.npz")[0]) == 1
        return
    with pytest.raises(UserError, match=rf"p\.npz: .*{words}.*; run the test again"):
        read_predictions(tmp_path / "p.npz")


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
    scores = logits.softmax(dim=1).tolist()
    found = detections([("v", 1)], [(0, BOX, 1.0, row) for row in scores], 6)
    some = of_vocabulary(found, "abcdef", "eb", renormalise=True)
    torch.testing.assert_close(some.scores, logits[:, [4, 1]].softmax(dim=1))


def test_scores_that_are_no_softmax_cannot_be_renormalised():
    found = detections([("v", 1)], [(0, BOX, 1.0, (0.9, 0.8))], 2)
    with pytest.raises(UserError, match=r"1 of 1 boxes do not sum to 1 .*1\.7"):
        of_vocabulary(found, "ab", "a", renormalise=True)
