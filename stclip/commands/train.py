"""Train ST-CLIP on the seen classes of a dataset, or fine-tune X-CLIP (MODEL.NAME xclip).

OUTPUT_DIR receives config.yaml, log.txt, metrics.jsonl (every iteration), TensorBoard events, and
checkpoints model_<iteration>.pth. An interrupted run continues with --resume.

Examples:
    stclip train --config-file jhmdb/split_1 OUTPUT_DIR output/split_1
    torchrun --nproc_per_node=4 -m stclip train --config-file jhmdb/split_1
"""

import argparse
import logging
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import torch
from yacs.config import CfgNode

from stclip.cli import add_reference_options, config_parser, reference_pairs
from stclip.config import differences, load_config, save_config, warn_scales
from stclip.config.load import flatten
from stclip.data.build import build_dataset, build_test_loader, build_train_loader
from stclip.data.labels import Labels
from stclip.data.times import with_times
from stclip.engine.checkpoint import (
    Checkpoint,
    checkpoint_path,
    latest_checkpoint,
    read_checkpoint,
    save_checkpoint,
)
from stclip.engine.compiling import compile_blocks, recompute_activations
from stclip.engine.distributed import (
    barrier,
    choose_device,
    process_group,
    rank,
    seconds_for_the_lost,
    sum_over_ranks,
    world_size,
)
from stclip.engine.events import EventWriter, setup_logging, watch_loader
from stclip.engine.infer import infer, merge
from stclip.engine.memory import keep_freed_memory
from stclip.engine.optim import build_optimizer, learning_rate
from stclip.engine.train import Interrupted, Trainer
from stclip.errors import UserError
from stclip.evaluation.frame_map import frame_map, generalized
from stclip.evaluation.result_csv import rows_of
from stclip.evaluation.voting import voted
from stclip.files import locked
from stclip.hub.remote import read_weights
from stclip.models.build import Model, build_model, encode_labels
from stclip.models.clip import Block
from stclip.models.losses import FocalCriterion, GroupedFocalCriterion
from stclip.models.stclip import PromptBlock
from stclip.models.xclip import is_new

logger = logging.getLogger("stclip.train")


def main(argv: list[str] | None = None) -> int:
    """Command line; see the head of this file."""
    parser = config_parser(__doc__)
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue from the last checkpoint in OUTPUT_DIR; from the start if there is none",
    )
    add_reference_options(parser, training=True)
    args = parser.parse_intermixed_args(argv)
    cfg = load_config(args.config_file, [*args.opts, *reference_pairs(args)])
    if cfg.MODEL.FAST:
        keep_freed_memory()
    if args.no_head and cfg.MODEL.WEIGHT:
        raise UserError(
            "--no-head: ST-CLIP has no separate head whose weights could be left out; "
            "to start from CLIP alone set MODEL.WEIGHT '', to start from a checkpoint leave the "
            "option out"
        )
    check_trainable(cfg)
    device = choose_device(cfg.MODEL.DEVICE)
    with (
        process_group(device),
        locked(cfg.OUTPUT_DIR, "train", patience=seconds_for_the_lost())
        if rank() == 0
        else nullcontext(),
    ):
        return train(cfg, args, device)


def train(cfg: CfgNode, args: argparse.Namespace, device: torch.device) -> int:
    """Put the parts together and run."""
    output_dir = Path(cfg.OUTPUT_DIR)
    last = latest_checkpoint(output_dir)
    if not args.resume and (last is not None or (output_dir / "metrics.jsonl").exists()):
        raise UserError(
            f"OUTPUT_DIR {output_dir} holds a training run already: continue it with --resume, or "
            "choose another OUTPUT_DIR"
        )
    barrier()  # every rank has looked before one of them writes
    setup_logging(output_dir, rank())
    torch.manual_seed(cfg.SEED)

    labels = Labels.read(cfg, "train")
    vocabulary, groups = labels.vocabulary("train"), labels.groups_of("train")
    labels.warn_overlap()
    dataset = build_dataset(cfg, "train", labels)
    validation = Validation(cfg, labels, device) if cfg.SOLVER.EVAL_PERIOD else None

    resumed = read_checkpoint(last) if last is not None else None
    if resumed is not None and resumed.training is None:
        raise UserError(f"{last}: a converted checkpoint cannot be resumed; set MODEL.WEIGHT to it")
    source = resumed
    if source is None and cfg.MODEL.WEIGHT:
        source = read_weights(cfg.MODEL.WEIGHT)
        warn_scales(cfg, source.config, cfg.MODEL.WEIGHT)
    if resumed is not None:
        refuse_another_optimizer(cfg, resumed, last)
    held = (None, None) if source is None else (source.model, source.activation)
    model = build_model(cfg, *held).to(device)
    if cfg.MODEL.COMPILE:
        compile_blocks(model.clip)
    if cfg.SOLVER.ACTIVATION_CHECKPOINTING:
        recompute_activations(model, (Block, PromptBlock))
    # Goes with the weights, so that they can be turned into the reference's format again.
    unused = (source.reference or {}).get("unused") if source is not None else None
    reference = {"unused": unused} if unused else None

    solver = cfg.SOLVER
    start = resumed.training["iteration"] if resumed is not None and resumed.training else 0
    if start > solver.MAX_ITER:
        raise UserError(
            f"{last}: is at iteration {start}, beyond SOLVER.MAX_ITER {solver.MAX_ITER}"
        )
    if sum_over_ranks(torch.tensor([start])).item() != start * world_size():
        raise UserError(
            f"OUTPUT_DIR {output_dir}: the processes do not see the same checkpoints; with several "
            "machines it must be a folder that they share"
        )
    loader = build_train_loader(
        cfg, dataset, labels, model.needs, start, rank(), world_size(), device.type == "cuda"
    )
    events = None
    if rank() == 0:
        save_config(cfg, output_dir / "config.yaml")
        events = EventWriter(output_dir, start, solver.MAX_ITER, solver.LOG_PERIOD)
    trainer = Trainer(
        model=model,
        vocabulary=encode_labels(
            model, labels.wordings("train"), partial(labels.place, "train"), cfg.MODEL.TEMPLATES
        ),
        criterion=(
            FocalCriterion(solver.FOCAL_GAMMA)
            if groups is None
            else GroupedFocalCriterion(groups, solver.FOCAL_GAMMA)
        ),
        optimizer=build_optimizer(
            model,
            solver.BASE_LR,
            solver.MOMENTUM,
            solver.WEIGHT_DECAY,
            kind=solver.OPTIMIZER,
            is_new=is_new if cfg.MODEL.NAME == "xclip" else None,
            new_lr_factor=solver.NEW_LR_FACTOR,
        ),
        learning_rate=partial(
            learning_rate,
            base_lr=solver.BASE_LR,
            schedule=solver.SCHEDULE,
            max_iter=solver.MAX_ITER,
            steps=solver.STEPS,
            gamma=solver.GAMMA,
            warmup_iters=solver.WARMUP_ITERS if solver.WARMUP_ON else 0,
            warmup_factor=solver.WARMUP_FACTOR,
        ),
        device=device,
        max_iter=solver.MAX_ITER,
        accumulation_steps=solver.ACCUMULATION_STEPS,
        precision=cfg.MODEL.PRECISION,
        checkpoint_period=solver.CHECKPOINT_PERIOD,
        save=lambda iteration, training: save_checkpoint(
            checkpoint_path(output_dir, iteration),
            Checkpoint(
                *(model.state_dict(), cfg.dump(), training, reference, labels.groups),
                activation=model.clip.activation,
            ),
        ),
        eval_period=solver.EVAL_PERIOD,
        validate=partial(validation.run, model) if validation is not None else None,
        events=events,
    )
    if resumed is not None and resumed.training is not None:
        trainer.load_state(resumed.training, str(last))
        logger.info("continuing %s at iteration %d", last, start)
        for change in differences(cfg, resumed.config, f"the config kept in {last}"):
            logger.warning("the config has changed since that checkpoint: %s", change)
    elif args.resume:
        logger.warning("--resume: no checkpoint in %s, starting from the beginning", output_dir)
    del resumed, source, held  # gigabytes, which the run does not need any more
    logger.info(
        "training on the persons of %d keyframes of %d videos, %d classes; %d process(es) on %s",
        len(dataset.keyframes),
        len(dataset.videos),
        len(vocabulary),
        world_size(),
        device,
    )
    try:
        trainer.run(watch_loader(loader, device))
    except Interrupted as interrupted:
        logger.warning("%s", interrupted)
        return 128 + interrupted.signal_number
    finally:
        if events is not None:
            events.close()
    logger.info("done: %s", checkpoint_path(output_dir, solver.MAX_ITER))
    return 0


def check_trainable(cfg: CfgNode) -> None:
    """Refuse a model without anything to train.

    Raises:
        UserError: it is a baseline, or everything that has parameters is switched off.
    """
    model = cfg.MODEL
    if model.NAME == "xclip":
        return
    if model.NAME != "stclip":
        raise UserError(
            f"MODEL.NAME: stclip or xclip expected, found {model.NAME}: that baseline has nothing "
            "to train; stclip test tests it as it is"
        )
    parts = ["PERSON_TOKENS.ENABLED", "PROMPT.ENABLED"]
    if model.BACKBONE == "xclip":
        parts += ["TEMPORAL.BEFORE_XCLIP", "TRAIN_MESSAGES"]
    else:
        parts.append("TEMPORAL.ENABLED")
    values = dict(flatten(model))
    if not any(values[part] for part in parts) and model.LORA.RANK == 0:
        raise UserError(
            f"MODEL: nothing to train: {', '.join(parts[:-1])} and {parts[-1]} are False and "
            "LORA.RANK is 0; switch at least one on"
        )


def refuse_another_optimizer(cfg: CfgNode, resumed: Checkpoint, path: Path | None) -> None:
    """An optimizer cannot continue from another one's state, or from that of other parameters.

    Raises:
        UserError: SOLVER.OPTIMIZER or MODEL.TRAIN_MESSAGES has changed since the checkpoint.
    """
    for change in differences(cfg, resumed.config, f"the config kept in {path}"):
        if change.startswith(("SOLVER.OPTIMIZER ", "MODEL.TRAIN_MESSAGES ")):
            raise UserError(
                f"{path}: has the state of another optimizer ({change}): resume with that one, or "
                "set MODEL.WEIGHT to this file and choose another OUTPUT_DIR"
            )


class Validation:
    """The frame mAP on the test part with the TEST keys, while training goes on.

    Everything is read when this is made, so that a mistake in the TEST keys shows at the start and
    not at the first validation.
    """

    def __init__(self, cfg: CfgNode, labels: Labels, device: torch.device) -> None:
        self.cfg, self.labels, self.device = cfg, labels, device
        self.vocabulary = labels.vocabulary("test")
        self.dataset = build_dataset(cfg, "test", labels)
        if not self.dataset.annotates(labels.test):
            raise UserError(
                "SOLVER.EVAL_PERIOD: DATASETS.TEST has no ground truth of the labels of TEST_LABEL "
                "to validate on; set SOLVER.EVAL_PERIOD 0"
            )

    def run(self, model: Model) -> dict[str, float] | None:
        """Numbers to record, on rank 0; None on the others."""
        pin_memory = self.device.type == "cuda"
        loader = build_test_loader(
            self.cfg, self.dataset, model.needs, rank(), world_size(), pin_memory=pin_memory
        )
        local = infer(
            model,
            loader,
            encode_labels(
                model,
                self.labels.wordings("test"),
                partial(self.labels.place, "test"),
                self.cfg.MODEL.TEMPLATES,
            ),
            device=self.device,
            precision=self.cfg.MODEL.PRECISION,
            groups=self.labels.groups_of("test"),
            reported=len(self.vocabulary),
            total=len(self.dataset.keyframes),
        )
        detections = merge(local, [keyframe.key for keyframe in self.dataset.keyframes])
        if detections is None:
            return None
        test = self.cfg.TEST
        detections = with_times(detections, self.dataset, test.BOXES == "ground_truth")
        rows = rows_of(voted(detections, test.VOTING, test.VOTING_WINDOW), test.ACTION_THRESH)
        metrics = frame_map(self.dataset.keyframes, rows, self.vocabulary, test.IOU_THRESHOLDS)
        if test.GENERALIZED:
            metrics = generalized(metrics, list(self.labels.test))
        numbers = {
            f"val_{name}": value
            for name, value in metrics.items()
            if name.startswith(("frame_mAP", "H@")) and value is not None
        }
        logger.info("validation: %s", "  ".join(f"{k} {v:.2f}" for k, v in numbers.items()))
        return numbers
