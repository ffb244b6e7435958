"""Pictures of things, standing at a place or held; x and y in figure heights."""

from stclip.puppet.draw.chance import Colour
from stclip.puppet.draw.colours import DARK, METAL, WHITE, mix, shade
from stclip.puppet.draw.pen import Pen, Point, plus, step


def ball(pen: Pen, centre: Point, radius: float, colour: Colour, trim: Colour) -> None:
    """A ball with a seam."""
    pen.disc(centre, radius, trim)
    pen.disc(centre, 0.84 * radius, colour)
    x, y = centre
    pen.line([(x - 0.7 * radius, y), (x + 0.7 * radius, y)], 0.25 * radius, trim)


def chair(pen: Pen, x: float, seat: float, colour: Colour, style: float) -> None:
    """A chair with its back behind, an armchair, or a stool; ``x`` of the middle."""
    dark = shade(colour, 0.72)
    if style < 0.45:
        for side in (-0.14, 0.12):
            pen.line([(x + side, 0), (x + side, seat)], 0.03, dark)
        pen.block((x - 0.16, seat - 0.05), (x + 0.15, seat), colour)
        pen.line([(x - 0.15, seat), (x - 0.18, seat + 0.28)], 0.045, colour)
    elif style < 0.75:
        pen.block((x - 0.17, 0.04), (x + 0.17, seat), colour)
        pen.block((x - 0.19, 0.04), (x - 0.1, seat + 0.3), dark)
    else:
        for side in (-0.11, 0.11):
            pen.line([(x + side, 0), (x + 0.7 * side, seat)], 0.03, dark)
        pen.block((x - 0.15, seat - 0.05), (x + 0.15, seat), colour)


def crate(pen: Pen, low: Point, high: Point, colour: Colour, trim: Colour) -> None:
    """A box with a frame."""
    pen.block(low, high, trim)
    pen.block((low[0] + 0.025, low[1] + 0.025), (high[0] - 0.025, high[1] - 0.025), colour)
    middle = (low[1] + high[1]) / 2
    pen.line([(low[0], middle), (high[0], middle)], 0.025, trim)


def hoop(pen: Pen, x: float, height: float, colour: Colour) -> None:
    """A basketball hoop on a post; ``x`` of the ring; the post is beyond it."""
    post = x + 0.24
    pen.line([(post, 0), (post, height + 0.05)], 0.035, METAL)
    board = x + 0.13
    pen.line([(post, height), (board, height + 0.05)], 0.035, METAL)
    pen.block((board - 0.02, height - 0.07), (board + 0.02, height + 0.24), WHITE)
    pen.block((board - 0.02, height + 0.04), (board + 0.02, height + 0.12), colour)
    pen.line([(x - 0.11, height), (board, height)], 0.035, colour)
    for side in (-1, 0, 1):
        pen.line([(x + 0.1 * side, height), (x + 0.055 * side, height - 0.15)], 0.012, WHITE)


def target(pen: Pen, x: float, height: float) -> None:
    """An archery target on legs."""
    pen.line([(x - 0.1, 0), (x, height), (x + 0.1, 0)], 0.03, (130, 96, 60))
    for radius, colour in ((0.17, WHITE), (0.12, (60, 110, 190)), (0.07, (206, 60, 50))):
        pen.ring((x, height), 0.5 * radius, radius, radius, colour)
        pen.disc((x, height), 0.45 * radius, colour)


def goal(pen: Pen, x: float) -> None:
    """A small football goal, seen from the side; ``x`` of the posts."""
    back = x + 0.26
    for y in (0.14, 0.28, 0.42):
        pen.line([(x, y), (x + 0.26 - 0.22 * y, y)], 0.012, (214, 216, 220))
    pen.line([(x, 0), (x, 0.56), (x + 0.14, 0.56), (back, 0)], 0.03, WHITE)


def flag(pen: Pen, x: float, colour: Colour) -> None:
    """The flag of a golf hole."""
    pen.line([(x, 0), (x, 0.75)], 0.02, WHITE)
    pen.polygon([(x, 0.75), (x, 0.6), (x + 0.18, 0.675)], colour)


def table(pen: Pen, low: float, high: float, height: float, colour: Colour) -> None:
    """A table from ``low`` to ``high`` along x."""
    dark = shade(colour, 0.72)
    for x in (low + 0.04, high - 0.04):
        pen.line([(x, 0), (x, height)], 0.04, dark)
    pen.block((low, height - 0.045), (high, height), colour)


def cup(pen: Pen, x: float, y: float, colour: Colour) -> None:
    """A cup whose bottom is at ``y``."""
    top = y + 0.12
    pen.polygon([(x - 0.045, y), (x - 0.06, top), (x + 0.06, top), (x + 0.045, y)], colour)
    pen.line([(x - 0.06, top), (x + 0.06, top)], 0.02, mix(colour, WHITE, 0.6))


def bottle(pen: Pen, base: Point, angle: float, colour: Colour) -> Point:
    """A bottle from its base in a direction; returns where its mouth is."""
    shoulder, mouth = step(base, angle, 0.16), step(base, angle, 0.26)
    pen.line([base, shoulder], 0.1, colour)
    pen.line([shoulder, mouth], 0.045, shade(colour, 0.8))
    pen.line([step(base, angle, 0.05), step(base, angle, 0.11)], 0.1, mix(colour, WHITE, 0.75))
    return mouth


def bar(pen: Pen, reach: float, height: float) -> None:
    """A bar on two posts, to hang from."""
    for x in (-reach, reach):
        pen.line([(x, 0), (x, height + 0.02)], 0.035, (84, 88, 96))
    pen.line([(-reach, height), (reach, height)], 0.035, DARK)


def stairs(pen: Pen, x: float, steps: int, width: float, rise: float, colour: Colour) -> None:
    """Steps that go up ahead; ``x`` of the foot of the first one."""
    dark = shade(colour, 0.78)
    end = x + steps * width
    for index in range(steps):
        left = x + index * width
        top = (index + 1) * rise
        pen.block((left, top - rise), (end, top), colour)
        pen.block((left, top - 0.028), (left + width, top), dark)


def cart(pen: Pen, hands: Point, length: float, colour: Colour, trim: Colour) -> None:
    """A cart with a long handle that ends at the hands."""
    low = hands[0] + length
    pen.line([hands, (low, 0.2)], 0.03, METAL)
    pen.polygon([(low - 0.06, 0.48), (low, 0.13), (low + 0.36, 0.13), (low + 0.44, 0.48)], colour)
    pen.line([(low - 0.06, 0.48), (low + 0.44, 0.48)], 0.035, trim)
    for x in (low + 0.05, low + 0.32):
        pen.disc((x, 0.065), 0.065, DARK)


def bow(pen: Pen, grip: Point, nock: Point, colour: Colour, arrow: bool) -> None:
    """A bow held at ``grip``, its string drawn to ``nock``."""
    x, y = grip
    bent = [(x - 0.13 * (k / 5) ** 2, y + 0.066 * k) for k in range(-5, 6)]
    pen.line([bent[0], nock, bent[-1]], 0.012, WHITE)
    pen.line(bent, 0.034, colour)
    if arrow:
        pen.line([nock, (x + 0.09, y)], 0.016, DARK)


def brush(pen: Pen, hand: Point, angle: float, colour: Colour) -> None:
    """A hairbrush; its handle points along ``angle``."""
    end = step(hand, angle, 0.19)
    pen.line([step(hand, angle, -0.05), end], 0.03, colour)
    pen.line([step(hand, angle, 0.07), end], 0.062, colour)


def pistol(pen: Pen, hand: Point, angle: float) -> Point:
    """A pistol; returns where its muzzle is."""
    muzzle = step(hand, angle, 0.17)
    top = plus(hand, (0.0, 0.03))
    pen.line([hand, step(hand, angle - 75, 0.06)], 0.045, DARK)
    pen.line([top, plus(muzzle, (0.0, 0.03))], 0.045, DARK)
    return plus(muzzle, (0.0, 0.03))


def rifle(pen: Pen, hand: Point, angle: float, colour: Colour) -> Point:
    """A rifle held at its trigger; returns where its muzzle is."""
    muzzle, butt = step(hand, angle, 0.46), step(hand, angle, -0.16)
    pen.line([hand, muzzle], 0.032, DARK)
    pen.line([butt, step(hand, angle, 0.14)], 0.055, colour)
    return muzzle


def flash(pen: Pen, muzzle: Point, angle: float) -> None:
    """The fire of a shot."""
    tip = step(muzzle, angle, 0.15)
    sides = [step(muzzle, angle + turn, 0.11) for turn in (-38, 38)]
    pen.polygon([muzzle, sides[0], tip, sides[1]], (255, 206, 70))


def tree(pen: Pen, x: float, height: float, trunk: Colour, leaves: Colour, style: float) -> None:
    """A tree, round or pointed."""
    pen.line([(x, 0), (x, 0.5 * height)], 0.09 * height, trunk)
    if style < 0.5:
        pen.disc((x, 0.72 * height), 0.28 * height, leaves)
        pen.disc((x - 0.17 * height, 0.56 * height), 0.18 * height, leaves)
        pen.disc((x + 0.17 * height, 0.58 * height), 0.18 * height, leaves)
    else:
        half = 0.27 * height
        pen.polygon([(x - half, 0.28 * height), (x, height), (x + half, 0.28 * height)], leaves)


def lamp(pen: Pen, x: float, height: float, pole: Colour, light: Colour) -> None:
    """A lamp post or a standard lamp."""
    pen.line([(x, 0), (x, height)], 0.035, pole)
    pen.polygon(
        [
            (x - 0.1, height),
            (x - 0.05, height + 0.13),
            (x + 0.05, height + 0.13),
            (x + 0.1, height),
        ],
        light,
    )
