"""Random choices that come out equal on every machine and version of Python.

Only ``random.Random.random`` keeps its sequence across versions; all else is made from it here.
"""

import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")
Colour = tuple[int, int, int]


class Chance:
    """A source of choices.

    Args:
        rng: where the randomness comes from; only its ``random()`` is called.
    """

    def __init__(self, rng: random.Random) -> None:
        self._random = rng.random

    def uniform(self, low: float, high: float) -> float:
        """A number between ``low`` and ``high``."""
        return low + (high - low) * self._random()

    def happens(self, share: float) -> bool:
        """True in ``share`` of the cases."""
        return self._random() < share

    def below(self, count: int) -> int:
        """A whole number from 0 to ``count`` - 1."""
        return int(self._random() * count)

    def choice(self, options: Sequence[T]) -> T:
        """One of ``options``."""
        return options[self.below(len(options))]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """``items`` in another order."""
        rest = list(items)
        return [rest.pop(self.below(len(rest))) for _ in range(len(rest))]

    def near(self, colour: Colour, amount: float) -> Colour:
        """``colour``, each channel moved by up to ``amount``."""
        red, green, blue = (
            min(255, max(0, round(value + self.uniform(-amount, amount)))) for value in colour
        )
        return red, green, blue
