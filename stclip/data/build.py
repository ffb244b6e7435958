"""Builds datasets and loaders from a config, the label files and what a model needs."""

import logging
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

from yacs.config import CfgNode

from stclip.data import custom
from stclip.data.annotations import DetectionDataset, Request, multi_hot, stop_at_first
from stclip.data.ava import build_ava
from stclip.data.checks import check_dataset, warn_of_poses
from stclip.data.findings import Kind
from stclip.data.jhmdb import DRAWN, build_jhmdb
from stclip.data.labels import Labels, Part
from stclip.data.loaders import (
    BatchLoader,
    TestSamples,
    TrainSamples,
    one_keyframe_a_video,
)
from stclip.data.reading import FrameReader
from stclip.data.store import PictureStore
from stclip.data.transforms import preparation
from stclip.data.ucf24 import build_ucf24
from stclip.data.windows import run_of, split_into_chunks
from stclip.errors import Report, UserError
from stclip.structures import FrameKey, Needs

logger = logging.getLogger(__name__)

# What DATASETS.TRAIN and DATASETS.TEST may say; ".json" stands for the path of such a file. A new
# dataset is one function in a file of its own, and one entry here.
DATASETS: dict[str, Callable[[Request], DetectionDataset]] = {
    "jhmdb": build_jhmdb,
    **dict.fromkeys(DRAWN, build_jhmdb),
    "ucf24": build_ucf24,
    "ava": build_ava,
    ".json": custom.build_custom,
}
# DATALOADER keys without effect on clips, with their default values.
_UNUSED_BY_CLIPS = {"STORE": "", "RESIZE": "pillow"}


def build_dataset(cfg: CfgNode, part: Part, labels: Labels | None = None) -> DetectionDataset:
    """The dataset that DATASETS.TRAIN or DATASETS.TEST names, checked, for a run.

    For training, only persons with a label of the vocabulary and without an unseen one are kept;
    unseen means in TEST_LABEL and not in TRAIN_LABEL. For testing, the ground truth stays
    whole, and with TEST.BOXES detected there are the detected persons too.

    Args:
        cfg: the config.
        part: which of the two.
        labels: the class names; None reads them.

    Raises:
        UserError: a key has an invalid value, a file or frame is missing or malformed, or
            boxes are not what they should be.
    """
    labels = Labels.read(cfg, part) if labels is None else labels
    dataset = read_dataset(cfg, part, labels)
    if part == "train":
        dataset = _keep_vocabulary(dataset, labels)
    check_dataset(dataset, part, cfg.TEST.BOX_THRESH, cfg.TEST.MAX_PERSONS)
    return dataset


def read_dataset(
    cfg: CfgNode,
    part: Part,
    labels: Labels,
    reports: Callable[[Kind], Report] = stop_at_first,
) -> DetectionDataset:
    """The dataset as its files have it: the videos of the labels, with all of their persons.

    What is wrong is left out where ``reports`` does not raise it; see ``Request``.

    Raises:
        UserError: a key has a value that cannot be, or a file or frame is missing or malformed.
    """
    name = cfg.DATASETS[part.upper()]
    build = DATASETS.get(".json" if name.endswith(".json") else name)
    if build is None or name == ".json":
        names = ", ".join(name for name in DATASETS if name != ".json")
        raise UserError(
            f"DATASETS.{part.upper()}: {name!r} is no dataset; choices: {names}, or the path of a "
            ".json file in the annotations format"
        )
    request = Request(
        name=name,
        part=part,
        labels=labels,
        data_dir=Path(cfg.DATASETS.DATA_DIR),
        detections=cfg.DATASETS.DETECTIONS if part == "test" and _uses_detections(cfg) else None,
        list_path=cfg[f"{part.upper()}_VIDEO"],
        box_threshold=cfg.TEST.BOX_THRESH,
        options=cfg.DATASETS,
        reports=reports,
    )
    dataset = build(request)
    for video in dataset.videos.values():
        video.max_pixels = cfg.DATALOADER.MAX_PIXELS
    return dataset


def dataset_name(value: str) -> str:
    """What a dataset's results are called: DATASETS.TEST, but for a file in our format."""
    return custom.NAME if value.endswith(".json") else value


def _keep_vocabulary(dataset: DetectionDataset, labels: Labels) -> DetectionDataset:
    """Drop persons without a seen label or with an unseen one, and keyframes then left empty."""
    columns = {name: column for column, name in enumerate(labels.vocabulary("train"))}
    unseen = labels.unseen
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
            "TEST_LABEL, so no person is left to train on; change the labels of one of the two"
        )
    for keyframe in keyframes:  # a box with the wrong number of labels must show now
        multi_hot(keyframe, columns, several=labels.groups is not None)
    warn_of_poses(keyframes, labels.groups or {})
    return replace(dataset, keyframes=[keyframe for keyframe in keyframes if len(keyframe.boxes)])


def build_train_loader(
    cfg: CfgNode,
    dataset: DetectionDataset,
    labels: Labels,
    needs: Needs,
    start_iteration: int = 0,
    rank: int = 0,
    world_size: int = 1,
    pin_memory: bool = False,
) -> BatchLoader:
    """The micro-batches of one process, from ``start_iteration`` to SOLVER.MAX_ITER.

    SOLVER.ACCUMULATION_STEPS of them, over all processes, make the SOLVER.VIDEOS_PER_BATCH
    keyframes of an iteration. Which these are depends on SEED and the iteration alone. For clips of
    whole videos a video is one keyframe, with the different labels of all of them.

    Args:
        cfg: the config.
        dataset: what ``build_dataset`` made for training.
        labels: C class names to train; the targets are multi-hot over them.
        needs: what the model looks at.
        start_iteration: iterations done before.
        rank: of this process.
        world_size: number of processes.
        pin_memory: put the batches into page-locked memory, for a GPU.

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
    if needs.clips == "video":
        dataset = replace(dataset, keyframes=one_keyframe_a_video(dataset))
    samples = TrainSamples(
        dataset=dataset,
        vocabulary=labels.vocabulary("train"),
        several_labels=labels.groups is not None,
        needs=needs,
        max_persons=solver.MAX_PERSONS,
        seed=cfg.SEED,
        start_iteration=start_iteration,
        iterations=max(solver.MAX_ITER - start_iteration, 0),
        batch=solver.VIDEOS_PER_BATCH,
        steps=solver.ACCUMULATION_STEPS,
        rank=rank,
        world_size=world_size,
        reader=_frame_reader(cfg, needs),
    )
    return BatchLoader(samples, cfg.DATALOADER.NUM_WORKERS, pin_memory)


def build_test_loader(
    cfg: CfgNode,
    dataset: DetectionDataset,
    needs: Needs,
    rank: int = 0,
    world_size: int = 1,
    done: Collection[FrameKey] = (),
    pin_memory: bool = False,
) -> BatchLoader:
    """One process's share of the keyframes, TEST.VIDEOS_PER_BATCH neighbours at a time.

    Of clips of whole videos all keyframes of a video come at a time, which share one clip. Every
    keyframe is in one batch of one process, also one without persons. The batches have no labels.
    Those of which all keyframes are ``done`` are left out; the others are as without it.

    Raises:
        UserError: a key has a value that cannot be, or the detections that it asks for were not
            read. While iterating: a frame cannot be read.
    """
    test = cfg.TEST
    detected = _uses_detections(cfg)
    if detected and dataset.proposals is None:
        raise UserError("TEST.BOXES: 'detected', but no detections were read with this dataset")
    keys = [keyframe.key for keyframe in dataset.keyframes]
    together = max(len(keys), 1) if needs.clips == "video" else test.VIDEOS_PER_BATCH
    chunks = [
        rows
        for rows in split_into_chunks(keys, together)
        if not all(keys[row] in done for row in rows)
    ]
    share = run_of(rank, world_size, len(chunks))  # neighbours share frames
    samples = TestSamples(
        dataset=dataset,
        chunks=chunks[share.start : share.stop],
        needs=needs,
        detected=detected,
        threshold=test.BOX_THRESH,
        max_persons=test.MAX_PERSONS,
        reader=_frame_reader(cfg, needs),
    )
    return BatchLoader(samples, cfg.DATALOADER.NUM_WORKERS, pin_memory, in_runs=True)


def _uses_detections(cfg: CfgNode) -> bool:
    return bool(cfg.TEST.BOXES == "detected")


def _frame_reader(cfg: CfgNode, needs: Needs) -> FrameReader:
    """A reader with the store of DATALOADER.STORE, if it names one; clips go without."""
    keys = cfg.DATALOADER
    if needs.clips is not None:
        unused = [f"{name} {keys[name]}" for name, v in _UNUSED_BY_CLIPS.items() if keys[name] != v]
        if unused:
            logger.warning(
                "DATALOADER.%s: not used with MODEL.NAME xclip, whose clips are resized as its "
                "authors do it and are not stored",
                ", DATALOADER.".join(unused),
            )  # fmt: skip
        return FrameReader(prepare=preparation(needs))
    method = keys.RESIZE
    if (needs.fit, needs.interpolation) != ("crop", "bicubic"):
        method = f"{method}, {needs.fit}, {needs.interpolation}"
    store = PictureStore(keys.STORE, keys.STORE_GB, method) if keys.STORE else None
    if store is not None:
        store.check_limit(needs.image_size)
    return FrameReader(store, preparation(needs, keys.RESIZE))
