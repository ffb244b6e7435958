"""Measure on Puppet what goes beyond the paper, each step alone (docs/beyond.md).

Every method is read with and without the training's names as TEST.NONE_OF, without voting, along
tracks and over videos. With --held-out every third seen class is kept out of the training and takes
the place of the unseen ones: that is where to choose among the steps. The output folder receives
table.md, table.json and the folder of every run. What is finished is not run again with --resume.

Examples:
    stclip puppet draw
    stclip puppet beyond --held-out --seeds 0 --output output/choice
    stclip puppet beyond --chosen plus
    stclip puppet draw --setting camera
    stclip puppet beyond --chosen plus --config-dir configs/puppet/camera
"""

import argparse
import time
from collections import defaultdict
from pathlib import Path
from statistics import fmean

from stclip.cli import Parser, numbers, positive
from stclip.config import load_config
from stclip.evaluation.frame_map import Floats
from stclip.evaluation.tables import benchmark_lines, format_table, make_rows, to_json
from stclip.files import locked, write_json, write_text
from stclip.puppet.experiment.beyond import (
    STEPS,
    VOTING,
    BeyondPlan,
    Outcome,
    Step,
    outcomes,
)
from stclip.puppet.experiment.options import add_options, output_folder
from stclip.puppet.experiment.outcomes import Interval, difference
from stclip.puppet.experiment.provenance import inputs, same_inputs, versions
from stclip.puppet.experiment.runs import Runner, clock

NOTE = (
    "Frame mAP at IoU 0.5 in percent; mean ± standard deviation over the seeds. avg: mean over the "
    "splits; seen avg: seen classes against the seen names; H: harmonic mean of the two."
)
TITLES = {"none": "without voting", "track": "voted along tracks", "video": "voted over videos"}
OTHERS = (
    "AUROC of people who do something else / precision at recall 0.5, in percent, on unseen "
    "classes, mean over splits and seeds, precision 0 where the recall is not reached; none of: "
    "with the training's names as TEST.NONE_OF"
)


def main(argv: list[str] | None = None) -> int:
    """Command line; see the head of this file."""
    args = _parser().parse_intermixed_args(argv)
    output = output_folder(args, "beyond")
    pairs = tuple(args.opts)
    plan = BeyondPlan(
        output, args.config_dir, pairs, args.unseen_clips, args.seen_clips, held_out=args.held_out
    )
    with locked(output, "beyond_puppet"):
        plan.fill(args.splits, args.seeds, args.steps)
        found = inputs(load_config(plan.config(args.splits[0]), pairs))
        same_inputs(output, found)
        start = time.monotonic()
        print(f"{len(plan.runs)} runs into {output}", flush=True)
        Runner(plan.runs, jobs=args.jobs).all()
        print("resampling the test videos ...", flush=True)
        every = [
            outcome
            for split in args.splits
            for vocabulary in ("unseen", "seen")
            if (trials := [
                trial for trial in plan.trials
                if (trial.split, trial.vocabulary) == (split, vocabulary)
            ])
            # Only leads need draws, and they are of the unseen classes.
            for outcome in outcomes(
                trials, args.draws if args.chosen and vocabulary == "unseen" else 0, split
            )
        ]  # fmt: skip
        made = {
            **versions(), "seconds": round(time.monotonic() - start), "splits": args.splits,
            "seeds": args.seeds, "jobs": args.jobs, "unseen_clips": args.unseen_clips,
            "seen_clips": args.seen_clips, "held_out": args.held_out, "pairs": args.opts, **found,
        }  # fmt: skip
        text = report(output, every, args.splits, args.chosen, made)
    print(f"\n{text}\n{clock(time.monotonic() - start)}. See {output}.")
    return 0


def report(
    output: Path,
    every: list[Outcome],
    splits: list[int],
    chosen: Step | None,
    made: dict[str, object],
) -> str:
    """Write table.md and table.json; gives the text of the first."""
    methods = list(dict.fromkeys(outcome.trial.method for outcome in every))
    parts, tables = [], []
    for none_of in (False, True):
        for voting in VOTING:
            some = [o for o in every if (o.none_of, o.voting) == (none_of, voting)]
            rows = make_rows([outcome.result for outcome in some], methods, splits)
            title = TITLES[voting] + (", the training's names as TEST.NONE_OF" if none_of else "")
            lines = format_table(benchmark_lines(rows, splits), markdown=True)
            parts.append(f"{title[0].upper()}{title[1:]}:\n\n{lines}")
            leads = leads_of(some, methods, chosen)
            parts += [
                f"- {chosen.title} minus {other}: {lead.estimate:+.1f} "
                f"[{lead.low:+.1f}, {lead.high:+.1f}]"
                for other, lead in leads.items()
                if chosen is not None
            ]
            parts.append("")
            tables.append({
                "none_of": none_of, "voting": voting,
                "rows": [to_json(row, splits) for row in rows],
                "leads": {name: vars(interval) for name, interval in leads.items()},
            })  # fmt: skip
    others = something_else(every, methods)
    parts.append(f"{OTHERS}:\n\n{format_table(others, markdown=True)}")
    write_json(output / "table.json", {"made": made, "tables": tables, "something else": others})
    facts = ", ".join(f"{k} {v}" for k, v in made.items() if not isinstance(v, dict | list))
    text = "\n".join([*parts, NOTE, "", f"Made with {facts}.", ""])
    write_text(output / "table.md", text)
    return text


def something_else(every: list[Outcome], methods: list[str]) -> list[list[str]]:
    """The table of how well scores tell people who do something else, its header first."""
    values: dict[tuple[str, str, bool], list[Outcome]] = defaultdict(list)
    for outcome in every:
        if outcome.trial.vocabulary == "unseen":
            values[outcome.trial.method, outcome.voting, outcome.none_of].append(outcome)
    kinds = [(voting, none_of) for voting in ("none", "track") for none_of in (False, True)]
    lines = [["method"]]
    for voting, none_of in kinds:
        lines[0].append(TITLES[voting] + (", none of" if none_of else ""))
    for method in methods:
        lines.append([method])
        for kind in kinds:
            found = [o.rejection for o in values[method, kind[0], kind[1]] if o.rejection]
            means = (fmean(each[key] or 0 for each in found) for key in ("auroc", "precision"))
            lines[-1].append(" / ".join(f"{mean:.1f}" for mean in means) if found else "-")
    return lines


def leads_of(some: list[Outcome], methods: list[str], chosen: Step | None) -> dict[str, Interval]:
    """How much higher the unseen mAP of a step is than that of every other method."""
    values: dict[str, dict[int, list[Floats]]] = defaultdict(lambda: defaultdict(list))
    for outcome in some:
        if outcome.trial.vocabulary == "unseen":
            values[outcome.trial.method][outcome.trial.split].append(outcome.draws)
    if chosen is None or chosen.title not in values:
        return {}
    ours = list(values[chosen.title].values())
    return {
        method: difference(ours, list(values[method].values()))
        for method in methods
        if method != chosen.title
    }


def _parser() -> Parser:
    parser = Parser(description=__doc__)
    parser.add_argument("--splits", type=numbers, default=[1, 2, 3, 4], help="label splits")
    parser.add_argument(
        "--steps", type=_steps, default=list(STEPS), metavar="NAME,NAME",
        help=f"some of {', '.join(step.key for step in STEPS)}",
    )  # fmt: skip
    parser.add_argument("--chosen", type=_step, help="a step whose lead over the others is given")
    parser.add_argument("--held-out", action="store_true", help="held-out seen classes, see above")
    parser.add_argument(
        "--unseen-clips", type=positive, default=16, metavar="N",
        help="test clips of each unseen (or held-out) class",
    )  # fmt: skip
    parser.add_argument(
        "--seen-clips", type=positive, default=6, metavar="N",
        help="test clips of each seen class; 6 are about as many in all as of the unseen",
    )  # fmt: skip
    add_options(parser, "beyond")
    return parser


def _step(name: str) -> Step:
    for step in STEPS:
        if step.key == name:
            return step
    raise argparse.ArgumentTypeError(f"{name!r}: choices are {','.join(s.key for s in STEPS)}")


def _steps(text: str) -> list[Step]:
    return [_step(name) for name in text.split(",")]
