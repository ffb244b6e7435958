"""What the commands share: arguments, and cutting ground truth and labels to what is evaluated."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from stclip.data.labels import choices, read_label_file, read_video_list
from stclip.errors import UserError

# What a command hands back: the numbers, and a table of them.
Outcome = tuple[dict[str, Any], str]


def add_command(
    commands: Any, name: str, description: str, example: str
) -> argparse.ArgumentParser:
    """A subcommand whose first line of description is its help."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=description.splitlines()[0].rstrip("."),
        description=description,
        epilog=example,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser


def refuse_csv(path: Path) -> None:
    """Ground truth in a csv is AVA's, which has a metric of its own.

    Raises:
        UserError: ``path`` is a csv.
    """
    if path.name.endswith((".csv", ".csv.gz")):
        raise UserError(
            f"--ground-truth {path}: a csv, as AVA has it, goes with the command ava; --help names "
            "the files that this one takes"
        )


def add_iou(parser: argparse.ArgumentParser, *default: float) -> None:
    """--iou."""
    parser.add_argument(
        "--iou", type=float, nargs="+", default=list(default), metavar="T",
        help=f"IoU thresholds (default: {' '.join(map(str, default))})",
    )  # fmt: skip


def add_subset(parser: argparse.ArgumentParser) -> None:
    """--all-label, --videos and --official-split: how to read the ground truth, and what of it."""
    parser.add_argument(
        "--all-label", type=Path, metavar="FILE",
        help="all classes of the dataset in its order, if their names were worded differently",
    )  # fmt: skip
    parser.add_argument(
        "--videos", type=Path, metavar="FILE",
        help="evaluate these videos only (one a line, with or without the class folder); all other "
        "videos are left out",
    )  # fmt: skip
    parser.add_argument(
        "--official-split", type=int, default=1, metavar="N",
        help="which test list of a ground-truth pickle (from 1; default: 1)",
    )  # fmt: skip


def add_unseen(parser: argparse.ArgumentParser) -> None:
    """--unseen-label."""
    parser.add_argument(
        "--unseen-label", type=Path, metavar="FILE",
        help="generalised zero-shot: these of the classes are the unseen ones; the mean is then "
        "given over them, over the others, and over all, and the harmonic mean of the first two",
    )  # fmt: skip


def add_output(parser: argparse.ArgumentParser) -> None:
    """--json and --overwrite."""
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the numbers to this file")
    parser.add_argument("--overwrite", action="store_true", help="OUT may exist already")


def read_names(path: Path | None) -> list[str] | None:
    """A label file; None without one."""
    return read_label_file(path) if path else None


def read_unseen(path: Path, labels: Collection[str]) -> list[str]:
    """The unseen classes, which are some of the evaluated ones.

    Raises:
        UserError: the file cannot be read, a name is not among ``labels``, or all of them are.
    """
    unseen = read_label_file(path)
    check_labels(unseen, labels, path, "the evaluated classes")
    if len(unseen) == len(labels):
        raise UserError(f"{path}: names all {len(labels)} evaluated classes, so that none is seen")
    return unseen


def check_labels(
    names: Sequence[str], known: Collection[str], path: str | Path, source: str | Path
) -> None:
    """Check that each of the names in ``path`` is a class of ``source``."""
    for name in names:
        if name not in known:
            raise UserError(
                f"{path}: label {name!r} is not a class of {source}; {choices(name, known)}"
            )


def listed_videos(known: Collection[str], source: Path, path: Path) -> set[str]:
    """The videos of ``known`` that a list names, ``video`` or ``class/video``.

    Raises:
        UserError: the list cannot be read, or names none of them.
    """
    names = {name: video for video in known for name in (video, video.rpartition("/")[2])}
    listed = read_video_list(path)
    videos = {names[name] for name in listed if name in names}
    if not videos:
        raise UserError(
            f"{path}: none of its {len(listed)} videos is in {source}; the first it names is "
            f"{listed[0]!r}"
        )
    unknown = [name for name in listed if name not in names]
    if unknown:
        note(
            f"{path}: {len(unknown)} of {len(listed)} videos are left out, they are not in "
            f"{source} (first: {unknown[0]})"
        )
    return videos


def note(text: str) -> None:
    """Tell the user on standard error."""
    print(text, file=sys.stderr)
