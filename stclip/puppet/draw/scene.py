"""A drawn scene: some people, each with an action, before a backdrop, filmed by a camera."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from PIL import Image, ImageDraw

from stclip.puppet.draw.actions import ACTIONS, EXTRA_ACTIONS
from stclip.puppet.draw.backdrop import MARGIN, PLACES, draw_backdrop
from stclip.puppet.draw.chance import Chance
from stclip.puppet.draw.colours import LOOKS
from stclip.puppet.draw.pen import HEIGHT as HEIGHT
from stclip.puppet.draw.pen import SCALE
from stclip.puppet.draw.pen import WIDTH as WIDTH
from stclip.puppet.draw.person import Extent, Person, plan_person

MOST_PEOPLE = 5

Box = tuple[int, int, int, int]

# Smallest and largest figure height in pixels, by the number of people.
SIZES = {1: (48, 90), 2: (46, 86), 3: (42, 72), 4: (38, 64), 5: (38, 62)}
_TRIES = 20  # at placing the people


@dataclass
class Scene:
    """Some seconds of people doing things.

    Attributes:
        people: the main person first.
        place: a word for the backdrop.
        frames: how many.
        shifts: how the camera has moved the picture in each frame, in pixels.
        backdrop: the enlarged picture behind the people.
    """

    people: list[Person]
    place: str
    frames: int
    shifts: list[tuple[float, float]] = field(repr=False)
    backdrop: Image.Image = field(repr=False)

    @property
    def actions(self) -> tuple[str, ...]:
        """What each person does, the main person first."""
        return tuple(person.action for person in self.people)

    def draw(self, frame: int) -> tuple[Image.Image, list[Box]]:
        """Draw one frame.

        Args:
            frame: from 0 to ``frames`` - 1.

        Returns:
            A picture of WIDTH x HEIGHT pixels and for every person the box of the body without
            props, xyxy in pixels.

        Raises:
            IndexError: the scene has no such frame.
        """
        if not 0 <= frame < self.frames:
            raise IndexError(f"frame {frame} of a scene with {self.frames}")
        cast = [(person, frame) for person in self.people]
        return draw_people(self.backdrop, self.shifts[frame], cast)


def draw_people(
    backdrop: Image.Image, shift: tuple[float, float], cast: Sequence[tuple[Person, int]]
) -> tuple[Image.Image, list[Box]]:
    """One picture of some people.

    Args:
        backdrop: the enlarged picture behind them.
        shift: how the camera has moved the picture, in pixels.
        cast: the people, and the frame of each one's motion.

    Returns:
        As ``Scene.draw``.
    """
    left, top = (round(SCALE * (MARGIN - moved)) for moved in shift)
    canvas = backdrop.crop((left, top, left + SCALE * WIDTH, top + SCALE * HEIGHT))
    draw = ImageDraw.Draw(canvas)
    boxes: list[Box] = [(0, 0, 0, 0)] * len(cast)
    # A person further down in the picture is nearer and hides the others; stairs and tables
    # hide nobody, or a person might never be seen.
    order = sorted(range(len(cast)), key=lambda i: cast[i][0].ground)
    for index in order:
        person, frame = cast[index]
        person.draw_behind(draw, frame, shift)
    for index in order:
        person, frame = cast[index]
        boxes[index] = _clip(person.draw(draw, frame, shift))
    return canvas.reduce(SCALE), boxes


def plan_scene(
    rng: random.Random,
    actions: Sequence[str],
    frames: int,
    look: str = "benchmark",
    apart: bool = False,
) -> Scene:
    """Plan a scene; drawing it needs no more randomness.

    Args:
        rng: chooses everything else; equal states give equal pixels.
        actions: of the main person, then of up to four others; keys of ACTIONS or EXTRA_ACTIONS.
        frames: how many, at least 2.
        look: one of LOOKS; they differ in colours, and in what stands about.
        apart: objects that reveal the main person's action are far from the body where plausible.

    Raises:
        ValueError: an action, a look or a number that there is not.
    """
    known = {**ACTIONS, **EXTRA_ACTIONS}
    unknown = [name for name in actions if name not in known]
    if unknown:
        raise ValueError(f"no such action: {', '.join(unknown)}; there are {', '.join(known)}")
    if not 1 <= len(actions) <= MOST_PEOPLE:
        raise ValueError(f"{len(actions)} actions; a scene has 1 to {MOST_PEOPLE} people")
    if look not in LOOKS:
        raise ValueError(f"no such look: {look!r}; there are {', '.join(LOOKS)}")
    if frames < 2:
        raise ValueError(f"{frames} frames; a scene has at least 2")
    chance = Chance(rng)
    place = chance.choice(PLACES)
    clutter = chance.below(4) + (look == "pretrain" and chance.happens(0.4))
    backdrop = draw_backdrop(chance, place, look, int(clutter))
    shifts = move_camera(chance, frames)
    people = [
        plan_person(chance, known[name], frames, look, apart and index == 0)
        for index, name in enumerate(actions)
    ]
    _place(chance, people, max(abs(x) for x, _ in shifts))
    return Scene(people, place, frames, shifts, backdrop)


def move_camera(chance: Chance, frames: int) -> list[tuple[float, float]]:
    """How far the picture is moved in every frame: a trembling hand, now and then a slow pan."""
    tremble = chance.choice((0.0, 0.5, 1.0, 2.0))
    pan = chance.uniform(-14, 14) if chance.happens(0.25) else 0.0
    shifts = []
    for frame in range(frames):
        along = pan * (frame / (frames - 1) - 0.5)
        x, y = (chance.uniform(-tremble, tremble) for _ in range(2))
        # Halves of a pixel are whole pixels of the canvas.
        shifts.append((round(SCALE * (along + x)) / SCALE, round(SCALE * y) / SCALE))
    return shifts


def _place(chance: Chance, people: list[Person], sway: float) -> None:
    """Choose sizes and places so that all are seen and few hide one another.

    Args:
        chance: chooses.
        people: who are placed.
        sway: how far the camera moves the picture sideways, in pixels.
    """
    best, least = None, float("inf")
    for _ in range(_TRIES if len(people) > 1 else 1):
        _arrange(chance, people, sway)
        crowding = _crowding(people)
        if crowding < least:
            least = crowding
            best = [(p.size, p.facing, p.x, p.ground, p.stride) for p in people]
        if least < 0.12:
            break
    assert best is not None
    for person, (size, facing, x, ground, stride) in zip(people, best, strict=True):
        person.size, person.facing, person.x = size, facing, x
        person.ground, person.stride = ground, stride


def _arrange(chance: Chance, people: list[Person], sway: float) -> None:
    low, high = SIZES[len(people)]
    slots = chance.shuffled(range(len(people)))
    for person, slot in zip(people, slots, strict=True):
        size = chance.uniform(low, high)
        ground = 86 + 26 * (size - 38) / 52 + chance.uniform(-4, 5)
        size = min(size, 0.97 * ground / person.motion.top)
        person.size, person.ground = size, ground
        limit_walk(person, WIDTH / max(1.6, 0.75 * len(people)))
        person.facing = chance.choice((1, -1))
        share = WIDTH / len(people)
        stand(person, share * (slot + 0.5 + chance.uniform(-0.35, 0.35)), sway)


def stand(person: Person, x: float, sway: float) -> None:
    """Put somebody near ``x``, turned so that the props fit into the frame.

    Args:
        person: whose size is chosen.
        x: in pixels.
        sway: how far the camera moves the picture sideways, in pixels.
    """
    size, facing = person.size, person.facing
    reach = person.reach()
    left, right = size * min(e[0] for e in reach), size * max(e[2] for e in reach)
    room = size * (person.use.distance + person.motion.room)
    ahead = right + room if person.motion.stride else max(right, room)
    if ahead > right and not _fits(x, facing, left, ahead) and _fits(x, -facing, left, ahead):
        facing = -facing
    person.facing = facing
    # A small part of a body may be outside the frame, and a prop if it is far.
    edge = 0.06 * size - sway
    person.x = _clamped(x, facing, left + edge, min(ahead, right + size) - edge)


def limit_walk(person: Person, widest: float) -> None:
    """Shorten the stride so that the way through the clip is not longer than ``widest`` pixels."""
    if person.motion.stride:
        cycles = person.rate * (person.frames - 1)
        person.stride = min(person.motion.stride, widest / (cycles * person.size))


def _fits(x: float, facing: int, left: float, right: float) -> bool:
    ends = (x + facing * left, x + facing * right)
    return min(ends) >= 0 and max(ends) <= WIDTH


def _clamped(x: float, facing: int, left: float, right: float) -> float:
    """``x`` moved so that what reaches from ``left`` to ``right`` of it lies in the frame."""
    low, high = (left, right) if facing > 0 else (-right, -left)
    if high - low >= WIDTH:
        return WIDTH / 2 - (low + high) / 2
    return min(WIDTH - high, max(-low, x))


def _crowding(people: list[Person]) -> float:
    """The largest IoU of two bodies at one time."""
    worst = 0.0
    for index, first in enumerate(people):
        for second in people[:index]:
            for a, b in zip(_extents(first), _extents(second), strict=True):
                worst = max(worst, _overlap(a, b))
    return worst


def _extents(person: Person) -> list[Extent]:
    extents = []
    for x1, y1, x2, y2 in person.reach():
        ends = (person.x + person.facing * person.size * x for x in (x1, x2))
        low, high = sorted(ends)
        extents.append(
            (low, person.ground - person.size * y2, high, person.ground - person.size * y1)
        )
    return extents


def _overlap(a: Extent, b: Extent) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def _clip(extent: Sequence[int]) -> Box:
    """From pixels of the canvas to a box of the frame."""
    x1, y1, x2, y2 = extent
    return (
        max(0, x1 // SCALE),
        max(0, y1 // SCALE),
        min(WIDTH - 1, -(-x2 // SCALE)),
        min(HEIGHT - 1, -(-y2 // SCALE)),
    )
