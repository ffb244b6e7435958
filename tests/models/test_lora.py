"""LoRA: method.md section 4."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from stclip.models import fast
from stclip.models.clip import CLIP, CLIPSizes
from stclip.models.lora import LoRALinear


def random_lora(rank: int = 3, alpha: float = 2.0, bias: bool = True) -> LoRALinear:
    torch.manual_seed(0)
    layer = LoRALinear(6, 5, rank, alpha, bias)
    nn.init.normal_(layer.lora_B)
    return layer


@pytest.mark.parametrize("bias", [True, False])
def test_both_forms_compute_the_formula(bias):
    layer, x = random_lora(bias=bias), torch.randn(2, 4, 6)
    expected = F.linear(x, layer.weight, layer.bias)
    expected = expected + (x @ layer.lora_A.T @ layer.lora_B.T) * 2.0 / 3
    torch.testing.assert_close(layer.train()(x), expected)
    torch.testing.assert_close(layer.eval()(x), expected)


def test_a_fresh_layer_is_the_frozen_one():
    layer, x = LoRALinear(6, 5, rank=2), torch.randn(3, 6)
    expected = F.linear(x, layer.weight, layer.bias)
    assert torch.equal(layer.train()(x), expected)
    assert torch.equal(layer.eval()(x), expected)
    assert layer.lora_A.abs().max() > 0
    assert layer.lora_A.abs().max() <= 1 / 6**0.5  # the bound of Kaiming-uniform with a = sqrt 5


@pytest.mark.parametrize("saved_in_training", [True, False])
@pytest.mark.parametrize("loaded_in_training", [True, False])
def test_nothing_is_lost_by_loading_in_any_mode(saved_in_training, loaded_in_training):
    layer, x = random_lora(), torch.randn(3, 6)
    expected = layer(x)
    state = copy.deepcopy(layer.train(saved_in_training).state_dict())
    loaded = LoRALinear(6, 5, 3, 2.0).train(loaded_in_training)
    loaded.load_state_dict(state)
    torch.testing.assert_close(loaded.eval()(x), expected)
    torch.testing.assert_close(loaded.train()(x), expected)
    assert sorted(state) == ["bias", "lora_A", "lora_B", "weight"]


def test_only_the_mlps_of_the_image_tower_have_lora():
    model = CLIP(CLIPSizes(32, 16, 64, 2, 64, 1, 32, vocab_size=100), lora_rank=4)
    names = {name for name, _ in model.named_parameters() if "lora_" in name}
    assert names == {
        f"visual.transformer.resblocks.{block}.mlp.{layer}.lora_{letter}"
        for block in range(2)
        for layer in ("c_fc", "c_proj")
        for letter in "AB"
    }


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_does_not_round_what_lora_adds(dtype: torch.dtype) -> None:
    """The sum is taken in float32, and only then rounded to 16 bits."""
    torch.manual_seed(0)
    layer = LoRALinear(64, 32, rank=2)
    nn.init.normal_(layer.lora_B, std=1e-3)
    with torch.no_grad():
        whole = torch.addmm(layer.weight, layer.lora_B, layer.lora_A, alpha=layer.scale)
        with torch.autocast("cpu", dtype=dtype):
            merged, _ = fast._merged(layer, 1.0, 1.0, torch.zeros(1, 64))
    assert merged.dtype == dtype
    assert torch.equal(merged, whole.to(dtype))
