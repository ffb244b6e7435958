"""Class scores changed after the model: single-action voting, and fewer classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from stclip.errors import UserError
from stclip.structures import Detections


def soft_voting(detections: Detections) -> Detections:
    """The single-action assumption (docs/method.md, section 7).

    Class scores, before they are multiplied by the detector's, are averaged over all persons of a
    video, and every person of that video gets the average.
    """
    videos: dict[str, int] = {}
    for key in detections.keys:
        videos.setdefault(key.video, len(videos))
    of_keyframe = torch.tensor([videos[key.video] for key in detections.keys], dtype=torch.long)
    group = of_keyframe[detections.owner]
    scores = detections.scores.double()  # a long video's sum must not depend on its order
    total = scores.new_zeros(len(videos), scores.shape[1]).index_add_(0, group, scores)
    count = torch.bincount(group, minlength=len(videos)).clamp(min=1)
    voted = (total / count[:, None])[group].to(detections.scores.dtype)
    return replace(detections, scores=voted)


def of_vocabulary(
    detections: Detections, known: Sequence[str], labels: Sequence[str], renormalise: bool = False
) -> Detections:
    """The detections with the scores of some of the classes.

    Args:
        detections: with scores over ``known``.
        known: the vocabulary.
        labels: some of its names, in any order.
        renormalise: scale the scores of each person so that they sum to 1 again, which is the
            softmax over these classes alone.

    Raises:
        UserError: the scores do not sum to 1 before, so they are no softmax over all classes.
    """
    places = {name: column for column, name in enumerate(known)}
    scores = detections.scores[:, [places[name] for name in labels]]
    if renormalise:
        sums = detections.scores.double().sum(dim=1)
        odd = (sums - 1).abs() > 1e-3
        if odd.any():
            raise UserError(
                f"the scores of {int(odd.sum())} of {len(odd)} boxes do not sum to 1 (the first: "
                f"{float(sums[odd][0]):.4g}), so its classes do not exclude each other, and "
                "there is nothing to renormalise"
            )
        shares = scores.double()
        scores = (shares / shares.sum(dim=1, keepdim=True).clamp(min=1e-300)).to(scores.dtype)
    return replace(detections, scores=scores)
