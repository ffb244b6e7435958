"""One pass through a video: detect, follow, score, and the files that come of it.

Everything is pulled frame by frame, so a video of any length, or a camera, takes the same memory
but for the numbers of its boxes.
"""

from __future__ import annotations

import glob
import hashlib
import logging
import math
from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from stclip.detector import Detector
from stclip.errors import UserError
from stclip.files import locked, read_json, retire
from stclip.footage.annotated import AnnotatedVideo
from stclip.footage.cuts import Cuts
from stclip.footage.events import EventRule, find_events
from stclip.footage.given import Finder, Given
from stclip.footage.log import Log
from stclip.footage.records import Boxes, Footage
from stclip.footage.results import (
    EVENTS,
    PAGE,
    RESULT,
    VIDEO,
    write_events,
    write_page,
    write_result,
)
from stclip.footage.scoring import Scored, Scorer, Step
from stclip.footage.source import Frame, LiveSource, Source
from stclip.models.onnx import OnnxModel
from stclip.tracking import Tracker

logger = logging.getLogger(__name__)

LOG = ".detections.jsonl"
_MOST_SKIPPED = 8  # frames that wait for the next one that the detector sees


@dataclass(frozen=True)
class Settings:
    """All numbers that results follow from, the model and the video aside.

    Attributes:
        detector: its name, or the file of boxes.
        detector_threshold: boxes with lower scores are not used.
        detect_rate: frames a second that the detector sees at most, and no fewer than every ninth;
            in frames between them persons move in a straight line.
        track_threshold: a box with at least this score can begin a track.
        lost_seconds: how long a person may be out of sight and keep the number.
        cut_threshold: mean difference of successive frames, of 255, from which on another shot
            begins, in which everybody has a new number; 255 finds none.
        score_every: seconds from one scored moment to the next.
        events: what makes an event of scores.
    """

    detector: str = "nanodet"
    detector_threshold: float = 0.2
    detect_rate: float = 15.0
    track_threshold: float = 0.5
    lost_seconds: float = 2.0
    cut_threshold: float = 30.0
    score_every: float = 0.5
    events: EventRule = field(default_factory=EventRule)

    def __post_init__(self) -> None:
        shares = {
            "detector_threshold": self.detector_threshold,
            "track_threshold": self.track_threshold,
            "threshold": self.events.threshold,
            "keep": self.events.keep,
        }
        times = {
            "lost_seconds": self.lost_seconds,
            "window": self.events.window,
            "min_seconds": self.events.min_seconds,
            "max_gap": self.events.max_gap,
        }
        rates = {"score_every": self.score_every, "detect_rate": self.detect_rate}
        of_255 = {"cut_threshold": self.cut_threshold}
        for values, fits, expected in (
            (shares, lambda value: 0 <= value <= 1, "0 to 1"),
            (times, lambda value: 0 <= value < math.inf, "0 or more"),
            (rates, lambda value: 0 < value < math.inf, "a number above 0"),
            (of_255, lambda value: 0 <= value <= 255, "0 to 255"),
        ):
            for name, value in values.items():
                if not fits(value):
                    raise UserError(f"{name}: {expected} expected, found {value:g}")


class Detection:
    """A video that is gone through once: iterate over it for its ``Step``s, or ``save`` it.

    ``footage`` holds what was found so far, with events once the end is reached.

    Args:
        source: the frames.
        model: what scores; its labels are the actions, then names that are never reported.
        actions: names that are reported, as they were given to the model.
        find: gives the persons of a frame.
        settings: numbers.
        facts: of the model, for the results.
        batch: moments that go through the model at once.
        precision: fp32, bf16 or fp16.
    """

    def __init__(
        self,
        source: Source,
        model: Detector,
        actions: Sequence[str],
        find: Finder,
        settings: Settings,
        facts: dict[str, Any],
        batch: int = 4,
        precision: str = "fp32",
    ) -> None:
        if precision != "fp32" and isinstance(model.model, OnnxModel):
            raise UserError(f"precision: an ONNX file computes in fp32, found {precision}")
        self.source = source
        self._model, self._find, self._settings = model, find, settings
        self._batch, self._precision = batch, precision
        end = None if source.end == math.inf else source.end
        self.footage = Footage(
            name=source.name,
            video={"path": source.location, "size": None, "fps": source.fps, "frames": 0,
                   "duration": source.duration, "start": source.start, "end": end},
            actions=model.labels[: len(actions)],  # without their wordings
            none_of=model.labels[len(actions):],
            model={**facts, "precision": precision},
            settings=asdict(settings),
        )  # fmt: skip
        self._last: list[Scored] = []  # moments whose scores came after the last frame

    def __iter__(self) -> Iterator[Step]:
        return self._steps(Log())

    def all(self) -> Footage:
        """Go through to the end."""
        for _ in self:
            pass
        return self.footage

    def save(self, folder: str | Path, video: bool = True, resume: bool = False) -> Footage:
        """Go through to the end and write result.json, events.csv, index.html and annotated.mp4.

        Args:
            folder: gets the files, and is for this video alone. Earlier results in it are kept
                under another name.
            video: whether to write annotated.mp4.
            resume: continue what an interrupted run left in the folder.

        Raises:
            UserError: the video cannot be read, or the folder holds other files, is in use or
                cannot be written. What was found until then is written all the same, as it is at
                an interrupt.
        """
        with claimed(folder):
            for _ in self.saving(folder, video, resume):
                pass
        return self.footage

    def saving(
        self, folder: str | Path, video: bool = True, resume: bool = False
    ) -> Generator[Step, None, None]:
        """``save`` step by step, for those who show progress.

        The caller has the folder ``claimed``, and closes the iterator if it ends early.
        """
        folder = Path(folder)
        if resume and isinstance(self.source, LiveSource):
            raise UserError(
                f"{self.source.location}: what a camera shows now is not what it showed then; "
                "leave out resume (--resume), and earlier results are kept under another name"
            )
        _make_room(folder, resume)
        log = Log.open(folder / LOG, self._key(), resume)
        annotated = self._annotated(folder) if video else None
        try:
            with closing(log):
                for step in self._steps(log):
                    if annotated is not None:
                        annotated.add(step)
                    yield step
        finally:
            self._write(folder, annotated)
        (folder / LOG).unlink()

    def is_complete_in(self, folder: Path) -> bool:
        """Whether a folder holds the complete result of this video, model and settings."""
        path = folder / RESULT
        found = read_json(path) if path.exists() else None
        if not isinstance(found, dict) or found.get("complete") is not True:
            return False
        if (folder / LOG).exists():  # the numbers are complete, but something came after them
            return False
        ours = self.footage
        facts = {name: getattr(ours, name) for name in ("actions", "none_of", "model", "settings")}
        facts["video"] = {key: ours.video[key] for key in ("path", "fps", "start", "end")}
        video = found.get("video")
        if isinstance(video, dict):
            found["video"] = {key: video.get(key) for key in facts["video"]}
        return all(found.get(name) == value for name, value in facts.items())

    def is_begun_in(self, folder: Path) -> bool:
        """Whether an interrupted run of this video, model and settings can be continued there."""
        live = isinstance(self.source, LiveSource)
        return not live and Log.is_of(folder / LOG, self._key())

    def _persons(self, log: Log) -> Iterator[tuple[Frame, Boxes]]:
        """Every frame with its persons, whose tracks are numbered."""
        settings, gap, rate = self._settings, 0.0, self.source.fps
        if not isinstance(self._find, Given):
            # Time stamps are often rounded to milliseconds.
            gap = 1 / settings.detect_rate - 0.002
            rate = min(rate, settings.detect_rate)
        tracker = None
        if not self._find.has_tracks:
            tracker = Tracker(rate, settings.track_threshold, settings.lost_seconds)
        is_cut = Cuts(settings.cut_threshold)

        def look(frame: Frame) -> Boxes:
            found = log.boxes.get(frame.number)
            if found is None:
                found = self._find(frame)
                log.add_frame(frame.number, found)
            if tracker is None:
                return found
            if is_cut(frame.image):
                tracker.cut()
            ids = tracker.update(found.boxes, found.scores, frame.seconds)
            return Boxes(found.boxes, found.scores, ids)

        before: tuple[float, Boxes] | None = None
        skipped: list[Frame] = []
        for frame in self.source:
            soon = before is not None and frame.seconds - before[0] < gap
            if soon and len(skipped) < _MOST_SKIPPED:
                skipped.append(frame)
                continue
            persons = look(frame)
            if before is not None:
                for between in skipped:
                    share = (between.seconds - before[0]) / (frame.seconds - before[0])
                    yield between, before[1].towards(persons, share)
            yield frame, persons
            before, skipped = (frame.seconds, persons), []
        for frame in skipped:
            yield frame, look(frame)

    def _steps(self, log: Log) -> Iterator[Step]:
        settings, footage = self._settings, self.footage
        scorer = Scorer(self._model, settings.score_every, self._batch, self._precision)
        for frame, persons in self._persons(log):
            step = Step(frame, persons, [])
            self._note(step)
            known = log.scores.get(frame.seconds)
            step.scored.extend(self._kept(log, scorer.push(frame, persons, known is not None)))
            if known is not None:
                self._keep(known)
                step.scored.append(known)
            yield step
        self._last = list(self._kept(log, scorer.flush()))
        footage.complete = True
        self._find_events()

    def _note(self, step: Step) -> None:
        """Take the boxes of a frame over into the tracks."""
        frame, persons, video = step.frame, step.persons, self.footage.video
        video.update(
            size=video["size"] or [frame.image.shape[1], frame.image.shape[0]],
            frames=video["frames"] + 1,
            last=frame.seconds,
        )
        for row in np.flatnonzero(persons.ids > 0):
            track = self.footage.track(int(persons.ids[row]))
            score = float(persons.scores[row])
            track.add_box(frame.seconds, frame.number, persons.boxes[row], score)

    def _kept(self, log: Log, moments: Iterator[Scored]) -> Iterator[Scored]:
        """New scores, on their way into the log and the tracks."""
        for moment in moments:
            log.add_moment(moment)
            self._keep(moment)
            yield moment

    def _keep(self, moment: Scored) -> None:
        for number, scores in zip(moment.ids, moment.scores, strict=True):
            self.footage.track(int(number)).add_scores(moment.seconds, scores)

    def _find_events(self) -> None:
        settings = self._settings
        for track in self.footage.tracks.values():
            track.events = find_events(
                track, self.footage.actions, settings.events, settings.score_every
            )
        self.footage.video.update(damaged=self.source.damaged, dropped=self.source.dropped)

    def _annotated(self, folder: Path) -> AnnotatedVideo:
        # A moment is scored when a batch of them has all frames of its windows.
        window = self._model.needs.frames * self._model.needs.stride / self.source.fps
        wait = self._batch * self._settings.score_every + window
        rule = self._settings.events
        return AnnotatedVideo(folder / VIDEO, self.source, self.footage.actions, rule, wait)

    def _write(self, folder: Path, annotated: AnnotatedVideo | None) -> None:
        """All files, of a part as well; the numbers first, should the video's end fail."""
        if not self.footage.complete:
            self._find_events()
        try:
            write_result(folder / RESULT, self.footage)
            write_events(folder / EVENTS, self.footage)
            drawn = False
            try:
                drawn = annotated is not None and annotated.close(self._last)
            finally:  # a disk without room for the video may have some for the page
                write_page(folder / PAGE, self.footage, VIDEO if drawn else None)
        finally:
            if annotated is not None:
                annotated.discard()

    def _key(self) -> str:
        """What an interrupted run must have in common with the one that continues it."""
        video = [self.footage.video[name] for name in ("path", "fps", "start")]
        facts = [*video, self._model.labels, self.footage.settings, self.footage.model]
        return hashlib.sha256(repr(facts).encode()).hexdigest()


def claimed(folder: str | Path, patience: float = 0.0) -> AbstractContextManager[None]:
    """Keep other processes from working on the video of a folder meanwhile.

    Args:
        folder: of the video.
        patience: seconds to wait for another process.

    Raises:
        InUse: another process does.
        UserError: the folder cannot be written.
    """
    folder = Path(folder)
    # What others have not finished lies in the folders of their videos.
    leftovers = f"{glob.escape(folder.name)}/.tmp-*"
    return locked(folder.parent, folder.name, leftovers, patience)


def _make_room(folder: Path, resume: bool) -> None:
    """Let a folder be there without earlier results, but for a run that is to be continued."""
    if folder.exists() and any(folder.iterdir()):
        begun = (folder / LOG).exists()
        if not begun and not (folder / RESULT).exists():
            raise UserError(f"{folder}: holds other files; choose another folder")
        if not (resume and begun):
            retire(folder)
    folder.mkdir(parents=True, exist_ok=True)
