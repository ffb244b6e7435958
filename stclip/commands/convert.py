"""Convert a checkpoint to or from the format of the published implementation, or to a folder.

A checkpoint of theirs that goes there and back holds the same bits, with one tensor order and the
parts that our model does not use. MODEL.WEIGHT takes both formats without conversion.

With --to hub OUT is a folder with model.safetensors, config.json and a model card (README.md), as
the Hugging Face Hub has models: all weights are in it, so that it loads on a machine with nothing
else. `hf upload USER/NAME OUT` publishes it; stclip.load, --weights and MODEL.WEIGHT take the
folder, and the name of what was published.

Examples:
    stclip convert --to stclip reference.pth stclip.pth
    stclip convert --to reference stclip.pth reference.pth
    stclip convert --to hub --name USER/NAME --results output/first/inference/puppet \\
        output/first/model_0000400.pth output/published
"""

import argparse
from pathlib import Path

from stclip.cli import Parser
from stclip.detector import load
from stclip.engine.checkpoint import save_checkpoint, save_reference_checkpoint
from stclip.errors import UserError
from stclip.hub.card import read_results
from stclip.hub.folder import CARD, CONFIG, DTYPES, WEIGHTS
from stclip.hub.remote import read_weights


def main(argv: list[str] | None = None) -> int:
    """Command line; see the head of this file."""
    parser = Parser(description=__doc__)
    parser.add_argument(
        "--to", required=True, choices=("reference", "stclip", "hub"), help="the format of OUT"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    parser.add_argument(
        "input", metavar="IN", help="a checkpoint of either format, a folder, or a name on the Hub"
    )
    parser.add_argument("output", metavar="OUT", type=Path, help="the file or folder to write")
    add = parser.add_argument_group("with --to hub").add_argument
    add("--dtype", choices=tuple(DTYPES), help="of the stored weights (default: float32)")
    add("--name", help="what the model card says to load, such as USER/NAME (default: OUT's name)")
    add("--license", metavar="ID", help="of these weights, as the Hub abbreviates it, such as mit")
    add("--results", type=Path, help="OUTPUT_DIR/inference/<dataset> of stclip test, for the card")
    args = parser.parse_args(argv)
    if args.to == "hub":
        _write_folder(args)
        return 0
    for option in ("dtype", "name", "license", "results"):
        if vars(args)[option] is not None:
            raise UserError(f"--{option}: belongs to --to hub; leave it out with --to {args.to}")
    if args.output.exists() and not args.overwrite:
        raise UserError(f"{args.output}: exists already; choose another OUT or add --overwrite")
    checkpoint = read_weights(args.input)
    save = save_checkpoint if args.to == "stclip" else save_reference_checkpoint
    save(args.output, checkpoint)
    print(f"{args.output}: {len(checkpoint.model)} parameters")
    return 0


def _write_folder(args: argparse.Namespace) -> None:
    folder: Path = args.output
    held = [folder / name for name in (WEIGHTS, CONFIG, CARD) if (folder / name).exists()]
    if held and not args.overwrite:
        raise UserError(f"{held[0]}: exists already; choose another OUT or add --overwrite")
    if args.results is not None:
        tested = read_results(args.results).weight
        if tested != Path(args.input).name:
            raise UserError(
                f"--results {args.results}: are of {tested}, expected of {Path(args.input).name}: "
                "test that one with stclip test"
            )
    detector = load(args.input, ["any name"], "cpu")
    options = {name: getattr(args, name) for name in ("name", "license", "results", "overwrite")}
    detector.save_pretrained(folder, dtype=args.dtype or "float32", **options)
    for name in (WEIGHTS, CONFIG, CARD):
        print(f"{folder / name}: {(folder / name).stat().st_size / 1e6:.3f} MB")
