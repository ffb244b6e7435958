"""Say who does what when in videos of your own.

People are found and followed, each is scored against the actions every half second, and scores that
stay high become events. Actions are any words. Without --weights CLIP scores them as it is;
with it, a trained ST-CLIP does. Names of --none-of are scored and never reported: they give
people something to do that is of no interest.

VIDEO is a file, a folder or zip file of pictures, a camera number, an address (rtsp://, http://) or
- for standard input. OUT/<name of the video>/ receives result.json, events.csv, annotated.mp4 and
index.html, which a browser opens. A video whose results are there is skipped; --resume continues
one that was interrupted. Processes that are given the same videos and the same --out share them:
each takes the next one that nobody has. With --engine ray one call spreads them over the machines
of a Ray cluster; all of them must see the videos and --out under the same paths.

Examples:
    stclip detect party.mp4 --actions dance wave "fall down" --none-of standing sitting
    stclip detect *.mp4 --actions-file actions.txt --weights model_0003000.pth --out found
    stclip detect 0 --actions wave clap --clip ViT-B/32
    torchrun --nproc-per-node 4 -m stclip detect *.mp4 --config-file options.yaml --resume
    stclip detect videos/*.mp4 --actions walk wave --engine ray --ray-address 10.0.0.1:6379
"""

import argparse
import logging
import math
import os
import sys
import time
from collections.abc import Iterable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from tqdm import tqdm

from stclip.cli import Parser, positive
from stclip.data.labels import read_wordings
from stclip.engine.events import setup_logging
from stclip.errors import UserError
from stclip.files import InUse
from stclip.footage.events import EventRule
from stclip.footage.exports import EXPORTS
from stclip.footage.pipeline import Detection, Settings, claimed
from stclip.footage.results import RESULT
from stclip.footage.scoring import Step
from stclip.footage.source import Source, is_missing, nothing_at
from stclip.footage.work import Work, Worker, called_twice, count, goes_on

# What is the same on the command line and for those who do the work.
_OF_WORK = (
    "weights", "clip", "crop_weight", "onnx", "device", "detector", "boxes", "batch", "precision",
    "fps", "start", "end", "resume",
)  # fmt: skip
_ON_CLUSTER = ("ray_address", "ray_workers", "ray_cpus", "ray_gpus")
logger = logging.getLogger(__name__)

_SECONDS_A_LINE = 10  # of progress, where several processes write to one terminal


def main(argv: list[str] | None = None) -> int:
    """Command line; see the head of this file."""
    args = _parse(argv)
    before = {path.parent for path in args.out.glob(f"*/{RESULT}")}
    actions = list(args.actions or [])
    if args.actions_file:
        actions += read_wordings(str(args.actions_file), "--actions-file")
    actions, none_of = ([name.strip() for name in names] for names in (actions, args.none_of))
    rule = EventRule(window=args.window, threshold=args.threshold, min_seconds=args.min_seconds)
    settings = Settings(
        detector=str(args.boxes or args.detector),
        detector_threshold=args.detector_threshold,
        detect_rate=args.detect_rate,
        track_threshold=max(args.track_threshold, args.detector_threshold),
        score_every=args.score_every,
        events=rule,
    )
    setup_logging(None)
    for name in args.actions or ():
        if "," in name:
            logger.warning("%r is one action; of several: --actions walk 'fall down'", name)
    if all(map(is_missing, args.videos)):  # before CLIP is downloaded
        raise nothing_at(args.videos[0])
    if args.boxes and len(args.videos) > 1:
        raise UserError("--boxes: belongs to one video; call the command once for each")
    work = Work(
        actions=actions,
        none_of=none_of,
        settings=settings,
        video=not args.no_video,
        exports=args.export,
        **{name: getattr(args, name) for name in _OF_WORK},
    )
    if args.engine == "ray":
        from stclip.footage.cluster import Cluster, spread  # Ray takes seconds to import

        cluster = Cluster(*(getattr(args, name) for name in _ON_CLUSTER))
        return 2 if spread(work, args.videos, args.out, cluster) else 0
    for name in _ON_CLUSTER:
        if getattr(args, name) is not None:
            raise UserError(f"--{name.replace('_', '-')}: belongs to --engine ray")
    return 2 if _all_videos(args, Worker(work), before) else 0


def _all_videos(args: argparse.Namespace, worker: Worker, before: set[Path]) -> bool:
    """Go through every video that no other process has; whether one failed.

    Other processes are ranks of torchrun, or calls of the same --out. What every rank sees is said
    by the first one.

    Args:
        args: the command line.
        worker: does a video.
        before: folders that had results when the call began.
    """
    first, ranks = os.environ.get("RANK", "0") == "0", int(os.environ.get("WORLD_SIZE", "1"))
    alone = len(args.videos) == 1 and ranks == 1
    failed, folders, busy = False, set(), []
    with ExitStack() as given_up:  # other ranks are not to fail with the same video meanwhile
        for location in args.videos:
            mine = first  # to say what is wrong; nobody has what cannot be opened
            with ExitStack() as claim:
                try:
                    detection = worker.open(location)
                    folder = args.out / detection.footage.name
                    if folder in folders:
                        raise called_twice(location)
                    folders.add(folder)
                    claim.enter_context(claimed(folder))
                    mine = True
                    _one_video(args, worker, detection, folder, folder in before)
                except InUse:
                    if alone:
                        raise
                    busy.append(folder)
                    if ranks == 1:
                        print(f"{folder}: another process is working on it")
                except UserError as error:
                    if alone:
                        raise
                    if mine:
                        failed = True
                        print(f"error: {error}", file=sys.stderr)
                    given_up.enter_context(claim.pop_all())
    if failed and ranks > 1:  # torchrun ends all ranks when one ends with an error
        for folder in busy:
            _wait_for(folder)
    return failed


def _one_video(
    args: argparse.Namespace, worker: Worker, detection: Detection, folder: Path, known: bool
) -> None:
    first, ranks = os.environ.get("RANK", "0") == "0", int(os.environ.get("WORLD_SIZE", "1"))
    if detection.is_complete_in(folder):
        if not known:  # another rank has done it meanwhile
            return
        said = worker.again(folder) if first else []
    else:
        try:
            said = worker.save(detection, folder, partial(_show, in_lines=ranks > 1), args.resume)
        except BaseException:
            for line in goes_on(detection, folder):
                print(line, file=sys.stderr)
            raise
    for line in said:
        print(line)


def _wait_for(folder: Path) -> None:
    while True:
        try:
            with claimed(folder):
                return
        except InUse:
            time.sleep(1)


def _show(steps: Iterable[Step], source: Source, in_lines: bool) -> None:
    """Go through the steps with a progress bar, or now and then a line where others print too."""
    whole = "" if source.duration is None else f" of {min(source.duration, source.end):.0f}"
    begun = said = time.monotonic()
    with tqdm(
        total=source.expected, unit="frame", desc=source.name, mininterval=0.5, disable=in_lines
    ) as bar:
        for step in steps:
            bar.update()
            now = time.monotonic()
            rate = (step.frame.seconds - source.start) / max(now - begun, 1e-3)
            persons = count(int((step.persons.ids > 0).sum()), "person")
            status = f"{rate:.2f}x real time, {persons}"
            bar.set_postfix_str(status, refresh=False)
            if in_lines and now - said > _SECONDS_A_LINE:
                said = now
                print(f"{source.name}: {step.frame.seconds:.0f}{whole} s, {status}", flush=True)


def _parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line over what --config-file holds."""
    parser = _parser()
    args = parser.parse_intermixed_args(argv)
    if not args.config_file:
        return args
    words = parser.words_of(args.config_file)
    try:
        held = parser.parse_intermixed_args(["-", *words])
    except UserError as error:
        raise UserError(f"{args.config_file}: {error}") from error
    return parser.parse_intermixed_args(argv, held)


def _parser() -> Parser:
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add("videos", nargs="+", metavar="VIDEO", help="what to look at")
    add("--config-file", type=Path, help="a yaml file of options, such as 'window: 4'")
    add = parser.add_argument_group("what is looked for").add_argument
    add(
        "--actions", nargs="+", metavar="NAME",
        help="names of actions, in any words; 'name | wording | wording' averages wordings",
    )  # fmt: skip
    add("--actions-file", type=Path, help="a text file with one such name a line")
    add("--none-of", nargs="+", default=[], metavar="NAME", help="scored and never reported")
    add = parser.add_argument_group("model").add_argument
    add(
        "--weights", metavar="PATH",
        help="an ST-CLIP checkpoint, or the folder or the name on the Hugging Face Hub of one; "
        "without it CLIP as it is",
    )  # fmt: skip
    add(
        "--clip",
        help="without --weights: a name or file, open_clip:MODEL/TAG, or puppet for a try "
        "(default: ViT-B/16)",
    )
    add(
        "--crop-weight", type=float, metavar="W",
        help="with --weights: of the crop's own feature (docs/beyond.md; default: as in training)",
    )  # fmt: skip
    add("--onnx", type=Path, help="a file of stclip export in the place of these; runs on the CPU")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    add("--precision", default="fp32", choices=("fp32", "bf16", "fp16"))
    add("--batch", type=positive, default=4, help="moments scored at once")
    add = parser.add_argument_group("people").add_argument
    add("--detector", default="nanodet", help="nanodet, dfine, or a model of torchvision")
    add("--detector-threshold", type=float, default=0.2, help="lowest score of a box")
    add("--detect-rate", type=float, default=15.0, help="most frames a second that it looks at")
    add("--track-threshold", type=float, default=0.5, help="lowest score that begins a track")
    add("--boxes", type=Path, help="a file in place of a detector: .jsonl, MOT's .txt, result.json")
    add = parser.add_argument_group("time and events").add_argument
    add("--start", type=float, default=0.0, help="skip seconds before this")
    add("--end", type=float, default=math.inf, help="stop at this second")
    add("--fps", type=float, help="frames a second of pictures (default: 25)")
    add("--score-every", type=float, default=0.5, help="seconds between scores")
    add("--window", type=float, default=2.0, help="seconds that scores are averaged over")
    add("--threshold", type=float, default=0.5, help="averaged score that begins an event")
    add("--min-seconds", type=float, default=0.5, help="shorter events are dropped")
    add = parser.add_argument_group("output").add_argument
    add("--out", type=Path, default=Path("output/detect"), help="the folder of all results")
    add("--no-video", action="store_true", help="do not write annotated.mp4")
    add("--resume", action="store_true", help="continue an interrupted video")
    add(
        "--export", nargs="+", default=[], choices=tuple(EXPORTS), metavar="FORMAT",
        help=f"files for annotation tools as well: {', '.join(EXPORTS)}; cvat has one action "
        "for a box: where events overlap, that of the highest score",
    )  # fmt: skip
    add = parser.add_argument_group("several machines").add_argument
    add(
        "--engine", default="local", choices=("local", "ray"),
        help="where videos are done: by this process, or on a Ray cluster (extra ray)",
    )  # fmt: skip
    add(
        "--ray-address", metavar="HOST:PORT",
        help="of the cluster (default: RAY_ADDRESS, a cluster on this machine, or one of this "
        "machine alone, for the time of the call)",
    )  # fmt: skip
    add(
        "--ray-workers", type=positive,
        help="videos done at once, each with a model of its own (default: as many as fit)",
    )  # fmt: skip
    add("--ray-cpus", type=positive, help="cores of a worker (default: up to 4)")
    add(
        "--ray-gpus", type=_gpus,
        help="GPUs of a worker; 0.5: two share one (default: 1 if the cluster has any)",
    )  # fmt: skip
    return parser


def _gpus(text: str) -> float:
    """As Ray takes it: whole GPUs, or a part of one."""
    number = float(text)
    if not (0 <= number < math.inf and (number < 1 or number.is_integer())):
        raise argparse.ArgumentTypeError(
            f"0, a part of 1, or a whole number expected, found {text}"
        )
    return number
