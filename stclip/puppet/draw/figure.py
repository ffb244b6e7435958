"""A jointed figure: poses, proportions, where the joints come to lie, and how the body is drawn."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from stclip.puppet.draw.chance import Chance, Colour
from stclip.puppet.draw.colours import CLOTHES, DARK, HAIR, SKIN, TROUSERS, shade
from stclip.puppet.draw.pen import Pen, Point, step

SOLE = 0.03  # of an ankle above the ground


class Pose(NamedTuple):
    """Angles in degrees: 0 points down, 90 the way the figure faces, 180 up.

    A front view is flat: the near arm and leg are those on the side of positive x.

    Attributes:
        near_upper, near_lower, far_upper, far_lower: of the arms.
        near_thigh, near_shin, far_thigh, far_shin: of the legs.
        lean: of the trunk, 0 is upright and 90 face down.
        nod: of the head, beyond the trunk's.
        lift: of the lowest joint above the ground, in figure heights.
        x: of the hip or (planted) of the middle between the feet, in figure heights.
        tool: the direction of what is held.
    """

    near_upper: float
    near_lower: float
    far_upper: float
    far_lower: float
    near_thigh: float
    near_shin: float
    far_thigh: float
    far_shin: float
    lean: float
    nod: float
    lift: float
    x: float
    tool: float


def pose(
    near: tuple[float, float] = (4, 12),
    far: tuple[float, float] = (-4, 6),
    legs: tuple[float, float, float, float] = (7, 2, -7, -4),
    lean: float = 0,
    lift: float = 0,
    x: float = 0,
    tool: float = 90,
    nod: float = 0,
) -> Pose:
    """A pose that differs from standing at ease by what is given."""
    return Pose(*near, *far, *legs, lean, nod, lift, x, tool)


class Joints(NamedTuple):
    """Where the joints are, in figure heights; y is above the ground."""

    hip: Point
    neck: Point
    head: Point
    near_shoulder: Point
    near_elbow: Point
    near_hand: Point
    far_shoulder: Point
    far_elbow: Point
    far_hand: Point
    near_hip: Point
    near_knee: Point
    near_foot: Point
    far_hip: Point
    far_knee: Point
    far_foot: Point
    tool: float

    def moved(self, x: float, y: float) -> "Joints":
        """All joints moved."""
        return Joints._make([*((px + x, py + y) for px, py in self[:15]), self.tool])


@dataclass(frozen=True)
class Build:
    """Proportions; lengths in figure heights."""

    head: float  # radius
    torso: float
    arm: float  # upper and lower arm each
    leg: float  # thigh and shin each
    girth: float  # of trunk and limbs; 1 is ordinary

    @classmethod
    def draw(cls, chance: Chance) -> "Build":
        """A build between that of a child and that of a tall adult."""
        head = chance.uniform(0.078, 0.098)
        leg = chance.uniform(0.225, 0.255)
        return cls(
            head=head,
            torso=0.945 - 2 * head - 2 * leg,
            arm=chance.uniform(0.165, 0.185),
            leg=leg,
            girth=chance.uniform(0.85, 1.25),
        )


@dataclass(frozen=True)
class Outfit:
    """Colours of a person by name, and the cut of clothes and hair."""

    shirt: str
    trousers: str
    hair: str
    cut: str  # short, long, bun, cap or bald
    long_sleeves: bool
    shorts: bool
    skirt: bool
    shirt_rgb: Colour
    trousers_rgb: Colour
    hair_rgb: Colour
    skin_rgb: Colour
    shoe_rgb: Colour

    @classmethod
    def draw(cls, chance: Chance, look: str, hair_shows: bool) -> "Outfit":
        """What one person wears; ``hair_shows`` leaves out caps and bald heads."""
        colours = CLOTHES[look]
        shirt = chance.choice(tuple(colours))
        trousers = chance.choice([name for name in TROUSERS if name != shirt])
        hair = chance.choice(tuple(HAIR))
        skirt = chance.happens(0.12)
        cuts = ("short", "short", "long", "long", "bun", "cap", "bald")
        if hair_shows:
            cuts = ("short", "long", "long", "bun", "long", "bun", "short")
        return cls(
            shirt=shirt,
            trousers=trousers,
            hair=hair,
            cut=chance.choice(cuts),
            long_sleeves=chance.happens(0.4),
            shorts=chance.happens(0.25) and not skirt,
            skirt=skirt,
            shirt_rgb=chance.near(colours[shirt], 12),
            trousers_rgb=chance.near(colours[trousers], 12),
            hair_rgb=chance.near(HAIR[hair], 10),
            skin_rgb=chance.near(chance.choice(SKIN[look]), 8),
            shoe_rgb=chance.choice((DARK, colours["white"], colours["brown"], colours["red"])),
        )


def bend(origin: Point, target: Point, length: float, side: int) -> tuple[Point, Point]:
    """The middle joint and the end of a limb of two equal parts that reaches for a target.

    Args:
        origin: the shoulder or hip.
        target: for hand or foot; a limb too short points at it.
        length: of each part.
        side: 1 for a middle joint to the left of the way to the target, -1 to the right.
    """
    dx, dy = target[0] - origin[0], target[1] - origin[1]
    distance = math.hypot(dx, dy)
    if distance < 1e-6:
        dx, dy, distance = 0.0, -1e-6, 1e-6
    reach = min(distance, 1.998 * length)
    ux, uy = dx / distance, dy / distance
    out = side * math.sqrt(length**2 - (reach / 2) ** 2)
    middle = (origin[0] + ux * reach / 2 - uy * out, origin[1] + uy * reach / 2 + ux * out)
    return middle, (origin[0] + ux * reach, origin[1] + uy * reach)


def near_arm(joints: Joints, build: Build, target: Point, side: int = -1) -> Joints:
    """The near hand brought to a target."""
    elbow, hand = bend(joints.near_shoulder, target, build.arm, side)
    return joints._replace(near_elbow=elbow, near_hand=hand)


def far_arm(joints: Joints, build: Build, target: Point, side: int = -1) -> Joints:
    """The far hand brought to a target."""
    elbow, hand = bend(joints.far_shoulder, target, build.arm, side)
    return joints._replace(far_elbow=elbow, far_hand=hand)


def place_joints(pose: Pose, build: Build, front: bool, planted: bool) -> Joints:
    """Where the joints are, the lowest of them on the ground or ``lift`` above it.

    Args:
        pose: the angles.
        build: the lengths.
        front: seen from the front, with shoulders and hips apart.
        planted: ``pose.x`` is that of the feet, else that of the hip.
    """
    shoulder, side = (0.085 * build.girth, 0.048) if front else (-0.014, -0.01)
    up = 180 - pose.lean
    hip = (0.0, 0.0)
    neck = step(hip, up, build.torso)
    head = step(neck, up + (0 if front else -pose.nod), build.head + 0.02)
    across = math.cos(math.radians(pose.lean)), -math.sin(math.radians(pose.lean))
    below = step(neck, up, -0.025)
    near_shoulder = below[0] + shoulder * across[0], below[1] + shoulder * across[1]
    far_shoulder = below[0] - shoulder * across[0], below[1] - shoulder * across[1]
    near_hip = side * across[0], side * across[1]
    far_hip = -side * across[0], -side * across[1]
    near_elbow = step(near_shoulder, pose.near_upper, build.arm)
    far_elbow = step(far_shoulder, pose.far_upper, build.arm)
    near_knee = step(near_hip, pose.near_thigh, build.leg)
    far_knee = step(far_hip, pose.far_thigh, build.leg)
    near_foot = step(near_knee, pose.near_shin, build.leg)
    far_foot = step(far_knee, pose.far_shin, build.leg)
    joints = Joints(
        hip, neck, head,
        near_shoulder, near_elbow, step(near_elbow, pose.near_lower, build.arm),
        far_shoulder, far_elbow, step(far_elbow, pose.far_lower, build.arm),
        near_hip, near_knee, near_foot, far_hip, far_knee, far_foot,
        pose.tool,
    )  # fmt: skip
    lowest = min(y for _, y in joints[:15])
    middle = (near_foot[0] + far_foot[0]) / 2 if planted else 0.0
    return joints.moved(pose.x - middle, pose.lift + SOLE - lowest)


def draw_body(pen: Pen, joints: Joints, build: Build, outfit: Outfit, front: bool) -> None:
    """Draw all but the arms that may lie over what is held."""
    dark = 1.0 if front else 0.78
    if not front:
        _draw_arm(pen, joints[6:9], build, outfit, dark)
    _draw_leg(pen, joints[12:15], build, outfit, front, -1, dark)
    _draw_leg(pen, joints[9:12], build, outfit, front, 1, 1.0)
    _draw_trunk(pen, joints, build, outfit, front)
    _draw_head(pen, joints, build, outfit, front)


def draw_arms(pen: Pen, joints: Joints, build: Build, outfit: Outfit, front: bool) -> None:
    """Draw what ``draw_body`` leaves out: the near arm, and both in a front view."""
    if front:
        _draw_arm(pen, joints[6:9], build, outfit, 0.9)
    _draw_arm(pen, joints[3:6], build, outfit, 0.9)


def _draw_arm(
    pen: Pen, points: Sequence[Point], build: Build, outfit: Outfit, factor: float
) -> None:
    sleeve, skin = shade(outfit.shirt_rgb, factor), shade(outfit.skin_rgb, factor)
    width = 0.058 * build.girth
    pen.chain(points, width, (sleeve, sleeve if outfit.long_sleeves else skin))
    pen.disc(points[2], 0.62 * width, skin)


def _draw_leg(
    pen: Pen,
    points: Sequence[Point],
    build: Build,
    outfit: Outfit,
    front: bool,
    side: int,
    factor: float,
) -> None:
    upper = lower = shade(outfit.trousers_rgb, factor)
    skin = shade(outfit.skin_rgb, factor)
    if outfit.skirt:
        upper = lower = skin
    elif outfit.shorts:
        lower = skin
    pen.chain(points, 0.078 * build.girth, (upper, lower))
    (x1, y1), (x2, y2) = points[1:]
    angle = math.degrees(math.atan2(x2 - x1, y1 - y2))
    # A foot stands flat unless the shin is far from upright.
    toe = 90 if abs(angle) < 38 else angle + 90
    if front:
        toe = 60 * side
    end = step(points[2], toe, 0.035 if front else 0.075)
    pen.chain((points[2], end), 0.055, (shade(outfit.shoe_rgb, factor),))


def _draw_trunk(pen: Pen, joints: Joints, build: Build, outfit: Outfit, front: bool) -> None:
    (hx, hy), (nx, ny) = joints.hip, joints.neck
    length = max(1e-6, math.hypot(nx - hx, ny - hy))
    ux, uy = (nx - hx) / length, (ny - hy) / length
    chest, waist = (0.105, 0.078) if front else (0.078, 0.066)
    chest, waist = chest * build.girth, waist * build.girth
    low = (hx - 0.02 * ux, hy - 0.02 * uy)
    top = (nx - 0.03 * ux, ny - 0.03 * uy)
    if outfit.skirt:
        knees = [joints.near_knee, joints.far_knee]
        knees.sort()
        pen.polygon(
            [
                (hx - waist * uy, hy + waist * ux),
                (knees[0][0] - 0.05, knees[0][1] + 0.03),
                (knees[1][0] + 0.05, knees[1][1] + 0.03),
                (hx + waist * uy, hy - waist * ux),
            ],
            outfit.trousers_rgb,
        )
    else:
        pen.disc(low, 0.95 * waist, outfit.trousers_rgb)
    pen.polygon(
        [
            (low[0] - waist * uy, low[1] + waist * ux),
            (top[0] - chest * uy, top[1] + chest * ux),
            (nx - 0.5 * chest * uy, ny + 0.5 * chest * ux),
            (nx + 0.5 * chest * uy, ny - 0.5 * chest * ux),
            (top[0] + chest * uy, top[1] - chest * ux),
            (low[0] + waist * uy, low[1] - waist * ux),
        ],
        outfit.shirt_rgb,
    )


def _draw_head(pen: Pen, joints: Joints, build: Build, outfit: Outfit, front: bool) -> None:
    r = build.head
    (nx, ny), (cx, cy) = joints.neck, joints.head
    length = max(1e-6, math.hypot(cx - nx, cy - ny))
    ux, uy = (cx - nx) / length, (cy - ny) / length  # up, along the head
    fx, fy = uy, -ux  # the way the face looks

    def at(ahead: float, above: float) -> Point:
        return cx + r * (ahead * fx + above * ux), cy + r * (ahead * fy + above * uy)

    pen.chain((joints.neck, at(0, -0.6)), 0.06, (outfit.skin_rgb,))
    hair, back = outfit.hair_rgb, 0.0 if front else -0.22
    if outfit.cut == "long" and front:
        for side in (-0.8, 0.8):
            pen.chain((at(side, 0.2), at(side, -1.2)), 0.5 * r, (hair,))
    elif outfit.cut == "long":
        pen.chain((at(back, 0.1), at(1.9 * back, -1.25)), 1.75 * r, (hair,))
    if outfit.cut == "bun":
        pen.disc(at(0 if front else -0.95, 1.0 if front else 0.55), 0.5 * r, hair)
    if outfit.cut != "bald":
        pen.disc(at(back, 0.16), 1.02 * r, hair)
        pen.disc(at(-0.6 * back, -0.18), 0.86 * r, outfit.skin_rgb)
    else:
        pen.disc(at(0, 0), r, outfit.skin_rgb)
    if outfit.cut == "cap":
        pen.polygon([at(-1, 0.3), at(-0.7, 1.0), at(0.7, 1.0), at(1, 0.3)], outfit.shirt_rgb)
        if not front:
            pen.chain((at(0.6, 0.32), at(1.55, 0.26)), 0.035, (outfit.shirt_rgb,))
    for ahead in (-0.35, 0.35) if front else (0.55,):
        pen.disc(at(ahead, 0.0), 0.13 * r, DARK)
