"""LoRA: method.md section 4."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from stclip.models.clip import CLIP
from stclip.models.lora import LoRALinear, linear
from stclip.models.products import Linear
from stclip.models.transformer import MLP


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


@pytest.mark.parametrize("training", [True, False])
def test_gradients_reach_only_lora(training):
    layer = random_lora().train(training)
    layer(torch.randn(3, 6)).sum().backward()
    reached = {name for name, parameter in layer.named_parameters() if parameter.grad is not None}
    assert reached == {"lora_A", "lora_B"}


def test_both_forms_have_the_same_gradients():
    layer, x = random_lora().double(), torch.randn(3, 6, dtype=torch.float64)
    gradients = []
    for training in (True, False):
        layer.zero_grad()
        layer.train(training)(x).square().sum().backward()
        gradients.append([layer.lora_A.grad.clone(), layer.lora_B.grad.clone()])
    torch.testing.assert_close(gradients[0], gradients[1])


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


def test_rank_zero_is_a_plain_layer():
    assert type(linear(4, 4)) is Linear
    assert isinstance(linear(4, 4, 2), LoRALinear)
    assert type(MLP(64).c_fc) is Linear


def test_only_the_mlps_of_the_image_tower_have_lora():
    model = CLIP(32, 16, 64, 2, 64, 1, 32, vocab_size=100, lora_rank=4)
    names = {name for name, _ in model.named_parameters() if "lora_" in name}
    assert names == {
        f"visual.transformer.resblocks.{block}.mlp.{layer}.lora_{letter}"
        for block in range(2)
        for layer in ("c_fc", "c_proj")
        for letter in "AB"
    }


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_does_not_round_what_lora_adds(dtype: torch.dtype) -> None:
    layer = LoRALinear(64, 32, rank=2)
    torch.nn.init.normal_(layer.lora_B, std=1e-3)
    plain = layer.merged_weight()
    with torch.autocast("cpu", dtype=dtype):
        assert torch.equal(layer.merged_weight(), plain)
