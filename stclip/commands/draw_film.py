"""Draw a film of people who do several things one after the other, to try stclip detect on.

It needs no download, and what is seen in it is known: OUT is a plain mp4 without any boxes, and
next to it <name>.tubes.json has the truth, who does what when, in the format of stclip evaluate
video-map. The small CLIP "puppet", which was trained on such drawings, is made for it.

Examples:
    stclip puppet film --actions walk wave clap
    stclip detect data/puppet_film.mp4 --actions walk wave clap --clip puppet
"""

from pathlib import Path

from stclip.cli import Parser
from stclip.puppet.draw.actions import ACTIONS
from stclip.puppet.draw.film import draw_film


def main(argv: list[str] | None = None) -> int:
    """Draw, and say what was drawn."""
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add("--out", type=Path, default=Path("data/puppet_film.mp4"), help="a new mp4 file")
    add(
        "--actions", nargs="+", required=True, metavar="NAME",
        help=f"what people do, in turn: of {', '.join(ACTIONS)}",
    )  # fmt: skip
    add("--people", type=int, default=3, help="how many")
    add("--seconds", type=float, default=60.0, help="length")
    add("--seed", type=int, default=0, help="equal seeds give equal pictures")
    args = parser.parse_args(argv)
    truth = draw_film(
        args.out, args.actions, people=args.people, seconds=args.seconds, seed=args.seed
    )
    print(f"{args.out}: {args.seconds:g} s, {args.people} people; who does what is in {truth}")
    return 0
