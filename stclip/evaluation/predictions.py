"""predictions.npz: writing, reading back, cutting to some classes, and what chance would give."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from stclip.errors import UserError
from stclip.evaluation.frame_map import FrameMapEvaluator
from stclip.evaluation.matching import AnnotatedFrame
from stclip.structures import Detections, FrameKey


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
        UserError: the file cannot be read or lacks an array.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            keys = zip(arrays["videos"].tolist(), arrays["frames"].tolist(), strict=True)
            detections = Detections(
                keys=tuple(FrameKey(video, frame) for video, frame in keys),
                owner=torch.from_numpy(arrays["owner"]),
                boxes=torch.from_numpy(arrays["boxes"]),
                det_scores=torch.from_numpy(arrays["det_scores"]),
                scores=torch.from_numpy(arrays["scores"]),
            )
            return detections, tuple(arrays["labels"].tolist())
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path}: not the predictions of a test run ({error}); run the test again"
        ) from error


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
