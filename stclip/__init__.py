"""Zero-shot human action detection in video: ST-CLIP (WACV 2025) in PyTorch.

The public surface::

    clip = stclip.load_clip("ViT-B/16")
    tokens = stclip.tokenize(["a person waves"])
    xclip = stclip.load_xclip("k400_16_8")
    detector = stclip.load("model_0003000.pth", labels=["wave", "sit"])
    scores = detector.score(frames, boxes, keyframe=12)
"""

from stclip.detector import Detector, load
from stclip.errors import UserError
from stclip.models.tokenizer import tokenize
from stclip.models.weights import load_clip, load_xclip

__version__ = "0.1.0"
__all__ = ["Detector", "UserError", "__version__", "load", "load_clip", "load_xclip", "tokenize"]
