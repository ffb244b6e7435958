"""Draw Puppet, the benchmark of drawn people, in J-HMDB's layout. Needs no download.

The settings are datasets of their own: standard (one to three people, data/puppet), crowd (four or
five, data/puppet_crowd), context (what tells the action is far from the body,
data/puppet_context) and camera (standard scenes as a cheap camera films them,
data/puppet_camera).

Examples:
    stclip puppet draw
    stclip puppet draw --setting crowd --test-clips 10
    stclip train --config-file puppet/split_1
"""

import time
from pathlib import Path

from stclip.cli import Parser
from stclip.data.jhmdb import CLASSES
from stclip.files import shipped
from stclip.puppet.draw.dataset import draw_puppet
from stclip.puppet.draw.settings import SETTINGS


def main(argv: list[str] | None = None) -> int:
    """Draw, and say what was drawn."""
    parser = Parser(description=__doc__)
    parser.add_argument(
        "--out", type=Path, help="a new folder (default: data/<name of the setting>)"
    )
    parser.add_argument(
        "--setting", default="standard", choices=tuple(SETTINGS), help="which dataset"
    )
    parser.add_argument("--seed", default=0, type=int, help="equal seeds give equal pixels")
    parser.add_argument(
        "--train-clips", default=96, type=int, help="training clips of each of the 21 classes"
    )
    parser.add_argument("--test-clips", default=40, type=int, help="test clips of each class")
    parser.add_argument(
        "--workers", type=int, help="processes that draw (default: one for each core)"
    )
    args = parser.parse_args(argv)
    out: Path = args.out or Path("data", SETTINGS[args.setting].folder)
    start = time.perf_counter()
    summary = draw_puppet(
        out,
        setting=args.setting,
        train_clips=args.train_clips,
        test_clips=args.test_clips,
        seed=args.seed,
        workers=args.workers,
        label_splits=shipped("data/label_splits"),
    )
    seconds = time.perf_counter() - start
    classes = len(CLASSES)
    print(
        f"{out}: setting {args.setting}, {classes} classes, {classes * args.train_clips} training "
        f"and {classes * args.test_clips} test clips, {summary['frames']:,} frames with "
        f"{summary['boxes']:,} person boxes in {summary['frame_bytes'] / 1e6:.0f} MB, "
        f"{seconds:.0f} s ({summary['frames'] / seconds:.0f} frames a second)"
    )
    print(f"pixels SHA-256 {summary['pixels_sha256']}")
    return 0
