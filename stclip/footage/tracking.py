"""Which boxes of successive frames are the same person: ByteTrack (Zhang et al., ECCV 2022).

The tracker is BoT-SORT (Aharon et al. 2022) of the package ``trackers``, without its compensation
of camera motion and without looks: ByteTrack with noise that grows with the boxes. Here it gets
times and thresholds that suit any frame rate and detector, numbers that count from 1, and a new
start at every cut.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from stclip.data.frames import Picture
from stclip.errors import UserError
from stclip.footage.records import Boxes
from stclip.footage.source import Frame

# Sure boxes are those down to this much below what begins a track, as ByteTrack has it.
_MARGIN = 0.1
# The least IoU times score, by which a sure box continues a track: small, for people who walk fast
# in videos of few frames a second; and the least IoU of an unsure one, which is often no person.
_SURE_OVERLAP, _UNSURE_OVERLAP = 0.1, 0.5
_THUMBNAIL = (32, 32)


class Tracker:
    """Gives the boxes of a frame the numbers of their persons.

    Args:
        fps: frames a second.
        threshold: a detector score from which on a box can begin a track. In the first frame and
            after a cut it has a number at once; later, once it is seen in two frames.
        lost_seconds: how long a person may be out of sight and keep its number.
        cut_threshold: see ``Cuts``; every track ends at a cut.
    """

    def __init__(
        self,
        fps: float,
        threshold: float = 0.5,
        lost_seconds: float = 2.0,
        cut_threshold: float = 30.0,
    ) -> None:
        try:
            import supervision
            from trackers import BoTSORTTracker
        except ImportError as error:
            raise UserError(
                f"following people needs the package trackers ({error}); install stclip again, or "
                "pip install trackers"
            ) from error
        self._detections = supervision.Detections
        self._tracker = BoTSORTTracker(
            lost_track_buffer=round(30 * lost_seconds),  # in frames of 30 a second
            frame_rate=fps,
            track_activation_threshold=threshold,
            high_conf_det_threshold=max(threshold - _MARGIN, 0.0),
            minimum_consecutive_frames=2,
            minimum_iou_threshold_first_assoc=_SURE_OVERLAP,
            minimum_iou_threshold_second_assoc=_UNSURE_OVERLAP,
            enable_cmc=False,
        )
        self._is_cut = Cuts(cut_threshold)
        self._numbers: dict[int, int] = {}  # of this shot, by the tracker's
        self._count = 0

    def update(self, found: Boxes, frame: Frame) -> Boxes:
        """The boxes of the next frame with the numbers of their tracks, 0 for nobody yet."""
        if self._is_cut(frame.image):
            self._tracker.reset()
            self._numbers.clear()
        detections = self._detections(
            xyxy=found.boxes.astype(np.float64).reshape(-1, 4),
            confidence=found.scores.astype(np.float64),
        )
        detections.data["row"] = np.arange(len(found.boxes))
        tracked = self._tracker.update(detections, timestamp=frame.seconds)
        ids = np.zeros(len(found.boxes), dtype=np.int64)
        rows = tracked.data.get("row", np.zeros(0, dtype=int))
        numbers: Any = tracked.tracker_id if len(tracked) else ()
        for row, number in zip(rows, numbers, strict=True):
            if number >= 0:
                ids[int(row)] = self._number(int(number))
        return Boxes(found.boxes, found.scores, ids)

    def _number(self, number: int) -> int:
        if number not in self._numbers:
            self._count += 1
            self._numbers[number] = self._count
        return self._numbers[number]


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
