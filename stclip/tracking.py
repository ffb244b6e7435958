"""Which boxes of successive frames are the same person, and the votes of its scores over time.

The tracker is BoT-SORT (Aharon et al. 2022) of the package ``trackers``, without its compensation
of camera motion and without looks: ByteTrack with noise that grows with the boxes. Here it gets
times and thresholds that suit any frame rate and detector, numbers that count from 1, and a new
start at every cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stclip.errors import UserError
from stclip.structures.boxes import paired_iou

# Sure boxes are those down to this much below what begins a track, as ByteTrack has it.
_MARGIN = 0.1
# The least IoU times score, by which a sure box continues a track: small, for people who walk fast
# in videos of few frames a second; and the least IoU of an unsure one, which is often no person.
_SURE_OVERLAP, _UNSURE_OVERLAP = 0.1, 0.5
_NEW_OVERLAP = 0.3  # the same for the second box of a track
# With so few keyframes a second, or fewer, somebody can be far away in the next one, and whoever
# stands in the old place can be somebody else: only boxes that overlap well are linked.
_DENSE, _SPARSE_OVERLAP = 4.0, 0.4
_BEGIN = 0.4  # score that begins a track in the boxes of a dataset, whatever their detector


class Tracker:
    """Gives the boxes of a frame the numbers of their persons.

    Args:
        fps: frames a second.
        threshold: a detector score from which on a box can begin a track; a little lower ones
            continue one easily, all others if they overlap well. In the first frame such a box has
            a number at once; later, once it is seen in two frames.
        lost_seconds: how long a person may be out of sight and keep its number.
        overlap: IoU times score that a sure box must have with where a person is expected.
    """

    def __init__(
        self,
        fps: float,
        threshold: float = 0.5,
        lost_seconds: float = 2.0,
        overlap: float = _SURE_OVERLAP,
    ) -> None:
        try:
            import supervision
            from trackers import BoTSORTTracker
        except ImportError as error:
            raise UserError(
                f"following people needs the package trackers ({error}); install stclip again, or "
                "pip install trackers"
            ) from error
        self.threshold = threshold
        self._detections = supervision.Detections
        self._tracker = BoTSORTTracker(
            lost_track_buffer=round(30 * lost_seconds),  # in frames of 30 a second
            frame_rate=fps,
            track_activation_threshold=threshold,
            high_conf_det_threshold=max(threshold - _MARGIN, 0.0),
            minimum_consecutive_frames=2,
            minimum_iou_threshold_first_assoc=overlap,
            minimum_iou_threshold_second_assoc=_UNSURE_OVERLAP,
            minimum_iou_threshold_unconfirmed_assoc=max(overlap, _NEW_OVERLAP),
            enable_cmc=False,
        )
        self._numbers: dict[int, int] = {}  # by the tracker's, since the last cut
        self._count = 0

    def cut(self) -> None:
        """End all tracks: with the next frame another shot begins."""
        self._tracker.reset()
        self._numbers.clear()

    def update(
        self,
        boxes: NDArray[np.floating],
        scores: NDArray[np.floating],
        seconds: float | None = None,
    ) -> NDArray[np.int64]:
        """The numbers (n,) of the persons of the next frame, 0 for nobody yet.

        Args:
            boxes: (n, 4) xyxy in pixels.
            scores: (n,), the detector's.
            seconds: when the frame is shown; None for one that follows at the frame rate.
        """
        detections = self._detections(
            xyxy=boxes.astype(np.float64).reshape(-1, 4), confidence=scores.astype(np.float64)
        )
        detections.data["row"] = np.arange(len(boxes))
        tracked = self._tracker.update(detections, timestamp=seconds)
        ids = np.zeros(len(boxes), dtype=np.int64)
        rows = tracked.data.get("row", np.zeros(0, dtype=int))
        numbers: Any = tracked.tracker_id if len(tracked) else ()
        for row, number in zip(rows, numbers, strict=True):
            if number >= 0:
                ids[int(row)] = self._number(int(number))
        return ids

    def _number(self, number: int) -> int:
        if number not in self._numbers:
            self._count += 1
            self._numbers[number] = self._count
        return self._numbers[number]


def follow(
    seconds: NDArray[np.float64],
    boxes: Sequence[NDArray[np.floating]],
    scores: Sequence[NDArray[np.floating]],
) -> list[NDArray[np.int64]]:
    """The numbers of the persons of a whole video.

    A track is known from its second box on. Since all boxes are at hand, the first one gets its
    number too.

    Args:
        seconds: (F,) when the frames are shown, ascending.
        boxes: of each frame (n, 4) xyxy in pixels.
        scores: of each frame (n,), the detector's.

    Returns:
        For each frame (n,) numbers from 1, 0 for boxes of no track.
    """
    gap = float(np.median(np.diff(seconds))) if len(seconds) > 1 else 0.0
    fps = 1 / gap if gap > 0 else 1.0
    tracker = Tracker(fps, _BEGIN, overlap=_SURE_OVERLAP if fps > _DENSE else _SPARSE_OVERLAP)
    known = 0
    found: list[NDArray[np.int64]] = []
    for frame, (time, at, score) in enumerate(zip(seconds.tolist(), boxes, scores, strict=True)):
        ids = tracker.update(at, score, time - float(seconds[0]))
        for row in np.flatnonzero(ids > known) if found else ():
            free = np.flatnonzero((found[-1] == 0) & (scores[frame - 1] >= tracker.threshold))
            overlaps = paired_iou(boxes[frame - 1][free], at[row : row + 1].repeat(len(free), 0))
            if overlaps.any():
                found[-1][free[overlaps.argmax()]] = ids[row]
        known = max(known, ids.max(initial=0))
        found.append(ids)
    return found


def vote(
    times: NDArray[np.float64], scores: NDArray[np.float32], window: float
) -> NDArray[np.float32]:
    """The mean of the scores within half a window to each side.

    Args:
        times: (S,) seconds, ascending.
        scores: (S, C).
        window: seconds; 0 leaves the scores as they are.

    Returns:
        (S, C) float32.
    """
    if not len(times):
        return scores
    low = np.searchsorted(times, times - window / 2 - 1e-9, side="left")
    high = np.searchsorted(times, times + window / 2 + 1e-9, side="right")
    sums = np.concatenate([np.zeros((1, scores.shape[1])), scores.cumsum(axis=0, dtype=np.float64)])
    mean = (sums[high] - sums[low]) / (high - low)[:, None]
    return mean.astype(np.float32)
