"""How an action moves: key poses over time, what is reached for, and which props are drawn."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from stclip.puppet.draw.chance import Colour
from stclip.puppet.draw.figure import Build, Joints, Pose
from stclip.puppet.draw.pen import Pen, Point

Key = tuple[float, Pose]


@dataclass(frozen=True)
class Use:
    """What one person's props look like and where they are.

    Attributes:
        colour: the main colour.
        trim: a second one.
        style: from 0 to 1, chooses between forms of a prop.
        distance: of what is far from the body, in figure heights ahead.
        touch: where the hands are when the prop leaves them or arrives.
    """

    colour: Colour
    trim: Colour
    style: float
    distance: float
    touch: Point = (0.0, 0.0)


class Now(NamedTuple):
    """One moment of a person.

    Attributes:
        joints: where the joints are.
        time: from 0 to 1 in a motion that happens once; else how many cycles are done.
        use: of the props.
    """

    joints: Joints
    time: float
    use: Use


Prop = Callable[[Pen, Now], None]
Adjust = Callable[[Now, Build], Joints]


@dataclass(frozen=True)
class Motion:
    """One way to do an action.

    Attributes:
        keys: times from 0 to 1 and poses; a cycle goes on from the last to the first.
        cycle: fewest and most frames that a cycle takes; None happens once in a clip.
        front: seen from the front, else from the side.
        planted: the feet keep their place, else the hip.
        stride: figure heights walked in a cycle.
        adjust: changes the joints, for hands or feet that reach for something.
        behind: the props drawn before the body.
        held: the props between the trunk and the arms before it.
        before: the props drawn after the body.
        distance: range of Use.distance.
        apart: the same where the tell-tale prop is to be far from the body.
        touch: the time of Use.touch, and where it is then.
        span: the part of the time that a clip shows, 0 to 1.
        apart_span: the same where the prop is to be far.
        room: how far ahead of Use.distance the props reach, in figure heights.
        top: how high it all reaches, in figure heights.
        tempers: range of the factor on the size of the movement.
    """

    keys: tuple[Key, ...]
    cycle: tuple[float, float] | None = None
    front: bool = False
    planted: bool = False
    stride: float = 0.0
    adjust: Adjust | None = None
    behind: Prop | None = None
    held: Prop | None = None
    before: Prop | None = None
    distance: tuple[float, float] = (0.0, 0.0)
    apart: tuple[float, float] | None = None
    touch: tuple[float, Callable[[Joints], Point]] | None = None
    span: tuple[float, float] = (0.0, 1.0)
    apart_span: tuple[float, float] | None = None
    room: float = 0.0
    top: float = 1.0
    tempers: tuple[float, float] = (0.88, 1.12)


@dataclass(frozen=True)
class Action:
    """An action by name and the ways to do it.

    Attributes:
        name: as in J-HMDB.
        motions: of which a person does one.
        hair_shows: nobody does it with a bald head or a cap.
    """

    name: str
    motions: tuple[Motion, ...]
    hair_shows: bool = False


class Curve:
    """The pose at any time, smoothly through the keys and never beyond them.

    Args:
        keys: times, ascending, and poses.
        cyclic: from the last key on to the first one, at time 1.
    """

    def __init__(self, keys: Sequence[Key], cyclic: bool) -> None:
        keys = list(keys)
        if cyclic:
            first, last = keys[0], keys[-1]
            keys = [(last[0] - 1, last[1]), *keys, (first[0] + 1, first[1])]
            keys.append((keys[2][0] + 1, keys[2][1]))
        self._cyclic = cyclic
        self._times = [time for time, _ in keys]
        self._poses = [pose for _, pose in keys]
        self._slopes = self._tangents()

    def _tangents(self) -> list[list[float]]:
        times, poses = self._times, self._poses
        slopes = [[0.0] * len(poses[0]) for _ in poses]
        for index in range(1, len(poses) - 1):
            before, after = times[index] - times[index - 1], times[index + 1] - times[index]
            for part in range(len(poses[0])):
                rise = (poses[index][part] - poses[index - 1][part]) / before
                fall = (poses[index + 1][part] - poses[index][part]) / after
                if rise * fall > 0:  # elsewhere it turns back, and the slope stays 0
                    slopes[index][part] = 2 * rise * fall / (rise + fall)
        return slopes

    def __call__(self, time: float) -> Pose:
        """The pose at a time; before the first key and after the last one it stands still."""
        times = self._times
        if self._cyclic:
            time %= 1.0
        if time <= times[0]:
            return self._poses[0]
        if time >= times[-1]:
            return self._poses[-1]
        index = 0
        while times[index + 1] < time:
            index += 1
        length = times[index + 1] - times[index]
        t = (time - times[index]) / length
        squared, rest = t * t, 1 - t
        a, b = (1 + 2 * t) * rest * rest, squared * (3 - 2 * t)
        c, d = t * rest * rest * length, -squared * rest * length
        return Pose(
            *[
                a * p + b * q + c * m + d * n
                for p, q, m, n in zip(
                    self._poses[index],
                    self._poses[index + 1],
                    self._slopes[index],
                    self._slopes[index + 1],
                    strict=True,
                )
            ]
        )


def ramp(time: float, start: float, end: float) -> float:
    """0 before ``start``, 1 after ``end``, straight between."""
    return min(1.0, max(0.0, (time - start) / (end - start)))


def eased(share: float) -> float:
    """``share`` from 0 to 1, with a slow start and end."""
    return share * share * (3 - 2 * share)
