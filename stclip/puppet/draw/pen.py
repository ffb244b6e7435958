"""Draws in figure heights around a place on the ground; the x axis points where a figure faces.

All coordinates are rounded to whole pixels of the enlarged canvas before anything is drawn, so that
the last bit of a sine makes no difference.
"""

import math
from collections.abc import Sequence

from PIL import ImageDraw

from stclip.puppet.draw.chance import Colour

SCALE = 2  # the canvas is this much larger than the frame, so that edges become smooth
WIDTH, HEIGHT = 160, 120

Point = tuple[float, float]


class Pen:
    """Draws around one place and keeps the extent of what it has drawn.

    Args:
        draw: of the canvas.
        x: of the place, in pixels of the frame.
        ground: y of the place, likewise.
        size: how many pixels of the frame one figure height is.
        facing: 1 to the right, -1 to the left.

    Attributes:
        extent: x1, y1, x2, y2 of everything drawn, in pixels of the canvas.
    """

    def __init__(
        self, draw: ImageDraw.ImageDraw, x: float, ground: float, size: float, facing: int = 1
    ) -> None:
        self._draw = draw
        self._x, self._y = SCALE * x, SCALE * ground
        self._size = SCALE * size
        self._x_size = SCALE * size * facing
        self.extent = [10**6, 10**6, -(10**6), -(10**6)]

    def _pixel(self, point: Point) -> tuple[int, int]:
        return (
            round(self._x + self._x_size * point[0]),
            round(self._y - self._size * point[1]),
        )

    def _thick(self, width: float) -> int:
        return max(1, round(self._size * width))

    def _cover(self, x: int, y: int, radius: int) -> None:
        extent = self.extent
        if x - radius < extent[0]:
            extent[0] = x - radius
        if y - radius < extent[1]:
            extent[1] = y - radius
        if x + radius > extent[2]:
            extent[2] = x + radius
        if y + radius > extent[3]:
            extent[3] = y + radius

    def disc(self, centre: Point, radius: float, colour: Colour) -> None:
        """A filled circle."""
        x, y = self._pixel(centre)
        r = max(1, round(self._size * radius))
        self._draw.ellipse((x - r, y - r, x + r, y + r), colour)
        self._cover(x, y, r)

    def ring(self, centre: Point, across: float, down: float, width: float, colour: Colour) -> None:
        """An ellipse that is not filled; ``across`` and ``down`` are its radii."""
        x, y = self._pixel(centre)
        a, b = max(1, round(self._size * across)), max(1, round(self._size * down))
        self._draw.ellipse((x - a, y - b, x + a, y + b), outline=colour, width=self._thick(width))
        self._cover(x, y, max(a, b))

    def line(self, points: Sequence[Point], width: float, colour: Colour) -> None:
        """Straight strokes with flat ends."""
        pixels = [self._pixel(point) for point in points]
        thick = self._thick(width)
        self._draw.line(pixels, colour, thick)
        for x, y in pixels:
            self._cover(x, y, (thick + 1) // 2)

    def chain(self, points: Sequence[Point], width: float, colours: Sequence[Colour]) -> None:
        """Strokes with round ends; one colour for each stroke."""
        pixels = [self._pixel(point) for point in points]
        thick = self._thick(width)
        r = thick // 2
        for (x1, y1), (x2, y2), colour in zip(pixels[:-1], pixels[1:], colours, strict=True):
            self._draw.line((x1, y1, x2, y2), colour, thick)
            for x, y in ((x1, y1), (x2, y2)):
                self._draw.ellipse((x - r, y - r, x + r, y + r), colour)
        for x, y in pixels:
            self._cover(x, y, r + 1)

    def polygon(self, points: Sequence[Point], colour: Colour) -> None:
        """A filled polygon without a dent on its left or right.

        Pillow's own polygons have changed from version to version; thin lines have not.
        """
        pixels = [self._pixel(point) for point in points]
        left: dict[int, int] = {}
        right: dict[int, int] = {}
        for (x1, y1), (x2, y2) in zip(pixels, [*pixels[1:], pixels[0]], strict=True):
            if y1 > y2:
                x1, y1, x2, y2 = x2, y2, x1, y1
            rows = max(1, y2 - y1)
            for row in range(y2 - y1 + 1):
                x, y = x1 + (2 * row * (x2 - x1) + rows) // (2 * rows), y1 + row
                left[y], right[y] = min(x, left.get(y, x)), max(x, right.get(y, x))
            left[y2], right[y2] = min(x2, left[y2]), max(x2, right[y2])
        # One line, to and fro through all rows.
        path: list[tuple[int, int]] = []
        for y in sorted(left):
            ends = [(left[y], y), (right[y], y)]
            path += ends if (y % 2) else ends[::-1]
        self._draw.line(path, colour, 1)
        for x, y in pixels:
            self._cover(x, y, 0)

    def block(self, low: Point, high: Point, colour: Colour) -> None:
        """A filled rectangle between two corners."""
        (x1, y1), (x2, y2) = self._pixel(low), self._pixel(high)
        x1, x2 = min(x1, x2), max(x1, x2)
        y1, y2 = min(y1, y2), max(y1, y2)
        self._draw.rectangle((x1, y1, x2, y2), colour)
        self._cover(x1, y1, 0)
        self._cover(x2, y2, 0)


def step(origin: Point, angle: float, length: float) -> Point:
    """The point ``length`` away; ``angle`` in degrees: 0 is down, 90 ahead, 180 up."""
    radians = math.radians(angle)
    return origin[0] + length * math.sin(radians), origin[1] - length * math.cos(radians)


def between(a: Point, b: Point, share: float) -> Point:
    """The point that is ``share`` of the way from ``a`` to ``b``."""
    return a[0] + share * (b[0] - a[0]), a[1] + share * (b[1] - a[1])


def plus(a: Point, b: Point) -> Point:
    """``a`` moved by ``b``."""
    return a[0] + b[0], a[1] + b[1]


def flight(start: Point, end: Point, arc: float, share: float) -> Point:
    """Where a thrown thing is on its way; in the middle it is ``arc`` above the straight line."""
    x, y = between(start, end, share)
    return x, y + 4 * arc * share * (1 - share)
