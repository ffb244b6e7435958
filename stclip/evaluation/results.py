"""Result files: what a test run writes, and reading it back.

``result_<dataset>.csv`` and ``detections/*.txt`` have the format that people already exchange
(docs/evaluation.md, "Result files").
"""

from __future__ import annotations

import csv
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from stclip.errors import UserError
from stclip.evaluation.predictions import write_predictions
from stclip.evaluation.rows import DECIMALS, DetectionRows, rows_of
from stclip.evaluation.submission import AvaForm, write_ava_csv
from stclip.files import file_names, retire
from stclip.structures import Detections, FrameKey

logger = logging.getLogger(__name__)


def soft_voting(detections: Detections) -> Detections:
    """The single-action assumption (method.md section 7).

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
    return Detections(
        keys=detections.keys,
        owner=detections.owner,
        boxes=detections.boxes,
        det_scores=detections.det_scores,
        scores=(total / count[:, None])[group].to(detections.scores.dtype),
    )


def write_results(
    out_dir: str | Path,
    dataset: str,
    vocabulary: Sequence[str],
    detections: Detections,
    *,
    action_thresh: float = 0.0,
    unvoted: Detections | None = None,
    texts: Mapping[str, str] | None = None,
    ava: AvaForm | None = None,
) -> Path:
    """Write the folder ``out_dir/dataset``, whole or not at all, and return its path.

    A folder of that name is renamed to ``<dataset>.old-1`` (or the next free number) first.

    Files:
        result_<dataset>.csv: rows ``video, %04d frame, x1, y1, x2, y2, label (1-based), score``
            with 5 decimals, in the order of ``detections``; scores are class score times detector
            score, and rows not above ``action_thresh`` are left out. With ``ava`` in AVA's format.
        detections/<video with _ for />_<%05d frame>.txt: ``label score x1 y1 x2 y2`` with rounded
            boxes, one file for each frame that has rows; not with ``ava``. A video whose name would
            then be another's gets ~2 after it.
        predictions.npz: everything needed to compute the rest anew; numpy.load reads it with
            allow_pickle=False. ``videos`` (B,) and ``frames`` (B,) of the keyframes, those without
            persons included; ``owner`` (N,) into them; ``boxes`` (N, 4); ``det_scores`` (N,);
            ``scores`` (N, C) before they are multiplied by det_scores; ``labels`` (C,).

    Args:
        out_dir: the folder of results of all datasets; made if needed.
        dataset: names the folder and the csv.
        vocabulary: C class names.
        detections: in the order in which the rows are wanted.
        action_thresh: see above.
        unvoted: the detections before soft voting, where that was applied; predictions.npz keeps
            these, since voting cannot be undone.
        texts: further files of the folder by name: metrics, the config.
        ava: of the AVA dataset, what its files call the keyframes and classes.

    Raises:
        UserError: a score or a box is not finite, or the disk is full or not writable.
    """
    assert detections.scores.shape[1] == len(vocabulary), "scores: one column for each class"
    rows = rows_of(detections, action_thresh)
    folder = Path(out_dir) / dataset
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{dataset}-", dir=folder.parent))
    try:
        filled = temporary / dataset  # made by mkdir, so that its mode follows the umask
        filled.mkdir()
        if ava is None:
            _write_csv(filled / f"result_{dataset}.csv", rows)
            _write_text_files(filled / "detections", rows)
        else:
            write_ava_csv(filled / f"result_{dataset}.csv", rows, ava)
        raw = detections if unvoted is None else unvoted
        write_predictions(filled / "predictions.npz", vocabulary, raw)
        for name, text in (texts or {}).items():
            (filled / name).write_text(text, encoding="utf-8")
        retire(folder)
        os.rename(filled, folder)
    except OSError as error:
        raise UserError(
            f"{folder}: results cannot be written: {error.strerror or error}"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def format_table(metrics: dict[str, Any]) -> str:
    """A readable table of what ``frame_map`` or ``generalized`` returns.

    One line for each class, then the means; columns are the number of ground-truth boxes and the
    AP in percent at each threshold. ``-`` stands for a class without ground truth. Of generalised
    metrics, the unseen classes are marked, and there are three means and H.
    """
    thresholds = metrics["iou_thresholds"]
    counts: dict[str, int] = metrics["ground_truth_boxes"]
    unseen = metrics.get("unseen")
    lines = [["class", "boxes", *(f"AP@{t:g}" for t in thresholds)]]
    for name, count in counts.items():
        values = [metrics[f"per_class@{t:g}"][name] for t in thresholds]
        mark = " (unseen)" if unseen is not None and name in unseen else ""
        lines.append([name + mark, str(count), *map(percent, values)])
    total = sum(counts.values())
    means = [("mean", "frame_mAP", str(total))]
    if unseen is not None:
        of_unseen = sum(counts[name] for name in unseen)
        means = [
            ("mean unseen", "frame_mAP", str(of_unseen)),
            ("mean seen", "frame_mAP_seen", str(total - of_unseen)),
            ("mean all", "frame_mAP_all", str(total)),
            ("H", "H", ""),
        ]
    for name, key, boxes in means:
        lines.append([name, boxes, *(percent(metrics[f"{key}@{t:g}"]) for t in thresholds)])
    return format_columns(lines, len(means))


def format_columns(lines: Sequence[Sequence[str]], means: int = 1) -> str:
    """Cells as text: a heading, a rule, lines, a rule, and the last ``means`` lines."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    text = []
    for name, *cells in lines:
        right = (cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))
        text.append("  ".join([name.ljust(widths[0]), *right]))
    end = len(text) - means
    return "\n".join([text[0], rule, *text[1:end], rule, *text[end:]])


def percent(value: float | None) -> str:
    """A value of a table, ``-`` for None."""
    return "-" if value is None else f"{value:.2f}"


def _write_csv(path: Path, rows: DetectionRows) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)  # its \r\n line ends and quoting are part of the format
        for key, box, label, score in _iterate(rows):
            coordinates = [f"{value:.{DECIMALS}f}" for value in box]
            writer.writerow(
                [key.video, f"{key.frame:04d}", *coordinates, label, f"{score:.{DECIMALS}f}"]
            )


def _write_text_files(folder: Path, rows: DetectionRows) -> None:
    folder.mkdir()
    lines: dict[FrameKey, list[str]] = {}
    for key, box, label, score in _iterate(rows):
        corners = " ".join(str(round(value)) for value in box)
        lines.setdefault(key, []).append(f"{label} {score:.{DECIMALS}f} {corners}\n")
    names = file_names(key.video for key in lines)
    for video, name in names.items():
        if name != video.replace("/", "_"):
            logger.warning(
                "detections/%s_*.txt is of %s: another video has the plain name", name, video
            )
    for key, text in lines.items():
        path = folder / f"{names[key.video]}_{key.frame:05d}.txt"
        path.write_text("".join(text), encoding="utf-8")


def _iterate(rows: DetectionRows) -> Iterator[tuple[FrameKey, list[float], int, float]]:
    """Frame, box, 1-based label and score of each row."""
    columns = (rows.frame.tolist(), rows.boxes.tolist(), rows.labels.tolist(), rows.scores.tolist())
    for frame, box, label, score in zip(*columns, strict=True):
        yield rows.keys[frame], box, label + 1, score
