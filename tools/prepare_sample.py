"""Draw the sample dataset and a small CLIP with random weights, so that all runs without downloads.

Example:
    python tools/prepare_sample.py --out data/sample
    python tools/train_net.py --config-file configs/sample/split_1.yaml
"""

import argparse
import shutil
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file

from stclip.cli import Parser, run
from stclip.data.sample import draw_sample
from stclip.errors import UserError
from stclip.files import atomic_path
from stclip.models.clip import CLIP

CLIP_FILE = "clip_tiny.safetensors"


def main(argv: list[str] | None = None) -> int:
    """Write the folder, whole or not at all."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="data/sample", type=Path, help="a folder not there yet")
    parser.add_argument("--seed", default=0, type=int, help="equal seeds give equal files")
    args = parser.parse_args(argv)
    out: Path = args.out
    if args.seed < 0:
        raise UserError(f"--seed: a number not below 0 expected, found {args.seed}")
    if out.exists():
        raise UserError(f"{out} exists already; remove it to have it drawn anew, or pass --out")
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".tmp-sample-", dir=out.parent))
    try:
        temporary.chmod(0o755)
        draw_sample(temporary, args.seed)
        with atomic_path(temporary / CLIP_FILE) as path:
            save_file(random_clip(args.seed).state_dict(), path)
        temporary.rename(out)
    except BaseException:  # an interrupt too must leave no half of a dataset
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    print(f"{out}: sample dataset in jhmdb/, random CLIP in {CLIP_FILE}")
    return 0


def random_clip(seed: int) -> CLIP:
    """A CLIP small enough for a CPU, with weights that were never trained."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CLIP(
            image_size=112,
            patch_size=16,
            vision_width=128,
            vision_layers=3,
            text_width=128,
            text_layers=2,
            embed_dim=128,
        )


if __name__ == "__main__":
    run(main)
