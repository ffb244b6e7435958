"""What is exported as ONNX computes what the model computes, for any numbers of anything."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from stclip.errors import UserError
from stclip.models import fast
from stclip.models.baselines import BASELINES, Baseline
from stclip.models.clip import CLIP, CLIPSizes
from stclip.models.onnx import OnnxModel, text_path
from stclip.models.onnx_export import _PersonGraph, write_graphs
from stclip.models.stclip import STCLIP, InterestTokens
from stclip.models.tokenizer import tokenize
from stclip.models.xclip import CrossFrameCLIP
from stclip.structures import ClipBatch, Needs
from tests.helpers import random_batch, tiny_model


def stclip_with(**options: object) -> Callable[[], STCLIP]:
    def make() -> STCLIP:
        torch.manual_seed(0)
        return STCLIP(tiny_model().clip, **options).eval()

    return make


def baseline(name: str) -> Callable[[], Baseline]:
    return lambda: Baseline(tiny_model(lora_rank=0).clip, **BASELINES[name]).eval()


MODELS: dict[str, Callable[[], STCLIP | Baseline]] = {
    "stclip": stclip_with(),
    "frame_crop": baseline("frame_crop"),
    "no prompt": stclip_with(prompt=False),
    "no person tokens": stclip_with(person_tokens=False),
    "interest tokens": stclip_with(interest_tokens=InterestTokens(3, include_person=True)),
    "keyframe only": stclip_with(temporal=False, crop_weight=0.5),
    "person marked": stclip_with(marked="blur", temporal_depth=2),
    "frame": baseline("frame"),
    "crop": baseline("crop"),
    "frame_crop_marked": baseline("frame_crop_marked"),
}
# To write one takes many seconds; the others are made of the same operations, and ST-CLIP and
# frame_crop are written in tests/commands/test_export.py.
WRITTEN = ("no person tokens", "interest tokens", "person marked")
# Persons of each keyframe, frames of the video (a window has 9), class names.
SHAPES = [
    ([1], 12, 1),
    ([7], 12, 3),
    ([0, 1, 0, 0, 0], 12, 2),
    ([2, 0, 1, 3, 1], 12, 9),
    ([2, 0, 1, 3, 1], 5, 5),
]


def logits(model: nn.Module, batch: ClipBatch, vocabulary: torch.Tensor) -> np.ndarray:
    with fast.switched(False), torch.no_grad():
        return model(batch, vocabulary).logits.numpy()


@pytest.mark.parametrize("name", MODELS)
def test_the_graph_is_the_model(name: str) -> None:
    """Before it is written; as it lays persons out in another way."""
    model = MODELS[name]()
    graph = _PersonGraph(model)
    for persons, frames, classes in SHAPES:
        batch = random_batch(persons, frames, length=model.window_length)
        vocabulary = torch.randn(classes, 64)
        with fast.switched(False), torch.no_grad():
            tensors = {**vars(batch), "vocabulary": vocabulary}
            found = graph(*(tensors[name] for name in graph.inputs)) / model.temperature
        np.testing.assert_allclose(found, logits(model, batch, vocabulary), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITTEN)
def test_the_file_is_the_model(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    model = MODELS[name]()
    path, needs = tmp_path / "a.onnx", Needs(48, model.window_length, stride=2)
    facts = {"model": name, "groups": None, "templates": []}
    write_graphs(model, needs, facts, path, text_path(path), text_path(path).name)
    exported = OnnxModel(path)
    assert exported.needs.stride == 2
    for persons, frames, classes in SHAPES:
        batch = random_batch(persons, frames, length=model.window_length)
        tokens = tokenize(["wave", "a person who walks", "sit", "x y", *"abcde"][:classes])
        vocabulary = model.encode_vocabulary(tokens)
        read = exported.encode_vocabulary(tokens)
        np.testing.assert_allclose(read, vocabulary, atol=1e-5)
        expected, found = (logits(m, batch, vocabulary) for m in (model, exported))
        assert found.shape == (sum(persons), classes)
        np.testing.assert_allclose(found, expected, atol=1e-4)
    nobody = random_batch([0, 0], length=model.window_length)
    assert logits(exported, nobody, vocabulary).shape == (0, len(vocabulary))
    assert str(Path.cwd()).encode() not in path.read_bytes()


def test_models_that_no_graph_can_have(tmp_path: Path) -> None:
    def write(model: nn.Module) -> None:
        write_graphs(model, Needs(48), {}, tmp_path / "a", tmp_path / "b", "b")

    with pytest.raises(UserError, match=r"X-CLIP's image tower.* MODEL.BACKBONE clip"):
        write(tiny_model(kind=CrossFrameCLIP))
    with pytest.raises(UserError, match=r"open_clip's own towers.* tokenizer"):
        write(nn.Module())
    with torch.device("meta"):
        large = Baseline(CLIP(CLIPSizes(32, 16, 1024, 45, 64, 1, 64)), frame=True, crop=True)
    with pytest.raises(UserError, match=r"take 2\.\d\d GB, .* at most 2\.15"):
        write(large)
    assert not list(tmp_path.iterdir())
