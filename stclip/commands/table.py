"""Put test results next to the published ones: the table of the paper.

Each FOLDER is one that stclip test wrote (it holds metrics.json and config.yaml), or one above
several. The configs say which cell a test fills: the split (label files in split_<n>), unseen or
seen classes (is TEST_LABEL what TRAIN_LABEL is), detected or annotated boxes (TEST.BOXES), with
the single-action assumption or without (TEST.SINGLE_ACTION). A row is named by the model, or by
NAME=FOLDER. To fill a row of J-HMDB, test every split four times, as in the last example.

H needs both unseen and seen classes, avg all splits; a missing value is shown as -.

Examples:
    stclip table output/jhmdb
    stclip table output/split_1/inference/jhmdb \\
        "without LoRA=output/no_lora/inference/jhmdb" --markdown table.md

    for boxes in detected ground_truth; do for labels in test train; do
      stclip test --config-file jhmdb/split_1 TEST.BOXES $boxes \\
        TEST_LABEL data/label_splits/jhmdb/split_1/${labels}_label.txt \\
        MODEL.WEIGHT output/jhmdb/split_1/model_0003000.pth \\
        OUTPUT_DIR output/jhmdb/split_1/$labels-$boxes
    done; done
"""

from pathlib import Path

from stclip.cli import Parser
from stclip.errors import UserError
from stclip.evaluation.tables import NOTE, Outcome, format_table, make_tables
from stclip.files import write_json, write_text
from stclip.puppet.experiment.collect import check_distinct, find_runs, read_tests


def main(argv: list[str] | None = None) -> int:
    """Command line; see the head of this file."""
    args = _parser().parse_args(argv)
    for path in (args.markdown, args.json):
        if path is not None and path.exists() and not args.overwrite:
            raise UserError(f"{path}: exists already; give another name, or --overwrite")
    tests = collect(args.folders)
    tables = make_tables(tests)
    for table in tables:
        print(f"{table.title}\n\n{format_table(table.lines('[{}]'))}\n")
    print(NOTE.format(marks="in [ ]"))
    if args.markdown is not None:
        parts = [
            f"### {t.title}\n\n{format_table(t.lines('**{}**'), markdown=True)}" for t in tables
        ]
        write_text(args.markdown, "\n".join([*parts, NOTE.format(marks="bold") + "\n"]))
    if args.json is not None:
        sources = [{**vars(test)} for test in tests]
        write_json(args.json, {"tables": [t.to_json() for t in tables], "tests": sources})
    return 0


def collect(arguments: list[str]) -> list[Outcome]:
    """The tests of all folders; each folder counts once.

    Raises:
        UserError: a folder has no test, or two tests belong into one cell.
    """
    named: dict[Path, str | None] = {}
    for argument in arguments:
        name, equals, folder = argument.partition("=")
        if not equals or Path(argument).exists():
            name, folder = "", argument
        for path in find_runs(Path(folder)):
            named[path.resolve()] = name or named.get(path.resolve())
    tests = [test for path, name in named.items() for test in read_tests(path, name)]
    check_distinct(tests)
    return tests


def _parser() -> Parser:
    parser = Parser(description=__doc__)
    parser.add_argument(
        "folders", nargs="+", metavar="[NAME=]FOLDER", help="what stclip test wrote"
    )
    parser.add_argument(
        "--markdown", type=Path, metavar="OUT", help="also write the tables to this file"
    )
    parser.add_argument(
        "--json", type=Path, metavar="OUT", help="also write the numbers to this file"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace these files if they exist"
    )
    return parser
