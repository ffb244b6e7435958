"""Frames with persons drawn by arithmetic alone, the same with every version of every package."""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

Bool = NDArray[np.bool_]


def drawn_frame(
    width: int, height: int, persons: Sequence[tuple[float, float, float]]
) -> NDArray[np.uint8]:
    """(height, width, 3) with persons: x of the middle, y of the top, and size, in pixels."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    frame = np.empty((height, width, 3), dtype=np.uint8)
    frame[:] = (150, 160, 150)
    frame[height * 6 // 10 :] = (110, 120, 90)
    for middle, top, size in persons:
        u, v = (x - middle) / size, (y - top) / size
        for side in (-1, 1):
            frame[line(u, v, side * 0.10, 0.50, side * 0.15, 1.00, 0.05)] = (40, 50, 90)
            frame[line(u, v, side * 0.14, 0.22, side * 0.24, 0.50, 0.035)] = (170, 40, 40)
        frame[(np.abs(u) < 0.15) & (np.abs(v - 0.365) < 0.185)] = (170, 40, 40)
        head = (u / 0.08) ** 2 + ((v - 0.09) / 0.09) ** 2 < 1
        frame[head] = (220, 180, 150)
        frame[head & (v < 0.08)] = (60, 40, 30)
    return frame


def write_film(path: Path, frames: Iterable[NDArray[np.uint8]], fps: int = 10) -> Path:
    """An mp4 of the frames."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        for n, picture in enumerate(frames):
            if not n:
                stream.height, stream.width = picture.shape[:2]
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            frame.pts, frame.time_base = n, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def line(u: Any, v: Any, u1: float, v1: float, u2: float, v2: float, half_width: float) -> Bool:
    """The points that are near the line from one point to another."""
    du, dv = u2 - u1, v2 - v1
    along = np.clip(((u - u1) * du + (v - v1) * dv) / (du * du + dv * dv), 0, 1)
    distance = np.hypot(u - u1 - along * du, v - v1 - along * dv)
    return np.asarray(distance < half_width)
