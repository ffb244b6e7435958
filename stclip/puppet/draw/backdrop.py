"""What is behind the people: a wall or the sky, the ground, and objects that are not used."""

from collections.abc import Callable

from PIL import Image, ImageDraw

from stclip.puppet.draw import things
from stclip.puppet.draw.chance import Chance, Colour
from stclip.puppet.draw.colours import THINGS, WHITE, mix, shade
from stclip.puppet.draw.pen import HEIGHT, SCALE, WIDTH, Pen

MARGIN = 18  # pixels of the frame around it that the camera may move into
HORIZON = 66.0  # the usual y of where the ground begins

PLACES = ("park", "room", "street", "gym", "beach")

# Of sky or wall, of what stands before it, and of the ground; all of them pale or dull.
_TONES: dict[str, dict[str, tuple[tuple[Colour, Colour, Colour], ...]]] = {
    "benchmark": {
        "park": (
            ((206, 216, 222), (172, 186, 170), (176, 186, 158)),
            ((216, 214, 204), (160, 176, 164), (164, 178, 152)),
        ),
        "room": (
            ((214, 208, 198), (190, 184, 178), (170, 156, 142)),
            ((196, 204, 206), (216, 218, 216), (160, 160, 158)),
        ),
        "street": (
            ((204, 210, 216), (178, 172, 168), (152, 152, 154)),
            ((214, 206, 200), (160, 166, 172), (164, 160, 156)),
        ),
        "gym": (
            ((202, 206, 200), (180, 184, 182), (186, 168, 146)),
            ((190, 196, 206), (208, 208, 204), (174, 164, 150)),
        ),
        "beach": (
            ((204, 216, 224), (164, 184, 194), (208, 198, 174)),
            ((220, 214, 208), (170, 182, 188), (198, 190, 172)),
        ),
    },
    "pretrain": {
        "park": (
            ((190, 206, 220), (150, 176, 156), (156, 176, 140)),
            ((224, 220, 214), (178, 186, 160), (184, 188, 160)),
            ((178, 186, 196), (146, 156, 150), (150, 160, 140)),
        ),
        "room": (
            ((222, 214, 200), (200, 178, 168), (150, 134, 126)),
            ((184, 194, 186), (204, 204, 192), (172, 158, 150)),
            ((204, 194, 204), (182, 174, 186), (160, 150, 160)),
        ),
        "street": (
            ((188, 200, 214), (166, 160, 164), (140, 142, 148)),
            ((226, 218, 206), (184, 170, 158), (172, 168, 160)),
            ((176, 180, 188), (150, 152, 158), (136, 138, 142)),
        ),
        "gym": (
            ((214, 214, 200), (190, 180, 166), (198, 176, 140)),
            ((180, 190, 196), (196, 200, 202), (164, 158, 152)),
            ((208, 198, 196), (184, 178, 176), (180, 166, 160)),
        ),
        "beach": (
            ((190, 208, 222), (150, 176, 194), (214, 200, 164)),
            ((230, 216, 204), (182, 186, 190), (202, 188, 164)),
            ((198, 206, 208), (158, 174, 178), (190, 184, 170)),
        ),
    },
}


def draw_backdrop(chance: Chance, place: str, look: str, clutter: int) -> Image.Image:
    """The picture behind the people, enlarged like the canvas and MARGIN wider on all sides.

    Args:
        chance: chooses everything.
        place: one of PLACES.
        look: one of LOOKS.
        clutter: how many things stand about.
    """
    far, middle, near = (chance.near(tone, 7) for tone in chance.choice(_TONES[look][place]))
    width, height = SCALE * (WIDTH + 2 * MARGIN), SCALE * (HEIGHT + 2 * MARGIN)
    picture = Image.new("RGB", (width, height), far)
    draw = ImageDraw.Draw(picture)
    horizon = HORIZON + chance.uniform(-6, 8)
    _SCENERY[place](chance, Pen(draw, MARGIN, MARGIN + horizon, 60), middle)
    ground = Pen(draw, MARGIN, MARGIN + horizon, 60)
    ground.block((-1, -3), (4, 0), near)
    _mark_ground(chance, ground, place, near)
    spots = sorted(chance.uniform(horizon + 1, horizon + 26) for _ in range(clutter))
    for spot in spots:
        size = 34 + 0.9 * (spot - horizon) + chance.uniform(-4, 6)
        x = chance.uniform(-6, WIDTH + 6)
        pen = Pen(draw, MARGIN + x, MARGIN + spot, size, chance.choice((1, -1)))
        _stand_about(chance, pen, look, mix(far, near, 0.5), place)
    return picture


def _park(chance: Chance, pen: Pen, tone: Colour) -> None:
    for _ in range(2):
        x = chance.uniform(-0.2, 2.6)
        half, top = chance.uniform(0.7, 1.4), chance.uniform(0.15, 0.4)
        hill = [(x - half, 0.0), (x - half / 2, 0.8 * top), (x, top), (x + half / 2, 0.8 * top)]
        pen.polygon([*hill, (x + half, 0.0)], mix(tone, WHITE, 0.2))
    for _ in range(chance.below(4)):
        x, size = chance.uniform(-0.2, 2.8), chance.uniform(0.5, 1.0)
        things.tree(pen, x, size, shade(tone, 0.86), shade(tone, 0.94), chance.uniform(0, 1))


def _room(chance: Chance, pen: Pen, tone: Colour) -> None:
    pen.block((-1, 0), (4, 0.04), tone)
    for _ in range(1 + chance.below(3)):
        x, y = chance.uniform(-0.2, 2.6), chance.uniform(0.4, 0.6)
        half, tall = chance.uniform(0.12, 0.25), chance.uniform(0.22, 0.42)
        pen.block((x - half, y), (x + half, y + tall), tone)
        if chance.happens(0.6):
            glass = mix(tone, (214, 224, 230), 0.6)
            pen.block((x - half + 0.03, y + 0.03), (x + half - 0.03, y + tall - 0.03), glass)


def _street(chance: Chance, pen: Pen, tone: Colour) -> None:
    x = -0.4 + chance.uniform(-0.3, 0.2)
    while x < 3.0:
        width, tall = chance.uniform(0.4, 0.8), chance.uniform(0.5, 1.1)
        wall = chance.near(tone, 8)
        pen.block((x, 0), (x + width, tall), wall)
        if chance.happens(0.6):
            for column in range(2):
                for row in range(2):
                    left, low = x + width * (0.2 + 0.4 * column), tall * (0.3 + 0.33 * row)
                    pen.block((left, low), (left + 0.1, low + 0.12), shade(wall, 0.92))
        x += width + chance.choice((0.0, 0.0, 0.25))


def _gym(chance: Chance, pen: Pen, tone: Colour) -> None:
    low = chance.uniform(0.2, 0.5)
    pen.block((-1, low), (4, low + chance.uniform(0.05, 0.14)), tone)
    if chance.happens(0.5):
        x = chance.uniform(0.1, 2.2)
        for rung in range(6):
            pen.line([(x, 0.1 + 0.14 * rung), (x + 0.36, 0.1 + 0.14 * rung)], 0.025, tone)
        for side in (0.0, 0.36):
            pen.line([(x + side, 0), (x + side, 0.9)], 0.035, shade(tone, 0.94))


def _beach(chance: Chance, pen: Pen, tone: Colour) -> None:
    pen.block((-1, 0), (4, chance.uniform(0.15, 0.32)), tone)
    if chance.happens(0.5):
        x = chance.uniform(0.2, 2.4)
        pen.polygon([(x, 0.3), (x, 0.62), (x + 0.22, 0.34)], mix(tone, WHITE, 0.5))
        pen.polygon([(x - 0.1, 0.3), (x + 0.2, 0.3), (x + 0.14, 0.23)], shade(tone, 0.86))


_SCENERY: dict[str, Callable[[Chance, Pen, Colour], None]] = {
    "park": _park,
    "room": _room,
    "street": _street,
    "gym": _gym,
    "beach": _beach,
}


def _mark_ground(chance: Chance, pen: Pen, place: str, tone: Colour) -> None:
    if place in ("street", "gym"):
        y = chance.uniform(-0.5, -0.2)
        pen.block((-1, y), (4, y + 0.03), mix(tone, WHITE, 0.35))
    elif place == "room":
        x, half = chance.uniform(0.5, 2.0), chance.uniform(0.4, 0.9)
        rug = [(x - half, -0.7), (x - 0.8 * half, -0.4), (x + 0.8 * half, -0.4), (x + half, -0.7)]
        pen.polygon(rug, mix(tone, chance.near((170, 150, 150), 30), 0.3))
    else:
        for _ in range(4):
            x, y = chance.uniform(-0.2, 2.8), chance.uniform(-0.9, -0.1)
            pen.line([(x, y), (x + chance.uniform(0.1, 0.4), y)], 0.03, shade(tone, 0.95))


def _stand_about(chance: Chance, pen: Pen, look: str, air: Colour, place: str) -> None:
    """Draw one thing that nobody uses, paler than what is used."""
    pale = chance.uniform(0.25, 0.6)
    colour, trim = (mix(tone, air, pale) for tone in chance.choice(THINGS[look]))
    kind, style = chance.below(12 if look == "benchmark" else 13), chance.uniform(0, 1)
    if kind == 0:
        things.ball(pen, (0, 0.08), 0.08, colour, trim)
    elif kind == 1:
        things.ball(pen, (0, chance.uniform(0.3, 1.1)), 0.07, colour, trim)
    elif kind == 2:
        things.chair(pen, 0, 0.225, colour, style)
    elif kind == 3:
        tall = chance.uniform(0.15, 0.75)
        things.crate(pen, (0, 0), (chance.uniform(0.2, 0.6), tall), colour, trim)
    elif kind == 4:
        things.hoop(pen, 0, 1.1, colour)
    elif kind == 5:
        things.stairs(pen, 0, 3 + chance.below(3), 0.25, 0.13, mix(colour, air, 0.3))
    elif kind == 6:
        things.table(pen, -0.3, 0.3, 0.4, colour)
        if style < 0.5:
            things.bottle(pen, (0.1, 0.4), 180, trim)
        else:
            things.cup(pen, -0.1, 0.4, trim)
    elif kind == 7:
        things.bottle(pen, (0, 0), 180, colour)
    elif kind == 8:
        things.lamp(pen, 0, chance.uniform(0.9, 1.4), trim, mix(colour, WHITE, 0.4))
    elif kind == 9:
        things.bar(pen, 0.4, 1.1)
    elif kind == 10 and place in ("park", "beach", "street"):
        leaves = mix(chance.near((104, 136, 96), 20), air, pale)
        things.tree(pen, 0, chance.uniform(0.9, 1.6), mix((110, 90, 74), air, pale), leaves, style)
    elif kind == 11:
        things.goal(pen, 0)
    else:
        things.flag(pen, 0, colour)
