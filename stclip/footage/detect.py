"""Who does what when in a video, in Python: from a path and some words to a ``Detection``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from stclip.detector import Detector, load
from stclip.engine.distributed import choose_device
from stclip.errors import UserError
from stclip.footage.detectors import load_detector
from stclip.footage.given import Detected, FindPersons
from stclip.footage.pipeline import Detection, Settings
from stclip.footage.source import ArraySource, Source, open_source
from stclip.models.baselines import Baseline
from stclip.models.onnx import OnnxModel
from stclip.models.stclip import STCLIP
from stclip.models.weights import available_models, load_towers
from stclip.structures.wordings import split_label

# Cosines are divided by what CLIP was trained with, also those of ST-CLIP, which is trained and
# tested with 0.07: its scores would be the lower the more names there are, and a threshold that
# suits six names would never be reached with twenty.
_TEMPERATURE = 0.01
_CLIP = "ViT-B/16"


def check_names(actions: Sequence[str], none_of: Sequence[str] = ()) -> dict[str, Any]:
    """What results say of names with several wordings.

    Raises:
        UserError: names are missing, empty or twice, or there is one alone.
    """
    labels = [*actions, *none_of]
    if not actions:
        raise UserError("no actions: name at least one, such as walk, wave, 'fall down'")
    empty = [name for name in labels if not isinstance(name, str) or not name.strip()]
    names = [] if empty else [split_label(name)[0] for name in labels]
    twice = sorted({name for name in names if names.count(name) > 1})
    if empty or twice:
        found = f"{twice[0]!r} twice" if twice else repr(empty[0])
        raise UserError(f"actions: distinct names expected, found {found}")
    if len(labels) == 1:
        raise UserError(
            f"actions: {labels[0]!r} alone would get a score of 1 whatever is seen; add others, or "
            "say what else people do under none_of (--none-of), such as standing"
        )
    return {"wordings": labels} if names != labels else {}


def load_model(
    actions: Sequence[str],
    none_of: Sequence[str] = (),
    weights: str | Path | None = None,
    clip: str | None = None,
    device: str = "auto",
    crop_weight: float | None = None,
    onnx: str | Path | None = None,
) -> tuple[Detector, dict[str, Any]]:
    """What scores persons, and what results say of it.

    Args:
        actions: names that are reported; ``wave | a person waving | greeting`` averages wordings.
        none_of: names that are scored too and never reported.
        weights: of ST-CLIP, what ``stclip.load`` takes; None for CLIP without training on the
            person's crop and the whole frame.
        clip: without weights, the name or file of a CLIP, or ``open_clip:MODEL/TAG``; None for
            ViT-B/16.
        device: auto, cpu, cuda or cuda:N.
        crop_weight: of the crop's feature in ST-CLIP (docs/beyond.md); None: as in its training.
        onnx: a file of ``stclip export`` in the place of all these; it computes on the CPU.

    Raises:
        UserError: names are missing, empty or twice; weights cannot be read, or have no crops to
            weigh; or an ONNX file is not alone.
    """
    labels, worded = [*actions, *none_of], check_names(actions, none_of)
    if onnx is not None:
        for option, given in {"weights": weights, "clip": clip, "crop weight": crop_weight}.items():
            if given is not None:
                raise UserError(
                    f"{option}: {onnx} has its model in it; give either the ONNX file or weights, "
                    "a CLIP and a crop weight"
                )
        exported = OnnxModel(onnx)
        if exported.groups is None:
            exported.temperature = _TEMPERATURE
        facts = {"name": exported.name, "onnx": str(onnx), **worded}
        return Detector(exported, labels, exported.groups, templates=exported.templates), facts
    if weights is not None:
        facts = {"name": "ST-CLIP", "weights": str(weights), **worded}
        trained = load(weights, labels, device)
        if trained.commit is not None:  # a name alone may stand for something else tomorrow
            facts["commit"] = trained.commit
        if crop_weight is not None:
            if crop_weight < 0:
                raise UserError(f"crop weight: 0 or more expected, found {crop_weight:g}")
            if not isinstance(trained.model, STCLIP) or trained.model.person_tokens is None:
                raise UserError(f"crop weight: {weights} does not look at the crops of persons")
            trained.model.crop_weight = facts["crop_weight"] = crop_weight
        if trained.groups is None:  # else names are judged one by one
            trained.model.temperature = _TEMPERATURE
        return trained, facts
    if crop_weight is not None:
        raise UserError(
            "crop weight: belongs to the weights of an ST-CLIP; CLIP as it is adds frame and crop"
        )
    clip = _CLIP if clip is None else clip
    try:
        loaded = load_towers(clip)
    except UserError as error:
        if clip not in available_models():
            raise
        raise UserError(f"{error}; or give the file of any CLIP as clip (--clip FILE)") from error
    model = Baseline(loaded, frame=True, crop=True, temperature=_TEMPERATURE)
    detector = Detector(model.to(choose_device(device)), labels)
    name = "CLIP, frame and crop, without training"
    return detector, {"name": name, "clip": str(clip), **worded}


def detect(
    video: str | Path | Iterable[Any],
    actions: Sequence[str],
    *,
    none_of: Sequence[str] = (),
    weights: str | Path | None = None,
    clip: str | None = None,
    crop_weight: float | None = None,
    onnx: str | Path | None = None,
    detector: str | FindPersons = "nanodet",
    settings: Settings | None = None,
    fps: float | None = None,
    start: float = 0.0,
    end: float = math.inf,
    device: str = "auto",
    precision: str = "fp32",
) -> Detection:
    """Say what each person in a video does, for actions in any words.

    Nothing is decoded before the result is iterated over or saved.

    Args:
        video: a path, address, camera number, or an iterable of (h, w, 3) uint8 RGB frames or of
            pairs (seconds, frame).
        actions: names that are reported.
        none_of: names that are scored and never reported, such as "standing".
        weights: of ST-CLIP, what ``stclip.load`` takes; None for CLIP without training.
        clip: without weights, the name or file of a CLIP, or ``open_clip:MODEL/TAG``; None for
            ViT-B/16.
        crop_weight: with weights, of the crop's feature (docs/beyond.md); None: as in training.
        onnx: a file of ``stclip export`` in the place of these three; it computes on the CPU.
        detector: the name of a person detector, or a function from frames to boxes and scores.
        settings: thresholds, times and what makes an event.
        fps: frames a second where the frames carry no times.
        start: seconds before this are skipped.
        end: nothing from this second on is read.
        device: auto, cpu, cuda or cuda:N.
        precision: fp32, bf16 or fp16.

    Raises:
        UserError: the video, the weights or an argument cannot be used.
    """
    settings = settings or Settings()
    source: Source
    if isinstance(video, str | Path):
        source = open_source(video, fps, start, end)
    else:
        source = ArraySource(video, fps, start, end)
    model, facts = load_model(actions, none_of, weights, clip, device, crop_weight, onnx)
    if isinstance(detector, str):
        settings = replace(settings, detector=detector)
        detector = load_detector(detector, device, settings.detector_threshold)
    find = Detected(detector, settings.detector_threshold)
    return Detection(source, model, actions, find, settings, facts, precision=precision)
