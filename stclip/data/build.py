"""Builds datasets and loaders from a config; the one place of the data layer that reads one."""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from yacs.config import CfgNode

from stclip.data.annotation_dataset import NAME as ANNOTATIONS
from stclip.data.annotation_dataset import build_annotation_dataset
from stclip.data.annotations import DetectionDataset, Keyframe
from stclip.data.ava import NAME as AVA
from stclip.data.ava import build_ava
from stclip.data.ava_videos import Grid
from stclip.data.box_formats import check_boxes
from stclip.data.chunks import are_visible
from stclip.data.clips import ClipReader, one_keyframe_a_video
from stclip.data.jhmdb import NAMES, build_jhmdb, check_drawn
from stclip.data.labels import (
    check_vocabulary,
    label_line,
    read_group_file,
    read_label_file,
)
from stclip.data.loaders import BatchLoader, Samples, TestSamples, TrainSamples, multi_hot
from stclip.data.reading import FrameReader
from stclip.data.sampling import run_of, split_into_chunks
from stclip.data.selection import Part, make_selection
from stclip.data.store import PictureStore
from stclip.data.transforms import preprocess
from stclip.data.ucf24 import NAME as UCF24
from stclip.data.ucf24 import build_ucf24
from stclip.data.validation import recall
from stclip.errors import Report, UserError, fail, reporting
from stclip.structures import FrameKey
from stclip.structures.groups import POSE

logger = logging.getLogger(__name__)

# What the keys of DATALOADER that X-CLIP's clips do not heed are by default.
_UNSET = {"STORE": "", "RESIZE": "pillow"}
# Keyframes, evenly spread, whose annotated and detected boxes are compared when a test begins; and
# a share of found persons that no detector for this dataset has.
_LOOKED_AT, _LITTLE = 2000, 0.1


def read_vocabulary(cfg: CfgNode, part: Part) -> list[str]:
    """The names in TRAIN_LABEL or TEST_LABEL, which is the vocabulary in its order.

    Raises:
        UserError: a label file is unset, unreadable or empty, or has a name that ALL_LABEL lacks.
    """
    key = f"{part.upper()}_LABEL"
    names = read_label_file(cfg[key], key)
    check_vocabulary(names, read_label_file(cfg.ALL_LABEL, "ALL_LABEL"), key, cfg[key])
    return names


def scored_vocabulary(cfg: CfgNode) -> list[str]:
    """The names that a test scores: TEST_LABEL's, or with TEST.GENERALIZED those of ALL_LABEL.

    Raises:
        UserError: as ``read_vocabulary``.
    """
    names = read_vocabulary(cfg, "test")
    return read_label_file(cfg.ALL_LABEL, "ALL_LABEL") if cfg.TEST.GENERALIZED else names


def label_place(cfg: CfgNode, part: Part, name: str) -> str:
    """Words for where a name of the vocabulary that a part uses stands: key, file and line."""
    key = f"{part.upper()}_LABEL"
    if part == "test" and cfg.TEST.GENERALIZED:
        key = "ALL_LABEL"
    return label_line(cfg[key], name, key)


def read_groups(cfg: CfgNode) -> dict[str, str] | None:
    """The group of every name in ALL_LABEL, in its order; None without ALL_GROUP.

    Raises:
        UserError: a file is unreadable, or the two do not fit each other.
    """
    if not cfg.ALL_GROUP:
        return None
    all_names = read_label_file(cfg.ALL_LABEL, "ALL_LABEL")
    return read_group_file(cfg.ALL_GROUP, all_names, "ALL_GROUP")


def build_dataset(cfg: CfgNode, part: Part, report: Report = fail) -> DetectionDataset:
    """The dataset that DATASETS.TRAIN or DATASETS.TEST names, cut down to the config's labels.

    For training only the persons are left who have a label of the vocabulary and no unseen one,
    which is one that is in TEST_LABEL and not in TRAIN_LABEL. For testing the ground truth stays
    whole, and with TEST.BOXES detected there are the detected persons too.

    Args:
        cfg: the config.
        part: which of the two.
        report: gets what is wrong with a row, a person or the videos, and reading goes on; files in
            our own format stop at the first mistake all the same.

    Raises:
        UserError: a key has a value that cannot be, or a file or frame is missing or malformed.
    """
    vocabulary = read_vocabulary(cfg, "train") if part == "train" else scored_vocabulary(cfg)
    all_names = read_label_file(cfg.ALL_LABEL, "ALL_LABEL")
    name = cfg.DATASETS[part.upper()]
    check_drawn(cfg.DATASETS.DATA_DIR, name, f"DATASETS.{part.upper()}")
    key = "ALL_LABEL" if part == "test" and cfg.TEST.GENERALIZED else f"{part.upper()}_LABEL"
    selection = make_selection(part, vocabulary, cfg[f"{part.upper()}_VIDEO"], key)
    detections = cfg.DATASETS.DETECTIONS if part == "test" and _uses_detections(cfg) else None
    if name in NAMES:
        dataset = build_jhmdb(cfg.DATASETS.DATA_DIR, selection, all_names, detections, name, report)
    elif name == UCF24:
        dataset = build_ucf24(cfg.DATASETS.DATA_DIR, selection, all_names, detections, report)
    elif name == AVA:
        dataset = build_ava(
            cfg.DATASETS.DATA_DIR,
            selection,
            all_names,
            detections,
            unseen=_unseen(cfg, vocabulary) if part == "train" else (),
            box_threshold=cfg.TEST.BOX_THRESH,
            grid=_grid(cfg),
            report=report,
        )
    elif name.endswith(".json"):
        if detections == "":
            raise UserError(
                "DATASETS.DETECTIONS: is empty; name a .jsonl or .json file of person boxes for "
                f"{name}, or set TEST.BOXES to ground_truth"
            )
        dataset = build_annotation_dataset(name, selection, all_names, detections, read_groups(cfg))
    else:
        raise UserError(
            f"DATASETS.{part.upper()}: {name!r} is no dataset; choices: {', '.join(NAMES)}, "
            f"{UCF24}, {AVA}, or the path of a .json file in the annotations format"
        )
    for video in dataset.videos.values():
        video.max_pixels = cfg.DATALOADER.MAX_PIXELS
    if part == "train":
        dataset = _keep_vocabulary(cfg, dataset, vocabulary, report)
    _check_boxes(cfg, part, dataset, report)
    return dataset


def _grid(cfg: CfgNode) -> Grid:
    keys = cfg.DATASETS.AVA
    if len(keys.SECONDS) != 2 or not keys.START <= keys.SECONDS[0] <= keys.SECONDS[1]:
        raise UserError(
            "DATASETS.AVA.SECONDS: the first and the last annotated second expected, not before "
            f"DATASETS.AVA.START {keys.START}; found {keys.SECONDS}"
        )
    first, last = keys.SECONDS
    return Grid(first, last, keys.START, keys.FPS)


def dataset_name(value: str) -> str:
    """What a dataset's results are called: DATASETS.TEST, but for a file in our format."""
    return ANNOTATIONS if value.endswith(".json") else value


def _unseen(cfg: CfgNode, vocabulary: Sequence[str]) -> set[str]:
    """The labels that are tested and not among those trained on."""
    return set(read_vocabulary(cfg, "test") if cfg.TEST_LABEL else ()) - set(vocabulary)


def _keep_vocabulary(
    cfg: CfgNode, dataset: DetectionDataset, vocabulary: Sequence[str], report: Report
) -> DetectionDataset:
    """Leave out who has no seen label or an unseen one, and keyframes without anybody left."""
    unseen = _unseen(cfg, vocabulary)
    columns = {name: column for column, name in enumerate(vocabulary)}
    keyframes = [keyframe.of_vocabulary(columns, unseen) for keyframe in dataset.keyframes]
    before, after = (sum(len(k.boxes) for k in frames) for frames in (dataset.keyframes, keyframes))
    if after < before:
        logger.info(
            "TRAIN_LABEL: %d of %d person boxes have none of its labels, or one that is only in "
            "TEST_LABEL, and are left out of training",
            before - after, before,
        )  # fmt: skip
    if before and not after:
        raise UserError(
            f"TRAIN_LABEL: each of the {before} person boxes has a label that is only in "
            "TEST_LABEL, so that nobody is left to train on; change the labels of one of the two"
        )
    for keyframe in keyframes:  # a box with the wrong number of labels must show now
        with reporting(report):
            multi_hot(keyframe, columns, several=bool(cfg.ALL_GROUP))
    _warn_poses(keyframes, read_groups(cfg) or {})
    return replace(dataset, keyframes=[keyframe for keyframe in keyframes if len(keyframe.boxes)])


def _check_boxes(cfg: CfgNode, part: Part, dataset: DetectionDataset, report: Report) -> None:
    """Look whether boxes are what they should be, so that no number is wrong without a word."""
    sizes: dict[str, tuple[int, int]] = {}
    for name, video in dataset.videos.items():
        with reporting(report):
            sizes[name] = video.size
    annotated = [(keyframe.key, keyframe.boxes) for keyframe in dataset.keyframes]
    fate = "are left out of training" if part == "train" else "cannot be found"
    key = f"DATASETS.{part.upper()}"
    with reporting(report):
        used = _check_format(annotated, sizes, f"{key} {dataset.sources[0] or ''}".strip(), fate)
        if part == "train" and not used:
            raise UserError(
                f"{key} {dataset.sources[0] or ''}: none of its boxes lies in its picture, so that "
                "there is nobody to train on; boxes are x1, y1, x2, y2 in pixels of the picture"
            )
    if dataset.proposals is None:
        return
    where = f"DATASETS.DETECTIONS {dataset.sources[1] or ''}".strip()
    found = [(key, rows.boxes) for key, rows in dataset.proposals.items()]
    with reporting(report):
        _check_format(found, sizes, where, "are left out")
    some = dataset.keyframes[:: max(len(dataset.keyframes) // _LOOKED_AT, 1)]
    share = recall(replace(dataset, keyframes=some))
    if share is not None and share < _LITTLE:
        logger.warning(
            "%s: only %.1f%% of the annotated boxes overlap a detection by IoU 0.5, and no mAP@0.5 "
            "can be much higher; are the boxes of these videos, frames and sizes? "
            "stclip validate says more",
            where, 100 * share,
        )  # fmt: skip
    scores = np.concatenate([np.zeros(0), *(rows.scores for rows in dataset.proposals.values())])
    strange = int(((scores < 0) | (scores > 1)).sum())
    if strange:
        logger.warning(
            "%s: %d of %d scores are not from 0 to 1 (%g to %g); class scores are multiplied by "
            "them: divide percents by 100, apply the sigmoid to logits",
            where, strange, len(scores), scores.min(), scores.max(),
        )  # fmt: skip
    warn_of_choice(cfg, dataset)


def warn_of_choice(cfg: CfgNode, dataset: DetectionDataset) -> None:
    """Tell if TEST.BOX_THRESH leaves no detected person, or TEST.MAX_PERSONS not the best."""
    proposals, test = dataset.proposals or {}, cfg.TEST
    where = f"DATASETS.DETECTIONS {dataset.sources[1] or ''}".strip()
    best = max((float(rows.scores.max()) for rows in proposals.values() if len(rows)), default=None)
    if best is not None and best < test.BOX_THRESH:
        logger.warning(
            "TEST.BOX_THRESH %g: no box of %s scores as much, the best has %g, so that nothing is "
            "tested", test.BOX_THRESH, where, best,
        )  # fmt: skip
    worse = [
        key
        for key, rows in proposals.items()
        if not rows.are_best(test.BOX_THRESH, test.MAX_PERSONS)
    ]
    if worse:
        logger.warning(
            "TEST.MAX_PERSONS %d: takes the first boxes of a frame as %s has them, which are not "
            "the best in %d of %d frames (first: frame %d of %s); sort each frame's by descending "
            "score",
            test.MAX_PERSONS, where, len(worse),
            len(proposals), worse[0].frame, worse[0].video,
        )  # fmt: skip


def _check_format(
    rows: Sequence[tuple[FrameKey, NDArray[np.float32]]],
    size_of: Mapping[str, tuple[int, int]],
    where: str,
    fate: str,
) -> int:
    """``check_boxes`` on the boxes of some frames; gives how many are visible."""
    rows = [(key, boxes) for key, boxes in rows if len(boxes) and key.video in size_of]
    if not rows:
        return 0
    boxes = np.concatenate([boxes for _, boxes in rows])
    counts = np.array([len(boxes) for _, boxes in rows])
    sizes = np.array([size_of[key.video] for key, _ in rows], dtype=np.float64)
    sizes = sizes.repeat(counts, axis=0)

    def place(index: int) -> str:
        row = int(np.searchsorted(counts.cumsum(), index, side="right"))
        return f"frame {rows[row][0].frame} of {rows[row][0].video}"

    visible = are_visible(boxes, sizes)
    check_boxes(boxes, sizes, where, place, fate, ~visible)
    return int(visible.sum())


def _warn_poses(keyframes: Sequence[Keyframe], groups: Mapping[str, str]) -> None:
    """Tell of persons with several poses. No error: it must not keep anybody from AVA's files."""
    poses = {name for name, group in groups.items() if group == POSE}
    found = [(k.key, *box) for k in keyframes for box in k.with_several(poses)]
    if found:
        key, number, names = found[0]
        logger.warning(
            "DATASETS.TRAIN: %d of %d person boxes have several labels of the group pose, of which "
            "a person has one; training aims between them (first: box %d of frame %d of video %s: "
            "%s)",
            len(found), sum(len(k.boxes) for k in keyframes), number, key.frame, key.video,
            ", ".join(names),
        )  # fmt: skip


def build_train_loader(
    cfg: CfgNode,
    dataset: DetectionDataset,
    vocabulary: Sequence[str],
    image_size: int,
    start_iteration: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> BatchLoader:
    """The micro-batches of one process, from ``start_iteration`` to SOLVER.MAX_ITER.

    SOLVER.ACCUMULATION_STEPS of them, over all processes, make the SOLVER.VIDEOS_PER_BATCH
    keyframes of an iteration. Which these are depends on SEED and the iteration alone. For X-CLIP
    on whole videos a video is one keyframe, with the different labels of all of them.

    Args:
        cfg: the config.
        dataset: what ``build_dataset`` made for training.
        vocabulary: C class names; the labels are multi-hot over them.
        image_size: side in pixels of frames and crops.
        start_iteration: iterations that are done already.
        rank: of this process.
        world_size: number of processes.

    Raises:
        UserError: VIDEOS_PER_BATCH cannot be split evenly, or a key has a value that cannot be.
            While iterating: a frame cannot be read.
    """
    solver = cfg.SOLVER
    parts = solver.ACCUMULATION_STEPS * world_size
    if solver.VIDEOS_PER_BATCH % parts:
        raise UserError(
            f"SOLVER.VIDEOS_PER_BATCH: {solver.VIDEOS_PER_BATCH} keyframes cannot be split evenly "
            f"over SOLVER.ACCUMULATION_STEPS {solver.ACCUMULATION_STEPS} x {world_size} processes; "
            f"use a multiple of {parts}"
        )
    if _whole_videos(cfg):
        dataset = replace(dataset, keyframes=one_keyframe_a_video(dataset))
    samples = TrainSamples(
        dataset=dataset,
        vocabulary=tuple(vocabulary),
        several_labels=bool(cfg.ALL_GROUP),
        window_length=_window_length(cfg),
        window_stride=cfg.MODEL.TEMPORAL.STRIDE,
        image_size=image_size,
        max_persons=solver.MAX_PERSONS,
        seed=cfg.SEED,
        start_iteration=start_iteration,
        iterations=max(solver.MAX_ITER - start_iteration, 0),
        batch=solver.VIDEOS_PER_BATCH,
        steps=solver.ACCUMULATION_STEPS,
        rank=rank,
        world_size=world_size,
        clips=_clip_reader(cfg, image_size),
        reader=_frame_reader(cfg, image_size),
    )
    return _loader(samples, cfg)


def build_test_loader(
    cfg: CfgNode,
    dataset: DetectionDataset,
    image_size: int,
    rank: int = 0,
    world_size: int = 1,
    done: Collection[FrameKey] = (),
) -> BatchLoader:
    """One process's share of the keyframes, TEST.VIDEOS_PER_BATCH neighbours at a time.

    X-CLIP on whole videos gets all keyframes of a video at a time, which cost it one clip.
    Every keyframe is in one batch of one process, also one without persons. The batches have no
    labels. Those of which all keyframes are ``done`` are left out; the others are as without it.

    Raises:
        UserError: a key has a value that cannot be, or the detections that it asks for were not
            read. While iterating: a frame cannot be read.
    """
    test = cfg.TEST
    detected = _uses_detections(cfg)
    if detected and dataset.proposals is None:
        raise UserError("TEST.BOXES: 'detected', but no detections were read with this dataset")
    keys = [keyframe.key for keyframe in dataset.keyframes]
    together = max(len(keys), 1) if _whole_videos(cfg) else test.VIDEOS_PER_BATCH
    chunks = [
        rows
        for rows in split_into_chunks(keys, together)
        if not all(keys[row] in done for row in rows)
    ]
    share = run_of(rank, world_size, len(chunks))  # neighbours share frames
    samples = TestSamples(
        dataset=dataset,
        chunks=chunks[share.start : share.stop],
        window_length=_window_length(cfg),
        window_stride=cfg.MODEL.TEMPORAL.STRIDE,
        image_size=image_size,
        detected=detected,
        threshold=test.BOX_THRESH,
        max_persons=test.MAX_PERSONS,
        clips=_clip_reader(cfg, image_size),
        reader=_frame_reader(cfg, image_size),
    )
    return _loader(samples, cfg, in_runs=True)


def _window_length(cfg: CfgNode) -> int:
    """Frames that the model looks at: more than the keyframe only for context tokens over time."""
    temporal = cfg.MODEL.TEMPORAL
    return int(temporal.FRAMES) if cfg.MODEL.NAME == "stclip" and temporal.ENABLED else 1


def _clip_reader(cfg: CfgNode, image_size: int) -> ClipReader | None:
    """How the X-CLIP baseline reads its clips; None for the other models."""
    if cfg.MODEL.NAME != "xclip":
        return None
    keys = cfg.MODEL.XCLIP
    return ClipReader(keys.UNIT, keys.FRAMES, keys.STRIDE, image_size)


def _whole_videos(cfg: CfgNode) -> bool:
    """Whether the model scores a video as a whole."""
    return bool(cfg.MODEL.NAME == "xclip" and cfg.MODEL.XCLIP.UNIT == "video")


def _uses_detections(cfg: CfgNode) -> bool:
    return bool(cfg.TEST.BOXES == "detected")


def _frame_reader(cfg: CfgNode, image_size: int) -> FrameReader:
    """A reader with the store of DATALOADER.STORE, if it names one; X-CLIP's clips go without."""
    keys = cfg.DATALOADER
    if cfg.MODEL.NAME == "xclip":
        unused = [f"{name} {keys[name]}" for name, unset in _UNSET.items() if keys[name] != unset]
        if unused:
            logger.warning(
                "DATALOADER.%s: not used with MODEL.NAME xclip, whose clips are resized as its "
                "authors do it and are not stored", ", DATALOADER.".join(unused),
            )  # fmt: skip
        return FrameReader()
    store = PictureStore(keys.STORE, keys.STORE_GB, keys.RESIZE) if keys.STORE else None
    if store is not None:
        store.check_limit(image_size)
    return FrameReader(store, partial(preprocess, resize=keys.RESIZE))


def _loader(samples: Samples, cfg: CfgNode, in_runs: bool = False) -> BatchLoader:
    pin_memory = cfg.MODEL.DEVICE != "cpu" and torch.cuda.is_available()
    return BatchLoader(samples, cfg.DATALOADER.NUM_WORKERS, pin_memory, in_runs)
