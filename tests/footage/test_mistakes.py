"""What stclip.detect says of mistakes when it is called from Python."""

import re
from typing import Any

import numpy as np
import pytest

from stclip.errors import UserError
from stclip.footage.detect import detect


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ({"actions": []}, "no actions: name at least one"),
        ({"actions": ["walk"]}, r"under none_of \(--none-of\)"),
        ({"actions": ["walk", "wave"], "onnx": "a.onnx", "clip": "puppet"}, "clip: a.onnx has"),
        ({"actions": ["walk", "wave"], "clip": "puppet", "crop_weight": 1.0}, "crop weight: "),
    ],
)
def test_mistakes_in_python_are_told_in_its_words(call: dict[str, Any], words: str) -> None:
    frames = np.zeros((2, 48, 64, 3), dtype=np.uint8)
    with pytest.raises(UserError, match=words) as caught:
        detect(frames, fps=10, **call)
    options = re.sub(r"\(--[a-z-]+( FILE)?\)", "", str(caught.value))  # beside Python's names
    assert "--" not in options
    with pytest.raises(UserError, match=r"^start 3, end 2: a start before the end expected"):
        detect(frames, ["walk", "wave"], fps=10, start=3, end=2)
