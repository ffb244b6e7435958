"""A film of drawn people who do several things one after the other, and the truth about it.

What ``stclip detect`` is tried on without a download: a video file without any boxes, of people who
stay the same while their actions change.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import av
from PIL import Image

from stclip.data.jhmdb import CLASSES
from stclip.errors import UserError
from stclip.files import atomic_path, write_json
from stclip.puppet.draw.actions import ACTIONS
from stclip.puppet.draw.backdrop import PLACES, draw_backdrop
from stclip.puppet.draw.chance import Chance
from stclip.puppet.draw.person import Person, plan_person
from stclip.puppet.draw.scene import (
    HEIGHT,
    MOST_PEOPLE,
    SIZES,
    WIDTH,
    Box,
    draw_people,
    limit_walk,
    move_camera,
    stand,
)

FPS = 10  # at which the clips of the benchmark look natural
ENLARGED = 3  # person detectors expect people larger than the benchmark's
SHORTEST, LONGEST = 4.0, 7.0  # seconds of an act
_ONCE = (24, 34)  # frames of a motion that happens once, as in the benchmark's clips


class Act(NamedTuple):
    """What a person does for some time.

    Attributes:
        start: the first frame, from 0.
        end: the frame after the last one.
        person: as they look meanwhile, with the action.
        period: frames after which the motion begins again.
    """

    start: int
    end: int
    person: Person
    period: int


@dataclass
class Film:
    """People and what they do.

    Attributes:
        acts: of each person, in order and without gaps.
        frames: how many.
        shifts: how the camera has moved the picture in each frame, in pixels.
        backdrop: the enlarged picture behind the people.
    """

    acts: list[list[Act]]
    frames: int
    shifts: list[tuple[float, float]] = field(repr=False)
    backdrop: Image.Image = field(repr=False)

    def draw(self, frame: int) -> tuple[Image.Image, list[Box]]:
        """One frame, from 0, and the box of each person, as ``Scene.draw`` gives them."""
        now = [next(act for act in acts if frame < act.end) for acts in self.acts]
        cast = [(act.person, (frame - act.start) % act.period) for act in now]
        return draw_people(self.backdrop, self.shifts[frame], cast)


def plan_film(rng: random.Random, actions: Sequence[str], people: int, frames: int) -> Film:
    """Plan a film; drawing it needs no more randomness.

    Args:
        rng: chooses everything else; equal states give equal pixels.
        actions: names of ACTIONS that people do, each person all of them in an order of their own.
        people: how many, up to MOST_PEOPLE.
        frames: of the film.
    """
    chance = Chance(rng)
    backdrop = draw_backdrop(chance, chance.choice(PLACES), "benchmark", chance.below(3))
    shifts = move_camera(chance, frames)
    sway = max(abs(x) for x, _ in shifts)
    slots = chance.shuffled(range(people))
    acts = [_plan_acts(chance, actions, frames, (slot, people), sway) for slot in slots]
    return Film(acts, frames, shifts, backdrop)


def _plan_acts(
    chance: Chance, actions: Sequence[str], frames: int, slot: tuple[int, int], sway: float
) -> list[Act]:
    """The acts of one person, who stays in one part of the picture: a place among so many."""
    # Somebody whose hair shows can do everything.
    same = plan_person(chance, ACTIONS["brush_hair"], frames, "benchmark")
    size = chance.uniform(*SIZES[slot[1]])
    ground = 86 + 26 * (size - 38) / 52 + chance.uniform(-4, 5)
    size = min(size, *(0.97 * ground / m.top for name in actions for m in ACTIONS[name].motions))
    share = WIDTH / slot[1]
    acts: list[Act] = []
    names: list[str] = []
    start = 0
    while start < frames:
        if not names:
            names = chance.shuffled(actions)
            if acts and len(names) > 1 and names[0] == acts[-1].person.action:
                names = [*names[1:], names[0]]
        action = ACTIONS[names.pop(0)]
        end = start + round(FPS * chance.uniform(SHORTEST, LONGEST))
        if frames - end < FPS * SHORTEST:
            end = frames
        period = end - start
        if any(motion.cycle is None for motion in action.motions):
            period = round(chance.uniform(*_ONCE))
        person = plan_person(chance, action, period, "benchmark", like=same)
        person.size, person.ground = size, ground
        person.facing = chance.choice((1, -1))
        limit_walk(person, 0.8 * share)
        stand(person, share * (slot[0] + 0.5), sway)
        acts.append(Act(start, end, person, period))
        start = end
    return acts


def draw_film(
    path: str | Path,
    actions: Sequence[str],
    *,
    people: int = 3,
    seconds: float = 60.0,
    seed: int = 0,
) -> Path:
    """Draw a film into an mp4, and the truth into a file of tubes next to it.

    Args:
        path: of the mp4; must not exist yet.
        actions: names of J-HMDB's classes that people do.
        people: 1 to MOST_PEOPLE.
        seconds: at least SHORTEST.
        seed: equal arguments give equal pictures (before compression).

    Returns:
        The file of tubes: ``<name>.tubes.json``, one tube for each act.

    Raises:
        UserError: an argument cannot be, or a file exists or cannot be written.
    """
    path = Path(path)
    truth = path.with_suffix(".tubes.json")
    _check(path, truth, actions, people, seconds)
    film = plan_film(random.Random(f"film/{seed}"), actions, people, round(seconds * FPS))
    boxes: list[list[Box]] = []
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "18"})
        stream.width, stream.height = ENLARGED * WIDTH, ENLARGED * HEIGHT
        stream.pix_fmt = "yuv420p"
        for number in range(film.frames):
            picture, found = film.draw(number)
            size = stream.width, stream.height
            enlarged = picture.resize(size, Image.Resampling.BICUBIC)
            container.mux(stream.encode(av.VideoFrame.from_image(enlarged)))
            boxes.append(found)
        container.mux(stream.encode())
    tubes = [
        {
            "video": path.stem,
            "label": act.person.action,
            "boxes": [
                [number + 1, *(ENLARGED * value for value in boxes[number][person])]
                for number in range(act.start, act.end)
            ],
        }
        for person, acts in enumerate(film.acts)
        for act in acts
    ]
    lengths = {path.stem: film.frames}
    write_json(truth, {"labels": list(actions), "nframes": lengths, "ground_truth": tubes})
    return truth


def _check(path: Path, truth: Path, actions: Sequence[str], people: int, seconds: float) -> None:
    for taken in (path, truth):
        if taken.exists():
            raise UserError(f"{taken}: exists already; remove it or choose another name")
    if path.suffix != ".mp4":
        raise UserError(f"{path}: a name that ends in .mp4 expected")
    unknown = [name for name in actions if name not in CLASSES]
    if unknown or not actions:
        found = f"no such action: {unknown[0]}" if unknown else "no actions"
        raise UserError(f"--actions: {found}; there are {', '.join(CLASSES)}")
    if not 1 <= people <= MOST_PEOPLE:
        raise UserError(f"--people {people}: 1 to {MOST_PEOPLE} expected")
    if not SHORTEST <= seconds <= 3600:
        raise UserError(f"--seconds {seconds:g}: {SHORTEST:g} to 3600 expected")
