"""What a video is to the rest of the program; and frames that are in memory already.

Frames count from 1 everywhere, as the file names of frame folders do.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from stclip.errors import UserError

Picture = NDArray[np.uint8]
# The default of DATALOADER.MAX_PIXELS.
MAX_PIXELS = 2**26


class Video(ABC):
    """The frames of one video, read by number.

    Attributes:
        path: the folder or file.
        name: how messages and results call it; the file's name without its ending by default.
        in_sequence: whether frames are decoded one after the other, so that going back costs more
            than going on.
        max_pixels: larger pictures are refused before they are decoded.
    """

    in_sequence: ClassVar[bool] = False
    max_pixels: int = MAX_PIXELS

    def __init__(self, path: str | Path, name: str | None) -> None:
        self.path = Path(path)
        self.name = self.path.stem if name is None else name

    @abstractmethod
    def __len__(self) -> int:
        """The number of frames."""

    @property
    @abstractmethod
    def size(self) -> tuple[int, int]:
        """Width and height in pixels as shown, for which one picture is decoded at most."""

    @abstractmethod
    def missing(self, expected: int = 0) -> list[int]:
        """Frames that should be there and are not, without decoding pictures.

        Args:
            expected: how many frames the video should have at least, if that is known.
        """

    @abstractmethod
    def frame_at(self, seconds: float, fps: float) -> int:
        """The frame shown ``seconds`` after the first one; past the end if the time is.

        Args:
            seconds: time since the first frame.
            fps: frames a second, used where the frames carry no time themselves.
        """

    def irregularities(self) -> list[str]:
        """What is unusual about when the frames are shown, a text each, without decoding them."""
        return []

    def read(self, frames: Sequence[int]) -> list[Picture]:
        """Decode frames; each distinct one is decoded once.

        Args:
            frames: 1-based numbers, in any order, with or without repetition.

        Returns:
            For each of ``frames`` its picture, (h, w, 3) uint8 RGB; do not write to it.

        Raises:
            UserError: a frame is not there or cannot be decoded; the file is named.
        """
        distinct = sorted(set(frames))
        pictures = dict(zip(distinct, self._decode(distinct), strict=True))
        return [pictures[frame] for frame in frames]

    def fingerprints(self, frames: Sequence[int]) -> list[bytes] | None:
        """For each frame bytes that are equal only if what is stored of it is equal.

        They follow from the files' content alone, not from names or dates. None if there is no file
        to read anew.

        Args:
            frames: 1-based numbers.

        Raises:
            UserError: a frame is not there or cannot be read.
        """
        return None

    def keep_open(self, keep: bool) -> None:  # noqa: B027 (most kinds have nothing to keep)
        """Whether the file stays open from one ``read`` to the next; False closes it.

        While it does, ascending reads decode each frame of a video file once. Pictures in files of
        their own are opened one by one whatever is said here.
        """

    @abstractmethod
    def _decode(self, frames: list[int]) -> list[Picture]:
        """Pictures of distinct ascending frame numbers."""


class FrameList(Video):
    """Frames that a program has already.

    Args:
        frames: (h, w, 3) uint8 RGB each, all of one size.
        name: how messages call them.

    Raises:
        UserError: no frame, or frames that are not such arrays.
    """

    def __init__(self, frames: Sequence[Picture], name: str = "frames") -> None:
        super().__init__(name, name)
        if len(frames) == 0:
            raise UserError(f"{name}: no frame; give at least one")
        for index, frame in enumerate(frames):
            shape, kind = getattr(frame, "shape", None), getattr(frame, "dtype", type(frame))
            rgb = shape is not None and len(shape) == 3 and shape[2] == 3 and 0 not in shape
            if not rgb or kind != np.uint8 or shape != frames[0].shape:
                raise UserError(
                    f"{name}[{index}]: (height, width, 3) of uint8, all of one size, was expected; "
                    f"found shape {shape} of {kind}"
                )
        self._frames = frames

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        height, width = self._frames[0].shape[:2]
        return width, height

    def missing(self, expected: int = 0) -> list[int]:
        """The frames past the end, up to the expected one."""
        return list(range(len(self) + 1, expected + 1))

    def frame_at(self, seconds: float, fps: float) -> int:
        """The frame at that time if ``fps`` of them are shown a second."""
        return round(seconds * fps) + 1

    def _decode(self, frames: list[int]) -> list[Picture]:
        for number in frames:
            if not 1 <= number <= len(self):
                raise UserError(f"{self.name}: frame {number} is not there; {len(self)} are")
        return [self._frames[number - 1] for number in frames]
