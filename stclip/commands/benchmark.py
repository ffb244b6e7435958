"""Measure what testing, training and reading cost, in units of a yardstick of the same process.

The yardstick u is the median time of one forward of torchvision's vit_b_16 without weights, in
float32, batch 1, 224 x 224; it is taken before and after every run of the work, with the same
threads, and a run is counted in the mean of the two around it. So is the rate of a square matrix
product in the dtype of --precision, of which the work's own operations (counted by torch) reach a
share. The work is ST-CLIP with random weights on videos of the size of J-HMDB's (40 frames
of 320 x 240). Absolute times say little about another machine or hour; ratios taken in one run do,
and compare shows no others.

Examples:
    stclip benchmark infer --json infer.json
    stclip benchmark train --precision bf16
    stclip benchmark infer --model ViT-L/14 --classes 80 --interest-tokens 20
    stclip benchmark data --workers 0,1,2
    stclip benchmark scale --json scale.json --plot scale.svg
    stclip benchmark detect --persons 1,3,8
    stclip benchmark compare before.json after.json
"""

import argparse
import re
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from stclip.benchmark.footage import measure_detect
from stclip.benchmark.measure import (
    DTYPES,
    Clock,
    MatrixRate,
    Yardstick,
    machine,
    measure_loader,
)
from stclip.benchmark.report import compare, data_table, detect_table, scale_table, work_table
from stclip.benchmark.work import (
    BACKBONES,
    BASE,
    CURVES,
    MODELS,
    Runs,
    Work,
    grow,
    in_a_process,
    measure,
    profile,
)
from stclip.cli import Parser, numbers, positive
from stclip.config.load import CHOICES
from stclip.data.annotations import DetectionDataset, Keyframe
from stclip.data.proposals import Proposals
from stclip.data.video import open_video
from stclip.engine.distributed import choose_device, process_group, rank
from stclip.engine.memory import keep_freed_memory
from stclip.errors import UserError
from stclip.evaluation.charts import growth_chart
from stclip.files import write_json, write_text
from stclip.structures import FrameKey

FRAMES, HEIGHT, WIDTH = 40, 240, 320
SOURCES = ("png", "jpg", "mp4")


def main(argv: list[str] | None = None) -> int:
    """Command line; see the head of this file."""
    args = build_parser().parse_args(argv)
    for path in (vars(args).get(name) for name in ("json", "plot", "profile")):
        if path is not None and path.exists():
            raise UserError(f"{path}: exists already; choose another name")
    if getattr(args, "threads", None):
        torch.set_num_threads(args.threads)
    args.run(args)
    return 0


def build_parser() -> Parser:
    """The parser; ``run`` of what it parses is the command's function."""
    parser = Parser(description=__doc__)
    commands = parser.add_subparsers(
        title="commands", required=True, metavar="COMMAND", dest="command"
    )
    infer = _command(commands, "infer", "the test of whole videos", run_work)
    _add_work(infer, persons=3, keyframes=40, unit="in all", workers=2)
    _add_number(infer, "--chunk", 8, "TEST.VIDEOS_PER_BATCH")
    _add_measuring(infer, profile=True)
    train = _command(commands, "train", "iterations of training", run_work)
    _add_work(train, persons=1, keyframes=8, unit="an iteration", workers=0)
    _add_number(
        train, "--iterations", 1,
        "iterations a run; with workers more than twice as many as these, which read ahead between "
        "the runs",
    )  # fmt: skip
    _add_number(train, "--accumulation", 1, "SOLVER.ACCUMULATION_STEPS")
    train.add_argument("--recompute", action="store_true", help="SOLVER.ACTIVATION_CHECKPOINTING")
    _add_measuring(train, profile=True)
    data = _command(commands, "data", "the loader alone, by storage and workers", run_data)
    data.add_argument(
        "--sources", type=sources, default=SOURCES, metavar="NAME,NAME",
        help="how the frames are stored",
    )  # fmt: skip
    data.add_argument("--workers", type=numbers, default=[0, 1, 2], help="DATALOADER.NUM_WORKERS")
    data.add_argument("--model", default="ViT-B/16", choices=list(MODELS), help="for the size")
    _add_number(data, "--persons", 3, "boxes a keyframe")
    _add_size(data)
    _add_number(data, "--chunk", 8, "TEST.VIDEOS_PER_BATCH")
    data.add_argument(
        "opts", nargs="*", metavar="KEY VALUE", help="config keys that begin with DATALOADER"
    )
    _add_measuring(data, device=False)
    scale = _command(commands, "scale", "growth of a test with its sizes; takes minutes", run_scale)
    scale.add_argument(
        "--curves", nargs="+", default=list(CURVES), choices=list(CURVES), metavar="NAME",
        help=f"what grows: {', '.join(CURVES)}",
    )  # fmt: skip
    scale.add_argument("--model", default="small", choices=list(MODELS), help="sizes of CLIP")
    scale.add_argument("--precision", default="fp32", choices=list(DTYPES), help="MODEL.PRECISION")
    scale.add_argument("--plot", type=Path, metavar="OUT.svg", help="draw the curves")
    _add_measuring(scale, repeats=1)
    detect = _command(commands, "detect", "stclip detect on a video, part by part", run_detect)
    detect.add_argument(
        "--name", default="stclip", choices=("stclip", "frame_crop"), help="the model"
    )
    detect.add_argument("--model", default="ViT-B/16", choices=list(MODELS), help="sizes of CLIP")
    detect.add_argument("--precision", default="fp32", choices=list(DTYPES), help="--precision")
    detect.add_argument("--persons", type=numbers, default=[1, 3, 8], help="persons of a frame")
    _add_number(detect, "--seconds", 10, "length of the video")
    _add_measuring(detect, device=False, repeats=1)
    other = _command(commands, "compare", "results of different runs side by side", run_compare)
    other.add_argument(
        "results", nargs="+", type=Path, metavar="RESULT.json", help="what --json wrote"
    )
    return parser


def _command(
    commands: Any, name: str, text: str, run: Callable[[argparse.Namespace], None]
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=f"{text[0].upper()}{text[1:]}."
    )
    parser.set_defaults(run=run)
    return parser


def _add_work(
    parser: argparse.ArgumentParser, persons: int, keyframes: int, unit: str, workers: int
) -> None:
    """What is computed."""
    parser.add_argument("--model", default="ViT-B/16", choices=list(MODELS), help="sizes of CLIP")
    parser.add_argument(
        "--backbone", default="clip", choices=list(BACKBONES), help="MODEL.BACKBONE"
    )
    parser.add_argument("--precision", default="fp32", choices=list(DTYPES), help="MODEL.PRECISION")
    parser.add_argument("--compile", action="store_true", help="MODEL.COMPILE")
    _add_number(parser, "--persons", persons, "boxes a keyframe")
    _add_number(parser, "--classes", 6, "class names")
    _add_number(parser, "--keyframes", keyframes, f"keyframes {unit}")
    parser.add_argument(
        "--interest-tokens", type=positive, default=0, metavar="K",
        help="MODEL.INTEREST_TOKENS.TOP_K (default: without interest token spotting)",
    )  # fmt: skip
    parser.add_argument("--workers", type=int, default=workers, help="DATALOADER.NUM_WORKERS")
    parser.add_argument(
        "--resize", default="pillow", choices=CHOICES["DATALOADER.RESIZE"], help="DATALOADER.RESIZE"
    )
    _add_size(parser)


def _add_size(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--size", type=size, default=(WIDTH, HEIGHT), metavar="WxH",
        help=f"of the pictures (default: {WIDTH}x{HEIGHT})",
    )  # fmt: skip


def size(text: str) -> tuple[int, int]:
    """An option's width and height."""
    found = re.fullmatch(r"([1-9][0-9]{0,3})x([1-9][0-9]{0,3})", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"WIDTHxHEIGHT, such as 1280x720, expected, found {text}")
    return int(found[1]), int(found[2])


def sources(text: str) -> list[str]:
    """An option's list of SOURCES."""
    found = text.split(",")
    for name in found:
        if name not in SOURCES:
            raise argparse.ArgumentTypeError(f"some of {','.join(SOURCES)} expected, found {name}")
    return found


def _add_measuring(
    parser: argparse.ArgumentParser, device: bool = True, repeats: int = 3, profile: bool = False
) -> None:
    """How it is measured, and where the outcome goes."""
    group = parser.add_argument_group("measuring")
    if device:
        group.add_argument(
            "--device", default="auto", choices=("auto", "cpu", "cuda"), help="MODEL.DEVICE"
        )
    group.add_argument(
        "--repeats", type=positive, default=repeats, help="counted runs, after a warm-up"
    )
    group.add_argument("--threads", type=positive, help="threads of torch (default: all cores)")
    group.add_argument("--json", type=Path, metavar="OUT", help="also write the numbers to a file")
    if profile:
        group.add_argument(
            "--profile", type=Path, metavar="OUT", help="also write where the time of a run goes"
        )


def _add_number(parser: argparse.ArgumentParser, name: str, default: int, text: str) -> None:
    parser.add_argument(name, type=positive, default=default, help=text)


def run_work(args: argparse.Namespace) -> None:
    """``infer`` and ``train``; under torchrun the work is divided."""
    keep_freed_memory()
    if args.workers < 0:
        raise UserError(f"--workers {args.workers}: a number from 0 expected")
    if args.command == "train" and args.workers and args.iterations <= 2 * args.workers:
        raise UserError(
            f"--iterations {args.iterations}: more than {2 * args.workers} expected with --workers "
            f"{args.workers}: that many batches are read ahead between the runs, and not measured"
        )
    device = choose_device(args.device)
    work = Work(
        kind=args.command,
        model=args.model,
        backbone=args.backbone,
        persons=args.persons,
        classes=args.classes,
        keyframes=args.keyframes,
        interest_tokens=args.interest_tokens,
        chunk=getattr(args, "chunk", 8),
        iterations=getattr(args, "iterations", 1),
        steps=getattr(args, "accumulation", 1),
        recompute=getattr(args, "recompute", False),
        precision=args.precision,
        compiled=args.compile,
        workers=args.workers,
        resize=args.resize,
    )
    sizes = MODELS[args.model]
    tokens = 1 + (sizes["image_size"] // sizes["patch_size"]) ** 2
    if work.interest_tokens > tokens:
        raise UserError(
            f"--interest-tokens {work.interest_tokens}: at most the {tokens} class and patch "
            f"tokens of {args.model} expected"
        )
    with process_group(device), tempfile.TemporaryDirectory() as folder:
        clock = Clock(Yardstick(device), MatrixRate(device, args.precision))
        keyframes = work.keyframes if work.kind == "infer" else FRAMES
        dataset = draw_dataset(
            Path(folder), work.persons, keyframes, work.labels[0], size=args.size
        )
        with closing(Runs(work, dataset, device, args.repeats)) as runs:
            result = measure(runs, clock, args.repeats, device)
            result["size"] = "{}x{}".format(*args.size)
            table = profile(runs, device) if args.profile is not None else ""
        if rank() == 0:
            _finish(args, result, work_table(result), clock)
            if args.profile is not None:
                write_text(args.profile, table)


def run_data(args: argparse.Namespace) -> None:
    """``data``."""
    keys = ("DATALOADER.RESIZE", "DATALOADER.STORE", "DATALOADER.STORE_GB")
    if len(args.opts) % 2:
        raise UserError(f"{args.opts[-1]}: KEY VALUE pairs expected, found {len(args.opts)} words")
    foreign = [key for key in args.opts[::2] if key not in keys]
    if foreign:
        raise UserError(f"{foreign[0]}: data takes the keys {', '.join(keys)} only")
    device = choose_device("cpu")
    clock = Clock(Yardstick(device), MatrixRate(device, "fp32"))
    with tempfile.TemporaryDirectory() as text:
        datasets = {}
        for source in args.sources:
            folder = Path(text) / source
            folder.mkdir()
            datasets[source] = draw_dataset(folder, args.persons, FRAMES, "clap", source, args.size)
        rows = measure_loader(
            datasets,
            args.workers,
            MODELS[args.model]["image_size"],
            args.chunk,
            args.repeats,
            clock,
            args.opts,
        )
    result = {
        "work": "data",
        "persons": args.persons,
        "chunk": args.chunk,
        "keys": args.opts,
        "size": "{}x{}".format(*args.size),
        "keyframes": FRAMES,
        "rows": rows,
        "yardstick_s": [round(units.yardstick, 4) for units in clock.moments],
        "steady": clock.steady,
        "repeats": args.repeats,
        **machine(device),
    }
    _finish(args, result, data_table(rows), clock)


def run_scale(args: argparse.Namespace) -> None:
    """``scale``."""
    if args.plot is not None and args.plot.suffix.lower() != ".svg":
        raise UserError(f"{args.plot}: the plot is an SVG file; choose a name that ends in .svg")
    device = choose_device(args.device)
    names = args.curves
    if device.type == "cuda" and torch.cuda.device_count() < max(CURVES["processes"]):
        names = [name for name in names if name != "processes"]
        print("processes: left out, there is one CUDA device", file=sys.stderr)
    threads = args.threads or max(1, torch.get_num_threads() // max(CURVES["processes"]))
    options = ["--model", args.model, "--device", device.type, "--precision", args.precision]
    options += ["--repeats", str(args.repeats)]
    tool = in_a_process(options, threads)
    curves = grow(tool, {name: CURVES[name] for name in names})
    result = {
        "work": "scale",
        "model": args.model,
        "precision": args.precision,
        "base": BASE,
        "curves": curves,
        **machine(device),
        "threads": threads,
    }
    _finish(args, result, scale_table(curves))
    if args.plot is not None:
        write_text(args.plot, growth_chart(curves))
    if not all(point["steady"] for curve in curves for point in curve["points"]):
        _warn_unsteady()


def run_detect(args: argparse.Namespace) -> None:
    """``detect``; each count of persons in the best of the repeated runs."""
    device = choose_device("cpu")
    rows = []
    clock = Clock(Yardstick(device), MatrixRate(device, args.precision))
    for persons in args.persons:
        clock.take()
        runs = [
            measure_detect(args.name, args.model, persons, args.seconds, args.precision)
            for _ in range(args.repeats)
        ]
        rows.append({"persons": persons, **min(runs, key=lambda run: run["real_time"])})
    clock.take()
    result = {
        "work": "detect",
        "name": args.name,
        "model": args.model,
        "precision": args.precision,
        "rows": rows,
        "yardstick_s": [round(units.yardstick, 4) for units in clock.moments],
        "steady": clock.steady,
        **machine(device),
    }
    _finish(args, result, detect_table(rows), clock)


def run_compare(args: argparse.Namespace) -> None:
    """``compare``."""
    print(compare(args.results))


def _finish(
    args: argparse.Namespace, result: dict[str, Any], table: str, clock: Clock | None = None
) -> None:
    """Print the table, write the JSON, and warn of a machine that had other work."""
    print(table)
    if args.json is not None:
        write_json(args.json, result)
    if clock is not None and not clock.steady:
        _warn_unsteady()


def _warn_unsteady() -> None:
    print("warning: the yardstick changed by over 15 % during the runs", file=sys.stderr)


def draw_dataset(
    folder: Path,
    persons: int,
    keyframes: int,
    label: str,
    source: str = "png",
    size: tuple[int, int] = (WIDTH, HEIGHT),
) -> DetectionDataset:
    """Videos of smooth noise, all with the same boxes in every frame.

    Args:
        folder: where the frames are written. There is one file or folder, which is read again for
            every video, so that many videos need no more of the disk.
        persons: boxes of a keyframe.
        keyframes: of all videos together, one after the other from their first frames on.
        label: of every box.
        source: png or jpg, a folder of pictures; mp4, a video file.
        size: width and height of the pictures.
    """
    rng = np.random.default_rng(0)
    width, height = size
    pictures = [_picture(rng, size) for _ in range(FRAMES)]
    if source == "mp4":
        path = folder / "video.mp4"
        write_video(path, pictures)
    else:
        path = folder / "frames"
        path.mkdir()
        for number, picture in enumerate(pictures, start=1):
            Image.fromarray(picture).save(path / f"{number:05d}.{source}")
    # At 320 x 240: 100 x 200 pixels each.
    left = np.linspace(width / 32, width * 21 / 32, persons, dtype=np.float32)
    top, bottom = left * 0 + height / 12, left * 0 + height * 11 / 12
    boxes = np.stack([left, top, left + width * 10 / 32, bottom], axis=1)
    keys = [FrameKey(f"clap/{n // FRAMES + 1:06d}", n % FRAMES + 1) for n in range(keyframes)]
    labels = tuple((label,) for _ in boxes)
    return DetectionDataset(
        "benchmark",
        dict.fromkeys((key.video for key in keys), open_video(path)),
        [Keyframe(key, boxes, labels) for key in keys],
        {key: Proposals.annotated(boxes) for key in keys},
    )


def _picture(rng: np.random.Generator, size: tuple[int, int]) -> NDArray[np.uint8]:
    width, height = size
    coarse = rng.integers(0, 256, (-(-height // 8), -(-width // 8), 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC))


def write_video(path: Path, pictures: list[NDArray[np.uint8]]) -> None:
    """An mp4 file of 25 frames a second, in H.264."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
