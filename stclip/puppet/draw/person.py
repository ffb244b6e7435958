"""A person of a scene: what they look like, where they are, and how they are drawn in a frame."""

from dataclasses import dataclass, field, replace
from functools import cached_property

from PIL import ImageDraw

from stclip.puppet.draw.chance import Chance
from stclip.puppet.draw.colours import THINGS
from stclip.puppet.draw.figure import (
    Build,
    Outfit,
    Pose,
    draw_arms,
    draw_body,
    place_joints,
)
from stclip.puppet.draw.motion import Action, Curve, Motion, Now, Use
from stclip.puppet.draw.pen import Pen

Extent = tuple[float, float, float, float]

_ANGLES = 9  # the first fields of a pose: arms, legs, lean


@dataclass
class Person:
    """A person performing an action.

    Attributes:
        action: its name.
        motion: the way it is done.
        build: proportions.
        outfit: clothes, hair and skin.
        use: of the props.
        frames: of the scene.
        rate: how far the motion's time goes in one frame.
        start: the motion's time in the first frame.
        stride: figure heights walked in a cycle.
        size: figure height in pixels.
        facing: 1 to the right, -1 to the left.
        x, ground: of the place on the ground, in pixels.
        curve: the poses over time.
    """

    action: str
    motion: Motion
    build: Build
    outfit: Outfit
    use: Use
    frames: int
    rate: float
    start: float
    stride: float
    curve: Curve = field(repr=False)
    size: float = 60.0
    facing: int = 1
    x: float = 80.0
    ground: float = 104.0

    @property
    def shirt(self) -> str:
        """The shirt's colour by name."""
        return self.outfit.shirt

    @property
    def trousers(self) -> str:
        """The trousers' or skirt's colour by name."""
        return self.outfit.trousers

    @property
    def hair(self) -> str:
        """The hair's colour by name; "no" for somebody bald."""
        return "no" if self.outfit.cut == "bald" else self.outfit.hair

    def now(self, frame: int) -> Now:
        """Where the joints are in a frame; figure heights around the person's place."""
        time = self.start + self.rate * frame
        if self.motion.cycle is None:
            time = min(1.0, max(0.0, time))
        return self.at(time, self._walked(frame))

    def _walked(self, frame: int) -> float:
        return self.stride * self.rate * (frame - (self.frames - 1) / 2)

    def at(self, time: float, walked: float = 0.0) -> Now:
        """Where the joints are at one of the motion's times, ``walked`` figure heights ahead."""
        motion = self.motion
        joints = place_joints(self.curve(time), self.build, motion.front, motion.planted)
        if walked:
            joints = joints.moved(walked, 0.0)
        if motion.adjust is not None:
            joints = motion.adjust(Now(joints, time, self.use), self.build)
        return Now(joints, time, self.use)

    def reach(self) -> list[Extent]:
        """In some frames: the body's extent in figure heights, x1, y1, x2, y2 with y upwards."""
        walks = [self._walked(frame) for frame in self._some_frames]
        return [
            (x1 + walked, y1, x2 + walked, y2)
            for (x1, y1, x2, y2), walked in zip(self._reach, walks, strict=True)
        ]

    @cached_property
    def _some_frames(self) -> list[int]:
        return [round(part * (self.frames - 1) / 5) for part in range(6)]

    @cached_property
    def _reach(self) -> list[Extent]:
        """The same without walking."""
        extents = []
        for frame in self._some_frames:
            walked = self._walked(frame)
            joints = self.now(frame).joints.moved(-walked, 0.0)
            xs, ys = [p[0] for p in joints[:15]], [p[1] for p in joints[:15]]
            head = joints.head
            extents.append(
                (
                    min(min(xs) - 0.04, head[0] - 0.1),
                    min(ys) - 0.03,
                    max(max(xs) + 0.05, head[0] + 0.1),
                    max(max(ys) + 0.03, head[1] + 0.1),
                )
            )
        return extents

    def _pen(self, draw: ImageDraw.ImageDraw, shift: tuple[float, float]) -> Pen:
        return Pen(draw, self.x + shift[0], self.ground + shift[1], self.size, self.facing)

    def draw_behind(
        self, draw: ImageDraw.ImageDraw, frame: int, shift: tuple[float, float]
    ) -> None:
        """Draw the props behind the body, with the arguments of ``draw``."""
        if self.motion.behind is not None:
            self.motion.behind(self._pen(draw, shift), self.now(frame))

    def draw(self, draw: ImageDraw.ImageDraw, frame: int, shift: tuple[float, float]) -> list[int]:
        """Draw the person and what they hold.

        Args:
            draw: of the canvas.
            frame: from 0.
            shift: of the whole picture, in pixels of the frame.

        Returns:
            x1, y1, x2, y2 of the body, in pixels of the canvas.
        """
        now, motion = self.now(frame), self.motion
        body, props = self._pen(draw, shift), self._pen(draw, shift)
        draw_body(body, now.joints, self.build, self.outfit, motion.front)
        if motion.held is not None:
            motion.held(props, now)
        draw_arms(body, now.joints, self.build, self.outfit, motion.front)
        if motion.before is not None:
            motion.before(props, now)
        return body.extent


def plan_person(
    chance: Chance,
    action: Action,
    frames: int,
    look: str,
    apart: bool = False,
    like: Person | None = None,
) -> Person:
    """Somebody doing ``action``, with everything but their place chosen.

    Args:
        chance: chooses.
        action: what is done.
        frames: of the scene.
        look: one of LOOKS.
        apart: objects that reveal the action are far from the body where plausible.
        like: whose build and clothes the person has.
    """
    motions = action.motions
    if apart and any(motion.apart for motion in motions):
        motions = tuple(motion for motion in motions if motion.apart)
    motion = chance.choice(motions)
    distances = motion.apart if apart and motion.apart else motion.distance
    colour, trim = chance.choice(THINGS[look])
    use = Use(
        colour=chance.near(colour, 10),
        trim=chance.near(trim, 10),
        style=chance.uniform(0, 1),
        distance=chance.uniform(*distances),
    )
    temper = chance.uniform(*motion.tempers)
    offsets = [chance.uniform(-5, 5) * min(1.0, 8 * abs(temper - 1)) for _ in range(_ANGLES)]
    keys = [(time, _varied(key, temper, offsets)) for time, key in motion.keys]
    if motion.cycle is not None:
        rate = 1 / chance.uniform(*motion.cycle)
        start = chance.uniform(0, 1)
    else:
        low, high = motion.apart_span if apart and motion.apart_span else motion.span
        # The motion begins up to a fifth after the clip, or is under way, and likewise at its end.
        low += (high - low) * chance.uniform(-0.2, 0.08)
        high += (high - low) * chance.uniform(-0.08, 0.2)
        rate, start = (high - low) / max(1, frames - 1), low
    person = Person(
        action=action.name,
        motion=motion,
        build=like.build if like else Build.draw(chance),
        outfit=like.outfit if like else Outfit.draw(chance, look, action.hair_shows),
        use=use,
        frames=frames,
        rate=rate,
        start=start,
        stride=motion.stride,
        curve=Curve(keys, motion.cycle is not None),
    )
    if motion.touch is not None:
        time, where = motion.touch
        person.use = replace(use, touch=where(person.at(time).joints))
    return person


def _varied(pose: Pose, temper: float, offsets: list[float]) -> Pose:
    """The pose with larger or smaller angles; those that are zero nearly stay so."""
    angles = [temper * value + extra for value, extra in zip(pose, offsets, strict=False)]
    return Pose(*angles, *pose[_ANGLES:])
