"""Results of a video in a folder of its own: nothing is overwritten, and a run can be continued."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from stclip.detector import Detector
from stclip.errors import UserError
from stclip.files import locked, read_json, retire
from stclip.footage.detect import LOG, Detection
from stclip.footage.given import Finder
from stclip.footage.pipeline import Run, Settings, Step
from stclip.footage.records import Footage
from stclip.footage.results import RESULT
from stclip.footage.source import Source


class Steps:
    """The steps of a video that is written into a folder; ``footage`` has what was found."""

    def __init__(self, detection: Detection, folder: Path, video: bool) -> None:
        self._detection, self._folder, self._video = detection, folder, video

    @property
    def footage(self) -> Footage:
        """What was found so far."""
        return self._detection.footage

    def __iter__(self) -> Iterator[Step]:
        with locked(self._folder, "detect"):
            yield from self._detection.saving(self._folder, self._video)
            (self._folder / LOG).unlink(missing_ok=True)


def detect_into(
    folder: Path,
    source: Source,
    model: Detector,
    actions: Sequence[str],
    find: Finder,
    settings: Settings,
    facts: dict[str, Any],
    *,
    precision: str = "fp32",
    batch: int = 4,
    video: bool = True,
    resume: bool = False,
) -> Steps | None:
    """Go through a source and keep all results in a folder.

    Args:
        folder: of this video alone. Other results that are there are renamed.
        source: the frames.
        model: what scores.
        actions: names that are reported.
        find: gives the persons of a frame.
        settings: numbers.
        facts: of the model, for the results.
        precision: fp32, bf16 or fp16.
        batch: moments that go through the model at once.
        video: whether to write annotated.mp4.
        resume: continue from what an interrupted run left in the folder.

    Returns:
        The steps, to be iterated over; None if a complete result of these actions is there already.

    Raises:
        UserError: the folder holds something else, or cannot be written.
    """
    result = folder / RESULT
    log = folder / LOG
    if result.exists():
        found = read_json(result)
        complete = isinstance(found, dict) and found.get("complete") is True
        same = complete and found.get("actions") == list(actions)
        if same and found.get("none_of") == model.labels[len(actions) :]:
            return None
    if folder.exists() and not (resume and log.exists()):
        if any(folder.iterdir()) and not (result.exists() or log.exists()):
            raise UserError(
                f"{folder}: holds other files; choose another --out, or empty this folder"
            )
        if result.exists() or log.exists():
            with locked(folder, "detect"):
                pass  # nobody is writing there
            retire(folder)
    folder.mkdir(parents=True, exist_ok=True)
    run = Run(
        source, model, actions, find, settings, facts,
        batch=batch, precision=precision, log=log, resume=resume,
    )  # fmt: skip
    return Steps(Detection(run, source, settings, model), folder, video)
