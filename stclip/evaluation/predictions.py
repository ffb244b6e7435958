"""predictions.npz: writing, reading back, cutting to some classes, and what chance would give."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from stclip.errors import UserError
from stclip.evaluation.frame_map import FrameMapEvaluator
from stclip.evaluation.matching import AnnotatedFrame
from stclip.files import check_regular
from stclip.structures import Detections, FrameKey
from stclip.structures.boxes import LARGEST

# The arrays of a file: which kinds of numpy's they may have, and words for these.
_ARRAYS = {
    "videos": ("U", "texts"),
    "frames": ("iu", "whole numbers"),
    "owner": ("iu", "whole numbers"),
    "boxes": ("f", "numbers"),
    "det_scores": ("f", "numbers"),
    "scores": ("f", "numbers"),
    "labels": ("U", "texts"),
}


def write_predictions(path: str | Path, vocabulary: Sequence[str], detections: Detections) -> None:
    """Write detections whole, for ``read_predictions``; ``write_results`` names the arrays."""
    np.savez_compressed(
        path,
        videos=np.array([key.video for key in detections.keys], dtype=np.str_),
        frames=np.array([key.frame for key in detections.keys], dtype=np.int64),
        owner=detections.owner.numpy(),
        boxes=detections.boxes.float().numpy(),
        det_scores=detections.det_scores.float().numpy(),
        scores=detections.scores.float().numpy(),
        labels=np.array(vocabulary, dtype=np.str_),
    )


def read_predictions(path: str | Path) -> tuple[Detections, tuple[str, ...]]:
    """The detections that a test run wrote, before soft voting, and its vocabulary.

    Raises:
        UserError: the file cannot be read, lacks an array, or has one of the wrong kind or shape.
    """
    check_regular(path)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in _ARRAYS}
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(
            f"{path}: not the predictions of a test run ({error}); run the test again"
        ) from error
    problem = _problem(found)
    if problem is not None:
        raise UserError(f"{path}: {problem}; run the test again")
    keys = zip(found["videos"].tolist(), found["frames"].tolist(), strict=True)
    detections = Detections(
        keys=tuple(FrameKey(video, frame) for video, frame in keys),
        owner=torch.from_numpy(found["owner"].astype(np.int64)),
        boxes=torch.from_numpy(found["boxes"]),
        det_scores=torch.from_numpy(found["det_scores"]),
        scores=torch.from_numpy(found["scores"]),
    )
    return detections, tuple(found["labels"].tolist())


def _problem(arrays: Mapping[str, NDArray[np.generic]]) -> str | None:
    """What is wrong with the arrays of a file."""
    keyframes, persons = len(arrays["videos"].ravel()), len(arrays["owner"].ravel())
    classes = len(arrays["labels"].ravel())
    for name, (kinds, words) in _ARRAYS.items():
        if arrays[name].dtype.kind not in kinds:
            return f"{name}: {words} were expected, found {arrays[name].dtype}"
    shapes = {
        "videos": (keyframes,),
        "frames": (keyframes,),
        "owner": (persons,),
        "boxes": (persons, 4),
        "det_scores": (persons,),
        "scores": (persons, classes),
        "labels": (classes,),
    }
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            return f"{name}: shape {shape} was expected, found {arrays[name].shape}"
    owner, frames = arrays["owner"], arrays["frames"]
    if persons and not 0 <= owner.min() <= owner.max() < keyframes:
        return f"owner: places of the {keyframes} keyframes were expected"
    if keyframes and not 1 <= frames.min() <= frames.max() <= LARGEST:
        return "frames: numbers from 1 were expected"
    keys = set(zip(arrays["videos"].tolist(), frames.tolist(), strict=True))
    if len(keys) < keyframes:
        return "videos, frames: a keyframe stands there twice"
    if len(set(arrays["labels"].tolist())) < classes:
        return "labels: a class stands there twice"
    return None


def of_vocabulary(
    detections: Detections, known: Sequence[str], labels: Sequence[str], renormalise: bool = False
) -> Detections:
    """The same detections with the scores of some classes.

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
                f"{float(sums[odd][0]):.4g}), so its classes do not exclude each other, and there "
                "is nothing to share anew"
            )
        shares = scores.double()
        scores = (shares / shares.sum(dim=1, keepdim=True).clamp(min=1e-300)).to(scores.dtype)
    return replace(detections, scores=scores)


def chance_map(
    ground_truth: Iterable[AnnotatedFrame],
    detections: Detections,
    labels: Sequence[str],
    draws: int = 10,
    seed: int = 0,
) -> tuple[float, dict[str, float]]:
    """Frame mAP at 0.5 of the same boxes with random class scores, mean over some draws.

    Each person's class scores are drawn evenly from all that are positive and sum to 1, and
    multiplied by the detector's score as a model's are.

    Returns:
        The mAP, and each class's AP, in percent; a class without ground truth is left out.
    """
    evaluator = FrameMapEvaluator(ground_truth, labels, iou_thresholds=(0.5,))
    generator = torch.Generator().manual_seed(seed)
    values: list[float] = []
    per_class: dict[str, list[float]] = {}
    for _ in range(draws):
        uniform = torch.rand(len(detections), len(labels), generator=generator, dtype=torch.double)
        shares = -torch.log1p(-uniform)  # exponential, so that their shares are even
        scores = (shares / shares.sum(dim=1, keepdim=True)).float()
        evaluator.reset()
        evaluator.process(
            Detections(
                detections.keys,
                detections.owner,
                detections.boxes,
                detections.det_scores,
                scores,
            )
        )
        metrics = evaluator.evaluate()
        values.append(metrics["frame_mAP@0.5"] or 0.0)
        for name, value in metrics["per_class"].items():
            if value is not None:
                per_class.setdefault(name, []).append(value)
    means = {name: sum(each) / len(each) for name, each in per_class.items()}
    return sum(values) / len(values), means
