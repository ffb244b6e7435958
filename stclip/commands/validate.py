"""List what is wrong with a dataset, before training on it.

With --config-file the training and the test part are read as training and testing would, whatever
the dataset; TRAIN_LABEL or TEST_LABEL may be empty to look at one part. With --annotations a file
in the annotations format is checked by itself. All mistakes are counted, and the first of a kind
listed. For datasets in other formats, these are the unusable rows of annotations and detections;
what is wrong with a file as a whole ends the check of its part, and missing videos or frames are
one message with their number and the first of them.

Exit status: 0 nothing is wrong (there may be notes), 1 something is, 2 the command is wrong.

Examples:
    stclip validate --config-file puppet/split_1
    stclip validate --config-file data/mine/config.yaml --decode all
    stclip validate --annotations data/mine/test.json \\
        --detections data/mine/persons.jsonl
"""

import argparse
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from yacs.config import CfgNode

from stclip.cli import Parser, config_parser
from stclip.config import load_config
from stclip.data import findings as kinds
from stclip.data.annotations import DetectionDataset
from stclip.data.build import read_dataset
from stclip.data.checks import recall, warn_of_choice
from stclip.data.custom import open_annotations, read_annotations
from stclip.data.findings import Findings
from stclip.data.labels import Labels, Part, read_group_file, read_label_file
from stclip.data.validation import (
    check_boxes,
    check_frames,
    check_labels,
    check_overlap,
    check_split,
    count_labels,
    unchecked,
    usable,
)
from stclip.errors import UserError, reporting
from stclip.evaluation.tables import format_table

PARTS: tuple[Part, ...] = ("train", "test")


@dataclass(frozen=True)
class Checked:
    """A part that could be read.

    Attributes:
        name: train, test or the annotations file.
        dataset: what was read.
        decoded: how many frames were decoded.
        trained: how many annotated boxes training uses; None of another part.
        recall: the share of annotated boxes that detections overlap, of all detections and of those
            that a test would use; None without detections or annotations.
    """

    name: str
    dataset: DetectionDataset
    decoded: int
    trained: int | None
    recall: tuple[float | None, float | None]


def main(argv: list[str] | None = None) -> int:
    """Command line; see the head of this file."""
    args = _parser().parse_intermixed_args(argv)
    if not args.config_file and not args.annotations:
        _parser().error("--config-file or --annotations: one of the two is needed")
    if args.detections and not args.annotations:
        raise UserError(
            "--detections: goes with --annotations; with --config-file alone set "
            "DATASETS.DETECTIONS"
        )
    if args.opts and not args.config_file:
        raise UserError(f"{args.opts[0]}: KEY VALUE pairs need --config-file")
    findings = Findings(keep=args.show)
    cfg = load_config(args.config_file, args.opts) if args.config_file else None
    parts = []
    labels = Labels(())
    with warnings_into(findings):
        if cfg is not None:
            labels = read_labels(cfg, findings)
            for part in PARTS:
                if labels.train if part == "train" else labels.test:
                    parts.append(check_part(cfg, part, labels, findings, args.decode))
                else:
                    print(f"{part.upper()}_LABEL has no label: that part is not looked at")
        if args.annotations:
            parts.append(check_file(args, labels.all, findings))
    checked = [part for part in parts if part is not None]
    both = {part.name: part.dataset for part in checked}
    if "train" in both and "test" in both:
        check_split(both["train"], both["test"], findings)
    if checked:
        print(f"{summary(checked)}\n\n{classes(checked, labels)}\n")
    if findings.counts:
        print(f"{findings.text()}\n")
    print(f"problems: {findings.problems}" if findings.problems else "nothing is wrong")
    return 1 if findings.problems or not checked else 0


def read_labels(cfg: CfgNode, findings: Findings) -> Labels:
    """The label files, as far as they can be read; a list that is unset is empty."""
    found: dict[str, tuple[str, ...]] = {}
    for part in ("all", "train", "test"):
        key = f"{part.upper()}_LABEL"
        found[part] = ()
        if cfg[key] or part == "all":
            with reporting(findings.report(kinds.UNREADABLE)):
                found[part] = tuple(read_label_file(cfg[key], key))
    known, trained = set(found["all"]), set(found["train"])
    for part in ("train", "test"):
        for name in found[part]:
            if known and name not in known:
                where = f"{part.upper()}_LABEL {cfg[f'{part.upper()}_LABEL']}"
                findings.add(kinds.UNKNOWN_LABELS, f"{where}: {name!r} is not in ALL_LABEL")
    shared = [name for name in found["test"] if name in trained]
    all_shared = len(shared) == len(found["test"])
    for name in shared:
        findings.add(kinds.NOT_ZERO_SHOT if all_shared else kinds.SHARED_LABELS, repr(name))
    groups = None
    if cfg.ALL_GROUP:
        groups = {}
        with reporting(findings.report(kinds.UNREADABLE)):
            groups = read_group_file(cfg.ALL_GROUP, found["all"], "ALL_GROUP")
    if not findings.counts.keys() & {kinds.UNREADABLE, kinds.UNKNOWN_LABELS}:
        # What is left to see: ALL_WORDING and TEST.NONE_OF.
        with reporting(findings.report(kinds.UNREADABLE)):
            Labels.read(cfg, "test" if found["test"] else "train")
    return Labels(found["all"], found["train"], found["test"], cfg.TEST.GENERALIZED, groups)


def check_part(
    cfg: CfgNode, part: Part, labels: Labels, findings: Findings, decode: int | None
) -> Checked | None:
    """Read and check what the config trains or tests on; None if it cannot be read."""
    dataset = None
    with reporting(findings.report(kinds.UNREADABLE)):
        dataset = read_dataset(cfg, part, labels, unchecked(findings))
    if dataset is None:
        return None
    if dataset.proposals is not None:
        warn_of_choice(dataset, cfg.TEST.BOX_THRESH, cfg.TEST.MAX_PERSONS)
    dataset = usable(part, dataset, findings)
    check_labels(part, dataset, labels, findings)
    checked = _check(part, dataset, findings, decode, cfg)
    if part == "test":
        return checked
    seen = set(labels.train)
    kept = (keyframe.of_vocabulary(seen, labels.unseen) for keyframe in dataset.keyframes)
    return replace(checked, trained=sum(len(keyframe.boxes) for keyframe in kept))


def check_file(
    args: argparse.Namespace, all_names: Sequence[str], findings: Findings
) -> Checked | None:
    """Read and check --annotations; None if it cannot be read."""
    dataset, reports = None, unchecked(findings)
    with reporting(findings.report(kinds.UNREADABLE)):
        file = read_annotations(args.annotations, reports)
        dataset = open_annotations(file, None, args.detections, reports)
    if dataset is None:
        return None
    name = Path(args.annotations).name
    if all_names:
        check_labels(name, dataset, Labels(tuple(all_names)), findings)
    return _check(name, dataset, findings, args.decode, None)


def _check(
    name: str,
    dataset: DetectionDataset,
    findings: Findings,
    decode: int | None,
    cfg: CfgNode | None,
) -> Checked:
    check_boxes(name, dataset, findings)
    check_overlap(name, dataset, findings)
    decoded = check_frames(name, dataset, findings, decode)
    shares: tuple[float | None, float | None] = (None, None)
    if dataset.proposals is not None:
        used = None
        if cfg is not None:
            threshold, limit = cfg.TEST.BOX_THRESH, cfg.TEST.MAX_PERSONS
            used = recall(dataset, lambda found: found.select(threshold, limit))
        shares = (recall(dataset), used)
    return Checked(name, dataset, decoded, None, shares)


def summary(parts: Sequence[Checked]) -> str:
    """The table of counts."""
    columns = []
    for part in parts:
        dataset, proposals = part.dataset, part.dataset.proposals or {}
        frames = [keyframe for keyframe in dataset.keyframes if len(keyframe.boxes)]
        detected = [k for k in dataset.keyframes if len(proposals.get(k.key, ()))]
        columns.append(
            {
                "videos": f"{len(dataset.videos):,}",
                "keyframes": f"{len(dataset.keyframes):,}",
                "keyframes with annotated boxes": f"{len(frames):,}",
                "annotated boxes": f"{sum(len(keyframe.boxes) for keyframe in frames):,}",
                "those that training uses": "-" if part.trained is None else f"{part.trained:,}",
                "keyframes with detections": f"{len(detected):,}",
                "detections": f"{sum(len(proposals[k.key]) for k in detected):,}",
                "recall of all detections at IoU 0.5": _share(part.recall[0]),
                "recall of those that a test uses": _share(part.recall[1]),
                "frames decoded": f"{part.decoded:,}",
            }
        )
    lines = [["", *(part.name for part in parts)]]
    lines += [[name, *(column[name] for column in columns)] for name in columns[0]]
    return format_table(lines)


def classes(parts: Sequence[Checked], labels: Labels) -> str:
    """The table of annotated boxes by class: those of the vocabulary, then others."""
    counts: list[Counter[str]] = [count_labels(part.dataset) for part in parts]
    trained, tested = set(labels.train), set(labels.test)
    named = [*labels.train, *labels.test, *labels.all, *sorted(set().union(*counts))]
    lines = [["annotated boxes", "", *(part.name for part in parts)]]
    for name in dict.fromkeys(named):
        seen, unseen = name in trained, name in tested
        role = "both" if seen and unseen else "seen" if seen else "unseen" if unseen else ""
        lines.append([name, role, *(f"{count[name]:,}" for count in counts)])
    return format_table(lines)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


@contextmanager
def warnings_into(findings: Findings) -> Iterator[None]:
    """Make a note of what the readers log as a warning."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            findings.add(kinds.WARNINGS, record.getMessage())

    logger, handler = logging.getLogger("stclip.data"), Handler(logging.WARNING)
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = True


def _amount(text: str) -> int | None:
    if text == "all":
        return None
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"a number or all expected, found {text!r}")
    return int(text)


def _parser() -> Parser:
    parser = config_parser(__doc__, required=False)
    parser.add_argument(
        "--annotations", metavar="FILE", help="a .json file in the annotations format"
    )
    parser.add_argument(
        "--detections", metavar="FILE", help="a .jsonl or .json file of person boxes for it"
    )
    parser.add_argument(
        "--decode", type=_amount, default=100, metavar="N",
        help="decode the frames of N keyframes of each part, evenly spread; all: every frame "
        "of every video",
    )  # fmt: skip
    parser.add_argument(
        "--show", type=int, default=5, metavar="N", help="places listed of each kind"
    )
    return parser
