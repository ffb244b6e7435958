"""Say who does what when in videos of your own.

People are found and followed, each is scored against the actions every half second, and scores that
stay high become events. Actions are any words. Without --weights CLIP scores them as it is;
with it, a trained ST-CLIP does. Names of --none-of are scored and never reported: they give
people something to do that is of no interest.

VIDEO is a file, a folder or zip file of pictures, a camera number, an address (rtsp://, http://) or
- for standard input. OUT/<name of the video>/ receives result.json, events.csv, annotated.mp4 and
index.html, which a browser opens. A video whose results are there is skipped; --resume continues
one that was interrupted. Processes that are given the same videos and the same --out share them:
each takes the next one that nobody has.

Examples:
    stclip detect party.mp4 --actions dance wave "fall down" --none-of standing sitting
    stclip detect *.mp4 --actions-file actions.txt --weights model_0003000.pth --out found
    stclip detect 0 --actions wave clap --clip ViT-B/32
    torchrun --nproc-per-node 4 -m stclip detect *.mp4 --config-file options.yaml --resume
"""

import argparse
import math
import os
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, closing
from pathlib import Path

from tqdm import tqdm

from stclip.cli import Parser, positive
from stclip.data.labels import read_wordings
from stclip.engine.events import setup_logging
from stclip.errors import UserError
from stclip.files import InUse
from stclip.footage.detect import load_model
from stclip.footage.detectors import load_detector
from stclip.footage.events import EventRule
from stclip.footage.exports import EXPORTS, export
from stclip.footage.given import Detected, Given, read_boxes
from stclip.footage.pipeline import LOG, Detection, Settings, claimed
from stclip.footage.records import Footage
from stclip.footage.results import PAGE, RESULT, read_result
from stclip.footage.scoring import Step
from stclip.footage.source import LiveSource, Source, is_missing, nothing_at, open_source

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
    if all(map(is_missing, args.videos)):  # before CLIP is downloaded
        raise nothing_at(args.videos[0])
    if args.boxes and len(args.videos) > 1:
        raise UserError("--boxes: belongs to one video; call the command once for each")
    rows = read_boxes(args.boxes) if args.boxes else None
    detector = (
        None if args.boxes else load_detector(args.detector, args.device, args.detector_threshold)
    )
    model, facts = load_model(
        actions, none_of, args.weights, args.clip, args.device, args.crop_weight, args.onnx
    )

    def detection_of(location: str) -> Detection:
        source = open_source(location, args.fps, args.start, args.end)
        find = (
            Detected(detector, args.detector_threshold) if detector is not None
            else Given(rows or [], source.fps, args.detector_threshold)
        )  # fmt: skip
        return Detection(source, model, actions, find, settings, facts, args.batch, args.precision)

    return 2 if _all_videos(args, detection_of, before) else 0


def _all_videos(
    args: argparse.Namespace, detection_of: Callable[[str], Detection], before: set[Path]
) -> bool:
    """Go through every video that no other process has; whether one failed.

    Other processes are ranks of torchrun, or calls of the same --out. What every rank sees is said
    by the first one.

    Args:
        args: the command line.
        detection_of: opens a video.
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
                    detection = detection_of(location)
                    folder = args.out / detection.footage.name
                    if folder in folders:
                        raise UserError(
                            f"{location}: another video of this call is called {folder.name}"
                        )
                    folders.add(folder)
                    claim.enter_context(claimed(folder))
                    mine = True
                    known = folder in before
                    _one_video(args, detection, folder, known, first, ranks)
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
    args: argparse.Namespace,
    detection: Detection,
    folder: Path,
    known: bool,
    first: bool,
    ranks: int,
) -> None:
    footage = detection.footage
    if detection.is_complete_in(folder):
        if not known:  # another rank has done it meanwhile
            return
        if first:
            print(
                f"{folder}: is complete already; look at {folder / PAGE}, or remove the folder to "
                "do it again"
            )
        footage = read_result(folder / RESULT) if args.export else footage
    else:
        try:
            with closing(detection.saving(folder, not args.no_video, args.resume)) as steps:
                _show(steps, detection.source, in_lines=ranks > 1)
        except BaseException:
            resumable = not isinstance(detection.source, LiveSource) and (folder / LOG).exists()
            if footage.video["frames"] and resumable:
                print(
                    f"{folder}: has what was found so far; the same command with --resume goes on",
                    file=sys.stderr,
                )
            raise
        _sum_up(footage, folder)
    for kind in args.export:
        export(footage, kind, folder)


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
            persons = _count(int((step.persons.ids > 0).sum()), "person")
            status = f"{rate:.2f}x real time, {persons}"
            bar.set_postfix_str(status, refresh=False)
            if in_lines and now - said > _SECONDS_A_LINE:
                said = now
                print(f"{source.name}: {step.frame.seconds:.0f}{whole} s, {status}", flush=True)


def _sum_up(footage: Footage, folder: Path) -> None:
    persons, events = _count(len(footage.tracks), "person"), _count(len(footage.events), "event")
    print(f"{folder}: {persons}, {events}; look at {folder / PAGE}")
    if not footage.tracks:
        print(
            f"{footage.name}: nobody was found; try a lower --detector-threshold or another "
            "--detector"
        )


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


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
        help=f"files for annotation tools as well: {', '.join(EXPORTS)}",
    )  # fmt: skip
    return parser
