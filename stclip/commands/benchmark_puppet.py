"""Run the Puppet benchmark: train and test every method on the label splits, and make the table.

The methods are chance, CLIP without training (frame, crop, both), ST-CLIP untrained and trained,
and the ceiling: ST-CLIP trained on all 21 classes. The output folder receives table.md, table.json
and the folder of every run. What is finished is not run again with --resume.

Examples:
    stclip puppet draw
    stclip puppet benchmark
    stclip puppet benchmark --splits 1 --seeds 2 --output output/first \\
        SOLVER.MAX_ITER 100
    stclip puppet benchmark --splits 1 --seeds 2 --output output/first \\
        --resume SOLVER.MAX_ITER 100
"""

import argparse
import time
from typing import Any

from stclip.cli import Parser, numbers
from stclip.config import load_config
from stclip.evaluation.tables import benchmark_lines, format_table, make_rows, to_json
from stclip.files import locked, write_json, write_text
from stclip.puppet.experiment.options import add_options, output_folder
from stclip.puppet.experiment.outcomes import intervals, results
from stclip.puppet.experiment.plan import (
    ABLATIONS,
    BASELINES,
    CEILING,
    OURS,
    UNTRAINED,
    Plan,
)
from stclip.puppet.experiment.provenance import inputs, same_inputs, versions
from stclip.puppet.experiment.runs import Runner, clock

NOTE = (
    "Frame mAP at IoU 0.5 in percent; mean ± standard deviation over the seeds. avg: unseen "
    "classes, mean over the splits; seen avg: seen classes against the seen names; H: harmonic "
    "mean of the two."
)


def main(argv: list[str] | None = None) -> int:
    """Command line; see the head of this file."""
    args = _parser().parse_intermixed_args(argv)
    plan = make_plan(args)
    with locked(plan.output, "benchmark_puppet"):
        fill(plan, args)
        found = inputs(load_config(plan.config(args.splits[0]), plan.pairs))
        same_inputs(plan.output, found)
        start = time.monotonic()
        print(f"{len(plan.runs)} runs into {plan.output}", flush=True)
        Runner(plan.runs, jobs=args.jobs).all()
        print("resampling the test videos ...", flush=True)
        report(plan, args, found, time.monotonic() - start)
    return 0


def make_plan(args: argparse.Namespace) -> Plan:
    """An empty plan of what the command line says."""
    output = output_folder(args, "benchmark")
    return Plan(output, args.config_dir, tuple(args.opts), args.unseen_clips, args.seen_clips)


def fill(plan: Plan, args: argparse.Namespace) -> None:
    """Add the runs, cheap ones of each split first."""
    for split in args.splits:
        plan.add_baselines(split)
        plan.add_untrained(split, args.seeds[0])
        for seed in args.seeds:
            plan.add_trained(split, seed)
            for name in args.ablations:
                method, pairs = ABLATIONS[name]
                plan.add_trained(split, seed, method, f"ablation_{name}", pairs)
    plan.add_ceiling(args.splits, args.seeds[0])


def report(plan: Plan, args: argparse.Namespace, found: dict[str, Any], seconds: float) -> None:
    """Print the table, and write it."""
    rows = make_rows(results(plan), plan.methods(), args.splits)
    lines = benchmark_lines(rows, args.splits)
    others = [m for m in plan.methods() if m in (*BASELINES.values(), UNTRAINED, CEILING)]
    compared = intervals(plan, others, args.draws)
    differences = [
        f"{OURS} minus {other}: {i.estimate:+.1f} [{i.low:+.1f}, {i.high:+.1f}]"
        for other, i in compared.items()
    ]
    about = (
        "Difference of unseen mAP, mean over splits and seeds, with the interval of 95 % of "
        f"{args.draws} draws of the test videos:"
    )
    print(f"\n{format_table(lines)}\n\n{NOTE}\n\n{about}")
    print("\n".join(f"  {line}" for line in differences))
    made = {
        **versions(),
        "seconds": round(seconds),
        "splits": args.splits,
        "seeds": args.seeds,
        "jobs": args.jobs,
        "unseen_clips": args.unseen_clips,
        "seen_clips": args.seen_clips,
        "pairs": args.opts,
        **found,
    }
    write_json(
        plan.output / "table.json",
        {
            "made": made,
            "rows": [to_json(row, args.splits) for row in rows],
            "differences": {name: vars(interval) for name, interval in compared.items()},
        },
    )
    text = [
        format_table(lines, markdown=True),
        NOTE,
        f"{about}\n",
        *(f"- {line}" for line in differences),
    ]
    facts = ", ".join(f"{k} {v}" for k, v in made.items() if not isinstance(v, dict | list))
    write_text(plan.output / "table.md", "\n".join([*text, "", f"Made with {facts}.", ""]))
    megabytes = sum(f.stat().st_size for f in plan.output.rglob("*") if f.is_file()) / 1e6
    print(
        f"\n{clock(seconds)}. {plan.output} holds table.md, table.json and the {len(plan.runs)} "
        f"runs with their checkpoints, logs and predictions: {megabytes:.0f} MB."
    )


def _parser() -> Parser:
    parser = Parser(description=__doc__)
    parser.add_argument("--splits", type=numbers, default=[1, 2, 3, 4], help="label splits")
    parser.add_argument(
        "--ablations",
        type=_ablations,
        default=[],
        help=f"also train without these: some of {', '.join(ABLATIONS)}",
        metavar="PART,PART",
    )
    parser.add_argument(
        "--unseen-clips", type=int, default=0, metavar="N",
        help="test clips of each unseen class, 0 for all",
    )  # fmt: skip
    parser.add_argument(
        "--seen-clips", type=int, default=16, metavar="N",
        help="test clips of each seen class, 0 for all; 16 are as many in all as of the unseen",
    )  # fmt: skip
    add_options(parser, "benchmark")
    return parser


def _ablations(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in ABLATIONS:
            raise argparse.ArgumentTypeError(f"{name!r}: choices are {','.join(ABLATIONS)}")
    return names
