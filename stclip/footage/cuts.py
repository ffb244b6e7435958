"""Where another shot begins."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from stclip.data.frames import Picture

_THUMBNAIL = (32, 32)


class Cuts:
    """Says of every frame whether another shot begins with it.

    Two frames of one shot look much alike when small, even if the camera moves. Brightness is left
    out, for the sake of flashes and of cameras that adapt.

    Args:
        threshold: the mean difference to the frame before, of 255, from which on it is a cut; 255
            finds none.
    """

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._last: Any = None

    def __call__(self, image: Picture) -> bool:
        """Take the next frame, (h, w, 3) uint8."""
        step = max(min(image.shape[:2]) // 128, 1)  # all pixels of a large frame would take long
        sample = np.ascontiguousarray(image[::step, ::step])
        small = cv2.resize(sample, _THUMBNAIL, interpolation=cv2.INTER_AREA).astype(np.float32)
        small -= small.mean()
        last, self._last = self._last, small
        return last is not None and float(np.abs(small - last).mean()) >= self._threshold
