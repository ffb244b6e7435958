"""Which boxes of successive frames are the same person: ByteTrack (Zhang et al., ECCV 2022).

The tracker is that of the package ``trackers``. Here it gets times and thresholds that suit any
frame rate and detector, and numbers that count from 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from stclip.errors import UserError
from stclip.footage.records import Boxes


class Tracker:
    """Gives the boxes of a frame the numbers of their persons.

    Args:
        fps: frames a second.
        threshold: a detector score from which on a box can begin a track; lower ones only continue
            one.
        lost_seconds: how long a person may be out of sight and keep its number.
    """

    def __init__(self, fps: float, threshold: float = 0.4, lost_seconds: float = 2.0) -> None:
        try:
            import supervision
            from trackers import ByteTrackTracker
        except ImportError as error:
            raise UserError(
                f"following people needs the package trackers ({error}); install stclip again, or "
                "pip install trackers"
            ) from error
        self._detections = supervision.Detections
        self._tracker = ByteTrackTracker(
            lost_track_buffer=round(30 * lost_seconds),  # in frames of 30 a second
            frame_rate=fps,
            track_activation_threshold=threshold,
            high_conf_det_threshold=threshold,
            minimum_consecutive_frames=2,
            minimum_iou_threshold=0.1,
        )
        self._numbers: dict[int, int] = {}

    def update(self, found: Boxes) -> Boxes:
        """The boxes of the next frame with the numbers of their tracks, 0 for nobody yet."""
        detections = self._detections(
            xyxy=found.boxes.astype(np.float64).reshape(-1, 4),
            confidence=found.scores.astype(np.float64),
        )
        detections.data["row"] = np.arange(len(found.boxes))
        tracked = self._tracker.update(detections)
        ids = np.zeros(len(found.boxes), dtype=np.int64)
        rows = tracked.data.get("row", np.zeros(0, dtype=int))
        numbers: Any = tracked.tracker_id if len(tracked) else ()
        for row, number in zip(rows, numbers, strict=True):
            if number >= 0:
                ids[int(row)] = self._numbers.setdefault(int(number), len(self._numbers) + 1)
        return Boxes(found.boxes, found.scores, ids)
