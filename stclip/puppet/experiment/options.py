"""What the commands of experiments have in common on their command lines."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from stclip.cli import numbers, positive
from stclip.errors import UserError
from stclip.puppet.experiment.plan import free_folder


def add_options(parser: ArgumentParser, name: str, holds: str = "split_<n>.yaml") -> None:
    """Add the options.

    Args:
        parser: of the command.
        name: of the output folder, without its number.
        holds: the configs that --config-dir has.
    """
    add = parser.add_argument
    add("--seeds", type=numbers, default=[0, 1, 2], help="one training each")
    add("--output", type=Path, help=f"a new folder (default: output/{name}-<n>)")
    add("--config-dir", type=Path, default=Path("configs/puppet"), help=f"holds {holds}")
    add("--resume", action="store_true", help="continue in the folder --output")
    add(
        "--jobs", type=positive, default=1, metavar="N",
        help="runs at a time, which share the cores; on a processor, one a core is fastest",
    )  # fmt: skip
    add("--draws", type=positive, default=1000, help="draws of the test videos for the intervals")
    add("opts", nargs="*", metavar="KEY VALUE", help="config keys of all runs")


def output_folder(args: Namespace, name: str) -> Path:
    """Where an experiment goes: --output, or a new folder.

    Raises:
        UserError: something is there, and --resume is not given.
    """
    output: Path = args.output or free_folder(Path("output", name))
    if output.exists() and any(output.iterdir()) and not args.resume:
        raise UserError(
            f"--output {output}: is there already; continue it with --resume, or choose another "
            "folder"
        )
    return output
