"""Train ST-CLIP with and without the part that each of Puppet's subsets was drawn for.

The subset `backbone` compares ST-CLIP with CLIP's and with X-CLIP's image tower, and X-CLIP itself,
on the standard split 1.

The output folder receives table.md, table.json and the folder of every run. What is finished is not
run again with --resume.

Examples:
    stclip puppet draw
    stclip puppet draw --setting crowd
    stclip puppet draw --setting context
    stclip puppet ablate
    stclip puppet ablate --subsets time --seeds 2 --output output/time \\
        SOLVER.MAX_ITER 100
"""

import argparse
import time

from stclip.cli import Parser
from stclip.evaluation.tables import format_table
from stclip.files import locked, write_json, write_text
from stclip.puppet.experiment.ablations import SUBSETS, Ablation, cells
from stclip.puppet.experiment.options import add_options, output_folder
from stclip.puppet.experiment.provenance import inputs, same_inputs, versions
from stclip.puppet.experiment.runs import Runner, clock

HEADER = ["subset", "method", "mAP", "ST-CLIP's lead"]
NOTE = (
    "Frame mAP at IoU 0.5 in percent on the test classes of the subset's yaml; mean ± standard "
    "deviation over the seeds. The lead is the difference of the means, with the interval of 95 % "
    "of the draws of the test videos."
)


def main(argv: list[str] | None = None) -> int:
    """Command line; see the head of this file."""
    args = _parser().parse_intermixed_args(argv)
    output = output_folder(args, "ablations")
    ablations = {
        name: Ablation.plan(name, output, args.config_dir, args.seeds, tuple(args.opts))
        for name in args.subsets
    }
    found = {}
    with locked(output, "ablate_puppet"):
        for name, ablation in ablations.items():
            found[name] = inputs(ablation.cfg)
            same_inputs(output / name, found[name])
        runs = [one for ablation in ablations.values() for one in ablation.runs]
        start = time.monotonic()
        print(f"{len(runs)} runs into {output}", flush=True)
        Runner(runs, jobs=args.jobs).all()
        print("resampling the test videos ...", flush=True)
        rows = {name: ablation.rows(args.draws) for name, ablation in ablations.items()}
        lines = [HEADER, *(cells(name, row) for name, each in rows.items() for row in each)]
        made = {**versions(), "seconds": round(time.monotonic() - start), "seeds": args.seeds}
        made |= {"jobs": args.jobs, "pairs": args.opts, "inputs": found}
        content = {
            name: [
                {
                    "method": row.method,
                    "mAP": vars(row.value),
                    "lead": None if row.behind is None else vars(row.behind),
                }
                for row in each
            ]
            for name, each in rows.items()
        }
        write_json(output / "table.json", {"made": made, "subsets": content})
        facts = ", ".join(f"{k} {v}" for k, v in made.items() if not isinstance(v, dict | list))
        text = [format_table(lines, markdown=True), NOTE, "", f"Made with {facts}.", ""]
        write_text(output / "table.md", "\n".join(text))
    print(f"\n{format_table(lines)}\n\n{NOTE}\n\n{clock(time.monotonic() - start)}. See {output}.")
    return 0


def _parser() -> Parser:
    parser = Parser(description=__doc__)
    parser.add_argument(
        "--subsets", type=_subsets, default=list(SUBSETS), metavar="NAME,NAME", help="some of these"
    )
    add_options(parser, "ablations", "the yaml files")
    return parser


def _subsets(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in SUBSETS:
            raise argparse.ArgumentTypeError(f"{name!r}: choices are {','.join(SUBSETS)}")
    return names
