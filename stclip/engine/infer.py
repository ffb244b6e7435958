"""Scoring: every keyframe of a dataset exactly once, on one process or many."""

import sys
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn
from tqdm import tqdm

from stclip.engine.distributed import gather, rank, world_size
from stclip.engine.events import watch_loader
from stclip.engine.memory import release_freed_memory
from stclip.engine.precision import autocast
from stclip.models.fast import FixedWeights
from stclip.models.losses import class_scores
from stclip.structures import ClipBatch, Detections, FrameKey


def infer(
    model: nn.Module,
    loader: Iterable[ClipBatch],
    vocabulary: Tensor,
    *,
    device: torch.device,
    precision: str = "fp32",
    groups: Sequence[str] | None = None,
    reported: int | None = None,
    total: int | None = None,
) -> Detections:
    """The concatenated detections of ``stream``, perhaps none; the arguments are the same."""
    parts = stream(
        model,
        loader,
        vocabulary,
        device=device,
        precision=precision,
        groups=groups,
        reported=reported,
        total=total,
    )
    return Detections.cat([no_detections(reported or len(vocabulary)), *parts])


def stream(
    model: nn.Module,
    loader: Iterable[ClipBatch],
    vocabulary: Tensor,
    *,
    device: torch.device,
    precision: str = "fp32",
    groups: Sequence[str] | None = None,
    reported: int | None = None,
    total: int | None = None,
) -> Iterator[Detections]:
    """Score this rank's keyframes, batch by batch.

    Args:
        model: ST-CLIP, or any model with its output, in evaluation mode on ``device``.
        loader: batches without labels.
        vocabulary: (C, E) features of the class names, on ``device``.
        device: where the model is.
        precision: fp32, bf16 or fp16.
        groups: the group of each class; None if all exclude each other.
        reported: how many classes, from the first on, are kept; the others take part in the
            softmax alone. None: all.
        total: keyframes over all ranks, for rank 0's progress bar.

    Yields:
        The scored persons of each batch, on the CPU in float32, with the ``class_scores`` of
        ``groups``.
    """
    if total is not None:
        total = -(-total // world_size())  # the bar shows this rank's share
    hidden, period = rank() != 0, 0.2 if sys.stderr.isatty() else 30  # a log needs few lines
    with tqdm(
        total=total, unit="keyframe", desc="scoring", disable=hidden, mininterval=period
    ) as progress:
        fixed = FixedWeights()
        release_freed_memory()  # the loader forks its workers next
        for batch in watch_loader(loader, device):
            with torch.inference_mode(), autocast(precision, device), fixed:
                output = model(batch.to(device, non_blocking=True), vocabulary)
                scores = class_scores(output.logits, groups)[:, :reported].cpu()
            progress.update(len(batch))
            # Copies: a tensor from a worker keeps a file descriptor open as long as it lives.
            yield Detections(
                keys=batch.keys,
                owner=batch.owner.clone(),
                boxes=batch.boxes.clone(),
                det_scores=batch.det_scores.clone(),
                scores=scores,
            )


def merge(local: Detections, order: Sequence[FrameKey]) -> Detections | None:
    """All ranks' detections on rank 0, their keyframes in ``order``; None on the other ranks.

    The result does not depend on how many ranks there were.

    Args:
        local: what this rank scored.
        order: each keyframe of all ranks, once.
    """
    parts = gather(local)
    if rank() != 0:
        return None
    detections = Detections.cat(parts)
    assert len(detections.keys) == len(order), (
        f"{len(detections.keys)} keyframes scored of {len(order)}"
    )
    place = {key: number for number, key in enumerate(order)}
    new_row = torch.tensor([place[key] for key in detections.keys], dtype=torch.long)
    assert len(set(new_row.tolist())) == len(order), "a keyframe was scored twice"
    owner, permutation = new_row[detections.owner].sort(stable=True)
    return Detections(
        keys=tuple(order),
        owner=owner,
        boxes=detections.boxes[permutation],
        det_scores=detections.det_scores[permutation],
        scores=detections.scores[permutation],
    )


def no_detections(classes: int) -> Detections:
    """Empty detections, for a rank without work."""
    return Detections(
        keys=(),
        owner=torch.zeros(0, dtype=torch.long),
        boxes=torch.zeros(0, 4),
        det_scores=torch.zeros(0),
        scores=torch.zeros(0, classes),
    )
