import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from stclip.models.baselines import BASELINES, Baseline
from stclip.models.clip import CLIP, normalize_pixels
from stclip.models.marked import mark
from stclip.structures import ClipBatch
from tests.helpers import random_batch, tiny_model

TEXT = torch.randn(5, 64, generator=torch.Generator().manual_seed(1))


def tiny_clip() -> CLIP:
    return tiny_model(lora_rank=0).clip.eval()


def looped(name: str, clip: CLIP, batch: ClipBatch) -> Tensor:
    """A person at a time."""
    rows = []
    for person, owner in enumerate(batch.owner.tolist()):
        frame = clip.encode_image(normalize_pixels(batch.frames[batch.keyframe[owner]][None]))[0]
        crop = clip.encode_image(normalize_pixels(batch.crops[person][None]))[0]
        marked = clip.encode_image(normalize_pixels(mark(batch, "blur")[person][None]))[0]
        pictures = {"frame": frame, "crop": crop, "marked": marked}
        feature = sum(pictures[part] for part in name.split("_"))
        rows.append(F.cosine_similarity(feature[None], TEXT) / 0.07)
    return torch.stack(rows)


@torch.no_grad()
@pytest.mark.parametrize("name", BASELINES)
def test_equals_the_loop(name: str) -> None:
    clip, batch = tiny_clip(), random_batch([2, 0, 1, 3])
    output = Baseline(clip, **BASELINES[name])(batch, TEXT)
    torch.testing.assert_close(output.logits, looped(name, clip, batch), rtol=1e-5, atol=1e-5)
    assert output.person_features.shape == (6, 64)
    assert torch.equal(output.text_features[output.text_row], TEXT.expand(6, -1, -1))


def test_a_keyframe_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clip, seen = tiny_clip(), []
    encode = clip.encode_image

    def counting(images: Tensor) -> Tensor:
        seen.append(len(images))
        return encode(images)

    monkeypatch.setattr(clip, "encode_image", counting)
    Baseline(clip, frame=True, crop=False)(random_batch([4, 0, 3]), TEXT)
    assert seen == [2]


@pytest.mark.parametrize("name", BASELINES)
def test_no_boxes_at_all_is_legal(name: str) -> None:
    output = Baseline(tiny_clip(), **BASELINES[name])(random_batch([0, 0]), TEXT)
    assert output.logits.shape == (0, 5)


def test_nothing_is_trained() -> None:
    model = Baseline(tiny_clip(), frame=True, crop=True)
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_the_temperature_divides() -> None:
    clip, batch = tiny_clip(), random_batch([1])
    warm = Baseline(clip, frame=True, crop=False, temperature=0.14)(batch, TEXT).logits
    cold = Baseline(clip, frame=True, crop=False)(batch, TEXT).logits
    torch.testing.assert_close(2 * warm, cold)
