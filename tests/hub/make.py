"""A published model that is small enough for any test, and its scores."""

import numpy as np

import stclip
from stclip.models.clip import CLIP
from tests.helpers import tiny_model

LABELS = ["wave", "sit down"]
NAME = "ada/tiny"


def detector(seed: int = 0, kind: type[CLIP] = CLIP, **sizes: int) -> stclip.Detector:
    return stclip.Detector(tiny_model(seed, kind, text_length=20, **sizes), LABELS)


def scores(detector: stclip.Detector) -> np.ndarray:
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (60, 80, 3), dtype=np.uint8) for _ in range(12)]
    return detector.score(frames, [[5, 5, 40, 50], [20, 0, 60, 59]])
