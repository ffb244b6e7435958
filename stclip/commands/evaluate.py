"""Compute a metric from result files and ground truth, without a model.

`stclip evaluate COMMAND --help` says what each computes, and from which files.
"""

from collections.abc import Sequence
from pathlib import Path

from stclip.cli import Parser
from stclip.errors import UserError
from stclip.files import write_json
from stclip.scoring.ava import add_ava
from stclip.scoring.frame import add_frame_map
from stclip.scoring.video import add_video_map
from stclip.scoring.vote import add_vote


def main(argv: Sequence[str] | None = None) -> int:
    """Run the subcommand that ``argv`` names."""
    parser = Parser(description=__doc__)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for add in (add_frame_map, add_video_map, add_ava, add_vote):
        add(commands)
    arguments = parser.parse_args(argv)
    out: Path | None = arguments.json
    if out is not None and out.exists() and not arguments.overwrite:
        raise UserError(f"{out}: exists already; give another --json, or --overwrite")
    metrics, table = arguments.command(arguments)
    if out is not None:
        write_json(out, metrics)
    print(table)
    return 0
