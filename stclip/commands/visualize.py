"""Draw what a model says about some keyframes, and where it looks.

--what tokens draws the interest tokens of each person in each layer: the patches that the person
attends to most, the strongest most opaque. They have no parameters, so every checkpoint with person
tokens and context prompting can show them: add MODEL.INTEREST_TOKENS.ENABLED True, and
MODEL.INTEREST_TOKENS.TOP_K for how many. --what detections draws the boxes with the best class
names, of any model. The keyframes are those of the test set (DATASETS.TEST, TEST_LABEL,
TEST_VIDEO), with the boxes that a test would use.

Examples:
    stclip visualize --config-file puppet/split_1 --count 3 \\
        --out output/pictures MODEL.WEIGHT output/first/model_0000400.pth \\
        MODEL.INTEREST_TOKENS.ENABLED True
    stclip visualize --config-file puppet/split_1 --what detections \\
        --video wave/wave_5001 --frame 8 --out output/pictures \\
        MODEL.WEIGHT output/first/model_0000400.pth
"""

import argparse
import logging
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from yacs.config import CfgNode

from stclip.cli import Parser, config_parser
from stclip.commands.test import apply_scale
from stclip.config import load_config, warn_scales
from stclip.data.annotations import DetectionDataset, Keyframe
from stclip.data.build import build_dataset, build_test_loader
from stclip.data.labels import Labels, choices
from stclip.data.transforms import patch_boxes
from stclip.engine.distributed import choose_device
from stclip.engine.events import Console
from stclip.engine.infer import infer
from stclip.errors import UserError
from stclip.evaluation.pictures import (
    ScoredPerson,
    draw_detections,
    draw_interest_tokens,
)
from stclip.files import atomic_path, file_names, locked
from stclip.hub.remote import read_weights
from stclip.models.build import Model, build_model, encode_labels
from stclip.models.stclip import STCLIP
from stclip.structures import Detections, FrameKey

logger = logging.getLogger("stclip.visualize")


def main(argv: list[str] | None = None) -> int:
    """Command line; see the head of this file."""
    args = _parser().parse_intermixed_args(argv)
    for name in ("count", "top", "width"):
        if (value := vars(args)[name]) is not None and value < 1:
            raise UserError(f"--{name}: a number above 0 expected, found {value}")
    cfg = load_config(args.config_file, args.opts)
    if args.what == "tokens":
        check_interest_tokens(cfg)
    logging.basicConfig(format="%(levelname)s: %(message)s", handlers=[Console()])
    classes = Labels.read(cfg, "test")
    labels = classes.vocabulary("test")
    dataset = build_dataset(cfg, "test", classes)
    dataset = replace(dataset, keyframes=choose_keyframes(cfg, dataset, args))
    paths = _paths(args, [keyframe.key for keyframe in dataset.keyframes])
    for path in paths.values():
        if path.exists() and not args.overwrite:
            raise UserError(f"{path}: exists already; give another --out, or --overwrite")
    with locked(args.out, "visualize"):
        torch.manual_seed(cfg.SEED)
        model = _model(cfg)
        detections, tokens = scored(cfg, model, dataset, classes)
        drawn = 0
        for row, key in enumerate(detections.keys):
            mine = (detections.owner == row).nonzero()[:, 0]
            if not len(mine):
                print(
                    f"{key.video} frame {key.frame}: its boxes are empty inside the frame; left out"
                )
                continue
            persons = [_person(detections, int(index), labels, args.top) for index in mine]
            (pixels,) = dataset.videos[key.video].read([key.frame])
            picture = Image.fromarray(pixels)
            title = f"{key.video}, frame {key.frame}"
            if args.what == "detections":
                image = draw_detections(picture, persons, title, width=args.width or 640)
            else:
                assert tokens is not None
                image = draw_interest_tokens(
                    picture,
                    persons,
                    tokens[:, mine].numpy(),
                    _patches(model, picture),
                    title,
                    layers=_layers(args.layers, len(tokens)),
                    width=args.width or 240,
                )
            with atomic_path(paths[key]) as temporary:
                image.save(temporary)
            drawn += 1
            print(paths[key])
    return 0 if drawn else 1


def check_interest_tokens(cfg: CfgNode) -> None:
    """See that the model will choose interest tokens, and that their order says something.

    Raises:
        UserError: it will not, or they will all be taken.
    """
    keys = cfg.MODEL.INTEREST_TOKENS
    if cfg.MODEL.NAME != "stclip":
        raise UserError(
            f"MODEL.NAME: stclip expected for --what tokens, found {cfg.MODEL.NAME!r}, which has "
            "no interest tokens; use --what detections"
        )
    if not keys.ENABLED:
        raise UserError(
            "MODEL.INTEREST_TOKENS.ENABLED: True expected for --what tokens, found False; add "
            "MODEL.INTEREST_TOKENS.ENABLED True to the command (any checkpoint with person tokens "
            "and prompting will do), or use --what detections"
        )
    if keys.TOP_K == 0:
        raise UserError(
            "MODEL.INTEREST_TOKENS.TOP_K: a number above 0 expected for --what tokens, found 0, "
            "which takes every token of the frame; set 20, for example"
        )


def choose_keyframes(
    cfg: CfgNode, dataset: DetectionDataset, args: argparse.Namespace
) -> list[Keyframe]:
    """The keyframes asked for, among those with persons, in the order of the dataset.

    Raises:
        UserError: there is no such video, frame or keyframe.
    """
    candidates = [keyframe for keyframe in dataset.keyframes if _persons(cfg, dataset, keyframe)]
    if args.frame is not None and args.video is None:
        raise UserError("--frame: needs --video, which names the video that it is in")
    if args.video is not None:
        names = {name: video for video in dataset.videos for name in (_base(video), video)}
        if args.video not in names:
            raise UserError(f"--video: no test video {args.video!r}; {choices(args.video, names)}")
        candidates = [k for k in candidates if k.key.video == names[args.video]]
    used = f"with TEST.BOXES {cfg.TEST.BOXES} and TEST.BOX_THRESH {cfg.TEST.BOX_THRESH:g}"
    if not candidates:
        place = "the test set" if args.video is None else args.video
        raise UserError(f"{place}: no keyframe has persons {used}; change one of the two")
    if args.frame is not None:
        frames = ", ".join(str(keyframe.key.frame) for keyframe in candidates)
        candidates = [k for k in candidates if k.key.frame == args.frame]
        if not candidates:
            raise UserError(
                f"--frame: frame {args.frame} of {args.video} is no keyframe with persons {used}; "
                f"those that are: {frames}"
            )
    if not 1 <= args.keyframe <= len(candidates):
        raise UserError(
            f"--keyframe: a number from 1 to {len(candidates)}, the keyframes with persons, "
            f"expected, found {args.keyframe}"
        )
    rest = candidates[args.keyframe - 1 :]
    count = min(args.count, len(rest))
    return [rest[index * len(rest) // count] for index in range(count)]


def scored(
    cfg: CfgNode, model: Model, dataset: DetectionDataset, labels: Labels
) -> tuple[Detections, Tensor | None]:
    """The persons of the dataset's keyframes with their scores, as a test would give them.

    Returns:
        N detections, and the interest tokens (R, N, K) of a model that has some.
    """
    found: list[Tensor] = []

    def keep(module: torch.nn.Module, inputs: Any, output: Any) -> None:
        if output.interest_tokens is not None:
            found.append(output.interest_tokens.cpu())

    hook = model.register_forward_hook(keep)
    device = choose_device(cfg.MODEL.DEVICE)
    model.to(device)
    loader = build_test_loader(cfg, dataset, model.needs, pin_memory=device.type == "cuda")
    detections = infer(
        model,
        loader,
        encode_labels(
            model, labels.wordings("test"), partial(labels.place, "test"), cfg.MODEL.TEMPLATES
        ),
        device=device,
        precision=cfg.MODEL.PRECISION,
        groups=labels.groups_of("test"),
        reported=len(labels.vocabulary("test")),
        total=len(dataset.keyframes),
    )
    hook.remove()
    return detections, torch.cat(found, dim=1) if found else None


def _model(cfg: CfgNode) -> Model:
    if not cfg.MODEL.WEIGHT:
        if cfg.MODEL.NAME == "stclip":
            logger.warning("MODEL.WEIGHT is empty: showing a model that was never trained")
        return build_model(cfg)
    checkpoint = read_weights(cfg.MODEL.WEIGHT)
    if cfg.MODEL.NAME == "stclip":
        warn_scales(cfg, checkpoint.config, cfg.MODEL.WEIGHT)
    model = build_model(cfg, checkpoint.model, checkpoint.activation)
    if cfg.MODEL.NAME in ("stclip", "xclip"):
        apply_scale(cfg, checkpoint, model)
    return model


def _persons(cfg: CfgNode, dataset: DetectionDataset, keyframe: Keyframe) -> int:
    """How many boxes of a keyframe a test uses."""
    if dataset.proposals is None:
        return len(keyframe.boxes)
    found = dataset.proposals.get(keyframe.key)
    return 0 if found is None else len(found.select(cfg.TEST.BOX_THRESH, cfg.TEST.MAX_PERSONS))


def _person(detections: Detections, index: int, labels: list[str], top: int) -> ScoredPerson:
    scores = detections.scores[index]
    best = scores.topk(min(top, len(labels)))
    names = [(labels[int(i)], float(score)) for score, i in zip(*best, strict=True)]
    return ScoredPerson(
        detections.boxes[index].tolist(), float(detections.det_scores[index]), names
    )


def _patches(model: Model, picture: Image.Image) -> np.ndarray[Any, np.dtype[np.float64]]:
    assert isinstance(model, STCLIP), "only ST-CLIP has interest tokens"
    visual = model.clip.visual
    return patch_boxes(picture.width, picture.height, visual.image_size, visual.patch_size)


def _layers(asked: list[int] | None, count: int) -> list[int]:
    layers = list(range(1, count + 1)) if asked is None else asked
    for layer in layers:
        if not 1 <= layer <= count:
            raise UserError(f"--layers: numbers from 1 to {count} expected, found {layer}")
    return layers


def _paths(args: argparse.Namespace, keys: list[FrameKey]) -> dict[FrameKey, Path]:
    names = file_names(key.video for key in keys)
    out: Path = args.out
    return {key: out / f"{names[key.video]}_{key.frame:05d}_{args.what}.png" for key in keys}


def _base(video: str) -> str:
    return video.rpartition("/")[2]


def _numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


def _parser() -> Parser:
    parser = config_parser(__doc__)
    parser.add_argument(
        "--what", choices=("tokens", "detections"), default="tokens", help="what to draw"
    )
    parser.add_argument(
        "--video", metavar="NAME",
        help="only keyframes of this test video; --video=NAME if the name begins with -",
    )  # fmt: skip
    parser.add_argument("--frame", type=int, metavar="N", help="only this frame of it, from 1")
    parser.add_argument(
        "--keyframe", type=int, default=1, metavar="N",
        help="the n-th of the keyframes with persons, from 1",
    )  # fmt: skip
    parser.add_argument(
        "--count", type=int, default=1, metavar="N",
        help="number of keyframes, spread evenly from that one to the last",
    )  # fmt: skip
    parser.add_argument(
        "--layers", type=_numbers, metavar="1,6,12", help="layers to show, from 1 (default: all)"
    )
    parser.add_argument("--top", type=int, default=5, metavar="N", help="class names shown")
    parser.add_argument(
        "--width", type=int, metavar="PIXELS",
        help="of a frame in the picture (default: tokens 240, detections 640)",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="receives <video>_<frame>_*.png"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace pictures that exist")
    return parser
