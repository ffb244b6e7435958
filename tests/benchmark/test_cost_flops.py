"""The count from sizes against what torch counts while the model runs."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from stclip.benchmark.cost_flops import PARTS, Load, Sizes, count_flops
from stclip.models.clip import CLIP, CLIPSizes
from stclip.models.stclip import STCLIP, InterestTokens
from stclip.models.xclip import CrossFrameCLIP
from tests.helpers import random_batch

CLASSES = 7


def small(kind=CLIP, interest=None, **depths):
    """Large enough for the products, which are counted, to dwarf LoRA's sums, which are not."""
    torch.manual_seed(0)
    clip = kind(CLIPSizes(112, 16, 192, 3, 64, 1, 128, vocab_size=50), lora_rank=4)
    return STCLIP(clip, interest_tokens=interest, mixing=kind is CLIP, **depths)


def counted_by_torch(model, batch, training):
    model.train(training)
    vocabulary = torch.randn(CLASSES, 128)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        if training:
            model(batch, vocabulary).logits.sum().backward()
        else:
            with torch.inference_mode():
                model(batch, vocabulary)
    return counter.get_total_flops()


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("persons", [1, 3])
@pytest.mark.parametrize("kind", [CLIP, CrossFrameCLIP])
def test_agrees_with_torch(kind, persons, training):
    model, batch = small(kind), random_batch([persons] * 4, classes=CLASSES, size=112)
    found = count_flops(Sizes.of(model), Load.of(batch, CLASSES), training)
    assert sum(found.values()) == pytest.approx(counted_by_torch(model, batch, training), rel=0.02)


@pytest.mark.parametrize("interest", [InterestTokens(5, include_person=True), InterestTokens(0)])
@pytest.mark.parametrize("training", [False, True])
def test_agrees_with_interest_tokens(interest, training):
    model, batch = small(interest=interest), random_batch([3, 3], classes=CLASSES, size=112)
    found = count_flops(Sizes.of(model), Load.of(batch, CLASSES), training)
    assert sum(found.values()) == pytest.approx(counted_by_torch(model, batch, training), rel=0.02)
    assert (found["spotting"] > 0) == (interest.top_k > 0)


@pytest.mark.parametrize("training", [False, True])
def test_agrees_with_torch_at_other_depths(training):
    model = small(prompt_layers=[0, 2], prompt_depth=2, temporal_depth=3)
    batch = random_batch([3, 3], classes=CLASSES, size=112)
    found = count_flops(Sizes.of(model), Load.of(batch, CLASSES), training)
    assert sum(found.values()) == pytest.approx(counted_by_torch(model, batch, training), rel=0.02)


def test_keyframes_without_persons_cost_their_frames_only():
    sizes = Sizes.of(small())
    some = Load.of(random_batch([2, 0, 2], classes=CLASSES, size=112), CLASSES)
    assert (some.keyframes, some.persons, some.most, some.frames) == (2, 4, 2, 12)
    none = Load.of(random_batch([0, 0], size=112), CLASSES)
    assert count_flops(sizes, none) == dict.fromkeys(PARTS, 0)


def test_a_vit_b_16_takes_35_gflop_an_image():
    """The published 17.6 G multiply-adds of a ViT-B/16; here without the last block's patches."""
    sizes = Sizes(224, 16, 768, 12, 512, lora_rank=8)
    parts = count_flops(sizes, Load(9, 3, 1, 3, 9, classes=6))
    image = parts["patches"] / 12 + parts["crops and frames"] / 4
    whole_block = 2 * 197 * (12 * 768**2 + 2 * 197 * 768)
    spared = whole_block - 2 * (10 * 768**2 + 2 * 197 * 768) - 4 * 197 * 768**2
    assert image + spared == pytest.approx(35.2e9, rel=0.01)
    assert sum(parts.values()) == pytest.approx(5 * 35.2e9, rel=0.1)  # P + 2 passes, P = 3


def test_work_grows_by_the_keyframe():
    sizes = Sizes.of(small())
    one, four = (
        count_flops(sizes, Load(9 * n, 3 * n, n, 3, 9, CLASSES), training=True) for n in (1, 4)
    )
    for part in set(PARTS) - {"context tokens"}:  # which has a product of frames and keyframes
        assert four[part] == 4 * one[part], part
