"""Scores of method.md section 7. N persons, C class names."""

from collections.abc import Sequence

from torch import Tensor

from stclip.structures.groups import POSE


def class_scores(logits: Tensor, groups: Sequence[str | None] | None = None) -> Tensor:
    """What logits say about each class, between 0 and 1.

    Args:
        logits: (N, C), any dtype.
        groups: the group of each class, None for one without. None as a whole: all classes exclude
            each other.

    Returns:
        (N, C) float32: the softmax over all classes; with groups the softmax over those of the
        group ``pose``, and the sigmoid of every other.
    """
    logits = logits.float()
    if groups is None:
        return logits.softmax(dim=1)
    assert len(groups) == logits.shape[1], "groups: one for each class"
    scores = logits.sigmoid()
    poses = columns(groups, POSE)
    scores[:, poses] = logits[:, poses].softmax(dim=1)
    return scores


def columns(groups: Sequence[str | None], group: str) -> list[int]:
    """The places of a group's classes in the vocabulary."""
    return [column for column, name in enumerate(groups) if name == group]
