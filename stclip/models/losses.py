"""Class scores and losses (method.md sections 7 and 8). N persons, C class names."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from stclip.structures.groups import GROUPS, POSE


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


def softmax_focal_loss(logits: Tensor, labels: Tensor, gamma: float = 2.0) -> Tensor:
    """Sum over persons of -(1 - p_y)^gamma log p_y, for exclusive classes.

    Args:
        logits: (N, C); computed in float32 whatever the dtype.
        labels: (N, C), one 1 in each row.
        gamma: 0 gives the cross-entropy.

    Returns:
        A scalar; the caller divides by the number of boxes of the whole batch. 0 without persons.
    """
    log_p = F.log_softmax(logits.float(), dim=1)
    log_p_y = (log_p * labels).sum(dim=1)  # (N,)
    return -((1 - log_p_y.exp()) ** gamma * log_p_y).sum()


def sigmoid_focal_loss(logits: Tensor, labels: Tensor, gamma: float = 2.0) -> Tensor:
    """Sum over persons of the mean over classes of -(1 - p_t)^gamma log p_t; no alpha.

    p_t is the sigmoid where the label is 1, and one minus it where the label is 0.

    Args:
        logits: (N, C), C above 0; computed in float32 whatever the dtype.
        labels: (N, C), any number of 1s in a row.
        gamma: 0 gives the binary cross-entropy.

    Returns:
        A scalar, as ``softmax_focal_loss``.
    """
    cross_entropy = F.binary_cross_entropy_with_logits(logits.float(), labels, reduction="none")
    # 1 - p_t as a sigmoid of its own, which does not round to 0 or 1 halfway.
    wrong = ((1 - 2 * labels) * logits.float()).sigmoid()
    return (wrong**gamma * cross_entropy).mean(dim=1).sum()


class FocalCriterion:
    """The training loss for exclusive classes (J-HMDB, UCF101-24): one part, ``action``."""

    def __init__(self, gamma: float = 2.0) -> None:
        self.gamma = gamma

    def __call__(self, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Sums over persons, by part, from logits (N, C) and labels (N, C)."""
        return {"action": softmax_focal_loss(logits, labels, self.gamma)}


class GroupedFocalCriterion:
    """The training loss where a person can have several classes (AVA): a part for each group.

    The softmax focal loss over the pose classes, of the persons who have one, with weight 1; the
    sigmoid focal loss over the classes of ``object`` and over those of ``person``, of all persons,
    each weighted by how many classes the group has in the vocabulary: mean times weight is the sum
    over them. A group without any class in the vocabulary is no part.

    Args:
        groups: the group of each of the C classes.
        gamma: of every part.
    """

    def __init__(self, groups: Sequence[str], gamma: float = 2.0) -> None:
        self.gamma = gamma
        self.columns = {g: found for g in GROUPS if (found := columns(groups, g))}
        self.weights = {g: 1 if g == POSE else len(found) for g, found in self.columns.items()}

    def __call__(self, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Weighted sums over persons, by part, from logits (N, C) and labels (N, C).

        Of a person with more than one pose the mean of the log-probabilities counts as log p_y.
        """
        parts: dict[str, Tensor] = {}
        for group, chosen in self.columns.items():
            x, y = logits[:, chosen], labels[:, chosen]
            if group == POSE:
                some = y.sum(dim=1) > 0
                x, y = x[some], y[some] / y[some].sum(dim=1, keepdim=True)
                parts[group] = softmax_focal_loss(x, y, self.gamma)
            else:
                parts[group] = self.weights[group] * sigmoid_focal_loss(x, y, self.gamma)
        return parts
