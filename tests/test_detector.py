from pathlib import Path

import numpy as np
import pytest

import stclip
from stclip.engine.checkpoint import Checkpoint, save_checkpoint
from stclip.errors import UserError
from stclip.models.baselines import Baseline
from stclip.models.stclip import STCLIP, InterestTokens
from tests.helpers import tiny_model

LABELS = ["wave", "sit down", "a person who runs"]


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> stclip.Detector:
    path = tmp_path_factory.mktemp("weights") / "a.pth"
    save_checkpoint(path, Checkpoint(tiny_model().state_dict()))
    return stclip.load(path, labels=LABELS, device="cpu")


def frames(count: int = 12) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (60, 80, 3), dtype=np.uint8) for _ in range(count)]


def test_scores_are_probabilities(detector: stclip.Detector) -> None:
    scores = detector.score(frames(), [[5, 5, 40, 50], [20.5, 0, 90, 59]])
    assert scores.shape == (2, 3)
    np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-5)


def test_an_empty_box_has_no_score_and_moves_no_other(detector: stclip.Detector) -> None:
    box, empty = [5, 5, 40, 50], [100, 5, 120, 50]
    scores = detector.score(frames(), [empty, box])
    assert np.isnan(scores[0]).all()
    np.testing.assert_allclose(scores[1], detector.score(frames(), [box])[0], rtol=1e-5)


def test_no_boxes(detector: stclip.Detector) -> None:
    assert detector.score(frames(), []).shape == (0, 3)


@pytest.mark.parametrize(
    "boxes", [[[1, 2, 3]], [1, 2, 3, 4], [[1, 2, float("nan"), 4]], [["a"] * 4], [[1] * 4, [2]]]
)
def test_boxes_of_another_shape(detector: stclip.Detector, boxes: list) -> None:
    with pytest.raises(UserError, match="boxes: "):
        detector.score(frames(), boxes)


def test_only_frames_around_the_keyframe_count(detector: stclip.Detector) -> None:
    pictures, box = frames(20), [[5, 5, 40, 50]]
    before = detector.score(pictures, box, keyframe=4)
    pictures[15] = 255 - pictures[15]
    np.testing.assert_array_equal(before, detector.score(pictures, box, keyframe=4))
    pictures[8] = 255 - pictures[8]
    assert not np.array_equal(before, detector.score(pictures, box, keyframe=4))


def test_switches_of_a_checkpoint_are_found(tmp_path: Path) -> None:
    clip = tiny_model(lora_rank=0).clip
    config = (
        "MODEL: {INTEREST_TOKENS: {ENABLED: true, TOP_K: 4, INCLUDE_PERSON: false}, "
        "HEAD: {CROP_WEIGHT: 0.5, MARKED: mask, MARKED_WEIGHT: 0.25}, TEMPLATES: ['somebody {}']}"
    )
    model = STCLIP(clip, temporal=False, prompt_layers=[1], prompt_depth=2)
    save_checkpoint(tmp_path / "a.pth", Checkpoint(model.state_dict(), config=config))
    loaded = stclip.load(tmp_path / "a.pth", labels=LABELS, device="cpu")
    assert loaded.model.state_dict().keys() == model.state_dict().keys()
    assert loaded.model.interest_tokens == InterestTokens(top_k=4, include_person=False)
    assert loaded.model.crop_weight == 0.5
    assert (loaded.model.marked, loaded.model.marked_weight) == ("mask", 0.25)
    assert loaded.templates == ("somebody {}",)
    assert loaded.score(frames(), [[5, 5, 40, 50]]).shape == (1, 3)


@pytest.mark.parametrize("marked", [False, True])
def test_a_baseline_scores_too(marked: bool) -> None:
    pictures = {"frame": False, "crop": not marked, "marked": marked}
    baseline = Baseline(tiny_model(lora_rank=0).clip, **pictures)
    scores = stclip.Detector(baseline, LABELS).score(frames(), [[5, 5, 40, 50], [20, 0, 60, 59]])
    assert scores.shape == (2, 3)
    assert not np.allclose(scores[0], scores[1])


def test_new_labels(tmp_path: Path) -> None:
    detector = stclip.Detector(tiny_model(), LABELS)
    detector.labels = ["jump", "clap"]
    assert detector.score(frames(), [[5, 5, 40, 50]]).shape == (1, 2)
    with pytest.raises(UserError, match="labels"):
        detector.labels = "jump"  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("pictures", "keyframe", "message"),
    [
        ([], None, "no frame"),
        ([*frames(2), np.zeros((5, 5, 3), np.uint8)], None, "one size"),
        ([np.zeros((9, 9, 3))], None, "float64"),
        ([np.zeros((9, 9), np.uint8)], None, "uint8"),
        (frames(3), 3, "keyframe: 0 to 2"),
    ],
)
def test_arguments(
    detector: stclip.Detector, pictures: list[np.ndarray], keyframe: int | None, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        detector.score(pictures, [[0, 0, 5, 5]], keyframe=keyframe)


GROUPS = {"wave": "person", "sit down": "pose", "a person who runs": "pose"}


def test_groups_by_hand() -> None:
    """Two poses share one, whatever else there is; the others are the sigmoids of the logits."""
    model, box = tiny_model(), [[5, 5, 40, 50]]
    exclusive = stclip.Detector(model, LABELS).score(frames(), box)[0]
    found = stclip.Detector(model, LABELS, GROUPS).score(frames(), box)[0]
    assert found[1:].sum() == pytest.approx(1, rel=1e-5)
    assert found[1] / found[2] == pytest.approx(exclusive[1] / exclusive[2], rel=1e-4)
    alone = stclip.Detector(model, ["wave"], {}).score(frames(), box)[0]
    assert found[0] == pytest.approx(alone[0], rel=1e-5)
    assert 0 < alone[0] < 1
    assert stclip.Detector(model, ["wave"]).score(frames(), box)[0, 0] == 1


def test_a_checkpoint_of_several_labels_knows_its_groups(tmp_path: Path) -> None:
    path, box = tmp_path / "a.pth", [[5, 5, 40, 50]]
    model = tiny_model()
    save_checkpoint(path, Checkpoint(model.state_dict(), groups=GROUPS))

    def score(labels: list[str], groups: dict[str, str] | None = None) -> np.ndarray:
        return stclip.load(path, labels, "cpu", groups).score(frames(), box)[0]

    expected = stclip.Detector(model, LABELS, GROUPS).score(frames(), box)[0]
    np.testing.assert_allclose(score(LABELS), expected, rtol=1e-5)
    # A name of the user's own stands for itself, unless a group is given.
    free = score(["sit down", "juggle", "a person who runs"])
    assert free[0] + free[2] == pytest.approx(1, rel=1e-5)
    pose = score(["sit down", "juggle", "a person who runs"], {"juggle": "pose"})
    assert pose.sum() == pytest.approx(1, rel=1e-5)


def test_groups_for_a_checkpoint_without_any(tmp_path: Path) -> None:
    path, box = tmp_path / "a.pth", [[5, 5, 40, 50]]
    model = tiny_model()
    save_checkpoint(path, Checkpoint(model.state_dict()))
    assert stclip.load(path, LABELS, "cpu").groups is None
    found = stclip.load(path, LABELS, "cpu", groups=GROUPS).score(frames(), box)
    np.testing.assert_allclose(
        found, stclip.Detector(model, LABELS, GROUPS).score(frames(), box), rtol=1e-5
    )


def test_frames_are_as_far_apart_as_in_training(tmp_path: Path) -> None:
    model, pictures, box = tiny_model(), frames(20), [[5, 5, 40, 50]]
    save_checkpoint(
        tmp_path / "a.pth",
        Checkpoint(model.state_dict(), config="MODEL: {TEMPORAL: {STRIDE: 2}}"),
    )
    found = stclip.load(tmp_path / "a.pth", LABELS, "cpu").score(pictures, box, keyframe=10)
    plain = stclip.Detector(model, LABELS).score(pictures[2:20:2], box, keyframe=4)
    np.testing.assert_allclose(found, plain, rtol=1e-5)


def test_an_unknown_group() -> None:
    with pytest.raises(UserError, match="groups: 'wave' has 'arms': one of pose, object, person"):
        stclip.Detector(tiny_model(), LABELS, {"wave": "arms"})


@pytest.mark.parametrize(
    "config",
    ["MODEL: &a {NAME: *a}", "MODEL: {TEMPORAL: {FRAMES: nine}}", "MODEL: !!python/tuple []"],
)
def test_a_checkpoint_with_a_config_that_cannot_be(tmp_path: Path, config: str) -> None:
    path = tmp_path / "a.pth"
    save_checkpoint(path, Checkpoint(tiny_model().state_dict(), config=config))
    with pytest.raises(UserError, match=f"^the config kept in {path}: "):
        stclip.load(path, ["walk"], device="cpu")
