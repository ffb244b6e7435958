"""The MLP with LoRA and its written-out gradients, against the layers one by one."""

import pytest
import torch
from torch import Tensor, nn

from stclip.models.lora import LoRALinear
from stclip.models.lora_mlp import lora_mlp
from stclip.models.transformer import MLP, LayerNorm


def random_mlp(dtype: torch.dtype = torch.float64, seed: int = 0) -> MLP:
    torch.manual_seed(seed)
    mlp = MLP(64, lora_rank=3, lora_alpha=2.0).to(dtype).train()
    for parameter in mlp.parameters():
        nn.init.normal_(parameter, std=0.1)
    return mlp


def one_by_one(mlp: MLP, x: Tensor) -> Tensor:
    return mlp.c_proj(mlp.gelu(mlp.c_fc(x)))


def fused(mlp: MLP, x: Tensor) -> Tensor:
    assert isinstance(mlp.c_fc, LoRALinear)
    assert isinstance(mlp.c_proj, LoRALinear)
    return lora_mlp(x, mlp.c_fc, mlp.c_proj)


@pytest.mark.parametrize("shape", [(2, 5, 64), (3, 64), (0, 5, 64)])
def test_values_and_gradients_are_those_of_the_layers(shape):
    mlp, x = random_mlp(), torch.randn(shape, dtype=torch.float64, requires_grad=True)
    found, expected = fused(mlp, x), one_by_one(mlp, x)
    torch.testing.assert_close(found, expected)
    weight = torch.randn(shape, dtype=torch.float64)
    inputs = [x, *(p for p in mlp.parameters() if p.requires_grad)]
    assert len(inputs) == 5
    theirs = torch.autograd.grad(expected, inputs, weight)
    for ours, theirs_ in zip(torch.autograd.grad(found, inputs, weight), theirs, strict=True):
        torch.testing.assert_close(ours, theirs_)


def random_norm(dtype: torch.dtype, trained: bool = False) -> LayerNorm:
    norm = LayerNorm(64).to(dtype).requires_grad_(trained)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm


@pytest.mark.parametrize("trained", [False, True])
def test_a_norm_in_front_is_as_if_it_had_come_first(trained):
    mlp, x = random_mlp(), torch.randn(2, 5, 64, dtype=torch.float64, requires_grad=True)
    norm = random_norm(torch.float64, trained)
    found, expected = mlp(x, norm), one_by_one(mlp, norm(x))
    torch.testing.assert_close(found, expected)
    weight = torch.randn_like(x)
    inputs = [x, *(p for module in (mlp, norm) for p in module.parameters() if p.requires_grad)]
    theirs = torch.autograd.grad(expected, inputs, weight)
    for ours, theirs_ in zip(torch.autograd.grad(found, inputs, weight), theirs, strict=True):
        torch.testing.assert_close(ours, theirs_)
    with torch.no_grad():
        torch.testing.assert_close(mlp(x, norm), expected)


def test_a_frozen_norm_s_output_is_not_kept():
    mlp, x = random_mlp(torch.float32), torch.randn(100, 64, requires_grad=True)
    kept: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        mlp(x, random_norm(torch.float32))
    of_that_size = [tensor for tensor in kept if tensor.shape == x.shape]
    assert len(of_that_size) == 1
    assert torch.equal(of_that_size[0], x)


def test_gradients_equal_finite_differences():
    mlp = random_mlp()
    x = torch.randn(2, 64, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, *_: mlp(x), (x, *mlp.parameters()), fast_mode=True)


def test_an_input_without_gradient_and_frozen_parameters_get_none():
    mlp, x = random_mlp(torch.float32), torch.randn(2, 64)
    mlp(x).sum().backward()
    with_gradient = {name for name, p in mlp.named_parameters() if p.grad is not None}
    assert with_gradient == {f"{c}.lora_{m}" for c in ("c_fc", "c_proj") for m in "AB"}
    assert x.grad is None
    assert not mlp.requires_grad_(False)(x).requires_grad


def test_it_keeps_the_hidden_layer_once():
    mlp, x = random_mlp(torch.float32), torch.randn(100, 64, requires_grad=True)
    sizes: list[int] = []

    def note(tensor: Tensor) -> Tensor:
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        mlp(x)
    assert sizes.count(100 * 256) == 1


def test_autocast_computes_in_bfloat16_and_gives_the_parameters_their_dtype():
    mlp, x = random_mlp(torch.float32), torch.randn(50, 64, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = mlp(x)
    assert out.dtype == torch.bfloat16
    weight = torch.randn(50, 64)
    inputs = [x, *(p for p in mlp.parameters() if p.requires_grad)]
    found = torch.autograd.grad(out, inputs, weight.bfloat16())
    expected = torch.autograd.grad(one_by_one(mlp, x), inputs, weight)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == torch.float32
        assert (ours - theirs).norm() < 0.02 * theirs.norm()
