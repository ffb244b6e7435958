"""Convert a checkpoint to or from the format of the published implementation.

A checkpoint of theirs that goes there and back holds the same bits, with one tensor order and the
parts that our model does not use. MODEL.WEIGHT takes both formats without conversion.

Examples:
    stclip convert --to stclip reference.pth stclip.pth
    stclip convert --to reference stclip.pth reference.pth
"""

from pathlib import Path

from stclip.cli import Parser
from stclip.engine.checkpoint import read_checkpoint, save_checkpoint, save_reference_checkpoint
from stclip.errors import UserError


def main(argv: list[str] | None = None) -> int:
    """Command line; see the head of this file."""
    parser = Parser(description=__doc__)
    parser.add_argument(
        "--to", required=True, choices=("reference", "stclip"), help="the format of OUT"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    parser.add_argument("input", metavar="IN", type=Path, help="a checkpoint of either format")
    parser.add_argument("output", metavar="OUT", type=Path, help="the file to write")
    args = parser.parse_args(argv)
    if args.output.exists() and not args.overwrite:
        raise UserError(f"{args.output}: exists already; choose another OUT or add --overwrite")
    checkpoint = read_checkpoint(args.input)
    save = save_checkpoint if args.to == "stclip" else save_reference_checkpoint
    save(args.output, checkpoint)
    print(f"{args.output}: {len(checkpoint.model)} parameters")
    return 0
