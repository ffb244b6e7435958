"""The network, against the published graph and by numbers computed by hand."""

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from stclip.footage.detectors import load_nanodet
from stclip.footage.nanodet import BINS, CLASSES, PERSON, NanoDet, cells, decode_boxes
from tests.footage.published import EVERY, GOLDEN_FILE, drawn_image, load_script, run_published

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def shipped() -> NanoDet:
    return load_nanodet()


def test_the_published_graph_executed_literally_agrees(shipped: NanoDet) -> None:
    noise = torch.randn(1, 3, 416, 416, generator=torch.Generator().manual_seed(0))
    for image in (drawn_image(), noise):
        with torch.inference_mode():
            expected, found = run_published(image), shipped(image)
        for levels in zip(expected, found, strict=True):
            # The outputs of the graph: scores and distances for each of three strides.
            for one, other in zip(*[x.split([2704, 676, 169], dim=1) for x in levels], strict=True):
                torch.testing.assert_close(one, other, rtol=0, atol=1e-4)


def test_outputs_kept_of_the_published_graph(shipped: NanoDet) -> None:
    expected = load_file(GOLDEN_FILE)
    with torch.inference_mode():
        scores, distances = shipped(drawn_image())
    assert scores[0, :, PERSON].max() > 0.7
    torch.testing.assert_close(scores[0, ::EVERY], expected["scores"], rtol=0, atol=1e-4)
    torch.testing.assert_close(distances[0, ::EVERY], expected["distances"], rtol=0, atol=1e-4)


def test_the_file_is_as_published(shipped: NanoDet) -> None:
    path = load_script().ASSET
    state = load_file(path)
    assert {tensor.dtype for tensor in state.values()} == {torch.float16}
    assert sum(tensor.numel() for tensor in state.values()) == 3_786_068
    assert {parameter.dtype for parameter in shipped.parameters()} == {torch.float32}
    assert not shipped.training
    with safe_open(path, "pt") as file:
        origin = file.metadata()["origin"]
    assert "RangiLyu" in origin
    assert "Apache License 2.0" in origin
    assert "changed: " in origin


@pytest.mark.parametrize(("height", "width"), [(64, 32), (32, 96)])
def test_shapes(height: int, width: int) -> None:
    model = NanoDet()
    count = height * width // 64 + height * width // 256 + height * width // 1024
    for number in (0, 1, 3):
        scores, distances = model(torch.zeros(number, 3, height, width))
        assert scores.shape == (number, count, CLASSES)
        assert distances.shape == (number, count, 4 * BINS)
        assert decode_boxes(distances, height, width).shape == (number, count, 4)
    features = model.backbone(torch.zeros(1, 3, height, width))
    assert [x.shape[1:] for x in features] == [
        (channels, height // stride, width // stride)
        for channels, stride in zip((128, 256, 512), (8, 16, 32), strict=True)
    ]


def test_every_parameter_has_an_effect() -> None:
    torch.manual_seed(0)
    model = NanoDet()
    scores, distances = model(torch.randn(1, 3, 64, 64))
    (scores.sum() + distances.square().sum()).backward()
    assert [
        name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()
    ] == []


def test_cells() -> None:
    centres, strides = cells(32, 64, CPU)
    assert len(centres) == len(strides) == 4 * 8 + 2 * 4 + 2
    assert centres[:2].tolist() == [[4, 4], [12, 4]]  # x first, row by row
    assert centres[8].tolist() == [4, 12]
    assert centres[32:34].tolist() == [[8, 8], [24, 8]]
    assert centres[-2:].tolist() == [[16, 16], [48, 16]]
    assert strides.tolist() == [8.0] * 32 + [16.0] * 8 + [32.0] * 2


def test_boxes_by_hand() -> None:
    logits = torch.full((1, 42, 4, BINS), -100.0)
    for side, number in enumerate((1, 2, 3, 10)):
        logits[..., side, number] = 100
    logits[0, 41, 0, 2] = 100  # as likely as 1: 1.5 strides
    boxes = decode_boxes(logits.flatten(2), 32, 64)[0]
    assert boxes[0].tolist() == [4 - 8, 4 - 16, 4 + 24, 4 + 80]
    torch.testing.assert_close(boxes[41], torch.tensor([48.0 - 48, 16 - 64, 48 + 96, 16 + 320]))


def test_levels_are_mixed_by_sums() -> None:
    """With laterals that pass a constant, by hand: 1 + 10 + 100, and back."""
    neck = NanoDet().neck
    for lateral, value in zip(neck.lateral, (1.0, 10.0, 100.0), strict=True):
        assert isinstance(lateral, nn.Conv2d)
        assert lateral.bias is not None
        nn.init.zeros_(lateral.weight)
        nn.init.constant_(lateral.bias, value)
    sizes = zip((128, 256, 512), (4, 2, 1), strict=True)
    fine, middle, coarse = neck([torch.zeros(1, n, size, size) for n, size in sizes])
    assert fine.unique().tolist() == [111]
    assert middle.unique().tolist() == [110 + 111]
    assert coarse.unique().tolist() == [100 + 221]
