"""The props of the actions that only the pre-training sees."""

import math

from stclip.puppet.draw import things
from stclip.puppet.draw.colours import DARK, METAL, WHITE, shade
from stclip.puppet.draw.motion import Now
from stclip.puppet.draw.pen import Pen, between, plus, step


def juggled_balls(pen: Pen, now: Now) -> None:
    """Three balls in the air between the hands."""
    joints, use = now.joints, now.use
    for index in range(3):
        share = (now.time + index / 3) % 1.0
        start, end = joints.far_hand, joints.near_hand
        if (math.floor(now.time + index / 3) + index) % 2:
            start, end = end, start
        x, y = between(start, end, share)
        here = (x, y + 0.05 + 2.2 * share * (1 - share))
        things.ball(pen, here, 0.048, use.colour if index else use.trim, DARK)


def book(pen: Pen, now: Now) -> None:
    """An open book before the face."""
    x, y = plus(now.joints.near_hand, (0.02, 0.03))
    pen.polygon([(x, y - 0.03), (x + 0.06, y + 0.13), (x + 0.17, y + 0.14), (x + 0.1, y)], WHITE)
    pen.line([(x - 0.01, y - 0.03), (x + 0.05, y + 0.14)], 0.04, now.use.colour)
    pen.line([(x - 0.01, y - 0.03), (x + 0.11, y - 0.01)], 0.03, now.use.colour)


def phone(pen: Pen, now: Now) -> None:
    """A telephone at the ear."""
    hand = now.joints.near_hand
    pen.line([step(hand, 160, 0.08), step(hand, 160, -0.06)], 0.05, DARK)


def barbell(pen: Pen, now: Now) -> None:
    """A bar with weights in both hands."""
    y = (now.joints.near_hand[1] + now.joints.far_hand[1]) / 2
    reach = 0.42
    pen.line([(-reach, y), (reach, y)], 0.028, METAL)
    for side in (-1, 1):
        pen.block((side * reach, y - 0.13), (side * (reach + 0.06), y + 0.13), now.use.trim)
        pen.block((side * (reach - 0.05), y - 0.09), (side * reach, y + 0.09), DARK)


def rope(pen: Pen, now: Now) -> None:
    """A rope that turns around the body."""
    near, far = now.joints.near_hand, now.joints.far_hand
    high = -math.cos(2 * math.pi * now.time)
    points = []
    for part in range(13):
        x, y = between(far, near, part / 12)
        arc = math.sin(math.pi * part / 12)
        points.append((x * (1 + 0.25 * arc), y + arc * high * (0.72 if high > 0 else 0.42)))
    pen.line(points, 0.022, shade(now.use.colour, 0.8))


def spade(pen: Pen, now: Now) -> None:
    """A spade in both hands, and the heap that is dug."""
    hand, angle = now.joints.near_hand, now.joints.tool
    pen.polygon([(0.42, 0.0), (0.62, 0.15), (0.82, 0.0)], (122, 96, 70))
    end = step(hand, angle, 0.3)
    pen.line([step(hand, angle, -0.26), end], 0.028, (150, 110, 70))
    pen.line([end, step(end, angle, 0.15)], 0.12, METAL)


def broom(pen: Pen, now: Now) -> None:
    """A broom whose head is on the ground."""
    hand, angle = now.joints.near_hand, now.joints.tool
    length = max(0.1, (hand[1] - 0.08) / max(0.2, math.cos(math.radians(angle))))
    end = step(hand, angle, length)
    pen.line([step(hand, angle, -0.3), end], 0.024, (170, 130, 84))
    x, y = end
    pen.polygon(
        [(x - 0.05, y + 0.01), (x + 0.05, y + 0.01), (x + 0.12, 0.0), (x - 0.12, 0.0)],
        now.use.colour,
    )


def guitar(pen: Pen, now: Now) -> None:
    """A guitar before the body."""
    x, y = now.joints.hip
    body, neck = (x - 0.06, y + 0.05), (x + 0.36, y + 0.26)
    colour = now.use.colour
    pen.line([body, neck], 0.038, shade(now.use.trim, 0.7))
    pen.disc(body, 0.13, colour)
    pen.disc(between(body, neck, 0.3), 0.095, colour)
    pen.disc(between(body, neck, 0.12), 0.04, DARK)


def bag(pen: Pen, now: Now) -> None:
    """A suitcase in the near hand, or a shopping bag."""
    x, y = now.joints.near_hand
    half, tall = (0.15, 0.2) if now.use.style < 0.5 else (0.09, 0.24)
    pen.line([(x - 0.05, y - 0.09), (x, y), (x + 0.05, y - 0.09)], 0.025, now.use.trim)
    pen.block((x - half, y - 0.07 - tall), (x + half, y - 0.07), now.use.colour)
    pen.line([(x - half, y - 0.12), (x + half, y - 0.12)], 0.03, now.use.trim)
