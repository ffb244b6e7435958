"""What a worker does with a video: ``stclip detect``, with words on how far it is."""

from __future__ import annotations

import base64
import io
import os
import signal
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable
from contextlib import closing, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from stclip.detector import Detector
from stclip.errors import UserError
from stclip.footage.detect import check_names, load_model
from stclip.footage.detectors import PersonDetector, load_detector
from stclip.footage.events import EventRule
from stclip.footage.exports import export
from stclip.footage.given import Detected
from stclip.footage.pipeline import Detection, Settings
from stclip.footage.records import Footage
from stclip.footage.scoring import Step
from stclip.footage.source import FileSource
from stclip.serve.addresses import fetch
from stclip.serve.jobs import Limits, Message, Request
from stclip.serve.worker import Offer

# What holds a video whole, by FFmpeg's names. Not among them is whatever names other files.
FORMATS = (
    "mp4", "mov", "webm", "matroska", "avi", "mpegts", "mpeg", "flv", "asf", "ogg", "gif",
)  # fmt: skip
_KEPT = 2  # models in memory
_SAY_SECONDS = 0.5  # between two messages of progress
_MOST_PICTURES = 24  # of persons
_PICTURE = 96  # pixels of a person's height in them


class _Models:
    """The last models that were used, and the person detectors."""

    def __init__(self, offer: Offer) -> None:
        self._offer = offer
        self._models: OrderedDict[str, tuple[Detector, dict[str, Any]]] = OrderedDict()
        self._detectors: dict[str, PersonDetector] = {}

    def preload(self) -> None:
        """Load what most users choose; the first one to be forgotten is the last one offered."""
        self.detector(self._offer.detectors[0])
        for name in reversed(list(self._offer.models)[:_KEPT]):
            self.model(name)

    def model(self, name: str) -> tuple[Detector, dict[str, Any]]:
        """A model, whose labels are yet to be set, and what results say of it."""
        if name not in self._models:
            while len(self._models) >= _KEPT:
                self._models.popitem(last=False)
            kind = self._offer.models[name]
            model, facts = load_model(
                ["wave"], ["stand"], kind.get("weights"), kind.get("clip"), self._offer.device
            )
            # The name in the place of a path: the operator's folders are nobody's business.
            facts |= dict.fromkeys(facts.keys() & kind.keys(), name)
            self._models[name] = model, facts
        self._models.move_to_end(name)
        return self._models[name]

    def detector(self, name: str) -> PersonDetector:
        """A person detector."""
        if name not in self._detectors:
            threshold = Settings().detector_threshold
            self._detectors[name] = load_detector(name, self._offer.device, threshold)
        return self._detectors[name]


def serve(connection: Connection, offer: Offer) -> None:
    """What the process does, until nobody is at the other end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started it ends it
    torch.set_num_threads(offer.threads)
    models = _Models(offer)
    try:
        models.preload()
    except UserError as error:
        connection.send(("fault", str(error)))  # it names the operator's files
        return
    with suppress(EOFError, BrokenPipeError):
        connection.send(("ready", None))
        while True:
            request, upload, results = connection.recv()
            connection.send(_answer(models, request, upload, results, offer, connection.send))


def _answer(
    models: _Models, request: Request, upload: Path, results: Path, offer: Offer,
    say: Callable[[Message], None],
) -> Message:  # fmt: skip
    """Do one job; the last that is said of it."""
    try:
        worded = check_names(request.actions, request.none_of)
        if request.address:
            say(("progress", {"phase": "fetching the video"}))
            fetch(request.address, upload, offer.limits.upload)
        source = _open(request, upload, offer.limits)
        say(("progress", {"phase": "loading the model"}))
        try:
            model, facts = models.model(request.model)
            detector = models.detector(request.detector)
        except UserError as error:  # of files that are the operator's
            return "fault", str(error)
        model.labels = [*request.actions, *request.none_of]
        facts = {**facts, **worded}
        threshold = Settings().detector_threshold
        settings = Settings(
            detector=request.detector,
            track_threshold=request.track_threshold,
            score_every=request.score_every,
            events=EventRule(
                window=request.window,
                threshold=request.threshold,
                min_seconds=request.min_seconds,
            ),
        )
        find = Detected(detector, threshold)
        detection = Detection(
            source, model, request.actions, find, settings, facts, precision=offer.precision
        )
        watch = _Watch(source, offer.limits, say)
        with closing(detection.saving(results)) as steps:
            for step in steps:
                watch.see(step)
        export(detection.footage, "cvat", results)
        return "done", watch.result(detection.footage)
    except UserError as error:
        return "error", " ".join(str(error).split())
    except BrokenPipeError:
        raise
    except Exception:
        return "fault", traceback.format_exc()


def _open(request: Request, upload: Path, limits: Limits) -> FileSource:
    """The video; the length is checked before anything is done."""
    name = os.path.splitext(request.name)[0] or "video"
    source = FileSource(upload, name, request.name, request.start, request.end, FORMATS)
    if source.duration is not None:
        _check_length(request.name, min(source.duration, source.end) - source.start, limits)
    return source


def _check_length(name: str, seconds: float, limits: Limits) -> None:
    if seconds > limits.video + 1:  # headers are not exact
        raise UserError(
            f"{name}: longer than {limits.video / 60:g} minutes, the longest part that is looked "
            "at here; choose one (From second, To second)"
        )


class _Watch:
    """What the page shows of a job that is under way: how far it is, and whom it has seen."""

    def __init__(self, source: FileSource, limits: Limits, say: Callable[[Message], None]) -> None:
        self._source, self._limits, self._say = source, limits, say
        self._pictures: dict[int, tuple[float, str]] = {}
        self._said = -_SAY_SECONDS

    def see(self, step: Step) -> None:
        """Take a frame."""
        source, seconds = self._source, step.frame.seconds
        _check_length(source.location, seconds - source.start, self._limits)
        for number, box in zip(step.persons.ids.tolist(), step.persons.boxes, strict=True):
            if number > 0:
                self._keep(number, step.frame.image, box)
        if time.monotonic() - self._said < _SAY_SECONDS:
            return
        self._said = time.monotonic()
        progress = {"phase": "looking", "seconds": seconds, "persons": self._persons()}
        if source.duration:
            length = min(source.duration, source.end) - source.start
            progress["share"] = min((seconds - source.start) / max(length, 0.1), 0.99)
        self._say(("progress", progress))

    def result(self, footage: Footage) -> dict[str, Any]:
        """What the page says of a finished job."""
        pictures = {number: picture for number, (_, picture) in self._pictures.items()}
        return {
            "share": 1.0,
            "persons": [
                {"id": number, "picture": pictures.get(number, "")}
                for number in sorted(footage.tracks)
            ],
            "actions": footage.actions,
            "events": [event._asdict() for event in footage.events],
        }

    def _persons(self) -> list[dict[str, Any]]:
        return [{"id": id, "picture": found[1]} for id, found in sorted(self._pictures.items())]

    def _keep(self, number: int, image: Any, box: Any) -> None:
        """The largest view of a person, which shows most."""
        left, top, right, bottom = (max(int(value), 0) for value in box)
        known = self._pictures.get(number)
        size = (right - left) * (bottom - top)
        if size <= 0 or (known and size < 1.3 * known[0]):
            return
        text = ""
        if (known and known[1]) or len(self._pictures) < _MOST_PICTURES:
            picture = Image.fromarray(image[top:bottom, left:right])
            picture.thumbnail((_PICTURE, _PICTURE))
            file = io.BytesIO()
            picture.save(file, "JPEG", quality=80)
            text = "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
        self._pictures[number] = size, text
