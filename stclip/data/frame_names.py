"""Picture files that carry the number of a frame in their name."""

import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from stclip.errors import UserError

# 00001.png, frame0001.tif, img-0001.jpg, or anything_000001.jpg as ffmpeg users name them. Hidden
# files are none of ours.
_FRAME_NAME = re.compile(
    r"(?!\.)(?:.*[^0-9])?([0-9]+)\.(?:png|jpe?g|bmp|webp|tiff?)", re.IGNORECASE
)
_DIGITS = 9  # of a frame's number, leading zeros aside
RULE = "frames are pictures whose names end in their number, from 1 on (00001.png)"


class FrameNames:
    """The picture file of every frame of a video.

    A dataset can have ten million such files (AVA at 30 frames a second), so names that follow from
    the number are not kept.

    Args:
        path: the folder or archive, for messages.
        files: names in it; those that are no frames do not matter.

    Raises:
        UserError: a frame 0, or two pictures of one number.
    """

    def __init__(self, path: Path, files: Iterable[str]) -> None:
        found: dict[int, str] = {}
        for file in files:
            match = _FRAME_NAME.fullmatch(PurePosixPath(file).name)
            if match is None:
                continue
            if len(match[1].lstrip("0")) > _DIGITS:
                raise UserError(f"{path}: {file:.100}: at most {_DIGITS} digits; {RULE}")
            number = int(match[1])
            if number == 0:
                raise UserError(f"{path}: {file}: frames count from 1; rename the files")
            if number in found:
                raise UserError(
                    f"{path}: {found[number]} and {file} are both frame {number}; keep one of them"
                )
            found[number] = file
        self._numbers: NDArray[np.int64] = np.array(sorted(found), dtype=np.int64)
        self._before = self._after = ""
        self._digits = 0
        if found:
            name = found[int(self._numbers[0])]
            self._before, digits, self._after = re.split(r"([0-9]+)(?=\.\w+$)", name)
            self._digits = len(digits)
        self._others = {n: file for n, file in found.items() if file != self._regular(n)}

    @property
    def last(self) -> int:
        """The highest number; 0 if there is no frame."""
        return int(self._numbers[-1]) if len(self._numbers) else 0

    @property
    def first(self) -> int:
        """The lowest number; 0 if there is no frame."""
        return int(self._numbers[0]) if len(self._numbers) else 0

    def __len__(self) -> int:
        """How many frames there are."""
        return len(self._numbers)

    def __contains__(self, number: int) -> bool:
        """Whether a frame is there."""
        place = int(np.searchsorted(self._numbers, number))
        return place < len(self._numbers) and int(self._numbers[place]) == number

    def __getitem__(self, number: int) -> str:
        """The file of a frame that is there."""
        return self._others.get(number) or self._regular(number)

    def missing(self, last: int) -> list[int]:
        """The numbers from 1 to ``last`` that are not there."""
        if last == len(self) == self.last:  # distinct and from 1: none can be missing
            return []
        there = set(self._numbers.tolist())
        return [number for number in range(1, last + 1) if number not in there]

    def _regular(self, number: int) -> str:
        return f"{self._before}{number:0{self._digits}d}{self._after}"
