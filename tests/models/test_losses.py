"""Class scores and losses, against hand-worked values and loops."""

import math

import pytest
import torch
from torch.nn import functional as F

from stclip.models.losses import (
    FocalCriterion,
    GroupedFocalCriterion,
    class_scores,
    sigmoid_focal_loss,
    softmax_focal_loss,
)

LN3 = math.log(3.0)
# A vocabulary of five classes, out of a label map with 2 poses, 3 objects and 4 persons.
GROUPS = ["object", "pose", "person", "pose", "object"]


def test_hand_computed() -> None:
    logits = torch.tensor([[0.0, 0.0], [math.log(3.0), 0.0]])
    labels = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    expected = 0.25 * math.log(2) + 0.25**2 * -math.log(0.75)
    assert softmax_focal_loss(logits, labels).item() == pytest.approx(expected, rel=1e-6)


def test_gamma_zero_is_cross_entropy() -> None:
    logits, target = torch.randn(6, 5), torch.randint(5, (6,))
    expected = F.cross_entropy(logits, target, reduction="sum")
    loss = softmax_focal_loss(logits, F.one_hot(target, 5), gamma=0)
    torch.testing.assert_close(loss, expected)


def test_confident_answers_neither_overflow_nor_give_nan_gradients() -> None:
    logits = torch.tensor([[500.0, -500.0], [-500.0, 500.0]], requires_grad=True)
    loss = softmax_focal_loss(logits, torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    loss.backward()
    assert loss.item() == pytest.approx(1000)
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_no_persons_cost_nothing() -> None:
    parts = FocalCriterion()(torch.zeros(0, 3), torch.zeros(0, 3))
    assert parts["action"].item() == 0


def test_sigmoid_focal_hand_computed() -> None:
    # One person: p = 0.75 where the label is 1, p = 0.75 and p = 0.5 where it is 0.
    logits = torch.tensor([[LN3, LN3, 0.0]])
    labels = torch.tensor([[1.0, 0.0, 0.0]])
    terms = [0.25**2 * -math.log(0.75), 0.75**2 * -math.log(0.25), 0.5**2 * -math.log(0.5)]
    assert sigmoid_focal_loss(logits, labels).item() == pytest.approx(sum(terms) / 3, rel=1e-6)
    doubled = sigmoid_focal_loss(logits.repeat(2, 1), labels.repeat(2, 1))
    assert doubled.item() == pytest.approx(2 * sum(terms) / 3, rel=1e-6)


def test_sigmoid_focal_with_gamma_zero_is_binary_cross_entropy() -> None:
    logits, labels = torch.randn(6, 5), torch.randint(2, (6, 5)).float()
    expected = F.binary_cross_entropy_with_logits(logits, labels, reduction="sum") / 5
    torch.testing.assert_close(sigmoid_focal_loss(logits, labels, gamma=0), expected)


def test_sigmoid_focal_of_confident_answers_is_finite() -> None:
    logits = torch.tensor([[500.0, -500.0, 500.0]], requires_grad=True)
    loss = sigmoid_focal_loss(logits, torch.tensor([[1.0, 1.0, 0.0]]))
    loss.backward()
    assert loss.item() == pytest.approx(1000 / 3)
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_groups_hand_computed() -> None:
    logits = torch.tensor([[0.0, LN3, LN3, 0.0, -LN3]])
    labels = torch.tensor([[1.0, 1.0, 0.0, 0.0, 0.0]])
    parts = GroupedFocalCriterion(GROUPS)(logits, labels)
    half, quarter = -math.log(0.5), -math.log(0.75)
    assert list(parts) == ["pose", "object", "person"]
    assert parts["pose"].item() == pytest.approx(0.25**2 * quarter, rel=1e-6)
    of_objects = (0.5**2 * half + 0.25**2 * quarter) / 2
    assert parts["object"].item() == pytest.approx(2 * of_objects, rel=1e-6)
    assert parts["person"].item() == pytest.approx(0.75**2 * -math.log(0.25), rel=1e-6)


def looped(logits: torch.Tensor, labels: torch.Tensor, gamma: float) -> dict[str, float]:
    """The definition, number by number."""
    parts = dict.fromkeys(("pose", "object", "person"), 0.0)
    for x, y in zip(logits.double().tolist(), labels.tolist(), strict=True):
        poses = [c for c, group in enumerate(GROUPS) if group == "pose"]
        total = sum(math.exp(x[c]) for c in poses)
        for c in poses:
            if y[c]:
                p = math.exp(x[c]) / total
                parts["pose"] -= (1 - p) ** gamma * math.log(p)
        for group in ("object", "person"):
            chosen = [c for c, name in enumerate(GROUPS) if name == group]
            for c in chosen:
                p = 1 / (1 + math.exp(-x[c]))
                p_t = p if y[c] else 1 - p
                term = -((1 - p_t) ** gamma) * math.log(p_t)
                parts[group] += term  # mean times weight is the sum
    return parts


@pytest.mark.parametrize("gamma", [0.0, 1.5, 2.0])
def test_groups_are_as_looped(gamma: float) -> None:
    logits, labels = 4 * torch.randn(9, 5), torch.randint(2, (9, 5)).float()
    labels[:, 3] = (1 - labels[:, 1]) * labels[:, 3]  # at most one pose, and for some none
    labels[0] = 0
    labels[0, 0] = 1
    found = GroupedFocalCriterion(GROUPS, gamma)(logits, labels)
    expected = looped(logits, labels, gamma)
    assert {k: v.item() for k, v in found.items()} == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_who_has_no_pose_label_has_no_part_in_the_softmax() -> None:
    logits = torch.randn(2, 5, requires_grad=True)
    labels = torch.tensor([[1.0, 0, 0, 0, 0], [0, 1.0, 0, 0, 0]])
    criterion = GroupedFocalCriterion(GROUPS)
    (gradient,) = torch.autograd.grad(criterion(logits, labels)["pose"], logits)
    assert gradient[0].tolist() == [0] * 5
    assert (gradient[1] != 0).tolist() == [False, True, False, True, False]
    nobody = criterion(logits, torch.zeros(2, 5))["pose"]
    assert nobody.item() == 0
    (gradient,) = torch.autograd.grad(nobody, logits)
    assert not gradient.any()


@pytest.mark.parametrize(("part", "reached"), [("object", [0, 4]), ("person", [2])])
def test_a_part_reaches_its_group_only(part: str, reached: list[int]) -> None:
    logits = torch.randn(3, 5, requires_grad=True)
    labels = torch.tensor([[1.0, 1, 0, 0, 0], [0, 0, 1.0, 0, 1], [0, 0, 0, 1.0, 0]])
    GroupedFocalCriterion(GROUPS)(logits, labels)[part].backward()
    assert logits.grad is not None
    assert logits.grad.abs().sum(dim=0).nonzero().flatten().tolist() == reached
    # Down where the label is missing, up where it is there.
    assert ((logits.grad < 0) == (labels > 0))[:, reached].all()


def test_two_poses_share_the_target() -> None:
    logits = torch.tensor([[LN3, 0.0]])
    parts = GroupedFocalCriterion(["pose"] * 2, gamma=0)(logits, torch.ones(1, 2))
    assert parts["pose"].item() == pytest.approx(-(math.log(0.75) + math.log(0.25)) / 2)


@pytest.mark.parametrize("present", [["pose"], ["object"], ["person", "object"]])
def test_a_vocabulary_without_a_group(present: list[str]) -> None:
    parts = GroupedFocalCriterion(present)(
        torch.randn(3, len(present)), torch.ones(3, len(present))
    )
    assert set(parts) == set(present)
    assert all(part.isfinite() for part in parts.values())


def test_avas_weights() -> None:
    every = ["pose"] * 14 + ["object"] * 49 + ["person"] * 17
    assert GroupedFocalCriterion(every).weights == {"pose": 1, "object": 49, "person": 17}
    seen = GroupedFocalCriterion(["pose"] * 11 + ["object"] * 40 + ["person"] * 11)
    assert seen.weights == {"pose": 1, "object": 40, "person": 11}, "of the training vocabulary"


def test_groups_without_persons_cost_nothing() -> None:
    parts = GroupedFocalCriterion(GROUPS)(torch.zeros(0, 5), torch.zeros(0, 5))
    assert [part.item() for part in parts.values()] == [0, 0, 0]


def test_scores_hand_computed() -> None:
    logits = torch.tensor([[LN3, LN3, 0.0, -LN3]])
    groups = ["pose", "object", "pose", "person"]
    torch.testing.assert_close(
        class_scores(logits, groups), torch.tensor([[0.75, 0.75, 0.25, 0.25]])
    )
    torch.testing.assert_close(
        class_scores(logits), torch.tensor([[9.0, 9.0, 3.0, 1.0]]) / 22, rtol=1e-6, atol=1e-7
    )


def test_a_class_without_a_group_stands_for_itself() -> None:
    logits = torch.tensor([[LN3, LN3]])
    assert class_scores(logits, [None, None])[0].tolist() == pytest.approx([0.75, 0.75])
    assert class_scores(logits, ["pose", None])[0].tolist() == pytest.approx([1, 0.75])


@pytest.mark.parametrize("groups", [None, ["pose"] * 3, ["object"] * 3, ["pose", None, "person"]])
def test_any_dtype_gives_float32_and_no_persons_are_fine(groups: list[str] | None) -> None:
    logits = torch.randn(4, 3, dtype=torch.bfloat16)
    before = logits.clone()
    scores = class_scores(logits, groups)
    assert scores.dtype == torch.float32
    assert torch.equal(logits, before)
    assert ((scores > 0) & (scores <= 1)).all()
    assert class_scores(logits[:0], groups).shape == (0, 3)


def test_only_poses_are_the_softmax_of_exclusive_classes() -> None:
    logits = torch.randn(5, 4)
    assert torch.equal(class_scores(logits, ["pose"] * 4), class_scores(logits))


def test_other_classes_do_not_move_a_score() -> None:
    logits, groups = torch.randn(5, 4), ["pose", "object", "pose", "person"]
    chosen = [0, 1, 2]
    fewer = class_scores(logits[:, chosen], groups[:3])
    # Sums over more columns may round otherwise.
    torch.testing.assert_close(class_scores(logits, groups)[:, chosen], fewer, rtol=0, atol=1e-6)
