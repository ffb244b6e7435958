"""Write a model as ONNX, to run it without PyTorch.

Two files are written: OUT compares persons with class names, and OUT's name with .text.onnx at its
end reads the names, so that they can be any words later. How many keyframes, persons and names
there are is free. Metadata in OUT say what the inputs are. stclip detect --onnx OUT uses both.

Before the files get their names they are checked and run in onnxruntime: for one and five
keyframes, one and seven persons, and two vocabularies no score may differ from PyTorch's by more
than 0.0001.

Examples:
    stclip export --weights model_0003000.pth --out stclip.onnx
    stclip export --clip ViT-B/16 --model frame_crop --out clip.onnx
"""

import argparse
import itertools
from collections.abc import Iterator
from pathlib import Path

import torch

from stclip.cli import Parser
from stclip.config import get_cfg_defaults
from stclip.detector import Detector, load
from stclip.errors import UserError
from stclip.files import atomic_path
from stclip.models import fast
from stclip.models.baselines import BASELINES
from stclip.models.build import build_model, encode_labels
from stclip.models.onnx import OnnxModel, package, text_path
from stclip.models.onnx_export import OPSETS, write_graphs
from stclip.structures import ClipBatch, FrameKey, Needs

LARGEST = 1e-4  # difference of scores
VOCABULARIES = (["walk", "wave"], ["sit", "stand up", "a person who is talking", "run", "jump"])
# Persons of each keyframe.
BATCHES = ([1], [7], [0, 1, 0, 0, 0], [2, 0, 1, 3, 1])


def main(argv: list[str] | None = None) -> int:
    """Command line; see the head of this file."""
    args = _parser().parse_args(argv)
    out: Path = args.out
    if (args.weights is None) == (args.clip is None):
        raise UserError("export: give either --weights or --clip; see stclip export --help")
    if args.model and args.weights:
        raise UserError("--model: belongs to --clip; weights say themselves what they are of")
    if out.suffix != ".onnx" or out.stem.endswith(".text"):
        raise UserError(
            f"--out {out}: a name that ends in .onnx expected, and not in .text.onnx, which names "
            "the second file"
        )
    for path in (out, text_path(out)):
        if path.exists() and not args.overwrite:
            raise UserError(f"{path}: exists already; choose another --out or add --overwrite")
    package("onnxruntime", "onnx", "onnxscript")
    detector, facts = _model(args)
    print(f"{out}: being written and compared; of a full-size CLIP this takes minutes", flush=True)
    with fast.switched(False), atomic_path(text_path(out)) as text, atomic_path(out) as persons:
        write_graphs(
            detector.model, detector.needs, facts, persons, text, text_path(out).name, args.opset
        )
        for path in (persons, text):
            package("onnx").checker.check_model(str(path), full_check=True)
        difference = largest_difference(detector, OnnxModel(persons, text))
        if not difference <= LARGEST:
            raise UserError(
                f"{out}: scores differ from PyTorch's by {difference:.2g}, at most {LARGEST:g} "
                "expected; nothing was kept; try another --opset"
            )
    for path in (out, text_path(out)):
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, opset {args.opset}")
    print(f"largest difference from PyTorch's scores: {difference:.1g}")
    return 0


def largest_difference(detector: Detector, exported: OnnxModel) -> float:
    """Of the scores of random pictures, the batches and vocabularies above; NaN counts too."""
    largest = torch.zeros(())
    for batch, labels in itertools.product(_batches(detector.needs), VOCABULARIES):
        scores = []
        for model in (detector.model, exported):
            with torch.no_grad():
                vocabulary = encode_labels(model, labels, templates=detector.templates)
                scores.append(model(batch, vocabulary).logits.softmax(dim=1))
        largest = torch.maximum(largest, (scores[0] - scores[1]).abs().max())  # NaN stays
    return largest.item()


def _batches(needs: Needs) -> Iterator[ClipBatch]:
    """Random pictures; the last batch is of a video that is shorter than the window."""
    random = torch.Generator().manual_seed(0)
    side = needs.image_size

    def pictures(count: int) -> torch.Tensor:
        shape = count, 3, side, side
        return torch.randint(256, shape, dtype=torch.uint8, generator=random)

    for persons in BATCHES:
        keyframes, count = len(persons), sum(persons)
        short = persons == BATCHES[-1]
        frames = 1 + needs.frames // 2 if short else keyframes + needs.frames
        window = torch.arange(needs.frames) + (0 if short else torch.arange(keyframes)[:, None])
        corner = side / 2 * torch.rand(count, 2, generator=random)
        yield ClipBatch(
            frames=pictures(frames),
            window=window.where(window < frames, -1).expand(keyframes, -1),
            keyframe=torch.randint(frames, (keyframes,), generator=random),
            crops=pictures(count),
            owner=torch.repeat_interleave(torch.arange(keyframes), torch.tensor(persons)),
            boxes=torch.zeros(count, 4),
            det_scores=torch.ones(count),
            labels=None,
            keys=tuple(FrameKey("", n) for n in range(keyframes)),
            frame_boxes=torch.cat([corner, corner + side / 3], dim=1),
        )


def _model(args: argparse.Namespace) -> tuple[Detector, dict[str, object]]:
    """The model, and what the metadata say of it."""
    if args.weights is not None:
        detector = load(args.weights, VOCABULARIES[0], "cpu")
        model, source = "ST-CLIP", Path(args.weights).name
    else:
        model = args.model or "frame_crop"
        cfg = get_cfg_defaults()
        cfg.MODEL.NAME, cfg.MODEL.CLIP = model, args.clip
        detector = Detector(build_model(cfg), VOCABULARIES[0])
        source = Path(args.clip).name if Path(args.clip).exists() else args.clip
    facts = {"groups": detector.groups, "templates": list(detector.templates)}
    return detector, {"model": model, "source": source, **facts}


def _parser() -> Parser:
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add("--weights", metavar="PATH", help="an ST-CLIP checkpoint, its folder or name on the Hub")
    add("--clip", metavar="NAME", help="a name or file of CLIP, which needs no training")
    add(
        "--model", choices=tuple(BASELINES),
        help="with --clip: what of a person counts (default: frame_crop)",
    )  # fmt: skip
    add("--out", type=Path, required=True, help="the file to write; its name ends in .onnx")
    add(
        "--opset", type=int, choices=OPSETS, default=OPSETS[0],
        metavar="N", help=f"version of ONNX's operations, {OPSETS[0]} to {OPSETS[-1]}",
    )  # fmt: skip
    add("--overwrite", action="store_true", help="replace the files if they exist")
    return parser
