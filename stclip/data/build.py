"""Builds datasets and loaders from a config; the one place of the data layer that reads one."""

import logging
from collections.abc import Sequence
from dataclasses import replace

import torch
from yacs.config import CfgNode

from stclip.data.annotation_dataset import build_annotation_dataset
from stclip.data.annotations import DetectionDataset
from stclip.data.jhmdb import NAMES, build_jhmdb, check_drawn
from stclip.data.labels import check_vocabulary, read_label_file
from stclip.data.loaders import BatchLoader, Samples, TestSamples, TrainSamples, multi_hot
from stclip.data.sampling import split_into_chunks
from stclip.data.selection import Part, make_selection
from stclip.errors import UserError

logger = logging.getLogger(__name__)


def read_vocabulary(cfg: CfgNode, part: Part) -> list[str]:
    """The names in TRAIN_LABEL or TEST_LABEL, which is the vocabulary in its order.

    Raises:
        UserError: a label file is unset, unreadable or empty, or has a name that ALL_LABEL lacks.
    """
    key = f"{part.upper()}_LABEL"
    names = read_label_file(cfg[key], key)
    check_vocabulary(names, read_label_file(cfg.ALL_LABEL, "ALL_LABEL"), key, cfg[key])
    return names


def build_dataset(cfg: CfgNode, part: Part) -> DetectionDataset:
    """The dataset that DATASETS.TRAIN or DATASETS.TEST names, cut down to the config's labels.

    For training only the persons are left who have a label of the vocabulary: what the others in
    their videos do may be unseen. For testing the ground truth stays whole, and with TEST.BOXES
    detected there are the detected persons too.

    Raises:
        UserError: a key has a value that cannot be, or a file or frame is missing or malformed.
    """
    vocabulary = read_vocabulary(cfg, part)
    all_names = read_label_file(cfg.ALL_LABEL, "ALL_LABEL")
    name = cfg.DATASETS[part.upper()]
    check_drawn(cfg.DATASETS.DATA_DIR, name, f"DATASETS.{part.upper()}")
    selection = make_selection(part, vocabulary, cfg[f"{part.upper()}_VIDEO"])
    detections = cfg.DATASETS.DETECTIONS if part == "test" and _uses_detections(cfg) else None
    if name in NAMES:
        dataset = build_jhmdb(cfg.DATASETS.DATA_DIR, selection, all_names, detections, name)
    elif name.endswith(".json"):
        if detections == "":
            raise UserError(
                "DATASETS.DETECTIONS: is empty; name a .jsonl or .json file of person boxes for "
                f"{name}, or set TEST.BOXES to ground_truth"
            )
        dataset = build_annotation_dataset(name, selection, all_names, detections)
    else:
        raise UserError(
            f"DATASETS.{part.upper()}: {name!r} is no dataset; choices: {', '.join(NAMES)}, or the "
            "path of a .json file in the annotations format"
        )
    return _keep_vocabulary(dataset, vocabulary) if part == "train" else dataset


def _keep_vocabulary(dataset: DetectionDataset, vocabulary: Sequence[str]) -> DetectionDataset:
    """Leave out who has labels, but none of the vocabulary, and keyframes without anybody left."""
    keyframes = [keyframe.of_vocabulary(vocabulary) for keyframe in dataset.keyframes]
    before, after = (sum(len(k.boxes) for k in frames) for frames in (dataset.keyframes, keyframes))
    if after < before:
        logger.info(
            "TRAIN_LABEL: %d of %d person boxes have other labels and are left out of training",
            before - after, before,
        )  # fmt: skip
    for keyframe in keyframes:
        multi_hot(keyframe, vocabulary)  # a box with two labels, or without any, must show now
    return replace(dataset, keyframes=[keyframe for keyframe in keyframes if len(keyframe.boxes)])


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
    keyframes of an iteration. Which these are depends on SEED and the iteration alone.

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
    samples = TrainSamples(
        dataset=dataset,
        vocabulary=tuple(vocabulary),
        window_length=_window_length(cfg),
        image_size=image_size,
        max_persons=solver.MAX_PERSONS,
        seed=cfg.SEED,
        start_iteration=start_iteration,
        iterations=max(solver.MAX_ITER - start_iteration, 0),
        batch=solver.VIDEOS_PER_BATCH,
        steps=solver.ACCUMULATION_STEPS,
        rank=rank,
        world_size=world_size,
    )
    return _loader(samples, cfg)


def build_test_loader(
    cfg: CfgNode,
    dataset: DetectionDataset,
    image_size: int,
    rank: int = 0,
    world_size: int = 1,
) -> BatchLoader:
    """One process's share of the keyframes, TEST.VIDEOS_PER_BATCH neighbours at a time.

    Every keyframe is in one batch of one process, also one without persons. The batches have no
    labels.

    Raises:
        UserError: a key has a value that cannot be, or the detections that it asks for were not
            read. While iterating: a frame cannot be read.
    """
    test = cfg.TEST
    detected = _uses_detections(cfg)
    if detected and dataset.proposals is None:
        raise UserError("TEST.BOXES: 'detected', but no detections were read with this dataset")
    keys = [keyframe.key for keyframe in dataset.keyframes]
    chunks = split_into_chunks(keys, test.VIDEOS_PER_BATCH)[rank::world_size]
    samples = TestSamples(
        dataset=dataset,
        chunks=chunks,
        window_length=_window_length(cfg),
        image_size=image_size,
        detected=detected,
        threshold=test.BOX_THRESH,
        max_persons=test.MAX_PERSONS,
    )
    return _loader(samples, cfg)


def _window_length(cfg: CfgNode) -> int:
    """Frames that the model looks at: more than the keyframe only for context tokens over time."""
    temporal = cfg.MODEL.TEMPORAL
    return int(temporal.FRAMES) if cfg.MODEL.NAME == "stclip" and temporal.ENABLED else 1


def _uses_detections(cfg: CfgNode) -> bool:
    return bool(cfg.TEST.BOXES == "detected")


def _loader(samples: Samples, cfg: CfgNode) -> BatchLoader:
    pin_memory = cfg.MODEL.DEVICE != "cpu" and torch.cuda.is_available()
    return BatchLoader(samples, cfg.DATALOADER.NUM_WORKERS, pin_memory)
