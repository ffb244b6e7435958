import math

import pytest
import torch

from stclip.models.scores import class_scores, columns

LN3 = math.log(3.0)


def test_hand_computed() -> None:
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
    assert torch.equal(class_scores(logits, groups)[:, chosen], fewer)


def test_columns() -> None:
    assert columns(["pose", None, "person", "pose"], "pose") == [0, 3]
    assert columns([], "pose") == []
