"""Class scores changed after the model: voting over videos or along tracks, and fewer classes."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from stclip.errors import UserError
from stclip.structures import Detections
from stclip.tracking import follow, vote

logger = logging.getLogger(__name__)


def voted(detections: Detections, voting: str, window: float) -> Detections:
    """The detections after TEST.VOTING.

    Args:
        detections: as the model scored them.
        voting: none, video or track.
        window: seconds that ``track`` averages over.

    Raises:
        UserError: ``track`` without the keyframes' times, or without the package ``trackers``.
    """
    if voting == "track":
        return track_voting(detections, window)
    return soft_voting(detections) if voting == "video" else detections


def track_voting(detections: Detections, window: float) -> Detections:
    """Average class scores along the track of each person.

    Every box gets the mean of its track's scores, before they are multiplied by the detector's,
    within half of ``window`` seconds to each side. The tracks are the annotated persons if these
    are known, else those that a tracker finds. Boxes without a track keep their own scores.

    Raises:
        UserError: it is unknown when the keyframes are shown.
    """
    if detections.seconds is None:
        raise UserError(
            "it is unknown when the keyframes are shown, without which there is no voting along "
            "tracks; run the test again"
        )
    seconds, owner = detections.seconds.double().numpy(), detections.owner.numpy()
    before = detections.scores.float().numpy()
    after = before.copy()
    tracked = 0
    for rows in _tracks(detections, seconds, owner):
        after[rows] = vote(seconds[owner[rows]], before[rows], window)
        tracked += len(rows)
    if len(after) and not tracked:
        logger.warning(
            "voting along tracks: none of the %d boxes is part of a track; do the detector's "
            "scores reach 0.4, with which a track can begin, and do boxes of one person overlap?",
            len(after),
        )
    return replace(detections, scores=torch.from_numpy(after))


def _tracks(
    detections: Detections, seconds: NDArray[np.float64], owner: NDArray[np.int64]
) -> Iterator[NDArray[np.int64]]:
    """The rows of each track, in the order of time."""
    videos: dict[str, list[int]] = {}
    for keyframe, key in enumerate(detections.keys):
        videos.setdefault(key.video, []).append(keyframe)
    by_owner = np.argsort(owner, kind="stable")
    ends = np.cumsum(np.bincount(owner, minlength=len(detections.keys)))
    of_keyframe = np.split(by_owner, ends[:-1]) if len(ends) else []
    boxes, scores = detections.boxes.numpy(), detections.det_scores.numpy()
    for keyframes in videos.values():
        ordered = sorted(keyframes, key=lambda keyframe: seconds[keyframe])
        parts = [of_keyframe[keyframe] for keyframe in ordered]
        rows = np.concatenate(parts)
        if detections.persons is not None:
            ids = detections.persons.numpy()[rows]
        else:
            found = follow(seconds[ordered], [boxes[p] for p in parts], [scores[p] for p in parts])
            ids = np.concatenate(found)
        for number in np.unique(ids[ids > 0]):
            yield rows[ids == number]


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
