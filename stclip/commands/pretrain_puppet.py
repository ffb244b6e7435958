"""Train the small CLIP that comes with the package, on drawn pictures with captions.

Run again, it continues where it was interrupted. The pictures come from other random streams, looks
and actions than the benchmark's clips, none of which is drawn here. Next to the weights (float16)
a card, .md, says how they were made and what they can do.

Examples:
    stclip puppet pretrain --out stclip/assets/puppet_clip.safetensors
"""

import argparse
import logging
import os
import platform
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from stclip.cli import Parser
from stclip.data.labels import read_label_file
from stclip.engine.events import setup_logging
from stclip.errors import UserError
from stclip.files import atomic_path, locked, shipped, write_text
from stclip.models.clip import CLIP, CLIPSizes, normalize_pixels
from stclip.models.formats import name_tokens
from stclip.models.tokenizer import tokenize
from stclip.puppet.draw.captions import all_words, write_caption
from stclip.puppet.pretrain import Pairs, Pretrainer, Recipe, prepare
from stclip.puppet.pretraining_pictures import ALL_ACTIONS, Cache, Trial, draw_cache, draw_trial

LABELS = shipped("data/label_splits/jhmdb")
SIZES = {
    "image_size": 112,
    "patch_size": 16,
    "vision_width": 128,
    "vision_layers": 4,
    "text_width": 128,
    "text_layers": 2,
    "embed_dim": 128,
}
BATCH = 64
VOCABULARY = 49408
SCENES_PER_ACTION = 30
SAVED_EVERY = 500
TRIALS = {
    "same look, alone": ("pretrain", False),
    "same look, with others": ("pretrain", True),
    "benchmark's look, alone": ("benchmark", False),
    "benchmark's look, with others": ("benchmark", True),
}

logger = logging.getLogger("stclip.pretrain_clip")


@dataclass(frozen=True)
class Result:
    """How often the right one of some names comes first, in percent."""

    frame: float
    crop: float


def main(argv: list[str] | None = None) -> int:
    """Draw, train, try and write."""
    parser = Parser(description=__doc__)
    parser.add_argument(
        "--out", required=True, type=Path, metavar="FILE", help="FILE.safetensors, the weights"
    )
    parser.add_argument(
        "--work", default="output/pretrain_clip", type=Path, help="folder of interim files"
    )
    parser.add_argument("--samples", default=57600, type=int, help="pictures, of 37.6 kB each")
    parser.add_argument(
        "--steps", default=4500, type=int, help=f"batches of {BATCH} pairs to train on"
    )
    parser.add_argument("--seed", default=0, type=int, help="of pictures and training")
    parser.add_argument(
        "--workers", default=os.cpu_count(), type=int, help="processes that draw, and threads"
    )
    args = parser.parse_args(argv)
    for name, lowest in (("samples", 1), ("steps", 1), ("workers", 1), ("seed", 0)):
        if getattr(args, name) < lowest:
            raise UserError(f"--{name}: {lowest} or more expected, found {getattr(args, name)}")
    if args.out.suffix != ".safetensors":
        raise UserError(f"--out: a name that ends in .safetensors expected, found {args.out}")
    with locked(args.work, "pretrain_clip"):
        setup_logging(args.work)
        torch.set_num_threads(args.workers)
        torch.manual_seed(args.seed)

        started = time.perf_counter()
        size = SIZES["image_size"]
        cache = draw_cache(args.work / "pictures", args.samples, args.seed, size, args.workers)
        drawing = time.perf_counter() - started
        tokens = Tokens.of(cache)
        clip = CLIP(CLIPSizes(**SIZES, vocab_size=len(tokens.ids)))
        prepare(clip, cache.read(range(0, len(cache), -(-len(cache) // 1024))))
        recipe = Recipe(args.steps, seed=args.seed)
        trainer = Pretrainer(clip, len(ALL_ACTIONS), recipe, args.work / "checkpoint.pt")
        trainer.resume()
        while trainer.step < args.steps:
            trainer.run(
                lambda step: make_pairs(cache, tokens, step, args.seed), trainer.step + SAVED_EVERY
            )
            trainer.save()

        trials = {
            name: draw_trial(look, others, SCENES_PER_ACTION, args.seed, size)
            for name, (look, others) in TRIALS.items()
        }
        results = try_names(clip, tokens, trials)
        write_weights(args.out, clip, tokens)
        card = describe(args, cache, tokens, recipe, results, (drawing, trainer.seconds))
        write_text(args.out.with_suffix(".md"), card)
        print("\n".join(table(results)))
        print(f"{args.out}: {args.out.stat().st_size / 1e6:.1f} MB, card next to it")
    return 0


@dataclass(frozen=True)
class Tokens:
    """The token ids that captions use, ascending, and texts in places of this list.

    The places are in the order of the ids, so that end-of-text is still the largest.
    """

    ids: Tensor

    @classmethod
    def of(cls, cache: Cache) -> "Tokens":
        """All tokens of all captions that the pictures can get."""
        people = {looks for shown in cache.shown for looks in shown.people}
        texts = all_words(sorted(people), sorted({shown.place for shown in cache.shown}))
        used = tokenize(texts).unique()
        return cls(used[used > 0])  # 0 is padding, which the text tower never looks at

    def encode(self, texts: Sequence[str]) -> Tensor:
        """(n, T) places of the tokens of n texts, 0 for padding."""
        tokens = tokenize(list(texts))
        places = torch.searchsorted(self.ids, tokens)
        assert ((self.ids[places] == tokens) | (tokens == 0)).all(), "a word is not in all_words"
        return places


def make_pairs(cache: Cache, tokens: Tokens, step: int, seed: int) -> Pairs:
    """The batch of a step: every picture comes once an epoch, each time with another caption."""
    epoch, row = divmod(step, len(cache) // BATCH)
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order = torch.randperm(len(cache), generator=generator)
    indices = order[row * BATCH : (row + 1) * BATCH].tolist()
    rng = random.Random(f"captions/{seed}/{step}")
    shown = [cache.shown[index] for index in indices]
    captions = [write_caption(rng, item.people, item.place) for item in shown]
    return Pairs(
        pictures=cache.read(indices),
        tokens=tokens.encode([caption.text for caption in captions]),
        shown=multi_hot([[looks.action for looks in item.people] for item in shown]),
        named=multi_hot([caption.actions for caption in captions]),
    )


def multi_hot(actions: Sequence[Sequence[str]]) -> Tensor:
    """(n, A) bool: for each item its actions."""
    rows = torch.zeros(len(actions), len(ALL_ACTIONS), dtype=torch.bool)
    for row, names in enumerate(actions):
        rows[row, [ALL_ACTIONS.index(name) for name in names]] = True
    return rows


@torch.inference_mode()
def try_names(
    clip: CLIP, tokens: Tokens, trials: Mapping[str, Trial]
) -> dict[str, dict[str, Result]]:
    """Zero-shot accuracy with bare label names: {trial: {vocabulary: result}}."""
    vocabularies = {
        f"split {n}": read_label_file(LABELS / f"split_{n}" / "test_label.txt") for n in range(1, 5)
    }
    vocabularies["all 21"] = read_label_file(LABELS / "all_label.txt")
    results: dict[str, dict[str, Result]] = {}
    for name, trial in trials.items():
        frames = features(clip, trial.frames)[list(trial.frame_of)]
        crops = features(clip, trial.crops)
        results[name] = {}
        for vocabulary, labels in vocabularies.items():
            texts = F.normalize(clip.encode_text(tokens.encode(labels)), dim=-1)
            rows = [row for row, action in enumerate(trial.actions) if action in labels]
            truth = torch.tensor([labels.index(trial.actions[row]) for row in rows])
            hits = [
                100 * ((views[rows] @ texts.T).argmax(1) == truth).float().mean().item()
                for views in (frames, crops)
            ]
            results[name][vocabulary] = Result(*hits)
    return results


def features(clip: CLIP, pictures: Tensor) -> Tensor:
    """Normalised image features (n, E) of pictures (n, 3, S, S) uint8."""
    parts = [clip.encode_image(normalize_pixels(part)) for part in pictures.split(BATCH)]
    return F.normalize(torch.cat(parts), dim=-1)


def write_weights(path: Path, clip: CLIP, tokens: Tokens) -> None:
    """Write the weights in float16, with the used rows of the token embedding and their ids."""
    state = {name: tensor.half().contiguous() for name, tensor in clip.state_dict().items()}
    state = name_tokens(state, tokens.ids, VOCABULARY)
    with atomic_path(path) as temporary:
        save_file(state, temporary)


def table(results: Mapping[str, Mapping[str, Result]]) -> list[str]:
    """Lines of a Markdown table, frame / crop in percent."""
    vocabularies = list(next(iter(results.values())))
    lines = [
        "| scenes | " + " | ".join(vocabularies) + " |",
        "|---" * (1 + len(vocabularies)) + "|",
    ]
    for name, row in results.items():
        cells = [f"{row[v].frame:.0f} / {row[v].crop:.0f}" for v in vocabularies]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def describe(
    args: argparse.Namespace,
    cache: Cache,
    tokens: Tokens,
    recipe: Recipe,
    results: Mapping[str, Mapping[str, Result]],
    seconds: tuple[float, float],
) -> str:
    """The card: how the weights were made, on what, and what they can do."""
    rng = random.Random(f"card/{args.seed}")
    shown = [cache.shown[int(rng.random() * len(cache))] for _ in range(8)]
    captions = [write_caption(rng, item.people, item.place).text for item in shown]
    examples = "\n".join(f"  - {caption}" for caption in captions)
    rows = "\n".join(table(results))
    return f"""# The small CLIP of this package

`{args.out.name}` ({args.out.stat().st_size / 1e6:.1f} MB) is what `MODEL.CLIP: puppet` loads: a
CLIP of the ordinary architecture, small enough for two cores, for the drawn benchmark Puppet. It is
to Puppet what OpenAI's CLIP is to J-HMDB: it has seen pictures of all kinds of actions with
captions, the benchmark's 21 among them, and no clip of the benchmark. It is of no use for
photographs.

## How it was made

    stclip puppet pretrain --out FILE --samples {args.samples} --steps {args.steps} \\
        --seed {args.seed} --workers {args.workers}

- Model: image tower {SIZES["vision_width"]} wide, {SIZES["vision_layers"]} blocks, patches of
  {SIZES["patch_size"]} pixels at {SIZES["image_size"]}; text tower {SIZES["text_width"]} wide,
  {SIZES["text_layers"]} blocks; joint space {SIZES["embed_dim"]}. {len(tokens.ids)} tokens have a
  vector of their own. All others have the mean of these: words that it never read say nothing.
- Pictures: {len(cache)} of one to four people who do {len(ALL_ACTIONS)} actions, four whole frames
  for each crop of a person, drawn by the benchmark's own program with `look="pretrain"`: other
  clothes, props, backgrounds and clutter, from other random streams. Single frames only: it has
  never seen movement.
- Captions: written anew each time from tables of words, such as
{examples}
- Training: {args.steps} steps of {BATCH} pairs, AdamW, learning rate {recipe.rate:g} with warm-up
  and cosine, weight decay {recipe.weight_decay:g}. CLIP's contrastive loss, in which every text
  that is true of a picture counts as its match; in the first {recipe.helped:.0%} of the steps a
  linear classifier of actions helps. The patch convolution starts as the whitening of the pictures'
  patches, the positions as sines and cosines. Pictures are mirrored and their colours varied.
- Seed {args.seed}; drawing {seconds[0]:.0f} s (next to nothing if the pictures were there),
  training {seconds[1]:.0f} s with {args.workers} threads in float32; Python
  {platform.python_version()}, PyTorch {torch.__version__}.

## What it can do

How often the right name comes first, in percent, whole frame / crop of the person, over all persons
of {SCENES_PER_ACTION} scenes for each action that belong neither to the training nor to the
benchmark. The names are the bare labels (`brush_hair`). Each split has its 6 unseen names
(chance: 17); all 21 names (chance: 5). A frame of several people does not tell whose action is
asked for.

{rows}
"""
