"""Draw a benchmark, train ST-CLIP on it, test it on unseen actions, and write a report.

Last, the trained model goes through a drawn film without any boxes, as stclip detect goes through
videos of your own. Needs no download. The dataset is drawn once, into data/ of the current folder.
Every run writes to a new folder, output/quickstart-<n>; report.html in it shows the outcome in a
browser.

Examples:
    stclip quickstart
    stclip quickstart --short --floor 25
"""

import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from stclip.cli import Parser
from stclip.config import load_config
from stclip.data.labels import read_label_file
from stclip.evaluation.frame_map import Metrics
from stclip.evaluation.report import render_report
from stclip.evaluation.tables import format_table
from stclip.files import locked, write_text
from stclip.footage.results import PAGE, RESULT
from stclip.puppet.experiment.film import COLUMNS, film_metrics, film_table
from stclip.puppet.experiment.page import UNSEEN, columns_of, quickstart_report
from stclip.puppet.experiment.plan import OURS, Plan, free_folder
from stclip.puppet.experiment.provenance import inputs, same_inputs, versions
from stclip.puppet.experiment.runs import Run, Runner, clock

CONFIGS = "configs/puppet"
SPLIT = 1


@dataclass(frozen=True)
class Size:
    """How much is drawn, trained and tested.

    Attributes:
        dataset: the folder of the drawn dataset.
        draw: options of ``stclip puppet draw``.
        pairs: config keys of every run.
        unseen_clips: test clips of each unseen class.
        seen_clips: the same of each seen one.
        film: the mp4 of the drawn film.
        film_seconds: its length.
    """

    dataset: str
    draw: tuple[str, ...]
    pairs: tuple[str, ...]
    unseen_clips: int
    seen_clips: int
    film: str
    film_seconds: float


# Fractions of the benchmark: all of its training, and so many of its test clips.
FULL = Size(
    "data/puppet",
    (),
    (),
    unseen_clips=16,
    seen_clips=4,
    film="data/puppet_film.mp4",
    film_seconds=60,
)
SHORT = Size(
    "data/puppet-short/puppet",
    ("--train-clips", "16", "--test-clips", "6"),
    ("DATASETS.DATA_DIR", "data/puppet-short", "SOLVER.MAX_ITER", "150"),
    unseen_clips=6,
    seen_clips=2,
    film="data/puppet-short/film.mp4",
    film_seconds=12,
)


def main(argv: list[str] | None = None) -> int:
    """Run the commands that a person would type, and sum up."""
    parser = Parser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="fewer clips, a shorter training")
    parser.add_argument(
        "--floor", type=float, default=0.0, metavar="MAP",
        help="exit with 1 if ST-CLIP's mAP on unseen classes is lower, in percent",
    )  # fmt: skip
    args = parser.parse_args(argv)
    size = SHORT if args.short else FULL
    start = time.monotonic()
    draw(size)
    output = free_folder(Path("output/quickstart"))
    plan = Plan(output, Path(CONFIGS), size.pairs, size.unseen_clips, size.seen_clips)
    cfg = load_config(plan.config(SPLIT), plan.pairs)
    plan.add_baselines(SPLIT, seen=False)
    plan.add_untrained(SPLIT, cfg.SEED, seen=False)
    training = plan.add_trained(SPLIT, cfg.SEED)
    plan.add_plus(SPLIT, cfg.SEED, training)
    found = inputs(cfg)
    with locked(output, "quickstart"):
        same_inputs(output, found)
        print(f"\n{len(plan.runs)} runs into {output}", flush=True)
        Runner(plan.runs, show_commands=True).all()
        columns = columns_of(plan)
        page, metrics = watch_film(size, output, cfg, training)
    note = (
        "Frame mAP at 0.5, in percent (see Terms below). All methods score the same boxes of the "
        f"same clips, {size.unseen_clips} of each unseen and {size.seen_clips} of each seen action."
    )
    options = sys.argv[1:] if argv is None else argv
    facts = [
        ("command", shlex.join(["stclip", "quickstart", *options])),
        ("time", f"{clock(time.monotonic() - start)}, everything included"),
        *describe(cfg, found),
    ]
    report = output / "report.html"
    address = page.relative_to(output).as_posix()
    content = quickstart_report(plan, columns, training, facts, note, film_table(metrics), address)
    write_text(report, render_report(content))
    summarise(plan, columns)
    found = metrics[COLUMNS[1]]
    print(
        f"\nThe film: {found['tubes']} events, {found['ground_truth_tubes']} acts drawn; video mAP "
        f"at 0.5 {found['video_mAP@0.5']:.1f}; look at {page}"
    )
    print(f"\n{clock(time.monotonic() - start)}. Everything is in {output}; look at {report}")
    unseen = columns[UNSEEN][OURS]
    if unseen < args.floor:
        print(
            f"too low: ST-CLIP has {unseen:.2f} on unseen actions, --floor is {args.floor:g}",
            file=sys.stderr,
        )
        return 1
    return 0


def draw(size: Size) -> None:
    """Draw the dataset unless it is there."""
    if Path(size.dataset).exists():
        print(f"{size.dataset} is there already")
        return
    call("puppet", "draw", "--out", size.dataset, *size.draw)


def watch_film(
    size: Size, output: Path, cfg: CfgNode, training: Run
) -> tuple[Path, dict[str, Metrics]]:
    """Send a film through the trained model; gives its page, and how right the events are."""
    actions = read_label_file(cfg.TEST_LABEL, "TEST_LABEL")
    film = Path(size.film)
    truth = film.with_suffix(".tubes.json")
    if not (film.exists() and truth.exists()):
        call(
            "puppet", "film", "--out", size.film, "--seconds", f"{size.film_seconds:g}",
            "--actions", *actions,
        )  # fmt: skip
    call(
        "detect", size.film, "--weights", str(training.checkpoint()), "--out", str(output),
        "--actions", *actions,
    )  # fmt: skip
    folder = output / film.stem
    return folder / PAGE, film_metrics(folder / RESULT, truth)


def call(*words: str) -> None:
    """Run a command of stclip, and end with its status if it fails."""
    print(f"\n$ {shlex.join(['stclip', *words])}", flush=True)
    status = subprocess.run([sys.executable, "-m", "stclip", *words], check=False).returncode
    if status:
        sys.exit(status)  # the command has said why


def describe(cfg: CfgNode, found: dict[str, Any]) -> list[tuple[str, str]]:
    """The data, software and settings of the runs, for the report."""
    made, solver, drawn = versions(), cfg.SOLVER, found["dataset"]
    facts = [
        ("machine", f"{made['cores']} cores, {made['device']}, {made['system']}"),
        ("software", ", ".join(f"{k} {made[k]}" for k in ("stclip", "torch", "python"))),
        ("date", made["date"]),
        (
            "training",
            f"{solver.MAX_ITER} iterations of {solver.VIDEOS_PER_BATCH} keyframes, seed {cfg.SEED}",
        ),
        ("CLIP", f"{found['clip']} (SHA-256 {found['clip_sha256']})"),
    ]
    if isinstance(drawn, dict):
        words = f"{drawn['setting']}, seed {drawn['seed']}, pixels {drawn['pixels_sha256']}"
        facts.append(("dataset", f"Puppet {words}"))
    return facts


def summarise(plan: Plan, columns: dict[str, dict[str, float]]) -> None:
    """Print the one table."""
    lines = [["frame mAP at 0.5", *columns]]
    for method in plan.methods():
        values = [column.get(method) for column in columns.values()]
        lines.append([method, *("-" if value is None else f"{value:.1f}" for value in values)])
    print(f"\n{format_table(lines)}")
