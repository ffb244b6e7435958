"""The props of the actions, moved along with the joints."""

import math

from stclip.puppet.draw import things
from stclip.puppet.draw.colours import DARK, METAL, WHITE, mix, shade
from stclip.puppet.draw.figure import Joints
from stclip.puppet.draw.motion import Now, eased, ramp
from stclip.puppet.draw.pen import Pen, Point, between, flight, plus, step

BAR = 1.22  # height of the bar to hang from
SEAT = 0.225  # height of a seat
STEP = (0.25, 0.13)  # width and rise of a stair
STEPS = 6
RING = 1.28  # height of the basketball hoop
GRASP = 0.48  # when something is picked up
RELEASE = 0.5  # when something is thrown, shot or struck
ARRIVAL = 0.62  # when something is caught


def in_hands(joints: Joints) -> Point:
    """The middle of a ball between the hands."""
    return plus(between(joints.near_hand, joints.far_hand, 0.5), (0.05, 0.02))


def in_hand(joints: Joints) -> Point:
    """The middle of a ball in the near hand."""
    return plus(joints.near_hand, (0.03, 0.03))


def below_hands(joints: Joints) -> Point:
    """The middle of a thing that is carried by both hands."""
    return plus(between(joints.near_hand, joints.far_hand, 0.5), (0.0, -0.04))


def _ball_size(now: Now) -> float:
    return 0.055 + 0.035 * now.use.style


def caught_ball(pen: Pen, now: Now) -> None:
    """A ball that flies to the hands and stays there."""
    use = now.use
    here = in_hands(now.joints)
    if now.time < ARRIVAL:
        start = (use.touch[0] + use.distance, use.touch[1] + 0.25 * (use.style - 0.4))
        here = flight(start, use.touch, 0.18, ramp(now.time, 0.0, ARRIVAL))
    things.ball(pen, here, _ball_size(now), use.colour, use.trim)


def thrown_ball(pen: Pen, now: Now) -> None:
    """A ball that leaves the hands."""
    use = now.use
    here = in_hand(now.joints)
    if now.time > RELEASE:
        end = (use.touch[0] + use.distance, use.touch[1] + 0.25 * (use.style - 0.4))
        here = flight(use.touch, end, 0.18, ramp(now.time, RELEASE, 1.12))
    things.ball(pen, here, _ball_size(now), use.colour, use.trim)


def passed_ball(pen: Pen, now: Now) -> None:
    """A ball that leaves both hands."""
    use = now.use
    here = in_hands(now.joints)
    if now.time > RELEASE:
        end = (use.touch[0] + use.distance, use.touch[1] + 0.25 * (use.style - 0.4))
        here = flight(use.touch, end, 0.18, ramp(now.time, RELEASE, 1.12))
    things.ball(pen, here, _ball_size(now), use.colour, use.trim)


def kicked_ball(pen: Pen, now: Now) -> None:
    """A ball that lies on the ground and is kicked away, towards a goal if it is far."""
    use = now.use
    size = 0.07 + 0.02 * use.style
    rest = (0.3, size)
    if use.distance > 1.15:
        things.goal(pen, use.distance + 0.05)
    share = ramp(now.time, RELEASE, 0.95)
    end = (use.distance + 0.1, size + 0.3 * use.style)
    things.ball(pen, flight(rest, end, 0.2 * use.style, share), size, WHITE, DARK)


def hoop_and_ball(pen: Pen, now: Now) -> None:
    """A ball shot at a hoop."""
    use = now.use
    things.hoop(pen, use.distance, RING, (214, 60, 40))
    here = in_hands(now.joints)
    if now.time > RELEASE:
        share = ramp(now.time, RELEASE, 0.88)
        ring = (use.distance - 0.01, RING + 0.05)
        here = flight(use.touch, ring, 0.17, share)
        if now.time > 0.88:
            here = between(ring, (use.distance, 0.55), ramp(now.time, 0.88, 1.0))
    things.ball(pen, here, 0.085, (226, 112, 38), (96, 50, 26))


def golf_club(pen: Pen, now: Now) -> None:
    """A golf club in both hands."""
    hand, angle = now.joints.near_hand, now.joints.tool
    end = step(hand, angle, 0.4)
    pen.line([step(hand, angle, -0.05), end], 0.028, shade(METAL, 0.7))
    pen.chain((end, step(end, angle + 75, 0.07)), 0.045, (DARK,))


def golf_ball(pen: Pen, now: Now) -> None:
    """A golf ball that is struck, and the flag of the hole."""
    use = now.use
    things.flag(pen, use.distance, (214, 60, 50))
    share = ramp(now.time, RELEASE, 0.85)
    pen.disc(flight((0.06, 0.025), (use.distance + 0.4, 0.6), 0.4, share), 0.028, WHITE)


def bat(pen: Pen, now: Now) -> None:
    """A baseball bat in both hands."""
    hand, angle = now.joints.near_hand, now.joints.tool
    pen.line([step(hand, angle, -0.05), step(hand, angle, 0.2)], 0.03, (188, 142, 84))
    pen.chain(
        (step(hand, angle, 0.2), step(hand, angle, 0.42)), 0.058, (mix((206, 160, 96), DARK, 0.05),)
    )


def pitched_ball(pen: Pen, now: Now) -> None:
    """A small ball that arrives and is struck away."""
    use = now.use
    meet = (0.5, 0.62)
    if now.time < RELEASE:
        here = flight((use.distance + 0.3, 0.75), meet, 0.05, ramp(now.time, 0.1, RELEASE))
    else:
        end = (use.distance + 0.4, 0.9 + 0.5 * use.style)
        here = flight(meet, end, 0.1, ramp(now.time, RELEASE, 0.85))
    things.ball(pen, here, 0.04, WHITE, (200, 70, 60))


def bow(pen: Pen, now: Now) -> None:
    """A bow, its arrow, and the flying arrow."""
    use, joints = now.use, now.joints
    shot = now.time > 0.68
    grip = joints.far_hand
    nock = (grip[0] - 0.1, grip[1]) if shot else joints.near_hand
    if shot:
        tip = between(plus(grip, (0.1, 0)), (use.distance, grip[1]), ramp(now.time, 0.68, 0.78))
        pen.line([plus(tip, (-0.3, 0)), tip], 0.016, DARK)
    things.bow(pen, grip, nock, shade(use.trim, 0.9), arrow=not shot)


def archery_target(pen: Pen, now: Now) -> None:
    """The target that arrows are shot at."""
    things.target(pen, now.use.distance + 0.05, 0.74)


def _flashes(time: float) -> bool:
    return time % 1.0 < 0.24


def pistol(pen: Pen, now: Now) -> None:
    """A pistol that is fired once a cycle."""
    muzzle = things.pistol(pen, now.joints.near_hand, now.joints.tool)
    if _flashes(now.time):
        things.flash(pen, muzzle, now.joints.tool)


def rifle(pen: Pen, now: Now) -> None:
    """A rifle that is fired once a cycle."""
    muzzle = things.rifle(pen, now.joints.near_hand, now.joints.tool, (120, 78, 46))
    if _flashes(now.time):
        things.flash(pen, muzzle, now.joints.tool)


def hairbrush(pen: Pen, now: Now) -> None:
    """A brush that follows the head."""
    things.brush(pen, now.joints.near_hand, now.joints.tool, shade(now.use.colour, 0.9))


def seat(pen: Pen, now: Now) -> None:
    """What one sits on, behind the feet."""
    things.chair(pen, -0.23, SEAT, now.use.colour, now.use.style)


def stairs(pen: Pen, now: Now) -> None:
    """The stairs that are climbed."""
    things.stairs(pen, 0.0, STEPS, *STEP, mix(now.use.colour, (150, 140, 130), 0.45))


def picked_thing(pen: Pen, now: Now) -> None:
    """A thing that lies on the ground and comes up with the hands."""
    use = now.use
    ground = (use.touch[0], 0.07)
    here = ground
    if now.time > GRASP:
        here = plus(below_hands(now.joints), (0.0, 0.07 - use.touch[1]))
    if use.style < 0.4:
        things.crate(pen, plus(here, (-0.12, -0.07)), plus(here, (0.12, 0.1)), use.colour, use.trim)
    elif use.style < 0.7:
        things.ball(pen, here, 0.075, use.colour, use.trim)
    else:
        things.bottle(pen, plus(here, (0, -0.07)), 180, use.colour)


def pushed_box(pen: Pen, now: Now) -> None:
    """A big box on the ground, pushed by both hands."""
    left = max(now.joints.near_hand[0], now.joints.far_hand[0])
    height = 0.62 + 0.25 * now.use.style
    things.crate(pen, (left, 0.0), (left + 0.62, height), now.use.colour, now.use.trim)


def pushed_cart(pen: Pen, now: Now) -> None:
    """A cart on wheels, pushed by its handle."""
    things.cart(pen, now.joints.near_hand, now.use.distance, now.use.colour, now.use.trim)


def bottle_in_hand(pen: Pen, now: Now) -> None:
    """A bottle, and what runs out of it when it is tilted."""
    angle = now.joints.tool
    mouth = things.bottle(pen, step(now.joints.near_hand, angle, -0.08), angle, now.use.colour)
    if angle < 92:
        low = 0.5 if now.use.style < 0.6 else now.joints.far_hand[1] + 0.02
        if mouth[1] > low:
            pen.line([mouth, (mouth[0], low)], 0.022, (186, 216, 240))


def cup_below(pen: Pen, now: Now) -> None:
    """The cup that is poured into, on a table or in the far hand."""
    use = now.use
    if use.style < 0.6:
        things.table(pen, 0.3, 0.85, 0.43, (150, 112, 78))
        things.cup(pen, 0.5, 0.43, use.trim)
    else:
        x, y = now.joints.far_hand
        things.cup(pen, x + 0.03, y - 0.04, use.trim)


def pullup_bar(pen: Pen, now: Now) -> None:
    """The bar to hang from."""
    things.bar(pen, 0.36 + 0.2 * now.use.style, BAR)


def swings(time: float) -> float:
    """From 0 to 1 and back once a cycle, smoothly."""
    return (1 - math.cos(2 * math.pi * time)) / 2


def dealt(time: float, start: float, end: float) -> float:
    """Like ``ramp``, with a slow start and end."""
    return eased(ramp(time, start, end))
