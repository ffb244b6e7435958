"""All-point interpolated average precision (docs/evaluation.md, "Frame mAP")."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def average_precision(
    scores: NDArray[np.floating[Any]], is_true_positive: NDArray[np.bool_], num_ground_truth: int
) -> float:
    """Area under the precision-recall curve, precision made non-increasing from the right.

    Args:
        scores: (n,) scores of one class's detections, in any order. Of equal scores, the one that
            comes first ranks first.
        is_true_positive: (n,) whether each detection matches a ground truth; every ground truth
            is matched at most once.
        num_ground_truth: how many ground truths there are, found or not.

    Returns:
        A fraction in [0, 1]; 0 without detections, NaN without ground truth.
    """
    assert scores.shape == is_true_positive.shape, f"{scores.shape}, {is_true_positive.shape}"
    if num_ground_truth == 0:
        return float("nan")
    hits = is_true_positive[np.argsort(-scores, kind="stable")]
    # Recall grows only at true positives, so only the precisions there are steps of the curve.
    ranks = np.flatnonzero(hits) + 1
    precision = np.arange(1, len(ranks) + 1) / ranks
    assert len(ranks) <= num_ground_truth, "more true positives than ground truths"
    envelope = np.maximum.accumulate(precision[::-1])
    return float(envelope.sum() / num_ground_truth)
