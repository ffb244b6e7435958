"""What every detector promises, and the shipped one on drawn frames."""

import sys
import urllib.error
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from stclip.errors import UserError
from stclip.footage import detectors
from stclip.footage.detectors import (
    DFineDetector,
    NanoDetDetector,
    PersonDetector,
    TorchvisionDetector,
    load_detector,
    load_nanodet,
)
from tests.footage.make import drawn_frame

CPU = torch.device("cpu")
TWO = [(90.0, 60.0, 150.0), (220.0, 80.0, 120.0)]


@pytest.fixture(scope="module")
def nanodet() -> PersonDetector:
    return load_detector(device="cpu")


def video(height: int = 240, width: int = 320, frames: int = 3) -> NDArray[np.uint8]:
    """The first person goes to the right; nobody is in the last frame."""
    shown = [[(80.0 + 20 * t, 60.0, 150.0), TWO[1]] for t in range(frames - 1)] + [[]]
    return np.stack([drawn_frame(width, height, persons) for persons in shown])


class Fixed(PersonDetector):
    """Finds what it is given, in every frame."""

    def __init__(self, boxes: list[list[float]], scores: list[float], **options: Any) -> None:
        super().__init__(nn.Identity(), CPU, **options)
        self.found = (torch.tensor(boxes).reshape(-1, 4), torch.tensor(scores))
        self.calls: list[int] = []

    def _find(self, frames: Tensor) -> list[tuple[Tensor, Tensor]]:
        self.calls.append(len(frames))
        return [self.found] * len(frames)


class Suppressing(Fixed):
    nms_iou = 0.5


def test_drawn_persons_are_found(nanodet: PersonDetector) -> None:
    found = nanodet(video())
    assert [len(scores) for _, scores in found] == [2, 2, 0]
    for t, (boxes, scores) in enumerate(found[:2]):
        assert boxes.dtype == scores.dtype == np.float32
        assert (np.diff(scores) <= 0).all()
        left_to_right = boxes[boxes[:, 0].argsort()]
        x = 80 + 20 * t
        expected = [[x - 41, 60, x + 41, 217], [187, 80, 253, 206]]
        np.testing.assert_allclose(left_to_right, expected, atol=6)


def test_one_frame_at_a_time_gives_the_same(nanodet: PersonDetector) -> None:
    frames = np.concatenate([video()] * 3)  # more than are done at once
    singles = [nanodet(frame[None])[0] for frame in frames[:3]] * 3
    for together, alone in zip(nanodet(frames), singles, strict=True):
        np.testing.assert_allclose(together.boxes, alone.boxes, atol=1e-3)
        np.testing.assert_allclose(together.scores, alone.scores, atol=1e-5)


def test_long_frames_keep_their_shape(nanodet: PersonDetector) -> None:
    frame = np.full((240, 960, 3), 150, dtype=np.uint8)
    frame[:, 600:920] = drawn_frame(320, 240, TWO)
    ((boxes, _),) = nanodet(frame[None])
    np.testing.assert_allclose(boxes[boxes[:, 0].argsort()][0], [649, 60, 731, 217], atol=9)
    turned = np.ascontiguousarray(frame.transpose(1, 0, 2))
    assert nanodet(turned[None])[0].boxes.shape[1] == 4


def test_a_frame_may_be_cut_read_only_or_mirrored_in_memory(nanodet: PersonDetector) -> None:
    frames = video(frames=2)[:1]
    large = np.zeros((1, 260, 360, 3), dtype=np.uint8)
    large[:, 10:250, 20:340] = frames
    fixed = frames.copy()
    fixed.flags.writeable = False
    mirrored = np.ascontiguousarray(frames[..., ::-1])[..., ::-1]
    (expected,) = nanodet(frames)
    for same in (large[:, 10:250, 20:340], fixed, mirrored):
        np.testing.assert_array_equal(nanodet(same)[0].boxes, expected.boxes)


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (3, 500), (417, 31), (37, 1001)])
def test_odd_sizes(shape: tuple[int, int]) -> None:
    detector = load_detector(device="cpu", threshold=0.0)
    rng = np.random.default_rng(0)
    ((boxes, scores),) = detector(rng.integers(256, size=(1, *shape, 3), dtype=np.uint8))
    assert len(boxes) == len(scores) > 0
    assert (boxes >= 0).all()
    assert (boxes <= np.array([*shape, *shape])[[1, 0, 3, 2]]).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (np.zeros((1, 8, 8, 3), dtype=np.float32), "uint8 expected, 0 to 255, found float32"),
        (torch.zeros(1, 8, 8, 3, dtype=torch.uint8), r"found torch\.uint8"),
        ([[1]], "found list"),
        (np.zeros((8, 8, 3), dtype=np.uint8), r"\(n, h, w, 3\) expected, RGB, found \(8, 8, 3\)"),
        (np.zeros((1, 3, 8, 8), dtype=np.uint8), r"found \(1, 3, 8, 8\)"),
        (np.zeros((1, 0, 8, 3), dtype=np.uint8), r"found \(1, 0, 8, 3\)"),
    ],
)
def test_frames_of_another_kind(frames: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Fixed([], [])(frames)


def test_boxes_are_clipped_and_sorted_and_none_is_empty() -> None:
    boxes = [[-5.0, 2, 4, 30], [20, 1, 25, 9], [3, 3, 3, 8], [1, 1, 5, 5], [0, 0, 9, 9]]
    detector = Fixed(boxes, [0.6, 0.99, 0.9, 0.7, 0.4])
    ((found, scores),) = detector(np.zeros((1, 12, 16, 3), dtype=np.uint8))
    assert found.tolist() == [[1, 1, 5, 5], [0, 2, 4, 12]]
    np.testing.assert_allclose(scores, [0.7, 0.6])


def test_the_surer_of_two_boxes_of_one_person_stays() -> None:
    boxes = [[0.0, 0, 10, 10], [0, 0, 10, 6], [0, 0, 10, 5], [20, 0, 30, 10]]
    frames = np.zeros((1, 40, 40, 3), dtype=np.uint8)
    # IoU with the first box: 0.6, and 0.5, which is not more than 0.5.
    assert len(Fixed(boxes, [0.9, 0.8, 0.7, 0.6])(frames)[0].boxes) == 4
    ((found, _),) = Suppressing(boxes, [0.9, 0.8, 0.7, 0.6])(frames)
    assert found.tolist() == [boxes[0], boxes[2], boxes[3]]


def test_many_frames_go_in_parts() -> None:
    detector = Fixed([], [])
    assert detector(np.zeros((0, 4, 4, 3), dtype=np.uint8)) == []
    assert detector.calls == []
    found = detector(np.zeros((20, 4, 4, 3), dtype=np.uint8))
    assert detector.calls == [8, 8, 4]
    assert [(boxes.shape, scores.shape) for boxes, scores in found] == [((0, 4), (0,))] * 20


@pytest.mark.parametrize("threshold", [-0.1, 1.5, float("nan")])
def test_threshold_out_of_range(threshold: float) -> None:
    with pytest.raises(UserError, match="0 to 1 expected"):
        load_detector(device="cpu", threshold=threshold)


def test_threshold() -> None:
    frames = video(frames=2)[:1]
    sure = load_detector(device="cpu", threshold=0.99)(frames)[0]
    unsure = load_detector(device="cpu", threshold=0.0)(frames)[0]
    assert len(sure.boxes) == 0
    assert len(unsure.boxes) > 20
    assert Fixed([], []).threshold == 0.5
    assert load_detector(device="cpu").threshold == NanoDetDetector.default_threshold


def test_unknown_names() -> None:
    with pytest.raises(UserError, match=r"'yolo': unknown; there are nanodet, dfine, .*resnet50"):
        load_detector("yolo")
    with pytest.raises(UserError, match="auto, cpu, cuda or cuda:N"):
        load_detector("nanodet", "tpu")
    with pytest.raises(UserError, match=r"nanodet, dfine, .*fasterrcnn_resnet50_fpn_v2"):
        load_detector("magic")


def test_shipped_weights_that_are_missing_or_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detectors, "files", lambda package: tmp_path)
    with pytest.raises(UserError, match=r"nanodet\.safetensors: .*install it again"):
        load_nanodet()
    (tmp_path / "assets").mkdir()
    save_file({"stem.weight": torch.zeros(2)}, tmp_path / "assets" / "nanodet.safetensors")
    with pytest.raises(UserError, match="other weights than those of NanoDet-g"):
        load_nanodet()


class Lists(nn.Module):
    """Answers as torchvision's detection models do."""

    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        assert [image.shape[0] for image in images] == [3] * len(images)
        assert all(0 <= image.min() <= image.max() <= 1 for image in images)
        boxes = torch.tensor([[1.0, 1, 4, 4], [2, 2, 6, 6], [0, 0, 3, 3]])
        labels = torch.tensor([1, 18, 1])
        return [
            {"boxes": boxes + n, "labels": labels, "scores": torch.tensor([0.6, 0.9, 0.7])}
            for n in range(len(images))
        ]


def test_models_of_torchvision_keep_persons_only() -> None:
    frames = np.full((2, 10, 12, 3), 255, dtype=np.uint8)
    found = TorchvisionDetector(Lists(), CPU)(frames)
    assert [boxes.tolist() for boxes, _ in found] == [
        [[0, 0, 3, 3], [1, 1, 4, 4]],
        [[1, 1, 4, 4], [2, 2, 5, 5]],
    ]


def test_a_model_of_torchvision_with_random_weights() -> None:
    torch.manual_seed(0)
    model = torchvision.models.detection.ssdlite320_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=3
    )
    ((boxes, scores),) = TorchvisionDetector(model, CPU, threshold=0.0)(video(frames=2)[:1])
    assert len(boxes) == len(scores) > 0
    assert (boxes <= [320, 240, 320, 240]).all()


def test_weights_of_torchvision_without_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*args: Any, **options: Any) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    name = "ssdlite320_mobilenet_v3_large"
    file = f"{name}_coco-a79551df.pth"
    with pytest.raises(UserError, match=rf"{file}: not there.*no network.*https://.*{file} else"):
        load_detector(name, "cpu")
    folder = tmp_path / "checkpoints"
    folder.mkdir(exist_ok=True)
    (folder / file).write_bytes(b"PK cut short")
    with pytest.raises(UserError, match=rf"{file}: cannot be loaded \(.*delete it"):
        load_detector(name, "cpu")


class Processor:
    """Answers as transformers' image processors do."""

    def __call__(self, images: list[Tensor], **options: Any) -> dict[str, Tensor]:
        assert options["input_data_format"] == "channels_first"
        return {"pixel_values": torch.stack(images).float()}

    def post_process_object_detection(
        self, output: Tensor, threshold: float, target_sizes: list[tuple[int, int]]
    ) -> list[dict[str, Tensor]]:
        assert target_sizes == [(10, 12)] * len(output)
        boxes = torch.tensor([[1.0, 1, 4, 4], [2, 2, 6, 6]])
        found = {"boxes": boxes, "labels": torch.tensor([7, 0]), "scores": torch.tensor([0.8, 0.9])}
        return [found] * len(output)


class Transformer(nn.Module):
    def __init__(self, names: dict[int, str]) -> None:
        super().__init__()
        self.config = SimpleNamespace(id2label=names)

    def forward(self, pixel_values: Tensor) -> Tensor:
        return pixel_values


def test_dfine_keeps_persons_only() -> None:
    model = Transformer({0: "car", 7: "Person"})
    detector = DFineDetector(model, CPU, processor=Processor())
    found = detector(np.zeros((2, 10, 12, 3), dtype=np.uint8))
    assert [boxes.tolist() for boxes, _ in found] == [[[1, 1, 4, 4]]] * 2
    with pytest.raises(UserError, match="a class person expected, found car"):
        DFineDetector(Transformer({0: "car"}), CPU, processor=Processor())


def test_dfine_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=r"transformers.*pip install \"stclip\[dfine\]\""):
        load_detector("dfine", "cpu")


def stand_in(monkeypatch: pytest.MonkeyPatch, missing: list[str]) -> None:
    """Modules in place of transformers and its hub, which has no network."""

    def offline(source: str, **options: Any) -> str:
        raise OSError("no network\nand more")

    transformers, hub = ModuleType("transformers"), ModuleType("huggingface_hub")
    report = {"missing_keys": missing, "mismatched_keys": []}
    loaded = (Transformer({0: "person"}), report)
    processors = SimpleNamespace(from_pretrained=lambda folder: Processor())
    models = SimpleNamespace(from_pretrained=lambda folder, **options: loaded)
    monkeypatch.setattr(transformers, "AutoImageProcessor", processors, raising=False)
    monkeypatch.setattr(transformers, "DFineForObjectDetection", models, raising=False)
    monkeypatch.setattr(hub, "snapshot_download", offline, raising=False)
    monkeypatch.setitem(sys.modules, "transformers", transformers)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)


def test_dfine_of_a_folder_and_of_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch, missing=[])
    assert isinstance(load_detector(f"dfine:{tmp_path}", "cpu"), DFineDetector)
    with pytest.raises(
        UserError, match=r"dfine-small-coco: no D-FINE .*\(no network\).*config\.js"
    ):
        load_detector("dfine", "cpu")


def test_dfine_with_other_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, missing=["model.encoder.weight"])
    with pytest.raises(UserError, match=r"1 weights of D-FINE are missing.*model\.encoder\.weight"):
        load_detector(f"dfine:{tmp_path}", "cpu")


@pytest.mark.slow
def test_a_small_dfine_with_random_weights(tmp_path: Path) -> None:
    """Slow, because the package takes long to import."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    backbone = transformers.HGNetV2Config(
        stem_channels=[3, 8, 16],
        embedding_size=16,
        stage_in_channels=[16, 16, 32, 64],
        stage_mid_channels=[16, 16, 32, 64],
        stage_out_channels=[16, 32, 64, 128],
        stage_num_blocks=[1, 1, 1, 1],
        stage_numb_of_layers=[1, 1, 1, 1],
        hidden_sizes=[16, 32, 64, 128],
        depths=[1, 1, 1, 1],
        out_features=["stage2", "stage3", "stage4"],
    )
    config = transformers.DFineConfig(
        backbone_config=backbone,
        encoder_in_channels=[32, 64, 128],
        encoder_hidden_dim=32,
        encoder_ffn_dim=64,
        encoder_attention_heads=2,
        d_model=32,
        num_queries=30,
        decoder_in_channels=[32, 32, 32],
        decoder_ffn_dim=64,
        decoder_layers=2,
        decoder_attention_heads=2,
        decoder_n_points=[2, 2, 2],
        num_denoising=0,
        id2label={0: "person", 1: "car"},
    )
    transformers.DFineForObjectDetection(config).save_pretrained(tmp_path)
    size = {"height": 64, "width": 64}
    transformers.RTDetrImageProcessor(size=size).save_pretrained(tmp_path)
    detector = load_detector(f"dfine:{tmp_path}", "cpu", threshold=0.0)
    frames = video(50, 70)
    together = detector(frames)
    assert any(len(scores) for _, scores in together)
    for (boxes, scores), (alone,) in zip(
        together, (detector(f[None]) for f in frames), strict=True
    ):
        assert (boxes <= [70, 50, 70, 50]).all()
        np.testing.assert_allclose(scores, alone.scores, atol=1e-4)
    with pytest.raises(UserError, match="no D-FINE can be loaded"):
        load_detector(f"dfine:{tmp_path.parent}", "cpu")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_finds_the_same(nanodet: PersonDetector) -> None:
    frames = video()
    for expected, found in zip(nanodet(frames), load_detector(device="cuda")(frames), strict=True):
        # Convolutions may be in TF32 there.
        np.testing.assert_allclose(found.boxes, expected.boxes, atol=0.5)
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-2)
