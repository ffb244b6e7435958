"""One pass through a video: detect, follow, score, and what becomes of it.

Everything is pulled frame by frame, so a video of any length, or a camera, takes the same memory
but for the numbers of its boxes.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from stclip.detector import Detector
from stclip.errors import UserError
from stclip.files import atomic_path, parse_json
from stclip.footage.events import EventRule, find_events
from stclip.footage.given import Finder
from stclip.footage.records import Boxes, Footage
from stclip.footage.scoring import Scored, Scorer
from stclip.footage.source import Frame, Source
from stclip.footage.tracking import Tracker

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """All numbers that results follow from, the model and the video aside.

    Attributes:
        detector: its name, or the file of boxes.
        detector_threshold: boxes with lower scores are not used.
        track_threshold: a box with at least this score can begin a track.
        lost_seconds: how long somebody may be out of sight and keep the number.
        score_every: seconds from one scored moment to the next.
        events: what makes an event of scores.
    """

    detector: str = "nanodet"
    detector_threshold: float = 0.15
    track_threshold: float = 0.4
    lost_seconds: float = 2.0
    score_every: float = 0.5
    events: EventRule = field(default_factory=EventRule)


@dataclass(frozen=True)
class Step:
    """What one frame brought.

    Attributes:
        frame: the frame.
        persons: those found in it, with the numbers of their tracks (0: nobody yet).
        scored: moments, of this frame or earlier ones, whose scores are known now.
    """

    frame: Frame
    persons: Boxes
    scored: tuple[Scored, ...]


class Run:
    """Goes through a video once; iterating gives a ``Step`` for each frame.

    Afterwards, or whenever one stops, ``footage`` holds what was found.

    Args:
        source: the frames.
        model: what scores, with the names of actions and of what is never reported as labels.
        actions: names that are reported, the first of the model's labels.
        find: gives the persons of a frame.
        settings: numbers.
        facts: what scored, for the results.
        batch: moments that go through the model at once.
        precision: fp32, bf16 or fp16.
        log: a file that keeps detections and scores as they come, so that an interrupted run can be
            continued; None keeps none.
        resume: continue from that file.
    """

    def __init__(
        self,
        source: Source,
        model: Detector,
        actions: Sequence[str],
        find: Finder,
        settings: Settings,
        facts: dict[str, Any] | None = None,
        batch: int = 4,
        precision: str = "fp32",
        log: Path | None = None,
        resume: bool = False,
    ) -> None:
        self._source, self._model, self._find, self._settings = source, model, find, settings
        self._batch, self._precision = batch, precision
        self._log_path, self._resume = log, resume
        self.last: list[Scored] = []  # moments whose scores came after the last frame
        labels = model.labels
        self.footage = Footage(
            name=source.name,
            video={"path": source.location, "size": None, "fps": source.fps, "frames": 0,
                   "duration": source.duration},
            actions=list(actions),
            none_of=labels[len(actions):],
            model=facts or {},
            settings=asdict(settings),
        )  # fmt: skip

    def __iter__(self) -> Iterator[Step]:
        settings, footage = self._settings, self.footage
        tracker = Tracker(self._source.fps, settings.track_threshold, settings.lost_seconds)
        scorer = Scorer(self._model, settings.score_every, self._batch, self._precision)
        known = _Log.read(self._log_path, self._key()) if self._resume else _Log()
        with _open_log(self._log_path, self._key(), known) as log:
            for frame in self._source:
                if footage.video["size"] is None:
                    footage.video["size"] = [frame.image.shape[1], frame.image.shape[0]]
                found = known.boxes.get(frame.number)
                if found is None:
                    found = self._find(frame)
                    log.frame(frame.number, found)
                persons = found if self._find.has_tracks else tracker.update(found)
                self._note(frame, persons)
                scored = list(scorer.push(frame, persons, frame.seconds in known.scores))
                for moment in scored:
                    log.moment(moment)
                if frame.seconds in known.scores:
                    scored.append(known.scores[frame.seconds])
                for moment in scored:
                    self._keep(moment)
                yield Step(frame, persons, tuple(scored))
            self.last = list(scorer.flush())
            for moment in self.last:
                log.moment(moment)
                self._keep(moment)
        footage.complete = True
        self.finish()

    def finish(self) -> Footage:
        """Find the events of what was gone through so far."""
        for track in self.footage.tracks.values():
            track.events = find_events(
                track, self.footage.actions, self._settings.events, self._settings.score_every
            )
        self.footage.video.update(damaged=self._source.damaged, dropped=self._source.dropped)
        return self.footage

    def _note(self, frame: Frame, persons: Boxes) -> None:
        footage = self.footage
        footage.video["frames"] += 1
        footage.video["last"] = frame.seconds
        for row in np.flatnonzero(persons.ids > 0):
            track = footage.track(int(persons.ids[row]))
            track.add_box(
                frame.seconds, frame.number, persons.boxes[row], float(persons.scores[row])
            )

    def _keep(self, moment: Scored) -> None:
        for number, scores in zip(moment.ids, moment.scores, strict=True):
            self.footage.track(int(number)).add_scores(moment.seconds, scores)

    def _key(self) -> str:
        """What an interrupted run must have in common with the one that continues it."""
        facts = [self._source.location, self._model.labels, self._settings, self.footage.model]
        facts += [self._precision]
        return hashlib.sha256(repr(facts).encode()).hexdigest()


@dataclass
class _Log:
    """Detections and scores of an interrupted run, and how to write them."""

    boxes: dict[int, Boxes] = field(default_factory=dict)
    scores: dict[float, Scored] = field(default_factory=dict)
    file: TextIO | None = None

    @classmethod
    def read(cls, path: Path | None, key: str) -> _Log:
        """What is there of the same run; a line that was cut off ends it."""
        found = cls()
        if path is None or not path.exists():
            return found
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        try:
            if not lines or parse_json(lines[0], str(path)).get("key") != key:
                logger.warning("%s: of another run (other settings or video); not used", path)
                return found
            for line in lines[1:]:
                row = parse_json(line, str(path))
                if "frame" in row:
                    values = np.array(row["boxes"]).reshape(-1, 6)
                    boxes, scores = (
                        values[:, :4].astype(np.float32),
                        values[:, 4].astype(np.float32),
                    )
                    found.boxes[row["frame"]] = Boxes(boxes, scores, values[:, 5].astype(np.int64))
                else:
                    ids = np.array(row["ids"], dtype=np.int64)
                    scores = np.array(row["scores"], dtype=np.float32).reshape(len(ids), -1)
                    found.scores[row["seconds"]] = Scored(row["seconds"], ids, scores)
        except (UserError, ValueError, TypeError, KeyError, AttributeError):
            logger.info("%s: its end is damaged and is done again", path)
        return found

    def frame(self, number: int, found: Boxes) -> None:
        rows = zip(found.boxes.tolist(), found.scores.tolist(), found.ids.tolist(), strict=True)
        self.write({"frame": number, "boxes": [[*box, score, i] for box, score, i in rows]})

    def moment(self, moment: Scored) -> None:
        self.write(
            {"seconds": moment.seconds, "ids": moment.ids.tolist(),
             "scores": moment.scores.tolist()}
        )  # fmt: skip

    def write(self, row: dict[str, Any]) -> None:
        if self.file is not None:
            self.file.write(json.dumps(row) + "\n")
            self.file.flush()

    def __enter__(self) -> _Log:
        return self

    def __exit__(self, *error: object) -> None:
        if self.file is not None:
            self.file.close()


def _open_log(path: Path | None, key: str, known: _Log) -> _Log:
    """A log to write to; what is known already is written first, so that it is whole."""
    if path is None:
        return _Log()
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        whole = _Log(file=file)
        whole.write({"key": key})
        for number, found in known.boxes.items():
            whole.frame(number, found)
        for moment in known.scores.values():
            whole.moment(moment)
    return _Log(file=open(path, "a", encoding="utf-8"))
