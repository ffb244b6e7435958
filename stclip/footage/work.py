"""What is done with one video after another, in this process or in those of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from stclip.errors import UserError
from stclip.footage.detect import load_model
from stclip.footage.detectors import load_detector
from stclip.footage.exports import export
from stclip.footage.given import Detected, Given, read_boxes
from stclip.footage.pipeline import LOG, Detection, Settings
from stclip.footage.records import Footage
from stclip.footage.results import PAGE, RESULT, read_result
from stclip.footage.scoring import Step
from stclip.footage.source import LiveSource, Source, name_of, open_source


@dataclass(frozen=True)
class Work:
    """What the command line says of every video; can be sent to another process.

    Attributes:
        actions: names that are reported.
        none_of: names that are scored and never reported.
        weights: see ``load_model``, as ``clip``, ``crop_weight``, ``onnx`` and ``device``.
        settings: numbers.
        detector: the name of a person detector.
        boxes: a file of boxes in its place.
        batch: moments that go through the model at once.
        precision: fp32, bf16 or fp16.
        fps: frames a second of pictures.
        start: seconds before this are skipped.
        end: nothing from this second on is read.
        video: whether to write annotated.mp4.
        resume: continue what an interrupted run left.
        exports: names of formats.
    """

    actions: list[str]
    none_of: list[str]
    weights: Path | None
    clip: str | None
    crop_weight: float | None
    onnx: Path | None
    device: str
    settings: Settings
    detector: str
    boxes: Path | None
    batch: int
    precision: str
    fps: float | None
    start: float
    end: float
    video: bool
    resume: bool
    exports: list[str]


class Worker:
    """A model and a person detector, and what they do with a video.

    Raises:
        UserError: one of them cannot be loaded.
    """

    def __init__(self, work: Work) -> None:
        self._work, threshold = work, work.settings.detector_threshold
        self._rows = read_boxes(work.boxes) if work.boxes else []
        self._detector = None
        if not work.boxes:
            self._detector = load_detector(work.detector, work.device, threshold)
        self._model, self._facts = load_model(
            work.actions, work.none_of, work.weights, work.clip, work.device, work.crop_weight,
            work.onnx,
        )  # fmt: skip

    def open(self, location: str) -> Detection:
        """A video before its first frame.

        Raises:
            UserError: it cannot be read.
        """
        work, threshold = self._work, self._work.settings.detector_threshold
        source = open_source(location, work.fps, work.start, work.end)
        find = (
            Detected(self._detector, threshold) if self._detector is not None
            else Given(self._rows, source.fps, threshold)
        )  # fmt: skip
        return Detection(
            source, self._model, work.actions, find, work.settings, self._facts, work.batch,
            work.precision,
        )  # fmt: skip

    def save(
        self,
        detection: Detection,
        folder: Path,
        show: Callable[[Iterable[Step], Source], None],
        resume: bool,
    ) -> list[str]:
        """Write all files into a folder that is ``claimed``.

        Args:
            detection: from ``open``.
            folder: gets the results.
            show: goes through the steps; what it raises ends them.
            resume: continue what an interrupted run left.

        Returns:
            What there is to say.

        Raises:
            UserError: see ``Detection.save``.
        """
        with closing(detection.saving(folder, self._work.video, resume)) as steps:
            show(steps, detection.source)
        self._export(detection.footage, folder)
        return _summary(detection.footage, folder)

    def again(self, folder: Path) -> list[str]:
        """Export what is complete; what there is to say."""
        if self._work.exports:
            self._export(read_result(folder / RESULT), folder)
        return [
            f"{folder}: is complete already; look at {folder / PAGE}, or remove the folder to do "
            "it again"
        ]

    def _export(self, footage: Footage, folder: Path) -> None:
        for kind in self._work.exports:
            export(footage, kind, folder)


def goes_on(detection: Detection, folder: Path) -> list[str]:
    """What is said of a video that ended early; nothing if it cannot be continued."""
    live = isinstance(detection.source, LiveSource)
    if live or not detection.footage.video["frames"] or not (folder / LOG).exists():
        return []
    return [f"{folder}: has what was found so far; the same command with --resume goes on"]


def _summary(footage: Footage, folder: Path) -> list[str]:
    persons, events = count(len(footage.tracks), "person"), count(len(footage.events), "event")
    said = [f"{folder}: {persons}, {events}; look at {folder / PAGE}"]
    if not footage.tracks:
        said.append(
            f"{footage.name}: nobody was found; try a lower --detector-threshold or another "
            "--detector"
        )
    return said


def called_twice(location: str) -> UserError:
    """The error for a second video of the same name."""
    return UserError(f"{location}: another video of this call is called {name_of(location)}")


def count(number: int, word: str) -> str:
    """1 person, 2 persons."""
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
