"""Measure what testing, training and reading cost, in units of a yardstick of the same process.

    stclip benchmark infer --json infer.json
    stclip benchmark train --precision bf16
    stclip benchmark infer --model ViT-L/14 --classes 80 --interest-tokens 20
    stclip benchmark data --workers 0,1,2
    stclip benchmark scale --json scale.json --plot scale.svg
    stclip benchmark compare before.json after.json

The yardstick u is the median time of one forward of torchvision's vit_b_16 without weights, in
float32, batch 1, 224 x 224; it is taken before and after every run of the work, with the same
threads, and a run is counted in the mean of the two around it. So is the rate of a square matrix
product in the dtype of --precision, of which the work's own operations (counted by torch) reach a
share. The work is ST-CLIP with random weights on videos of the size of J-HMDB's (40 frames
of 320 x 240). Absolute times say little about another machine or hour; ratios taken in one run do,
and compare shows no others.
"""

import argparse
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from stclip.benchmark.measure import (
    DTYPES,
    Clock,
    MatrixRate,
    Yardstick,
    machine,
    measure_loader,
)
from stclip.benchmark.report import compare, data_table, scale_table, work_table
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
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    for kind, keyframes, text in (
        ("infer", 40, "the test of whole videos"),
        ("train", 8, "iterations of training"),
    ):
        work = commands.add_parser(kind, help=text)
        work.set_defaults(run=run_work)
        _add_common(work)
        persons = 3 if kind == "infer" else 1
        work.add_argument("--model", default="ViT-B/16", choices=list(MODELS))
        work.add_argument("--backbone", default="clip", choices=list(BACKBONES))
        _add_number(work, "--persons", persons, "boxes a keyframe")
        _add_number(work, "--classes", 6, "class names")
        unit = "in all" if kind == "infer" else "an iteration"
        _add_number(work, "--keyframes", keyframes, f"keyframes {unit}")
        work.add_argument(
            "--interest-tokens",
            type=positive,
            default=0,
            metavar="K",
            help="prompt each person's text with this many tokens; without, a keyframe's with all",
        )
        if kind == "infer":
            _add_number(work, "--chunk", 8, "TEST.VIDEOS_PER_BATCH")
        else:
            _add_number(
                work,
                "--iterations",
                1,
                "iterations a run; with workers more than twice as many as these, which read ahead "
                "between the runs",
            )
            _add_number(work, "--accumulation", 1, "SOLVER.ACCUMULATION_STEPS")
            work.add_argument(
                "--recompute", action="store_true", help="SOLVER.ACTIVATION_CHECKPOINTING"
            )
        work.add_argument("--precision", default="fp32", choices=list(DTYPES))
        work.add_argument("--compile", action="store_true", help="torch.compile the vision blocks")
        work.add_argument(
            "--profile", type=Path, metavar="OUT", help="also write where the time of a run goes"
        )
        workers = 2 if kind == "infer" else 0
        work.add_argument(
            "--workers",
            type=int,
            default=workers,
            help=f"DATALOADER.NUM_WORKERS (default: {workers})",
        )
    data = commands.add_parser("data", help="the loader alone, by storage and workers")
    data.set_defaults(run=run_data)
    _add_common(data, device=False)
    data.add_argument(
        "--sources",
        type=sources,
        default=SOURCES,
        metavar="NAME,NAME,...",
        help=f"how the frames are stored (default: {','.join(SOURCES)})",
    )
    data.add_argument("--workers", type=numbers, default=[0, 1, 2], metavar="N,N,...")
    data.add_argument("--model", default="ViT-B/16", choices=list(MODELS), help="for the size")
    _add_number(data, "--persons", 3, "boxes a keyframe")
    _add_number(data, "--chunk", 8, "TEST.VIDEOS_PER_BATCH")
    data.add_argument(
        "opts", nargs="*", metavar="KEY VALUE", help="config keys that begin with DATALOADER"
    )
    scale = commands.add_parser("scale", help="growth of a test with its sizes; takes minutes")
    scale.set_defaults(run=run_scale)
    _add_common(scale, repeats=1)
    scale.add_argument("--curves", nargs="+", default=list(CURVES), choices=list(CURVES))
    scale.add_argument("--model", default="small", choices=list(MODELS))
    scale.add_argument("--precision", default="fp32", choices=list(DTYPES))
    scale.add_argument("--plot", type=Path, metavar="OUT.svg", help="draw the curves")
    other = commands.add_parser("compare", help="results of different runs side by side")
    other.add_argument("results", nargs="+", type=Path, metavar="RESULT.json")
    other.set_defaults(run=run_compare)
    return parser


def sources(text: str) -> list[str]:
    """An option's list of SOURCES."""
    found = text.split(",")
    for name in found:
        if name not in SOURCES:
            raise argparse.ArgumentTypeError(f"some of {','.join(SOURCES)} expected, found {name}")
    return found


def _add_common(parser: argparse.ArgumentParser, device: bool = True, repeats: int = 3) -> None:
    _add_number(parser, "--repeats", repeats, "counted runs, after a warm-up")
    parser.add_argument("--threads", type=positive, help="torch threads; all cores by default")
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write the numbers here")
    if device:
        parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))


def _add_number(parser: argparse.ArgumentParser, name: str, default: int, text: str) -> None:
    parser.add_argument(name, type=positive, default=default, help=f"{text} (default: {default})")


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
        dataset = draw_dataset(Path(folder), work.persons, keyframes, work.labels[0])
        with closing(Runs(work, dataset, device, args.repeats)) as runs:
            result = measure(runs, clock, args.repeats, device)
            table = profile(runs, device) if args.profile is not None else ""
        if rank() == 0:
            _finish(args, result, work_table(result), clock)
            if args.profile is not None:
                write_text(args.profile, table)


def run_data(args: argparse.Namespace) -> None:
    """``data``."""
    keys = ("DATALOADER.RESIZE", "DATALOADER.STORE", "DATALOADER.STORE_GB")
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
            datasets[source] = draw_dataset(folder, args.persons, FRAMES, "clap", source)
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
    folder: Path, persons: int, keyframes: int, label: str, source: str = "png"
) -> DetectionDataset:
    """Videos of smooth noise, all with the same boxes in every frame.

    Args:
        folder: where the frames are written. There is one file or folder, which is read again for
            every video, so that many videos need no more of the disk.
        persons: boxes of a keyframe.
        keyframes: of all videos together, one after the other from their first frames on.
        label: of every box.
        source: png or jpg, a folder of pictures; mp4, a video file.
    """
    rng = np.random.default_rng(0)
    pictures = [_picture(rng) for _ in range(FRAMES)]
    if source == "mp4":
        path = folder / "video.mp4"
        write_video(path, pictures)
    else:
        path = folder / "frames"
        path.mkdir()
        for number, picture in enumerate(pictures, start=1):
            Image.fromarray(picture).save(path / f"{number:05d}.{source}")
    left = np.linspace(10, WIDTH - 110, persons, dtype=np.float32)
    boxes = np.stack([left, left * 0 + 20, left + 100, left * 0 + 220], axis=1)
    keys = [FrameKey(f"clap/{n // FRAMES + 1:06d}", n % FRAMES + 1) for n in range(keyframes)]
    labels = tuple((label,) for _ in boxes)
    return DetectionDataset(
        "benchmark",
        dict.fromkeys((key.video for key in keys), open_video(path)),
        [Keyframe(key, boxes, labels) for key in keys],
        {key: Proposals.annotated(boxes) for key in keys},
    )


def _picture(rng: np.random.Generator) -> NDArray[np.uint8]:
    coarse = rng.integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    return np.asarray(picture)


def write_video(path: Path, pictures: list[NDArray[np.uint8]]) -> None:
    """An mp4 file of 25 frames a second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
