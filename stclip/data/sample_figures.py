"""A drawn figure that acts out J-HMDB's 21 classes; stclip/data/sample.py makes a dataset of it.

A class is a pair of poses between which the figure moves, a prop, and a colour of the ground; all
else (size, place, direction, tempo, clothes) is drawn at random.
"""

import colorsys
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

WIDTH, HEIGHT = 160, 120
_SCALE = 2  # drawn this much larger, then reduced, so that edges are smooth

# Lengths in figure heights.
_HEAD, _TORSO, _ARM, _LEG = 0.075, 0.31, 0.17, 0.24

Point = tuple[float, float]
Joints = dict[str, Point]
Colour = tuple[int, int, int]
# (canvas, joints of the figure, time in [0, 1]) -> None
Prop = Callable[["_Canvas", Joints, float], None]


class _Pose(NamedTuple):
    """Angles in degrees: 0 points down, 90 the way the figure faces, 180 up; lean 0 is upright."""

    arms: tuple[float, float, float, float]  # upper and lower arm, near side then far side
    legs: tuple[float, float, float, float] = (4, 0, -4, 0)  # upper and lower leg, likewise
    lean: float = 0
    lift: float = 0  # of the lower foot above the ground, in figure heights


@dataclass(frozen=True)
class _Action:
    start: _Pose
    end: _Pose
    beats: float  # times there and back in a video; 0.5 goes there and stays
    prop: Prop | None = None
    travel: float = 0  # figure heights walked in a video


@dataclass
class _Canvas:
    """Draws in figure heights around the figure's place on the ground; y points up."""

    draw: ImageDraw.ImageDraw
    x: float  # of the figure's place, in pixels of the picture
    ground: float  # y of the ground, likewise
    size: float  # figure height, likewise
    facing: int  # 1 to the right, -1 to the left
    extent: list[Point] = field(default_factory=list)  # what the body covers, in pixels

    def _pixel(self, point: Point) -> Point:
        return (
            self.x + self.facing * point[0] * self.size,
            self.ground - point[1] * self.size,
        )

    def line(self, points: list[Point], width: float, colour: Colour, body: bool = False) -> None:
        """A thick line with round ends."""
        pixels = [self._pixel(point) for point in points]
        scaled = [(_SCALE * x, _SCALE * y) for x, y in pixels]
        self.draw.line(scaled, colour, max(1, round(_SCALE * width * self.size)), joint="curve")
        for point in points:
            self.disc(point, width / 2, colour, body)

    def disc(self, centre: Point, radius: float, colour: Colour, body: bool = False) -> None:
        """A filled circle."""
        x, y = self._pixel(centre)
        r = radius * self.size
        box = [_SCALE * (x - r), _SCALE * (y - r), _SCALE * (x + r), _SCALE * (y + r)]
        self.draw.ellipse(box, colour)
        if body:
            self.extent += [(x - r, y - r), (x + r, y + r)]

    def block(self, low: Point, high: Point, colour: Colour) -> None:
        """A filled rectangle between two corners."""
        (x1, y1), (x2, y2) = self._pixel(low), self._pixel(high)
        box = [min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)]
        self.draw.rectangle([_SCALE * value for value in box], colour)


def _step(origin: Point, angle: float, length: float) -> Point:
    radians = math.radians(angle)
    return origin[0] + length * math.sin(radians), origin[1] - length * math.cos(radians)


def _between(a: Point, b: Point, share: float) -> Point:
    return a[0] + share * (b[0] - a[0]), a[1] + share * (b[1] - a[1])


def _held(length: float, width: float, colour: Colour, turn: float) -> Prop:
    """A straight thing in the near hand, turned ``turn`` degrees from the lower arm."""

    def prop(canvas: _Canvas, joints: Joints, time: float) -> None:
        (x1, y1), (x2, y2) = joints["near_elbow"], joints["near_hand"]
        angle = math.degrees(math.atan2(x2 - x1, y1 - y2)) + turn
        canvas.line([(x2, y2), _step((x2, y2), angle, length)], width, colour)

    return prop


def _flying(joint: str, start: Point | None, end: Point | None, colour: Colour) -> Prop:
    """A ball that flies from ``start`` to ``end``; None stands for the joint."""

    def prop(canvas: _Canvas, joints: Joints, time: float) -> None:
        # It is thrown or kicked when the limb has swung, and caught when the arms are out.
        share = min(1.0, max(0.0, 2 * time - 0.7)) if start is None else min(1.0, 1.6 * time)
        here = joints[joint]
        canvas.disc(_between(start or here, end or here, share), 0.075, colour)

    return prop


def _block(low: Point, high: Point, colour: Colour, at: str | None = None) -> Prop:
    """A box that stands there, or is held at a joint."""

    def prop(canvas: _Canvas, joints: Joints, time: float) -> None:
        x, y = joints[at] if at else (0.0, 0.0)
        canvas.block((low[0] + x, low[1] + y), (high[0] + x, high[1] + y), colour)

    return prop


def _stairs(canvas: _Canvas, joints: Joints, time: float) -> None:
    for step in range(-2, 10):  # they pass by beneath the figure, which stays in the picture
        left, top = 0.3 * (step - 3 * time) - 0.1, 0.14 * (step - 3 * time)
        canvas.block((left, -0.6), (left + 0.3, top), (150, 100 + 10 * (step % 2), 80))


def _bow(canvas: _Canvas, joints: Joints, time: float) -> None:
    x, y = joints["near_hand"]
    bend = [(x - 0.1 * (k / 4) ** 2, y + 0.06 * k) for k in range(-4, 5)]
    canvas.line(bend, 0.025, (120, 60, 20))
    canvas.line([bend[0], joints["far_hand"], bend[-1]], 0.01, (250, 250, 250))


def _hoop(canvas: _Canvas, joints: Joints, time: float) -> None:
    canvas.line([(0.95, 0), (0.95, 1.25)], 0.03, (90, 90, 90))
    canvas.line([(0.62, 1.1), (0.95, 1.1)], 0.03, (220, 40, 40))
    _flying("near_hand", None, (0.75, 1.15), (235, 120, 30))(canvas, joints, time)


def _glass(canvas: _Canvas, joints: Joints, time: float) -> None:
    canvas.block((0.3, 0), (0.75, 0.38), (110, 80, 60))
    canvas.block((0.46, 0.38), (0.56, 0.5), (200, 230, 250))
    _held(0.16, 0.07, (30, 140, 60), -60)(canvas, joints, time)


_BALL, _DOWN = (240, 150, 30), (0.0, 5.0, 0.0, 5.0)
_CHAIR = _block((-0.32, 0), (-0.02, 0.24), (140, 70, 160))
_STANDING = _Pose((8, 10, -8, 5))
_SITTING = _Pose((20, 70, 20, 70), (80, 0, 85, 5), lean=6)

# In alphabetical order, which is the order of the action ids.
_ACTIONS: dict[str, _Action] = {
    "brush_hair": _Action(
        _Pose((120, 215, *_DOWN[:2])),
        _Pose((80, 190, 0, 5)),
        3,
        _held(0.12, 0.05, (150, 30, 150), 0),
    ),
    "catch": _Action(
        _STANDING, _Pose((70, 100, 60, 110)), 0.5, _flying("near_hand", (1.2, 1.2), None, _BALL)
    ),
    "clap": _Action(_Pose((20, 60, 70, 130)), _Pose((45, 95, 45, 95)), 4),
    "climb_stairs": _Action(
        _Pose((40, 60, -30, -5), (70, -10, -10, -25), 12),
        _Pose((-30, -5, 40, 60), (-10, -25, 70, -10), 12, 0.05),
        2,
        _stairs,
    ),
    "golf": _Action(
        _Pose((-70, -110, -40, -100), lean=20),
        _Pose((80, 120, 60, 110), lean=20),
        1,
        _held(0.34, 0.025, (60, 60, 60), 0),
    ),
    "jump": _Action(
        _Pose((-30, -20, -35, -25), (50, -40, 45, -45), 25),
        _Pose((150, 165, 140, 160), lift=0.3),
        2,
    ),
    "kick_ball": _Action(
        _Pose((30, 40, -30, -20), (-35, -70, 4, 0)),
        _Pose((-30, -20, 40, 50), (75, 70, -4, -4), -10),
        0.5,
        _flying("near_foot", None, (1.5, 0.5), (245, 245, 245)),
    ),
    "pick": _Action(
        _STANDING,
        _Pose((30, 10, 20, 5), (35, -20, 30, -25), 85),
        1,
        _block((0.35, 0), (0.6, 0.14), (190, 50, 50)),
    ),
    "pour": _Action(_Pose((60, 90, *_DOWN[:2])), _Pose((85, 110, 0, 5)), 1, _glass),
    "pullup": _Action(
        _Pose((172, 182, 188, 178), (5, -15, 0, -20), lift=0.12),
        _Pose((50, 190, -50, 170), (25, -30, 20, -35), lift=0.34),
        2,
        _block((-0.6, 1.2), (0.6, 1.25), (70, 70, 80)),
    ),
    "push": _Action(
        _Pose((70, 90, 65, 85), (30, -10, -35, -50), 25),
        _Pose((80, 88, 78, 85), (-20, -45, 35, 0), 35),
        1.5,
        _block((0.02, -0.45), (0.5, 0.15), (70, 110, 190), at="near_hand"),
        travel=0.3,
    ),
    "run": _Action(
        _Pose((60, 130, -60, 0), (60, -20, -40, -80), 15, 0.05),
        _Pose((-60, 0, 60, 130), (-40, -80, 60, -20), 15, 0.05),
        4,
        travel=1.0,
    ),
    "shoot_ball": _Action(
        _Pose((50, 130, 45, 125), (25, -20, 20, -25)),
        _Pose((150, 165, 145, 160), lift=0.1),
        0.5,
        _hoop,
    ),
    "shoot_bow": _Action(_Pose((85, 90, 70, 95)), _Pose((88, 90, -70, 95)), 1, _bow),
    "shoot_gun": _Action(
        _Pose((80, 88, 75, 92)), _Pose((90, 100, 85, 102)), 3, _held(0.16, 0.05, (20, 20, 20), 0)
    ),
    "sit": _Action(_STANDING, _SITTING, 0.5, _CHAIR),
    "stand": _Action(_SITTING, _STANDING, 0.5, _CHAIR),
    "swing_baseball": _Action(
        _Pose((-60, 150, -80, 140), (20, 0, -20, -5)),
        _Pose((90, 95, 80, 90), (30, 0, -25, -20), 8),
        1,
        _held(0.36, 0.05, (215, 170, 90), 20),
    ),
    "throw": _Action(
        _Pose((-120, -170, 40, 50), (20, 0, -20, 0), -10),
        _Pose((95, 80, -20, 0), (35, -5, -25, -10), 20),
        0.5,
        _flying("near_hand", None, (1.5, 0.9), _BALL),
    ),
    "walk": _Action(
        _Pose((25, 35, -25, -10), (28, 5, -22, -35)),
        _Pose((-25, -10, 25, 35), (-22, -35, 28, 5)),
        2,
        travel=0.7,
    ),
    "wave": _Action(_Pose((130, 140, -5, 0)), _Pose((130, 210, -5, 0)), 4),
}


# In alphabetical order, as J-HMDB numbers them.
LABELS = tuple(_ACTIONS)


def draw_video(
    label: str, frames: int, rng: np.random.Generator
) -> Iterator[tuple[Image.Image, list[int]]]:
    """Draw one video of ``label``.

    Args:
        label: one of LABELS.
        frames: how many, at least 2.
        rng: chooses what is not given by the class.

    Yields:
        A frame of WIDTH x HEIGHT pixels and the box of the figure in it, xyxy in pixels.
    """
    action = _ACTIONS[label]
    facing, size = int(rng.choice([-1, 1])), rng.uniform(62, 82)
    x = WIDTH / 2 + rng.uniform(-15, 15) - facing * size * action.travel / 2
    ground = rng.uniform(100, 110)
    hue = (LABELS.index(label) + rng.uniform(-0.25, 0.25)) / len(LABELS)
    ground_colour = _colour(hue, 0.55, rng.uniform(0.55, 0.7))
    wall_colour = _colour(rng.uniform(), 0.12, rng.uniform(0.8, 0.95))
    shirt, trousers = (_colour(rng.uniform(), 0.7, rng.uniform(0.3, 0.9)) for _ in range(2))
    skin = _colour(0.07, rng.uniform(0.3, 0.6), rng.uniform(0.5, 0.95))
    tempo = rng.uniform(0.85, 1.15) if action.beats > 0.5 else 1.0
    for frame in range(frames):
        time = frame / (frames - 1)
        picture = Image.new("RGB", (_SCALE * WIDTH, _SCALE * HEIGHT), wall_colour)
        draw = ImageDraw.Draw(picture)
        floor = [0, _SCALE * (ground - 4), _SCALE * WIDTH, _SCALE * HEIGHT]
        draw.rectangle(floor, ground_colour)
        canvas = _Canvas(draw, x + facing * size * action.travel * time, ground, size, facing)
        share = (1 - math.cos(2 * math.pi * action.beats * tempo * time)) / 2
        joints = _joints(_Pose(*_mix(tuple(action.start), tuple(action.end), share)))
        if action.prop is not None:
            action.prop(canvas, joints, time)
        _draw_body(canvas, joints, shirt, trousers, skin)
        yield picture.reduce(_SCALE), _box(canvas.extent)


def _mix(a: Any, b: Any, share: float) -> Any:
    if isinstance(a, tuple):
        return tuple(_mix(x, y, share) for x, y in zip(a, b, strict=True))
    return a + share * (b - a)


def _joints(pose: _Pose) -> Joints:
    """Where the joints are, the lower foot on the ground (or lifted)."""
    hip = (0.0, 0.0)
    joints: Joints = {"hip": hip, "neck": _step(hip, 180 - pose.lean, _TORSO)}
    joints["head"] = _step(joints["neck"], 180 - pose.lean, 1.5 * _HEAD)
    for side, arm, leg in (
        ("near", pose.arms[:2], pose.legs[:2]),
        ("far", pose.arms[2:], pose.legs[2:]),
    ):
        joints[f"{side}_elbow"] = _step(joints["neck"], arm[0], _ARM)
        joints[f"{side}_hand"] = _step(joints[f"{side}_elbow"], arm[1], _ARM)
        joints[f"{side}_knee"] = _step(hip, leg[0], _LEG)
        joints[f"{side}_foot"] = _step(joints[f"{side}_knee"], leg[1], _LEG)
    rise = pose.lift - min(joints["near_foot"][1], joints["far_foot"][1])
    return {name: (x, y + rise) for name, (x, y) in joints.items()}


def _draw_body(
    canvas: _Canvas, joints: Joints, shirt: Colour, trousers: Colour, skin: Colour
) -> None:
    far = [(round(0.75 * r), round(0.75 * g), round(0.75 * b)) for r, g, b in (shirt, trousers)]
    for side, sleeve, leg in (("far", far[0], far[1]), ("near", shirt, trousers)):
        if side == "near":
            canvas.line([joints["hip"], joints["neck"]], 0.15, shirt, body=True)
            canvas.disc(joints["head"], _HEAD, skin, body=True)
        limb = [joints["hip"], joints[f"{side}_knee"], joints[f"{side}_foot"]]
        canvas.line(limb, 0.085, leg, body=True)
        limb = [joints["neck"], joints[f"{side}_elbow"], joints[f"{side}_hand"]]
        canvas.line(limb, 0.06, sleeve, body=True)
        canvas.disc(joints[f"{side}_hand"], 0.035, skin, body=True)


def _colour(hue: float, saturation: float, value: float) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def _box(extent: list[Point]) -> list[int]:
    xs, ys = [x for x, _ in extent], [y for _, y in extent]
    low = [max(0, math.floor(min(xs))), max(0, math.floor(min(ys)))]
    return [*low, min(WIDTH - 1, math.ceil(max(xs))), min(HEIGHT - 1, math.ceil(max(ys)))]
