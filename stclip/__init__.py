"""Zero-shot human action detection in video: ST-CLIP (WACV 2025) in PyTorch.

The public surface::

    clip = stclip.load_clip("ViT-B/16")
    tokens = stclip.tokenize(["a person waves"])
    xclip = stclip.load_xclip("k400_16_8")
    detector = stclip.load("model_0003000.pth", labels=["wave", "sit"])
    scores = detector.score(frames, boxes, keyframe=12)
    stclip.detect("party.mp4", ["dance", "wave"]).save("found")
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stclip.detector import Detector, load
    from stclip.errors import UserError
    from stclip.footage.detect import detect
    from stclip.models.tokenizer import tokenize
    from stclip.models.weights import load_clip, load_xclip

__version__ = "0.2.0"
__all__ = [
    "Detector",
    "UserError",
    "__version__",
    "detect",
    "load",
    "load_clip",
    "load_xclip",
    "tokenize",
]

# Imported when first used: torch takes seconds, which `stclip --help` need not wait for.
_PLACES = {
    "Detector": "stclip.detector",
    "UserError": "stclip.errors",
    "detect": "stclip.footage.detect",
    "load": "stclip.detector",
    "load_clip": "stclip.models.weights",
    "load_xclip": "stclip.models.weights",
    "tokenize": "stclip.models.tokenizer",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
