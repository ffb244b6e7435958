"""Pre-training of a small CLIP on pairs of pictures and texts: a good start, the losses, the loop.

Shape letters: N pictures, B pairs of a picture and a text, A actions, S side of a picture in
pixels, L patch tokens, W width, T text positions.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from stclip.engine.checkpoint import not_finite
from stclip.engine.optim import learning_rate, load_optimizer
from stclip.errors import UserError
from stclip.files import atomic_path
from stclip.models.clip import CLIP, normalize_pixels
from stclip.models.tensor_files import read_tensors

logger = logging.getLogger(__name__)

_LOGGED_EVERY = 100
_LARGEST_SCALE = 100.0  # as in CLIP's own training


@dataclass(frozen=True)
class Pairs:
    """Pictures and a text for each.

    Attributes:
        pictures: (B, 3, S, S) uint8.
        tokens: (B, T) long.
        shown: (B, A) bool, the actions that each picture shows.
        named: (B, A) bool, the actions that each text names, all of them shown.
    """

    pictures: Tensor
    tokens: Tensor
    shown: Tensor
    named: Tensor


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
        steps: batches of pairs.
        rate: AdamW's largest learning rate; it rises in 5 % of the steps and falls along a cosine.
        weight_decay: of matrices; vectors have none.
        helped: the part of the steps in which a classifier of actions helps the picture tower.
        seed: of the pictures' variations.
    """

    steps: int
    rate: float = 1e-3
    weight_decay: float = 0.05
    helped: float = 0.6
    seed: int = 0


class Pretrainer:
    """Trains a CLIP and can be interrupted.

    Args:
        clip: is trained in place.
        actions: A.
        recipe: how.
        checkpoint: the file that holds the state of an interrupted training.
    """

    def __init__(self, clip: CLIP, actions: int, recipe: Recipe, checkpoint: Path) -> None:
        self.clip, self._recipe, self._checkpoint = clip, recipe, checkpoint
        self._classifier = nn.Linear(clip.embed_dim, actions)
        self._trained = nn.ModuleList([clip, self._classifier])
        parameters = list(self._trained.parameters())
        matrices = [p for p in parameters if p.ndim > 1]
        vectors = [p for p in parameters if p.ndim <= 1]
        self._optimizer = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": recipe.weight_decay},
                {"params": vectors, "weight_decay": 0.0},
            ],
            lr=recipe.rate,
            betas=(0.9, 0.98),
        )
        self.step, self.seconds = 0, 0.0

    def resume(self) -> None:
        """Continue from the checkpoint, if there is one.

        Raises:
            UserError: it is of another model or recipe.
        """
        if not self._checkpoint.exists():
            return
        content = read_tensors(self._checkpoint)
        kinds = {"recipe": dict, "model": dict, "optimizer": dict, "step": int, "seconds": float}
        held = content if isinstance(content, dict) else {}
        wrong = [name for name, kind in kinds.items() if not isinstance(held.get(name), kind)]
        if wrong:
            raise UserError(
                f"{self._checkpoint}: found no usable {', '.join(wrong)}, expected the state of a "
                "pre-training: remove the file to start again"
            )
        if content["recipe"] != vars(self._recipe):
            raise UserError(
                f"{self._checkpoint}: found {content['recipe']}, expected {vars(self._recipe)}; "
                "remove the file or pass the options that it was made with"
            )
        try:
            self._trained.load_state_dict(content["model"])
        except (RuntimeError, TypeError) as error:
            reason = str(error).strip().splitlines()[-1].strip()
            raise UserError(f"{self._checkpoint}: found other weights: {reason}") from error
        load_optimizer(self._optimizer, content["optimizer"], str(self._checkpoint))
        self.step, self.seconds = content["step"], content["seconds"]
        logger.info("continuing at step %d", self.step)

    def save(self) -> None:
        """Write the checkpoint, whole or not at all.

        Raises:
            UserError: training has diverged, or the file cannot be written; an older one is kept.
        """
        broken = not_finite(self._trained, self._optimizer)
        if broken is not None:
            raise UserError(
                f"{self._checkpoint}: step {self.step}: {broken}: training has diverged; not saved"
            )
        content = {
            "recipe": vars(self._recipe),
            "model": self._trained.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
        }
        with atomic_path(self._checkpoint) as path:
            torch.save(content, path)

    def run(self, pairs: Callable[[int], Pairs], until: int | None = None) -> None:
        """Train up to a step, by default to the end.

        Args:
            pairs: gives the batch of a step, which must depend on nothing but the step.
            until: the step to stop before.
        """
        last = self._recipe.steps if until is None else min(until, self._recipe.steps)
        self._trained.train()
        losses: list[float] = []
        with tqdm(total=self._recipe.steps, initial=self.step, desc="training") as bar:
            while self.step < last:
                started = time.perf_counter()
                losses.append(self._train_on(pairs(self.step)))
                self.step += 1
                self.seconds += time.perf_counter() - started
                bar.update()
                if self.step % _LOGGED_EVERY == 0:
                    mean = sum(losses) / len(losses)
                    bar.set_postfix_str(f"loss {mean:.3f}", refresh=False)
                    logger.info("step %d  loss %.4f  %.0f s", self.step, mean, self.seconds)
                    losses.clear()
        self._trained.eval()

    def _train_on(self, batch: Pairs) -> float:
        recipe, clip = self._recipe, self.clip
        rate = learning_rate(
            self.step,
            base_lr=recipe.rate,
            schedule="cosine",
            max_iter=recipe.steps,
            warmup_iters=recipe.steps // 20,
            warmup_factor=0.01,
        )
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + self.step)
        pictures = varied(batch.pictures, generator)
        features = clip.encode_image(pictures)
        texts = F.normalize(encode_by_length(clip, batch.tokens), dim=-1)
        logits = clip.logit_scale.exp() * F.normalize(features, dim=-1) @ texts.T
        loss = contrastive_loss(logits, matches(batch.named, batch.shown))
        total = loss
        if self.step < recipe.helped * recipe.steps:
            total = loss + action_loss(self._classifier, features, batch.shown)
        self._optimizer.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(self._trained.parameters(), 1.0)
        self._optimizer.step()
        with torch.no_grad():
            clip.logit_scale.clamp_(max=torch.tensor(_LARGEST_SCALE).log())
        return loss.item()


def encode_by_length(clip: CLIP, tokens: Tensor, groups: int = 4) -> Tensor:
    """What ``clip.encode_text`` gives for tokens (B, T): (B, E), short texts apart from long ones.

    Most captions are short, and within a group all are computed as long as its longest.
    """
    order = tokens.argmax(dim=1).argsort(stable=True)  # end-of-text has the largest id
    features = torch.cat([clip.encode_text(tokens[rows]) for rows in order.chunk(groups)])
    return features[order.argsort()]


def varied(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Normalise pictures, mirror half of them, and change their colours a little.

    Args:
        pictures: (B, 3, S, S) uint8.
        generator: chooses.

    Returns:
        (B, 3, S, S) float32.
    """
    count = len(pictures)
    mirrored = torch.rand(count, 1, 1, 1, generator=generator) < 0.5
    gain = 0.8 + 0.4 * torch.rand(count, 3, 1, 1, generator=generator)
    level = 0.3 * (2 * torch.rand(count, 3, 1, 1, generator=generator) - 1)
    pictures = torch.where(mirrored, pictures.flip(-1), pictures)
    return normalize_pixels(pictures).mul_(gain).add_(level)


@torch.no_grad()
def prepare(clip: CLIP, pictures: Tensor) -> None:
    """Initialise both towers so that they learn fast: whitened patches and sine-cosine positions.

    A transformer of this size that starts from noise sees nothing but the average colour of a
    picture for tens of thousands of samples. Here the patch convolution gives the W largest
    principal components of the patches, each with variance 1, so that small differences (a hand, a
    ball) count as much as the background; and positions differ from the start. The mean patch,
    which a convolution without bias cannot subtract, is subtracted from the positions.

    Args:
        clip: is changed in place.
        pictures: (N, 3, S, S) uint8, some hundreds of those to learn from.
    """
    visual = clip.visual
    size, width = visual.patch_size, visual.conv1.out_channels
    patches = F.unfold(normalize_pixels(pictures), size, stride=size)  # (N, 3 size**2, L)
    patches = patches.transpose(1, 2).flatten(0, 1)
    mean = patches.mean(dim=0)
    variance, directions = torch.linalg.eigh((patches - mean).T.cov())  # ascending
    variance, directions = variance[-width:], directions[:, -width:]
    # The smallest of them are noise, which must not be blown up.
    weight = (directions / (variance + 1e-3 * variance.max()).sqrt()).T
    visual.conv1.weight.copy_(weight.view_as(visual.conv1.weight))
    visual.positional_embedding.zero_()  # the class token's stays so
    side = visual.image_size // size
    visual.positional_embedding[1:] = grid_positions(side, width) - weight @ mean
    clip.positional_embedding.copy_(0.1 * line_positions(*clip.positional_embedding.shape))


def line_positions(length: int, width: int) -> Tensor:
    """Sines and cosines of wave lengths from 2 pi to 10,000 * 2 pi: (length, width)."""
    rates = 10_000.0 ** (-torch.arange(width // 2) / (width // 2))
    angles = torch.arange(length)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def grid_positions(side: int, width: int) -> Tensor:
    """Positions in a square, row by row: (side**2, width); half tells the row, half the column."""
    line = line_positions(side, width // 2)
    return torch.cat([line.repeat_interleave(side, dim=0), line.repeat(side, 1)], dim=1)


def matches(named: Tensor, shown: Tensor) -> Tensor:
    """Which texts are true of which pictures, as far as actions go.

    Args:
        named: (B, A) bool, the actions that each text names.
        shown: (B, A) bool, the actions that each picture shows.

    Returns:
        (B, B) bool, pictures by texts: whether all that the text names is shown.
    """
    absent = (~shown).float() @ named.float().T
    return absent == 0


def contrastive_loss(logits: Tensor, match: Tensor) -> Tensor:
    """CLIP's loss where several texts may be true of a picture, and the other way round.

    Cross-entropy in both directions, with all matches equally likely. With one match each (the
    diagonal) it is CLIP's own loss.

    Args:
        logits: (B, B), pictures by texts.
        match: (B, B) bool; every row and column has a match.

    Returns:
        The loss, a scalar.
    """
    weight = match.float()
    of_texts = -(F.log_softmax(logits, 1) * weight).sum(1) / weight.sum(1)
    of_pictures = -(F.log_softmax(logits, 0) * weight).sum(0) / weight.sum(0)
    return (of_texts.mean() + of_pictures.mean()) / 2


def action_loss(classifier: nn.Linear, features: Tensor, shown: Tensor) -> Tensor:
    """Cross-entropy of what a linear classifier reads from picture features, texts aside.

    Args:
        classifier: (E) to (A).
        features: (B, E).
        shown: (B, A) bool, the actions that each picture shows, at least one.

    Returns:
        The loss, a scalar.
    """
    weight = shown.float()
    return F.cross_entropy(classifier(features), weight / weight.sum(1, keepdim=True))
