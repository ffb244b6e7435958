"""The colours of clothes, hair, skin, and things, by name, for the two looks."""

from stclip.puppet.draw.chance import Colour

LOOKS = ("benchmark", "pretrain")

CLOTHES: dict[str, dict[str, Colour]] = {
    "benchmark": {
        "red": (206, 52, 48),
        "orange": (238, 132, 40),
        "yellow": (240, 206, 60),
        "green": (46, 142, 70),
        "teal": (28, 150, 152),
        "blue": (44, 88, 196),
        "purple": (122, 66, 164),
        "pink": (234, 122, 164),
        "white": (244, 244, 240),
        "grey": (116, 118, 124),
        "black": (34, 34, 40),
        "brown": (124, 80, 48),
    },
    "pretrain": {
        "red": (178, 28, 62),
        "orange": (220, 104, 62),
        "yellow": (222, 186, 24),
        "green": (92, 160, 40),
        "teal": (64, 176, 160),
        "blue": (70, 126, 220),
        "purple": (92, 48, 130),
        "pink": (214, 88, 150),
        "white": (226, 228, 236),
        "grey": (146, 140, 136),
        "black": (52, 44, 48),
        "brown": (148, 102, 70),
    },
}
TROUSERS = ("blue", "grey", "black", "brown", "green", "white", "red", "purple")

HAIR: dict[str, Colour] = {
    "black": (28, 24, 26),
    "brown": (96, 58, 32),
    "blond": (226, 190, 100),
    "red": (176, 82, 36),
    "grey": (168, 168, 170),
}
SKIN: dict[str, tuple[Colour, ...]] = {
    "benchmark": ((250, 214, 184), (232, 184, 144), (200, 146, 104), (150, 98, 64), (104, 66, 44)),
    "pretrain": ((244, 204, 180), (224, 172, 128), (184, 128, 92), (134, 88, 60), (90, 60, 46)),
}

# Two colours of a thing that somebody uses or that stands about.
THINGS: dict[str, tuple[tuple[Colour, Colour], ...]] = {
    "benchmark": (
        ((222, 96, 30), (90, 50, 30)),
        ((176, 116, 60), (112, 74, 40)),
        ((60, 112, 176), (32, 60, 110)),
        ((186, 44, 60), (110, 28, 40)),
        ((56, 128, 88), (30, 80, 56)),
        ((150, 90, 160), (90, 50, 100)),
        ((214, 176, 60), (140, 108, 30)),
    ),
    "pretrain": (
        ((240, 130, 70), (130, 62, 30)),
        ((150, 100, 72), (96, 60, 46)),
        ((84, 150, 190), (46, 86, 120)),
        ((210, 80, 110), (130, 40, 66)),
        ((110, 160, 70), (64, 100, 40)),
        ((104, 76, 150), (60, 42, 96)),
        ((236, 210, 120), (160, 134, 60)),
    ),
}
DARK: Colour = (44, 44, 50)
METAL: Colour = (112, 116, 124)
WHITE: Colour = (246, 246, 244)


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """``a`` with ``share`` of ``b`` in it."""
    red, green, blue = (round(x + share * (y - x)) for x, y in zip(a, b, strict=True))
    return red, green, blue


def shade(colour: Colour, factor: float) -> Colour:
    """``colour`` made darker (``factor`` below 1)."""
    return mix((0, 0, 0), colour, factor)
