"""Score a dataset with a checkpoint and report the frame mAP.

OUTPUT_DIR/inference/<dataset>/ receives result_<dataset>.csv, detections/, predictions.npz,
metrics.json and config.yaml; results that are already there are kept under another name. Until then
<dataset>.partial/ is a log of the scores: the same command continues an interrupted test. For AVA,
result_ava.csv is what its challenge takes, and there is no detections/. <dataset> is the value of
DATASETS.TEST, or `annotations` for a file in the annotations format: each such file needs an
OUTPUT_DIR of its own.

Without MODEL.WEIGHT the freshly initialised model is tested. MODEL.NAME frame, crop, marked, or a
sum such as frame_crop, tests CLIP as it is, and xclip without MODEL.WEIGHT what MODEL.CLIP names.

Examples:
    stclip test --config-file jhmdb/split_1 \\
        MODEL.WEIGHT output/split_1/model_0003000.pth OUTPUT_DIR output/split_1
    torchrun --nproc_per_node=4 -m stclip test --config-file jhmdb/split_1 ...
"""

import json
import logging
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from yacs.config import CfgNode

import stclip
from stclip.cli import add_reference_options, config_parser, reference_pairs
from stclip.config import differences, load_config, saved_config, warn_scales
from stclip.config.load import flatten
from stclip.data.annotations import DetectionDataset
from stclip.data.build import (
    build_dataset,
    build_test_loader,
    dataset_name,
)
from stclip.data.labels import Labels
from stclip.data.times import with_times
from stclip.engine.checkpoint import Checkpoint
from stclip.engine.compiling import compile_blocks
from stclip.engine.distributed import (
    broadcast,
    choose_device,
    process_group,
    rank,
    seconds_for_the_lost,
    world_size,
)
from stclip.engine.events import peak_memory_mb, setup_logging
from stclip.engine.infer import merge, no_detections, stream
from stclip.engine.memory import keep_freed_memory
from stclip.errors import UserError
from stclip.evaluation.frame_map import frame_map, generalized
from stclip.evaluation.rejection import rejection
from stclip.evaluation.result_csv import AvaForm, rows_of
from stclip.evaluation.results import ScoredParts, fingerprint, write_results
from stclip.evaluation.tables import frame_map_table
from stclip.evaluation.voting import voted
from stclip.files import locked
from stclip.hub.remote import read_weights
from stclip.models.build import Model, build_model, encode_labels
from stclip.models.scale import scale_training
from stclip.models.weights import is_xclip
from stclip.structures import Detections, FrameKey

logger = logging.getLogger("stclip.test")


def main(argv: list[str] | None = None) -> int:
    """Command line; see the head of this file."""
    parser = config_parser(__doc__)
    add_reference_options(parser, training=False)
    args = parser.parse_intermixed_args(argv)
    cfg = load_config(args.config_file, [*args.opts, *reference_pairs(args)])
    if cfg.MODEL.FAST:
        keep_freed_memory()
    device = choose_device(cfg.MODEL.DEVICE)
    name = dataset_name(cfg.DATASETS.TEST)
    folder = Path(cfg.OUTPUT_DIR) / "inference"
    with (
        process_group(device),
        locked(folder, name, f".{name}-*", seconds_for_the_lost())
        if rank() == 0
        else nullcontext(),
    ):
        test(cfg, device)
    return 0


def test(cfg: CfgNode, device: torch.device) -> None:
    """Put the parts together and run."""
    setup_logging(cfg.OUTPUT_DIR, rank())
    torch.manual_seed(cfg.SEED)
    refuse_results_of_another(cfg)
    classes = Labels.read(cfg, "test")
    labels = classes.vocabulary("test")
    classes.warn_overlap()
    dataset = build_dataset(cfg, "test", classes)
    baseline = cfg.MODEL.NAME not in ("stclip", "xclip")
    if cfg.MODEL.WEIGHT:
        checkpoint = read_weights(cfg.MODEL.WEIGHT)
        if not baseline:
            warn_scales(cfg, checkpoint.config, cfg.MODEL.WEIGHT)
            warn_groups(cfg, checkpoint)
        model = build_model(cfg, checkpoint.model, checkpoint.activation)
        if not baseline:
            apply_scale(cfg, checkpoint, model)
    else:
        if cfg.MODEL.NAME == "stclip":
            logger.warning("MODEL.WEIGHT is empty: testing a model that was never trained")
        elif cfg.MODEL.NAME == "xclip" and not is_xclip(cfg.MODEL.CLIP):
            logger.warning(
                "MODEL.WEIGHT is empty, and MODEL.CLIP %s is CLIP: testing an X-CLIP in which what "
                "it adds to CLIP was never trained",
                cfg.MODEL.CLIP,
            )
        model = build_model(cfg)
    model.to(device)
    if cfg.MODEL.COMPILE:
        compile_blocks(model.clip)
    texts = classes.wordings("test")
    parts = ScoredParts(Path(cfg.OUTPUT_DIR) / "inference" / f"{dataset.name}.partial", labels)
    # Process 0 looks and broadcasts: on a network disk each process might see different files.
    done: set[FrameKey] = set()
    if rank() == 0:
        parts.prepare(fingerprint_of(cfg, dataset, texts, model))
        done = parts.resume([keyframe.key for keyframe in dataset.keyframes])
    done = broadcast(done)
    loader = build_test_loader(
        cfg, dataset, model.needs, rank(), world_size(), done, device.type == "cuda"
    )
    if done:
        logger.info("continuing a test that was interrupted after %d keyframes", len(done))
    logger.info(
        "testing on %d keyframes of %d videos, %d classes; %d process(es) on %s",
        len(dataset.keyframes) - len(done),
        len(dataset.videos),
        len(labels),
        world_size(),
        device,
    )
    start = time.perf_counter()
    try:
        for part in stream(
            model,
            loader,
            encode_labels(model, texts, partial(classes.place, "test"), cfg.MODEL.TEMPLATES),
            device=device,
            precision=cfg.MODEL.PRECISION,
            groups=classes.groups_of("test"),
            reported=len(labels),
            total=len(dataset.keyframes) - len(done),
        ):
            parts.add(part)
    finally:
        parts.flush()
    local = Detections.cat([no_detections(len(labels)), *parts.detections])
    detections = merge(local, [keyframe.key for keyframe in dataset.keyframes])
    if detections is None:
        return
    seconds = time.perf_counter() - start
    facts = {
        "keyframes": len(dataset.keyframes),
        "keyframes_with_boxes": len(detections.owner.unique()),
        "boxes": len(detections),
        "seconds": round(seconds, 3),
        "keyframes_per_second": round((len(dataset.keyframes) - len(done)) / seconds, 3),
        "keyframes_scored_before": len(done),  # by a run that was interrupted; not in the seconds
        "peak_memory_mb": round(peak_memory_mb(device), 1),
        "device": str(device),
        "model": cfg.MODEL.NAME,
        "weight": cfg.MODEL.WEIGHT,
    }
    report(cfg, dataset, classes, detections, facts)
    parts.remove()


def apply_scale(cfg: CfgNode, checkpoint: Checkpoint, model: Model) -> None:
    """Move the weights of a checkpoint by MODEL.SCALE, in place.

    The start of the training is built again, with the same random numbers.

    Raises:
        UserError: the checkpoint does not keep the whole config of its training.
    """
    if cfg.MODEL.SCALE == 1:
        return
    path = cfg.MODEL.WEIGHT
    if checkpoint.config is None or checkpoint.training is None:
        raise UserError(
            f"MODEL.SCALE: {path} does not say how its training started; a checkpoint that "
            "stclip train wrote expected, or MODEL.SCALE 1"
        )
    trained = saved_config(checkpoint.config, f"the config kept in {path}")
    first = read_weights(trained.MODEL.WEIGHT) if trained.MODEL.WEIGHT else Checkpoint({})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(trained.SEED)
        start = build_model(trained, first.model or None, first.activation)
    scale_training(model, start, cfg.MODEL.SCALE)


def fingerprint_of(cfg: CfgNode, dataset: DetectionDataset, labels: list[str], model: Model) -> str:
    """What the scores follow from: config keys, labels, boxes and weights."""
    ignored = (
        "MODEL.WEIGHT",
        "MODEL.DEVICE",
        "DATALOADER.NUM_WORKERS",
        "DATALOADER.STORE",
        "DATALOADER.STORE_GB",
    )
    keys = [
        f"{name} {value!r}"
        for name, value in flatten(cfg)
        if name.startswith(("MODEL.", "DATASETS.", "DATALOADER.")) and name not in ignored
    ]
    test = cfg.TEST
    keys.append(f"{test.BOXES} {test.BOX_THRESH} {test.MAX_PERSONS} {test.VIDEOS_PER_BATCH}")
    keys.append(next(model.parameters()).device.type)  # auto may be another one the next time
    keys += [stclip.__version__, model.clip.activation, cfg.ALL_GROUP, *labels]
    keys += [f"{k.key.video} {k.key.frame}" for k in dataset.keyframes]
    boxes: list[NDArray[np.generic]] = []
    for keyframe in dataset.keyframes:
        proposals = (dataset.proposals or {}).get(keyframe.key)
        boxes.append(keyframe.boxes)
        if proposals is not None:
            boxes += [proposals.boxes, proposals.scores]
    weights = [tensor.detach().cpu().numpy() for tensor in model.state_dict().values()]
    return fingerprint([*keys, *model.state_dict()], [*boxes, *weights])


def refuse_results_of_another(cfg: CfgNode) -> None:
    """Results of all annotations files have one name, so each file needs its own OUTPUT_DIR.

    Raises:
        UserError: the results of another file are where this test's would go.
    """
    folder = Path(cfg.OUTPUT_DIR) / "inference" / dataset_name(cfg.DATASETS.TEST)
    config = folder / "config.yaml"
    for change in differences(cfg, config if config.exists() else None):
        if change.startswith("DATASETS.TEST "):
            raise UserError(
                f"OUTPUT_DIR {cfg.OUTPUT_DIR}: {folder} holds the results of another test set "
                f"({change}); choose another OUTPUT_DIR"
            )


def warn_groups(cfg: CfgNode, checkpoint: Checkpoint) -> None:
    """Warn if a person could have several labels in training and cannot now, or the reverse."""
    if checkpoint.groups is not None and not cfg.ALL_GROUP:
        logger.warning(
            "%s was trained with several labels a person (ALL_GROUP), but ALL_GROUP is empty: here "
            "all classes exclude each other; name the file with a group for each line of ALL_LABEL",
            cfg.MODEL.WEIGHT,
        )
    # A checkpoint without a config is the reference's, which does not say what it was trained on.
    if cfg.ALL_GROUP and checkpoint.config is not None and checkpoint.groups is None:
        logger.warning(
            "%s was trained with one label a person, but ALL_GROUP is set: here every class but "
            "the poses gets a score of its own, which was not trained; to test as it was trained, "
            "leave ALL_GROUP empty",
            cfg.MODEL.WEIGHT,
        )


def ava_form(dataset: DetectionDataset, labels: list[str]) -> AvaForm | None:
    """What AVA's result file calls keyframes and classes; None for the other datasets."""
    if dataset.ava is None:
        return None
    return AvaForm(
        seconds=dataset.ava.seconds,
        sizes={name: video.size for name, video in dataset.videos.items()},
        action_ids=[dataset.ava.action_ids.get(name) for name in labels],
    )


def report(
    cfg: CfgNode,
    dataset: DetectionDataset,
    classes: Labels,
    detections: Detections,
    facts: dict[str, Any],
) -> None:
    """Write the result folder and print the table."""
    labels = classes.vocabulary("test")
    detections = with_times(detections, dataset, cfg.TEST.BOXES == "ground_truth")
    rows = rows_of(
        voted(detections, cfg.TEST.VOTING, cfg.TEST.VOTING_WINDOW), cfg.TEST.ACTION_THRESH
    )
    metrics: dict[str, Any] = {}
    annotated = dataset.annotates(labels)
    if annotated:
        metrics = frame_map(dataset.keyframes, rows, labels, cfg.TEST.IOU_THRESHOLDS)
        metrics |= rejection(dataset.keyframes, rows, labels)
        if len(detections) and not metrics["rows"]:
            logger.warning(
                "TEST.ACTION_THRESH %g: no score of any of the %d boxes is higher, so that the mAP "
                "is 0", cfg.TEST.ACTION_THRESH, len(detections),
            )  # fmt: skip
        if cfg.TEST.GENERALIZED:
            metrics = generalized(metrics, list(classes.test))
    folder = write_results(
        Path(cfg.OUTPUT_DIR) / "inference",
        dataset.name,
        labels,
        detections,
        rows,
        texts={
            "metrics.json": json.dumps({**metrics, **facts}, indent=2) + "\n",
            "config.yaml": cfg.dump(),
        },
        ava=ava_form(dataset, labels),
    )
    if annotated:
        print(frame_map_table(metrics))
    else:
        print("no ground truth of these classes: scores only, no mAP")
    logger.info(
        "%d keyframes, %d boxes in %.1f s; results: %s",
        facts["keyframes"],
        facts["boxes"],
        facts["seconds"],
        folder,
    )
