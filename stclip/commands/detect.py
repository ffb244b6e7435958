"""Say who does what when in videos of your own.

People are found and followed, each is scored against the actions every half second, and scores that
stay high become events. Actions are any words. Without --weights CLIP is used as it is; with an
ST-CLIP checkpoint its scores are. Names of --none-of are scored and never reported: they give
people something to do that is of no interest.

VIDEO is a file, a folder or zip file of pictures, a camera number, an address (rtsp://, http://) or
- for standard input. OUT/<name of the video>/ receives result.json, events.csv, annotated.mp4 and
index.html, which a browser opens. A video whose results are there is skipped; --resume continues
one that was interrupted.

Examples:
    stclip detect party.mp4 --actions dance wave "fall down" --none-of standing sitting
    stclip detect *.mp4 --actions-file actions.txt --weights model_0003000.pth --out found
    stclip detect 0 --actions wave clap --clip ViT-B/32
"""

import math
import sys
from collections.abc import Iterable
from pathlib import Path

from tqdm import tqdm

from stclip.cli import Parser, positive
from stclip.data.labels import read_label_file
from stclip.engine.events import setup_logging
from stclip.errors import UserError
from stclip.footage.detect import load_model
from stclip.footage.detectors import load_detector
from stclip.footage.events import EventRule
from stclip.footage.exports import EXPORTS, export
from stclip.footage.given import Detected, Given, read_boxes
from stclip.footage.pipeline import Detection, Settings
from stclip.footage.records import Footage
from stclip.footage.results import PAGE, RESULT, read_result
from stclip.footage.scoring import Step
from stclip.footage.source import Source, open_source


def main(argv: list[str] | None = None) -> int:
    """Command line; see the head of this file."""
    args = _parser().parse_intermixed_args(argv)
    actions = [name.strip() for name in args.actions or []]
    if args.actions_file:
        actions += read_label_file(str(args.actions_file), "--actions-file")
    rule = EventRule(window=args.window, threshold=args.threshold, min_seconds=args.min_seconds)
    settings = Settings(
        detector=str(args.boxes or args.detector),
        detector_threshold=args.detector_threshold,
        track_threshold=max(args.track_threshold, args.detector_threshold),
        score_every=args.score_every,
        events=rule,
    )
    setup_logging(None)
    if args.boxes and len(args.videos) > 1:
        raise UserError("--boxes: belongs to one video; call the command once for each")
    rows = read_boxes(args.boxes) if args.boxes else None
    detector = (
        None if args.boxes else load_detector(args.detector, args.device, args.detector_threshold)
    )
    model, facts = load_model(actions, args.none_of, args.weights, args.clip, args.device)
    failed, names = 0, set()
    for location in args.videos:
        try:
            source = open_source(location, args.fps, args.start, args.end)
            find = (
                Detected(detector, args.detector_threshold) if detector is not None
                else Given(rows or [], source.fps, args.detector_threshold)
            )  # fmt: skip
            if source.name in names:
                raise UserError(f"{location}: another video of this call is called {source.name}")
            names.add(source.name)
            folder = args.out / source.name
            detection = Detection(
                source, model, actions, find, settings, facts, args.batch, args.precision
            )
            footage = detection.footage
            if detection.is_complete_in(folder):
                print(
                    f"{folder}: is complete already; look at {folder / PAGE}, or remove the folder "
                    "to do it again"
                )
                footage = read_result(folder / RESULT) if args.export else footage
            else:
                steps = detection.saving(folder, not args.no_video, args.resume)
                _show(steps, source)
                _sum_up(footage, folder)
            for kind in args.export:
                export(footage, kind, folder)
        except UserError as error:
            if len(args.videos) == 1:
                raise
            failed += 1
            print(f"error: {error}", file=sys.stderr)
    return 2 if failed else 0


def _show(steps: Iterable[Step], source: Source) -> None:
    """Go through the steps with a progress bar."""
    with tqdm(total=source.expected, unit="frame", desc=source.name, mininterval=0.5) as bar:
        for step in steps:
            bar.update()
            passed = bar.format_dict["elapsed"]
            rate = (step.frame.seconds - source.start) / passed if passed > 0 else 0.0
            persons = _count(int((step.persons.ids > 0).sum()), "person")
            bar.set_postfix_str(f"{rate:.2f}x real time, {persons}", refresh=False)


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


def _parser() -> Parser:
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add("videos", nargs="+", metavar="VIDEO", help="what to look at")
    add = parser.add_argument_group("what is looked for").add_argument
    add("--actions", nargs="+", metavar="NAME", help="names of actions, in any words")
    add("--actions-file", type=Path, help="a text file with one name a line")
    add("--none-of", nargs="+", default=[], metavar="NAME", help="scored and never reported")
    add = parser.add_argument_group("model").add_argument
    add("--weights", type=Path, help="an ST-CLIP checkpoint; without it CLIP as it is")
    add("--clip", default="ViT-B/16", help="without --weights: a name or file; puppet for a try")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    add("--precision", default="fp32", choices=("fp32", "bf16", "fp16"))
    add("--batch", type=positive, default=4, help="moments scored at once")
    add = parser.add_argument_group("people").add_argument
    add("--detector", default="nanodet", help="nanodet, dfine, or a model of torchvision")
    add("--detector-threshold", type=float, default=0.15, help="lowest score of a box")
    add("--track-threshold", type=float, default=0.4, help="lowest score that begins a track")
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
