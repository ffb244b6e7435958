"""What Puppet's settings are, and which clips each of them has: names, actions, lengths, seeds."""

import random
from dataclasses import dataclass

from stclip.data.jhmdb import CLASSES
from stclip.data.labels import Part
from stclip.puppet.draw.chance import Chance

PARTS: tuple[Part, Part] = ("train", "test")
# Test clips are numbered from here, so that no name depends on how many training clips there are.
FIRST_NUMBER = {"train": 1, "test": 5001}
MAX_CLIPS = 4999  # of a class and part
FRAMES = (15, 40)  # fewest and most of a clip


@dataclass(frozen=True)
class Setting:
    """A kind of scene; each has a folder, and a name in DATASETS.TRAIN and DATASETS.TEST.

    Attributes:
        folder: what both are called.
        others: numbers of persons beside the main one, each as likely.
        alone: how often there is no other person instead.
        other_action: how often another person does not do what the main person does.
        distinct: no two persons do the same.
        apart: the prop that tells the action is far from the body.
        camera: a cheap camera films the scene (camera.py).
    """

    folder: str
    others: tuple[int, ...]
    alone: float = 0.0
    other_action: float = 1.0
    distinct: bool = False
    apart: bool = False
    camera: bool = False

    @property
    def ending(self) -> str:
        """The ending of the frames' files."""
        return "jpg" if self.camera else "png"


SETTINGS = {
    "standard": Setting("puppet", (1, 2), alone=0.1, other_action=0.85),
    "crowd": Setting("puppet_crowd", (3, 4), distinct=True),
    "context": Setting("puppet_context", (1,), alone=0.5, apart=True),
    "camera": Setting("puppet_camera", (1, 2), alone=0.1, other_action=0.85, camera=True),
}


@dataclass(frozen=True)
class ClipPlan:
    """One clip before it is drawn.

    Attributes:
        seed: of the dataset.
        setting: a key of SETTINGS.
        part: train or test.
        action: of the main person.
        number: of the clip, which no other clip of the action has.
    """

    seed: int
    setting: str
    part: Part
    action: str
    number: int

    @property
    def name(self) -> str:
        """The name of the video."""
        return f"{self.action}_{self.number:04d}"

    def random(self, purpose: str = "") -> random.Random:
        """A generator that belongs to this clip alone, and to one purpose."""
        words = (self.seed, self.setting, self.part, self.action, self.number)
        return random.Random("/".join(map(str, words + ((purpose,) if purpose else ()))))


def plan_clips(setting: str, train_clips: int, test_clips: int, seed: int) -> list[ClipPlan]:
    """All clips: the training clips first, by class within a part."""
    counts = {"train": train_clips, "test": test_clips}
    return [
        ClipPlan(seed, setting, part, action, FIRST_NUMBER[part] + index)
        for part in PARTS
        for action in CLASSES
        for index in range(counts[part])
    ]


def choose_frames(rng: random.Random) -> int:
    """The length of a clip, 25 frames on average."""
    share = Chance(rng).uniform(0, 1)
    return FRAMES[0] + int((FRAMES[1] - FRAMES[0] + 1) * (share + share * share) / 2)


def choose_actions(rng: random.Random, setting: Setting, main: str) -> tuple[str, ...]:
    """What the persons of a clip do, the main person first."""
    chance = Chance(rng)
    others = 0 if chance.happens(setting.alone) else chance.choice(setting.others)
    actions = [main]
    for _ in range(others):
        taken = actions if setting.distinct else [main]
        other = chance.choice([action for action in CLASSES if action not in taken])
        actions.append(other if chance.happens(setting.other_action) else main)
    return tuple(actions)
